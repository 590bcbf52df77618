"""The signed status webhook: each change of an outbound call's status, POSTed to the address in the settings.

What is to be told is kept in the store's outbox until it was taken. So a notice may come twice (its answer was lost, or
the server was started anew), and none is left out unless it was given up, which the log says.
"""

from __future__ import annotations

import hmac
import json
import random
import re
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from OpenSSL.SSL import Error as TlsError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredQueue, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from rapida_twisted._version import __version__
from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.interfaces import ICallStore, Notice

__all__ = ["StatusWebhook", "growing_pause", "sign"]

MOST_REQUESTS = 8
TRY_S = 10.0
"""How long an answer's status may take, connecting included."""
BODY_S = 2.0
"""How long an answer's body is read, which only lets the connection be used again."""
MOST_BODY_BYTES = 65_536
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0
KEEP_TRYING_S = 86_400.0
GRACE_S = 2.0
"""What requests under way get when all stops."""
PAGE = 100
"""Notices read from the store at once. Only those being sent are kept: of the others, no more than their numbers."""
MOST_CALLS = 10_000
"""Calls whose notices wait here. Those of further calls stay in the store until one of these is done."""
LOOK_S = 60.0
"""The outbox is looked into so often unasked: a change may have been noted by a write that seemed to fail."""
GONE = 410


