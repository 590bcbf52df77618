"""A webhook on a clock, with a client that answers as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers

from rapida_twisted.interfaces import Notice
from rapida_twisted.webhook.status import StatusWebhook

NOW = 1_795_000_000.25
SECRET = "a-secret-of-the-webhook"
TOKEN = "t0ken-in-the-query"
URL = f"https://hooks.example/calls?token={TOKEN}&x=a%2Fb%20c"
DAY_S = 86_400.0


class NoticeStore:
    """The two methods of a store that the webhook knows, in memory; they fail as told."""

    def __init__(self) -> None:
        self.kept: dict[int, Notice] = {}
        self.asked: list[tuple[int, int]] = []
        self.dropped: list[int] = []
        self.read_error: Exception | None = None
        self.drop_error: Exception | None = None
        self._last = 0

    def note(self, context_id: str, status: str = "ringing", made_at: float = NOW) -> int:
        """A change of a call. Gives the notice's number."""
        self._last += 1
        record = {"context_id": context_id, "call_status": status}
        self.kept[self._last] = Notice(number=self._last, context_id=context_id, made_at=made_at, record=record)
        return self._last

    def notices(self, limit: int, after: int = 0) -> Deferred[list[Notice]]:
        """The oldest behind one."""
        self.asked.append((limit, after))
        if self.read_error:
            return fail(self.read_error)
        return succeed([notice for number, notice in self.kept.items() if number > after][:limit])

    def drop_notice(self, number: int) -> Deferred[None]:
        """Forget one."""
        if self.drop_error:
            return fail(self.drop_error)
        self.dropped.append(number)
        self.kept.pop(number, None)
        return succeed(None)


class Response:
    """An answer whose body, if it has one, is told by the test."""

    def __init__(self, code: int, headers: dict[str, str], has_body: bool) -> None:
        self.code = code
        self.headers = Headers({name: [value] for name, value in headers.items()})
        self.length = 1 if has_body else 0
        self.body: Any = None
        self.lost = False

    def deliverBody(self, protocol: Any) -> None:  # noqa: N802
        """Somebody reads it."""
        self.body = protocol
        protocol.makeConnection(self)

    def stopProducing(self) -> None:
        """Nobody wants more of it."""
        self.lost = True
        self.body.connectionLost(Failure(connectionDone.value))


class Try:
    """One POST, as it was asked for, to be answered by the test."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.url = url
        self.options = options
        self.event = json.loads(options["data"])
        self.call: str = self.event["call"]["context_id"]
        self.cancelled = False
        self.response: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, _: Any) -> None:
        # As Twisted's Agent tells it.
        self.cancelled = True
        self.response.errback(ResponseFailed([Failure(CancelledError())]))

    def answer(self, code: int, headers: dict[str, str] | None = None, has_body: bool = False) -> Response:
        """It is answered so."""
        response = Response(code, headers or {}, has_body)
        self.response.callback(response)
        return response

    def fail(self, error: Exception) -> None:
        """There is no answer."""
        self.response.errback(Failure(error))


class FakeTreq:
    """A treq client that keeps what is asked. ``script`` gives the answer's status; 0: the test answers later."""

    def __init__(self) -> None:
        self.tries: list[Try] = []
        self.script: Callable[[Try], int] = lambda one: 0

    def post(self, url: str, **options: Any) -> Deferred[Any]:
        """Ask."""
        one = Try(url, options)
        self.tries.append(one)
        code = self.script(one)
        if code:
            one.answer(code)
        return one.response

    @property
    def open(self) -> list[Try]:
        """What was not answered yet."""
        return [one for one in self.tries if not one.response.called]

    @property
    def told(self) -> list[tuple[str, int]]:
        """Call and number of each try."""
        return [(one.call, one.event["number"]) for one in self.tries]


class ClockTests(SynchronousTestCase):
    """On a clock, with a client and a store that do as told."""

    def setUp(self) -> None:
        """A webhook that waits 1, 2, 3 ... s after failed tries, not started yet."""
        self.clock = Clock()
        self.store: Any = NoticeStore()
        self.treq = FakeTreq()
        self.hook = self.make_hook()

    def make_hook(self, **words: Any) -> StatusWebhook:
        """A webhook on the same store."""
        return StatusWebhook(
            self.store, URL, SECRET, treq_client=self.treq, reactor=self.clock,
            now=lambda: NOW + self.clock.seconds(), **{"pause": lambda failures: failures + 1.0, **words},
        )  # fmt: skip

    def logged(self, events: list[Any], level: LogLevel) -> list[str]:
        """The lines of that level."""
        return [formatEvent(event) for event in events if event["log_level"] is level]
