"""The signed status webhook: POSTs each change of an outbound call's status to the address in the settings.

The store keeps each notice until it is delivered. A notice may be delivered twice (its answer was lost, or the server
restarted). None is left out unless it is given up, which is logged.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredQueue, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.context import iso_utc
from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.interfaces import Notice
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.net.backoff import backoff
from rapida_twisted.webhook.delivery import Answer, Receiver

__all__ = ["StatusWebhook"]

MOST_REQUESTS = 8
RETRY_S = 1.0
retry_pause_s = backoff(RETRY_S, 300.0)
KEEP_TRYING_S = 86_400.0
GRACE_S = 2.0
"""Time (s) for requests in progress when the server stops."""
PAGE = 100
"""Notices read from the store at once. Memory holds only the numbers of those that wait."""
MOST_CALLS = 10_000
"""Maximum calls whose notices are queued in memory; those of further calls stay in the store meanwhile."""
LOOK_S = 60.0
"""Interval (s) of looking for notices: a write that seemed to fail may have added one."""
GONE = 410


@attrs.define(eq=False, slots=False, repr=False)
class StatusWebhook:
    """Delivers the store's notices: those of one call in order, those of different calls independently."""

    _log = Logger()

    _store: CallStore
    _url: str
    """The receiver. Only its scheme, host and path are logged."""
    _secret: str
    """Signs each request."""
    _treq_client: Any = attrs.field(kw_only=True)
    """A :class:`treq.client.HTTPClient`. Its agent decides how TLS is verified."""
    _reactor: Any = attrs.field(kw_only=True)
    """Provides IReactorTime."""
    _now: Callable[[], float] = attrs.field(default=time.time, kw_only=True)
    """The wall clock (UNIX s), for signatures and for the age of notices."""
    _pause: Callable[[int], float] = attrs.field(default=retry_pause_s, kw_only=True)
    """The pause (s) after a number of failed tries, counted from 0."""

    def __attrs_post_init__(self) -> None:
        self._receiver = Receiver(self._url, self._secret, self._treq_client, self._reactor, self._now)
        self._running = False
        self._queues: dict[str, _CallQueue] = {}
        self._ready: DeferredQueue[_CallQueue | None] = DeferredQueue()
        self._under_way: set[Deferred[None]] = set()
        self._seen = 0
        self._looking = self._look_again = self._full = False
        self._failed_looks = 0
        self._next_look: IDelayedCall | None = None
        self._receiver_health = _Health(self._receiver.where, self._log)
        self._store_health = _Health("the store", self._log)

    def __repr__(self) -> str:
        return f"<StatusWebhook {self._receiver.where}>"

    def start(self) -> None:
        """Start, with the notices of earlier runs. Called once, when the store is open."""
        self._running = True
        for _ in range(MOST_REQUESTS):
            self._run(self._work())
        self.wake()

    def wake(self) -> None:
        """Look for new notices in the store. May be called at any time; never blocks."""
        if not self._running:
            return
        self._look_again = True
        if not self._looking:
            _cancel(self._next_look)
            self._looking = True
            self._run(self._look())

    def look_back(self) -> None:
        """Look for all notices: the store gave this process older ones, of a dead process."""
        self._seen = 0
        self.wake()

    def stop(self) -> Deferred[None]:
        """Stop; requests in progress get 2 s. Undelivered notices stay in the store.

        Fires when the store may be closed.
        """
        if self._running:
            self._running = False
            for timer in (self._next_look, *(queue.retry for queue in self._queues.values())):
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

    # Reading notices

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
            pause_s = self._pause(self._failed_looks - 1) if self._failed_looks else LOOK_S
            self._next_look = self._reactor.callLater(pause_s, self.wake)

    async def _read_page(self) -> None:
        self._full = len(self._queues) >= MOST_CALLS
        if self._full:
            return
        notices = await self._store.notices(PAGE, self._seen)
        self._store_health.works("read")
        for notice in notices:
            self._seen = notice.number
            self._enqueue(notice)
        self._look_again = self._look_again or len(notices) >= PAGE

    def _enqueue(self, notice: Notice) -> None:
        queue = self._queues.get(notice.context_id)
        if queue is None:
            queue = self._queues[notice.context_id] = _CallQueue(notice.context_id, deque([notice.number]))
            self._ready.put(queue)
        elif notice.number not in queue.numbers:
            queue.numbers.append(notice.number)

    # Delivering: each worker has one request at a time

    async def _work(self) -> None:
        while self._running:
            queue = await self._ready.get()
            if queue is not None:
                await self._serve(queue)

    async def _serve(self, queue: _CallQueue) -> None:
        """Process one notice of a call, and queue the call again if it has more."""
        try:
            pause_s = await self._step(queue)
        except Exception as error:
            self._raise_if_stopped(error)
            self._store_failed("forget" if queue.settled else "read", Failure())
            pause_s = self._pause(queue.tries)
            queue.tries += 1
        if not self._running:
            return
        if pause_s is not None:
            queue.retry = self._reactor.callLater(pause_s, self._ready.put, queue)
        elif queue.numbers:
            self._ready.put(queue)
        else:
            self._done_with(queue)

    def _done_with(self, queue: _CallQueue) -> None:
        del self._queues[queue.context_id]
        if self._full and len(self._queues) < MOST_CALLS:
            self.wake()

    async def _step(self, queue: _CallQueue) -> float | None:
        """Deliver a call's first notice and drop it from the store; else return the pause (s) before a retry."""
        number = queue.numbers[0]
        if not queue.settled:
            found = await self._store.notices(1, number - 1)
            self._store_health.works("read")
            # Another process may have settled it.
            if found and found[0].number == number:
                pause_s = await self._try(queue, found[0])
                if pause_s is not None:
                    return pause_s
            queue.settled = True
        await self._store.drop_notice(number)
        self._store_health.works("forget")
        self._receiver_health.forget(queue.context_id)
        queue.next()
        return None

    async def _try(self, queue: _CallQueue, notice: Notice) -> float | None:
        if not self._running:
            return RETRY_S
        answer = await self._receiver.post(_body(notice))
        if 200 <= answer.status < 300:
            self._receiver_health.works(queue.context_id)
            return None
        if answer.status == GONE or self._now() - notice.made_at > KEEP_TRYING_S:
            self._give_up(notice, answer)
            return None
        self._receiver_health.fails(queue.context_id, answer.text)
        queue.tries += 1
        return max(self._pause(queue.tries - 1), answer.retry_after_s)

    def _give_up(self, notice: Notice, answer: Answer) -> None:
        self._log.error(
            "call {context_id}: its status {status} is not delivered to the status webhook {where}, given up:"
            " the last answer was {answer}",
            context_id=notice.context_id, status=notice.record.get("call_status"),
            where=self._receiver.where, answer=answer.text,
        )  # fmt: skip

    def _raise_if_stopped(self, error: Exception) -> None:
        # Any other cancellation is a failure like others, and must not end a worker.
        if isinstance(error, CancelledError) and not self._running:
            raise error

    def _store_failed(self, what: str, failure: Failure) -> None:
        if not failure.check(StoreUnavailable):
            self._log.failure("the status webhook: unexpected error", failure)
        self._store_health.fails(what, failure.getErrorMessage())