def growing_pause(tries: int) -> float:
    """How long to wait after so many failed tries, in seconds: up to 5 min; jittered, lest all come back at once."""
    pause_s: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 20))
    return pause_s * random.uniform(0.5, 1.0)


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The value of ``X-Rapida-Signature``: ``t=<timestamp>,v1=<HMAC-SHA256 of "<timestamp>." and the body, in hex>``.

    :param timestamp: when this try is made (UNIX s). Signed too, so that a stranger can't send an old request again.
    """
    digest = hmac.digest(secret.encode(), b"%d." % timestamp + body, "sha256")
    return f"t={timestamp},v1={digest.hex()}"


class StatusWebhook:
    """Delivers the store's notices. Those of one call go one after another; calls do not wait for one another.

    :param url: where to. Only its scheme, host and path are ever logged.
    :param secret: what each request is signed with.
    :param treq_client: a :class:`treq.client.HTTPClient`. Its agent decides how TLS is verified.
    :param reactor: provides IReactorTime.
    :param now: the wall clock (UNIX s), for signatures and for the age of notices.
    :param pause: how long to wait after the given number of failed tries, in seconds.
    """

    _log = Logger()

    def __init__(
        self,
        store: ICallStore,
        url: str,
        secret: str,
        *,
        treq_client: Any,
        reactor: Any,
        now: Callable[[], float] = time.time,
        pause: Callable[[int], float] = growing_pause,
    ) -> None:
        self._store = store
        self._receiver = _Receiver(url, secret, treq_client, reactor, now)
        self._reactor = reactor
        self._now = now
        self._pause = pause
        self._running = False
        self._lines: dict[str, _Line] = {}
        self._ready: DeferredQueue[_Line | None] = DeferredQueue()
        self._under_way: set[Deferred[None]] = set()
        self._seen = 0
        self._looking = self._look_again = self._full = False
        self._failed_looks = 0
        self._next_look: IDelayedCall | None = None
        self._receiver_health = _Health("the status webhook", self._receiver.where, self._log)
        self._store_health = _Health("the outbox of the status webhook", "the store", self._log)

    def __repr__(self) -> str:
        return f"<StatusWebhook {self._receiver.where}>"

    def start(self) -> None:
        """Begin, with what a former run left in the store. Called once, when the store is open."""
        self._running = True
        for _ in range(MOST_REQUESTS):
            self._run(self._work())
        self.wake()

    def wake(self) -> None:
        """Look into the outbox: a change was noted. May be called at any time, and never blocks."""
        if not self._running:
            return
        self._look_again = True
        if not self._looking:
            _cancel(self._next_look)
            self._looking = True
            self._run(self._look())

    def stop(self) -> Deferred[None]:
        """Try nothing again. Requests under way get 2 s. What was not delivered stays in the store.

        Fires when nothing is done any more: then the store may be closed.
        """
        if self._running:
            self._running = False
            for timer in (self._next_look, *(line.retry for line in self._lines.values())):
                _cancel(timer)
            for _ in range(MOST_REQUESTS):
                self._ready.put(None)
        if not self._under_way:
            return succeed(None)
        overdue = self._reactor.callLater(GRACE_S, self._cancel_all)
        return DeferredList(list(self._under_way)).addCallback(lambda _: _cancel(overdue))

    def _cancel_all(self) -> None:
        for done in list(self._under_way):
            done.cancel()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        done = Deferred.fromCoroutine(work)
        self._under_way.add(done)
        done.addErrback(self._broke)
        done.addBoth(lambda _: self._under_way.discard(done))

    def _broke(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("the status webhook broke", failure)

    # Reading the outbox

    async def _look(self) -> None:
        try:
            while self._look_again and self._running:
                self._look_again = False
                await self._read_page()
            self._failed_looks = 0
        except Exception as error:
            self._raise_if_stopped(error)
            self._store_failed("read", Failure())
            self._failed_looks += 1
        finally:
            self._looking = False
        if self._running:
            pause_s = self._pause(self._failed_looks) if self._failed_looks else LOOK_S
            self._next_look = self._reactor.callLater(pause_s, self.wake)

    async def _read_page(self) -> None:
        self._full = len(self._lines) >= MOST_CALLS
        if self._full:
            return
        notices = await self._store.notices(PAGE, self._seen)
        self._store_health.works("read")
        for notice in notices:
            self._seen = notice.number
            self._line_up(notice)
        self._look_again = self._look_again or len(notices) >= PAGE

    def _line_up(self, notice: Notice) -> None:
        line = self._lines.get(notice.context_id)
        if line is not None:
            line.numbers.append(notice.number)
            return
        line = self._lines[notice.context_id] = _Line(notice.context_id, deque([notice.number]))
        self._ready.put(line)

    # Delivering: so many workers, so many requests

    async def _work(self) -> None:
        while self._running:
            line = await self._ready.get()
            if line is not None:
                await self._serve(line)

    async def _serve(self, line: _Line) -> None:
        """Go one step with a call whose turn it is, and say when its turn is again."""
        try:
            pause_s = await self._step(line)
        except Exception as error:
            self._raise_if_stopped(error)
            self._store_failed("forget" if line.settled else "read", Failure())
            line.tries += 1
            pause_s = self._pause(line.tries)
        if not self._running:
            return
        if pause_s is not None:
            line.retry = self._reactor.callLater(pause_s, self._ready.put, line)
        elif line.numbers:
            self._ready.put(line)
        else:
            self._done_with(line)

    def _done_with(self, line: _Line) -> None:
        del self._lines[line.context_id]
        if self._full and len(self._lines) < MOST_CALLS:
            self.wake()

    async def _step(self, line: _Line) -> float | None:
        """Try a call's first notice, and forget it when it is settled. If not: the pause before the next try (s)."""
        number = line.numbers[0]
        if not line.settled:
            found = await self._store.notices(1, number - 1)
            self._store_health.works("read")
            # One that is not there any more was settled by somebody else.
            if found and found[0].number == number:
                pause_s = await self._try(line, found[0])
                if pause_s is not None:
                    return pause_s
            line.settled = True
        await self._store.drop_notice(number)
        self._store_health.works("forget")
        self._receiver_health.forget(line.context_id)
        line.next()
        return None

    async def _try(self, line: _Line, notice: Notice) -> float | None:
        if not self._running:
            return FIRST_PAUSE_S
        answer = await self._receiver.post(_body(notice))
        if 200 <= answer.status < 300:
            self._receiver_health.works(line.context_id)
            return None
        if answer.status == GONE or self._now() - notice.made_at > KEEP_TRYING_S:
            self._give_up(notice, answer)
            return None
        self._receiver_health.fails(line.context_id, answer.words)
        line.tries += 1
        return max(self._pause(line.tries), answer.retry_after_s)

    def _give_up(self, notice: Notice, answer: _Answer) -> None:
        self._log.error(
            "call {context_id}: its status {status} was not told to the status webhook {where}, and never will be:"
            " the last answer was {answer}",
            context_id=notice.context_id, status=notice.record.get("call_status"),
            where=self._receiver.where, answer=answer.words,
        )  # fmt: skip

    def _raise_if_stopped(self, error: Exception) -> None:
        # Whatever else was cancelled was not by us: it is a failure like others, and must not end a worker.
        if isinstance(error, CancelledError) and not self._running:
            raise error

    def _store_failed(self, what: str, failure: Failure) -> None:
        if not failure.check(StoreUnavailable):
            self._log.failure("the status webhook: a mistake of this program", failure)
        self._store_health.fails(what, failure.getErrorMessage())


@dataclass(eq=False)
class _Line:
    """The notices of one call that wait, by their numbers: a few at most, since a status never comes twice."""

    context_id: str
    numbers: deque[int]
    tries: int = 0
    """Failed ones, of the first notice."""
    settled: bool = False
    """Whether the first notice was delivered or given up, and has only to be forgotten."""
    retry: IDelayedCall | None = field(default=None)

    def next(self) -> None:
        """The first notice is done with."""
        self.numbers.popleft()
        self.tries, self.settled = 0, False


class _Health:
    """Says once that something begins to fail, and once that it works again.

    It works again when what had failed succeeds, and not when something else does: else a single call that a receiver
    never takes would fill the log.
    """

    def __init__(self, what: str, where: str, log: Logger) -> None:
        self._what = what
        self._where = where
        self._log = log
        self._fails = False
        self._parts: set[str] = set()

    def fails(self, part: str, why: str) -> None:
        self._parts.add(part)
        if not self._fails:
            self._fails = True
            self._log.warn(
                "{what}: {where} fails: {why}; trying again", what=self._what, where=self._where, why=why
            )  # fmt: skip

    def works(self, part: str) -> None:
        if self._fails and (part in self._parts or not self._parts):
            self._fails = False
            self._log.info("{what}: {where} works again", what=self._what, where=self._where)
        self._parts.discard(part)

    def forget(self, part: str) -> None:
        """Nothing of this part is tried any more."""
        self._parts.discard(part)


@dataclass(frozen=True)
class _Answer:
    """What came of one try."""

    status: int
    """0: there was no answer."""
    words: str
    retry_after_s: float = 0.0


class _Receiver:
    """Where the notices go: one POST, bounded in time and size, and what came of it."""

    def __init__(self, url: str, secret: str, treq_client: Any, reactor: Any, now: Callable[[], float]) -> None:
        self.where = _where(url)
        self._url = url
        self._secret = secret
        self._treq = treq_client
        self._reactor = reactor
        self._now = now

    async def post(self, body: bytes) -> _Answer:
        """Try once. Raises nothing but CancelledError."""
        asking = Deferred.fromCoroutine(self._request(body))
        try:
            response = await asking.addTimeout(TRY_S, self._reactor)
        except CancelledError:
            raise
        except DeferredTimeout:
            return _Answer(0, f"no answer within {TRY_S:g} s")
        except Exception as error:
            return _Answer(0, _sentence(error))
        await self._discard(response)
        words = f"HTTP status {response.code}" + (" (not followed)" if 300 <= response.code < 400 else "")
        return _Answer(response.code, words, _retry_after_s(response))

    async def _request(self, body: bytes) -> IResponse:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"rapida-media/{__version__}",
            "X-Rapida-Signature": sign(self._secret, int(self._now()), body),
        }
        try:
            # A redirect could send what is said of a call to anybody.
            response: IResponse = await self._treq.post(
                self._url, data=body, headers=headers, allow_redirects=False, unbuffered=True
            )
        except Exception as error:
            # So does Agent tell that it was cancelled.
            if any(isinstance(cause, CancelledError) for cause in _causes(error)):
                raise CancelledError from None
            raise
        return response

    async def _discard(self, response: IResponse) -> None:
        if response.length != 0:
            body = _Discarded()
            response.deliverBody(body)
            await body.over.addTimeout(BODY_S, self._reactor)


class _Discarded(Protocol):
    """Reads a body to its end, for a while; nobody wants it. ``over`` does not fail: the status has said all."""

    def __init__(self) -> None:
        self._bytes = 0
        self.over: Deferred[None] = Deferred(lambda _: self._hang_up())

    def dataReceived(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > MOST_BODY_BYTES:
            self._hang_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.over.called:
            self.over.callback(None)

    def _hang_up(self) -> None:
        if not self.over.called:
            self.over.callback(None)
            transport: Any = self.transport
            if transport is not None:
                # Over TLS loseConnection() waits for the peer's farewell, and reads on as long as that takes.
                transport.stopProducing()


def _body(notice: Notice) -> bytes:
    made_at = datetime.fromtimestamp(notice.made_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {
        "event": "call.status",
        "id": f"{notice.context_id}-{notice.number}",
        "number": notice.number,
        "made_at": made_at,
        "call": dict(notice.record),
    }
    return json.dumps(event, separators=(",", ":")).encode()


def _where(url: str) -> str:
    """A URL without what may be a secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _retry_after_s(response: IResponse) -> float:
    """The pause that a receiver wants; a date, which it may also be, is not looked at."""
    values = response.headers.getRawHeaders(b"Retry-After", [])
    if response.code not in (429, 503) or not values or not re.fullmatch(rb"[0-9]{1,9}", values[0].strip()):
        return 0.0
    return min(float(values[0]), LONGEST_PAUSE_S)


def _causes(error: BaseException) -> list[BaseException]:
    """The innermost errors of Twisted's nested ones."""
    reasons = getattr(error, "reasons", None)
    if not reasons:
        return [error]
    return [cause for reason in reasons for cause in _causes(reason.value)]


def _sentence(error: BaseException) -> str:
    """What went wrong. Only errors that never quote the URL speak for themselves."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, TlsError | VerificationError):
            return f"TLS failed: {cause!r}"
    if isinstance(causes[0], ConnectError | ConnectionClosed | DNSLookupError):
        return str(causes[0])
    return f"the request failed ({type(causes[0]).__name__})"


def _cancel(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()