@dataclass(eq=False)
class _CallQueue:
    """The numbers of one call's notices: a few at most, since a status never comes twice."""

    context_id: str
    numbers: deque[int]
    tries: int = 0
    """Failed attempts at the first notice."""
    settled: bool = False
    """Whether the first notice is delivered or given up, and only has to be dropped from the store."""
    retry: IDelayedCall | None = None

    def next(self) -> None:
        self.numbers.popleft()
        self.tries, self.settled = 0, False


class _Health:
    """Logs once that something fails, and once that it works again.

    It works again when a part that failed succeeds: otherwise one call that the receiver always refuses would fill the
    log.
    """

    def __init__(self, where: str, log: Logger) -> None:
        self._where = where
        self._log = log
        self._fails = False
        self._parts: set[str] = set()

    def fails(self, part: str, why: str) -> None:
        self._parts.add(part)
        if not self._fails:
            self._fails = True
            self._log.warn("the status webhook: {where} fails: {why}; trying again", where=self._where, why=why)

    def works(self, part: str) -> None:
        if self._fails and (part in self._parts or not self._parts):
            self._fails = False
            self._log.info("the status webhook: {where} works again", where=self._where)
        self._parts.discard(part)

    def forget(self, part: str) -> None:
        """This part is not retried."""
        self._parts.discard(part)


def _body(notice: Notice) -> bytes:
    event = {
        "event": "call.status",
        "id": f"{notice.context_id}-{notice.number}",
        "number": notice.number,
        "made_at": iso_utc(notice.made_at),
        "call": dict(notice.record),
    }
    return json.dumps(event, separators=(",", ":")).encode()


def _cancel(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()
