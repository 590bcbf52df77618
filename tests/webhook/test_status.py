"""The status webhook: its order, pauses and ends on a clock, then with real receivers over loopback, then its page."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor, ssl
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from benchmarks.harness.authority import Authority
from rapida_twisted import __version__
from rapida_twisted.context import CallContext, CallProgress, CallStatus, Direction, record_of
from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.interfaces import Notice
from rapida_twisted.net.http_client import make_client
from rapida_twisted.store.sqlite import SqliteStore
from rapida_twisted.webhook import delivery as webhook_receiver
from rapida_twisted.webhook import status as webhook
from rapida_twisted.webhook.delivery import sign
from rapida_twisted.webhook.status import StatusWebhook
from tests.support.blocks import named_block

NOW = 1_795_000_000.25
SECRET = "a-secret-of-the-webhook"
TOKEN = "t0ken-in-the-query"
URL = f"https://hooks.example/calls?token={TOKEN}&x=a%2Fb%20c"
DAY_S = 86_400.0


class FrameWriter:
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
    """On a clock, with a client and an writer that do as told."""

    def setUp(self) -> None:
        """A webhook that waits 1, 2, 3 ... s after failed tries, not started yet."""
        self.clock = Clock()
        self.writer: Any = FrameWriter()
        self.treq = FakeTreq()
        self.hook = self.make_hook()

    def make_hook(self, **words: Any) -> StatusWebhook:
        """A webhook on the same writer."""
        return StatusWebhook(
            self.writer, URL, SECRET, treq_client=self.treq, reactor=self.clock,
            now=lambda: NOW + self.clock.seconds(), **{"pause": lambda failures: failures + 1.0, **words},
        )  # fmt: skip

    def logged(self, events: list[Any], level: LogLevel) -> list[str]:
        """The lines of that level."""
        return [formatEvent(event) for event in events if event["log_level"] is level]


class RequestTests(ClockTests):
    """What is sent."""

    def test_signature(self) -> None:
        """The signature is that of OpenSSL: openssl dgst -sha256 -hmac SECRET, over seconds, dot and body."""
        self.assertEqual(
            sign("sécret of 16 letters", 1_700_000_000, b'{"a":1}'),
            "t=1700000000,v1=bd7345417f9c5eee91aefeda47faf533d77551bb06dbb4780f7899fd90d2fd83",
        )

    def test_request(self) -> None:
        """One POST to the URL as it stands, signed over its very bytes; no redirect is followed."""
        self.writer.note("one", "answered", made_at=NOW - 1)
        self.hook.start()
        (one,) = self.treq.tries
        self.assertEqual(one.url, URL)
        self.assertIs(one.options["allow_redirects"], False)
        self.assertEqual(
            one.event,
            {
                "event": "call.status",
                "id": "one-1",
                "number": 1,
                "made_at": "2026-11-18T11:06:39.250Z",
                "call": {"context_id": "one", "call_status": "answered"},
            },
        )
        self.assertEqual(
            one.options["headers"],
            {
                "Content-Type": "application/json",
                "User-Agent": f"rapida-media/{__version__}",
                "X-Rapida-Signature": sign(SECRET, int(NOW), one.options["data"]),
            },
        )

    def test_signed_anew(self) -> None:
        """A second try has the same id and body, and the time of its own in the signature."""
        self.writer.note("one")
        self.hook.start()
        self.treq.tries[0].answer(500)
        self.clock.advance(1)
        first, second = self.treq.tries
        self.assertEqual(first.options["data"], second.options["data"])
        self.assertEqual(
            second.options["headers"]["X-Rapida-Signature"], sign(SECRET, int(NOW + 1), second.options["data"])
        )

    def test_delivered(self) -> None:
        """Each 2xx means that it was taken: it is forgotten, once."""
        for code in (200, 201, 202, 204, 299):
            number = self.writer.note(f"call {code}")
            if code == 200:
                self.hook.start()
            else:
                self.hook.wake()
            self.treq.tries[-1].answer(code)
            self.assertEqual(self.writer.dropped[-1], number)
        self.clock.advance(1000)
        self.assertEqual(len(self.treq.tries), 5)
        self.assertEqual(self.writer.kept, {})

    def test_body_is_discarded(self) -> None:
        """64 KiB of an answer's body are read and forgotten; then it is hung up. The status counts."""
        number = self.writer.note("one")
        self.hook.start()
        response = self.treq.tries[0].answer(200, has_body=True)
        response.body.dataReceived(b"x" * 65_536)
        self.assertEqual((response.lost, self.writer.dropped), (False, []))
        response.body.dataReceived(b"x")
        self.assertEqual((response.lost, self.writer.dropped), (True, [number]))

    def test_endless_body(self) -> None:
        """A body that does not come is waited for 2 s; the status counts."""
        self.writer.note("one")
        self.writer.note("two")
        self.hook.start()
        fine, bad = (one.answer(code, has_body=True) for one, code in zip(self.treq.tries, (200, 500), strict=True))
        self.clock.advance(1.9)
        self.assertEqual((fine.lost, bad.lost), (False, False))
        self.clock.advance(0.2)
        self.assertEqual((fine.lost, bad.lost, self.writer.dropped), (True, True, [1]))

    def test_body_ends(self) -> None:
        """A body that ends is not hung up on: the connection can be used again."""
        self.writer.note("one")
        self.hook.start()
        response = self.treq.tries[0].answer(200, has_body=True)
        response.body.dataReceived(b"OK")
        response.body.connectionLost(Failure(connectionDone.value))
        self.assertEqual((response.lost, self.writer.dropped), (False, [1]))


class OrderTests(ClockTests):
    """Who waits for whom."""

    def test_one_after_another(self) -> None:
        """The notices of a call go in order, each when the one before was taken, however often that was tried."""
        for status in ("initiated", "ringing", "answered"):
            self.writer.note("one", status)
        self.hook.start()
        self.assertEqual(self.treq.told, [("one", 1)])
        self.treq.tries[0].answer(503)
        self.clock.advance(1)
        self.assertEqual(self.treq.told, [("one", 1), ("one", 1)])
        self.treq.tries[1].answer(200)
        self.assertEqual(self.treq.told[2:], [("one", 2)])
        self.treq.tries[2].answer(200)
        self.treq.tries[3].answer(200)
        self.assertEqual(self.writer.dropped, [1, 2, 3])

    def test_calls_do_not_wait(self) -> None:
        """A call whose notice is not taken, or not answered, holds up no other one."""
        for call in ("refused", "hanging", "fine"):
            self.writer.note(call, "initiated")
            self.writer.note(call, "ringing")
        self.treq.script = lambda one: {"refused": 500, "hanging": 0, "fine": 200}[one.call]
        self.hook.start()
        self.assertEqual(self.writer.dropped, [5, 6])
        self.assertEqual(sorted(self.treq.told), [("fine", 5), ("fine", 6), ("hanging", 3), ("refused", 1)])

    def test_noted_later(self) -> None:
        """What is noted while a call's notice is under way, or waits, comes after it."""
        self.writer.note("one")
        self.hook.start()
        self.writer.note("one")
        self.hook.wake()
        self.treq.tries[0].answer(500)
        self.writer.note("one")
        self.hook.wake()
        self.assertEqual(self.treq.told, [("one", 1)])
        self.treq.script = lambda one: 200
        self.clock.advance(1)
        self.assertEqual(self.treq.told, [("one", number) for number in (1, 1, 2, 3)])

    def test_eight_at_once(self) -> None:
        """No more than 8 requests are under way; the others wait for their turn, the oldest first."""
        for number in range(20):
            self.writer.note(f"call {number}")
        self.hook.start()
        self.assertEqual(len(self.treq.open), 8)
        self.treq.open[3].answer(200)
        self.treq.open[3].answer(500)
        self.assertEqual(len(self.treq.open), 8)
        self.assertEqual(self.treq.told[8:], [("call 8", 9), ("call 9", 10)])
        while self.treq.open:
            self.assertLessEqual(len(self.treq.open), 8)
            self.treq.open[0].answer(200)
        self.assertEqual(len(self.writer.dropped), 19)

    def test_pages(self) -> None:
        """The writer is read in pages; of notices that wait only one at a time is read again, when it is sent."""
        for number in range(250):
            self.writer.note(f"call {number}")
        self.hook.start()
        pages = [after for limit, after in self.writer.asked if limit > 1]
        self.assertEqual(pages, [0, 100, 200])
        self.assertEqual({limit for limit, _ in self.writer.asked}, {1, 100})
        self.assertEqual([after for limit, after in self.writer.asked if limit == 1], list(range(8)))

    def test_most_calls(self) -> None:
        """Of so many calls at most the notices wait in memory; further ones are read when there is room."""
        self.patch(webhook, "MOST_CALLS", 10)
        self.patch(webhook, "PAGE", 5)
        for number in range(40):
            self.writer.note(f"call {number}")
        self.hook.start()
        self.assertLess(len(self.hook._lines), 15)
        for _ in range(40):
            self.assertLess(len(self.hook._lines), 15)
            self.treq.open[0].answer(200)
        self.assertEqual(self.writer.dropped, list(range(1, 41)))
        self.assertEqual(self.hook._lines, {})

    def test_nothing_is_kept(self) -> None:
        """A call of which all was told leaves nothing behind in memory, also if it had failed or was given up."""
        for number in range(6):
            self.writer.note(f"call {number}")
        answers = {0: [200], 1: [500, 200], 2: [410], 3: [500, 410], 4: [500, 500, 200], 5: [200]}
        self.treq.script = lambda one: answers[one.event["number"] - 1].pop(0)
        self.hook.start()
        self.clock.pump([1, 2, 3])
        self.assertEqual((self.writer.kept, self.hook._lines, self.hook._receiver_health._parts), ({}, {}, set()))

    def test_looks_by_itself(self) -> None:
        """A change that nobody told of is found within a minute."""
        self.hook.start()
        self.writer.note("one")
        self.clock.advance(59)
        self.assertEqual(self.treq.told, [])
        self.clock.advance(1)
        self.assertEqual(self.treq.told, [("one", 1)])

    def test_woken_while_reading(self) -> None:
        """A change noted while the writer is being read is not missed, and there is one reader at a time."""
        reading: list[Deferred[list[Notice]]] = []
        self.writer.notices = lambda limit, after=0: reading.append(Deferred()) or reading[-1]
        self.hook.start()
        self.hook.wake()
        self.hook.wake()
        self.assertEqual(len(reading), 1)
        reading[0].callback([])
        self.assertEqual(len(reading), 2)
        reading[1].callback([])
        self.assertEqual(len(reading), 2)

    def test_settled_by_somebody_else(self) -> None:
        """A notice that is not in the store any more is not sent; the call's next one is."""
        self.writer.note("one")
        self.writer.note("one")
        self.hook.start()
        self.treq.tries[0].answer(500)
        del self.writer.kept[1]
        self.clock.advance(1)
        self.assertEqual(self.treq.told, [("one", 1), ("one", 2)])

    def test_looking_back(self) -> None:
        """Older notices, of a process that is gone, are sent, too, and none that is under way is sent twice."""
        self.writer.note("of another")
        theirs = self.writer.kept.pop(1)
        self.writer.note("mine")
        self.hook.start()
        self.assertEqual(self.treq.told, [("mine", 2)])
        self.writer.kept = {1: theirs, **self.writer.kept}
        self.hook.wake()
        self.assertEqual(self.treq.told, [("mine", 2)])
        self.hook.look_back()
        self.assertEqual(self.treq.told, [("mine", 2), ("of another", 1)])
        for each in self.treq.tries:
            each.answer(200)
        self.hook.look_back()
        self.assertEqual((len(self.treq.told), self.writer.kept), (2, {}))


class RetryTests(ClockTests):
    """What is tried again, when, and when it is given up."""

    def test_whatever_else(self) -> None:
        """All but 2xx and 410 is tried again, and kept until it was taken."""
        failures = [301, 302, 307, 400, 401, 403, 404, 408, 418, 429, 500, 502, 503]
        for number, code in enumerate(failures, 1):
            self.writer.note(f"call {number}")
            if number == 1:
                self.hook.start()
            else:
                self.hook.wake()
            self.treq.open[-1].answer(code)
        self.writer.note("refused")
        self.hook.wake()
        self.treq.open[-1].fail(Refused())
        self.assertEqual((self.treq.open, self.writer.dropped), ([], []))
        self.treq.script = lambda one: 204
        self.clock.advance(1)
        self.assertEqual(len(self.treq.tries), 2 * len(failures) + 2)
        self.assertEqual(self.writer.kept, {})

    def test_pauses(self) -> None:
        """The pause depends on the tries of one notice, and begins anew with the next one."""
        self.writer.note("one")
        self.writer.note("one")
        self.treq.script = lambda one: 500
        self.hook.start()
        for pause_s in (1, 2, 3, 4):
            before = len(self.treq.tries)
            self.clock.advance(pause_s - 0.01)
            self.assertEqual(len(self.treq.tries), before)
            self.clock.advance(0.01)
            self.assertEqual(len(self.treq.tries), before + 1)
        self.treq.script = lambda one: 200 if one.event["number"] == 1 else 500
        self.clock.advance(5)
        self.assertEqual(self.treq.told[-2:], [("one", 1), ("one", 2)])
        self.clock.advance(1)
        self.assertEqual(self.treq.told[-1], ("one", 2))
        self.assertEqual(len(self.treq.tries), 8)

    def test_its_own_pauses(self) -> None:
        """Those are the pauses if nobody gives others."""
        self.hook = StatusWebhook(
            self.writer, URL, SECRET, treq_client=self.treq, reactor=self.clock, now=lambda: NOW
        )  # fmt: skip
        self.writer.note("one")
        self.treq.script = lambda one: 500
        self.hook.start()
        for whole_s in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300):
            before = len(self.treq.tries)
            self.clock.advance(whole_s * 0.49)
            self.assertEqual(len(self.treq.tries), before)
            self.skip_to_next_try(before, whole_s)

    def skip_to_next_try(self, before: int, at_most_s: float) -> None:
        """Let time go by in small steps until there is one more try."""
        for _ in range(60):
            if len(self.treq.tries) > before:
                break
            self.clock.advance(at_most_s / 100)
        self.assertEqual(len(self.treq.tries), before + 1)

    def test_no_answer(self) -> None:
        """A try without an answer is given up after 10 s, and made again."""
        self.writer.note("one")
        self.hook.start()
        self.clock.advance(9.9)
        self.assertFalse(self.treq.tries[0].cancelled)
        self.clock.advance(0.1)
        self.assertTrue(self.treq.tries[0].cancelled)
        self.assertEqual(len(self.treq.tries), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.treq.tries), 2)
        self.treq.tries[1].answer(200)
        self.assertEqual(self.writer.dropped, [1])

    def pause_after(self, code: int, headers: dict[str, str]) -> int:
        """The seconds between such an answer and the next try."""
        self.writer.note(f"call {len(self.treq.tries)}")
        self.hook.wake()
        self.treq.open[0].answer(code, headers)
        for waited_s in range(1, 1000):
            self.clock.advance(1)
            if self.treq.open:
                self.treq.open[0].answer(200)
                return waited_s
        raise AssertionError("it was not tried again")

    def test_retry_after(self) -> None:
        """The receiver's own word is honoured on 429 and 503, up to 5 min, and never shortens our pause."""
        self.hook.start()
        self.assertEqual(self.pause_after(429, {"Retry-After": "17"}), 17)
        self.assertEqual(self.pause_after(503, {"Retry-After": " 120 "}), 120)
        self.assertEqual(self.pause_after(503, {"Retry-After": "86400"}), 300)
        self.assertEqual(self.pause_after(503, {"Retry-After": "0"}), 1)
        self.assertEqual(self.pause_after(500, {"Retry-After": "17"}), 1)
        self.assertEqual(self.pause_after(404, {"Retry-After": "17"}), 1)

    def test_strange_retry_after(self) -> None:
        """What is no number of seconds is not looked at."""
        self.hook.start()
        for word in ("", "-5", "1.5", "1e3", "²", "Fri, 31 Dec 1999 23:59:59 GMT", "9" * 5000, "nan", "5, 6"):
            self.assertEqual(self.pause_after(429, {"Retry-After": word}), 1, word)

    def test_gone(self) -> None:
        """410 is final: one error line, and the call's next notice has its turn."""
        self.writer.note("one", "ringing")
        self.writer.note("one", "completed")
        self.hook.start()
        with capturedLogs() as events:
            self.treq.tries[0].answer(410)
            self.treq.tries[1].answer(200)
        (line,) = [formatEvent(event) for event in events]
        self.assertEqual(events[0]["log_level"], LogLevel.error)
        for word in ("call one", "status ringing", "HTTP status 410"):
            self.assertIn(word, line)
        self.assertEqual(self.writer.dropped, [1, 2])

    def test_a_day(self) -> None:
        """24 hours after the change a notice is given up, with one error line that has the last answer."""
        self.writer.note("one", "ringing")
        self.treq.script = lambda one: 502
        self.hook = self.make_hook(pause=lambda tries: 300.0)
        with capturedLogs() as events:
            self.hook.start()
            self.clock.pump([60.0] * (24 * 60))
            self.assertEqual((len(self.treq.tries), self.writer.dropped), (24 * 12 + 1, []))
            self.clock.pump([60.0] * 5)
        (line,) = self.logged(events, LogLevel.error)
        self.assertIn("one", line)
        self.assertIn("HTTP status 502", line)
        self.assertEqual(self.writer.dropped, [1])
        self.clock.advance(1000)
        self.assertEqual(len(self.treq.tries), 24 * 12 + 2)

    def test_old_ones_get_a_try(self) -> None:
        """What became old while the server was not there is tried once, and may be taken."""
        self.writer.note("taken", made_at=NOW - 2 * DAY_S)
        self.writer.note("refused", made_at=NOW - 2 * DAY_S)
        self.treq.script = lambda one: 200 if one.call == "taken" else 500
        with capturedLogs() as events:
            self.hook.start()
        (line,) = self.logged(events, LogLevel.error)
        self.assertIn("refused", line)
        self.assertEqual(self.writer.dropped, [1, 2])


class LogTests(ClockTests):
    """What the log says, and what it never says."""

    def test_one_line_each(self) -> None:
        """One warning when the receiver begins to fail, one line when it works again: not one for each try."""
        for number in range(5):
            self.writer.note(f"call {number}")
        self.treq.script = lambda one: 500
        with capturedLogs() as events:
            self.hook.start()
            self.clock.pump([1] * 20)
        (line,) = [formatEvent(event) for event in events]
        self.assertEqual(events[0]["log_level"], LogLevel.warn)
        self.assertIn("https://hooks.example/calls fails: HTTP status 500", line)
        self.treq.script = lambda one: 200
        with capturedLogs() as events:
            self.clock.pump([1] * 20)
        (line,) = [formatEvent(event) for event in events]
        self.assertEqual(events[0]["log_level"], LogLevel.info)
        self.assertIn("https://hooks.example/calls works again", line)
        self.assertEqual(self.writer.kept, {})

    def test_one_bad_call(self) -> None:
        """A call that is never taken gives one warning, however many others are taken in the meantime."""
        self.writer.note("bad")
        self.treq.script = lambda one: 400 if one.call == "bad" else 200
        with capturedLogs() as events:
            self.hook.start()
            for number in range(50):
                self.writer.note(f"fine {number}")
                self.hook.wake()
                self.clock.advance(1)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])
        self.assertEqual(list(self.writer.kept), [1])

    def test_works_after_giving_up(self) -> None:
        """When the notice that failed was given up, the next one that is taken says that the receiver works."""
        self.writer.note("one")
        answers = [500, 410, 200]
        self.treq.script = lambda one: answers.pop(0)
        with capturedLogs() as events:
            self.hook.start()
            self.clock.advance(1)
            self.writer.note("two")
            self.hook.wake()
        levels = [event["log_level"] for event in events]
        self.assertEqual(levels, [LogLevel.warn, LogLevel.error, LogLevel.info])

    def test_what_failed(self) -> None:
        """The warning says what went wrong, also where there was no answer."""
        cases: list[tuple[Exception | int, str]] = [
            (Refused(), "Connection was refused"),
            (ResponseFailed([Failure(Refused())]), "Connection was refused"),
            (ValueError(f"Invalid URI {URL!r} {SECRET}"), "the request failed (ValueError)"),
            (302, "HTTP status 302 (not followed)"),
            (404, "HTTP status 404;"),
        ]
        for failed, words in cases:
            hook, treq = self.hook, self.treq
            self.writer.note("one")
            with capturedLogs() as events:
                hook.start()
                if isinstance(failed, int):
                    treq.open[0].answer(failed)
                else:
                    treq.open[0].fail(failed)
            self.assertIn(words, formatEvent(events[-1]))
            self.setUp()

    def test_no_secrets(self) -> None:
        """The secret and the URL's query are in no line, not in an event's values, and in no repr."""
        calls = ("refused", "gone", "broken", "bad URL", "hanging")
        for call in calls:
            self.writer.note(call)
        with capturedLogs() as events:
            self.hook.start()
            for one, code in zip(self.treq.open[:2], (500, 410), strict=True):
                one.answer(code)
            self.treq.open[0].fail(RuntimeError(f"{URL} {SECRET}"))
            self.treq.open[0].fail(ResponseFailed([Failure(ValueError(URL))]))
            self.clock.advance(10)
            self.writer.read_error = KeyError("a mistake")
            self.hook.wake()
            self.clock.pump([1] * 5)
            self.successResultOf(self.stopped())
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), sum("log_failure" in event for event in events))
        self.assertGreater(len(events), 3)
        text = repr(events) + "".join(formatEvent(event) for event in events) + repr(self.hook)
        text += "".join(event["log_failure"].getTraceback() for event in events if "log_failure" in event)
        self.assertIn("https://hooks.example/calls", repr(self.hook))
        for secret in (SECRET, TOKEN, "a%2Fb", "token="):
            self.assertNotIn(secret, text)

    def stopped(self) -> Deferred[None]:
        """Stop, and let the grace go by."""
        stopping = self.hook.stop()
        self.clock.advance(2)
        return stopping


class StoreTests(ClockTests):
    """When the store does not answer."""

    def test_not_read(self) -> None:
        """The writer is looked into again with the same pauses; one line when it begins, one when it is over."""
        self.writer.note("one")
        self.writer.read_error = StoreUnavailable("the disk is full")
        with capturedLogs() as events:
            self.hook.start()
            self.clock.pump([1, 2, 3])
            self.assertEqual(len(self.writer.asked), 4)
            self.clock.advance(3.9)
            self.assertEqual(len(self.writer.asked), 4)
            self.writer.read_error = None
            self.clock.advance(0.1)
        self.assertEqual(self.treq.told, [("one", 1)])
        warning, working = events
        self.assertIn("the disk is full", formatEvent(warning))
        self.assertIn("works again", formatEvent(working))
        self.assertEqual((warning["log_level"], working["log_level"]), (LogLevel.warn, LogLevel.info))

    def test_a_change_is_proof(self) -> None:
        """Woken while the store failed, it looks at once: who noted a change has seen the store work."""
        self.writer.read_error = StoreUnavailable()
        self.hook.start()
        self.writer.read_error = None
        self.writer.note("one")
        self.hook.wake()
        self.assertEqual(self.treq.told, [("one", 1)])

    def test_not_found_for_now(self) -> None:
        """A notice that can't be read when its turn comes is tried again later."""
        self.writer.note("one")
        self.hook.start()
        self.treq.tries[0].answer(500)
        self.writer.read_error = StoreUnavailable()
        self.clock.advance(1)
        self.assertEqual(len(self.treq.tries), 1)
        self.writer.read_error = None
        self.clock.advance(2)
        self.assertEqual(len(self.treq.tries), 2)
        self.treq.tries[1].answer(200)
        self.assertEqual(self.writer.dropped, [1])

    def test_not_forgotten(self) -> None:
        """What was taken, but can't be forgotten yet, is not sent a second time; the log does not fill up."""
        self.writer.note("one")
        self.writer.note("one")
        self.writer.drop_error = StoreUnavailable("the disk is full")
        self.treq.script = lambda one: 200
        with capturedLogs() as events:
            self.hook.start()
            for number in range(10):
                self.clock.advance(1)
                self.writer.note(f"call {number}")
                self.hook.wake()
            self.assertEqual(self.treq.told.count(("one", 1)), 1)
            self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])
            self.writer.drop_error = None
            self.clock.pump([1] * 20)
        self.assertEqual(sorted(self.writer.dropped), list(range(1, 13)))
        self.assertEqual(len(self.treq.tries), 12)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn, LogLevel.info])

    def test_mistakes(self) -> None:
        """Whatever else a store raises is logged with its traceback, and nothing stands still for it."""
        self.writer.read_error = KeyError("a mistake")
        self.hook.start()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.writer.read_error = None
        for number in range(20):
            self.writer.note(f"call {number}")
        self.writer.drop_error = KeyError("another")
        self.treq.script = lambda one: 200
        self.clock.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 20)
        self.writer.drop_error = None
        self.clock.advance(1)
        self.assertEqual(len(self.writer.dropped), 20)

    def test_cancelled_by_somebody_else(self) -> None:
        """A store or client that cancels what we asked for ends no worker."""
        for number in range(20):
            self.writer.note(f"call {number}")
        self.hook.start()
        for one in self.treq.open:
            one.fail(CancelledError())
        self.writer.read_error = CancelledError()
        for one in self.treq.open:
            one.fail(CancelledError())
        self.hook.wake()
        self.writer.read_error = None
        self.treq.script = lambda one: 200
        self.clock.pump([1] * 5)
        self.flushLoggedErrors(CancelledError)
        for one in self.treq.open:
            one.answer(200)
        self.assertEqual(self.writer.kept, {})


class StopTests(ClockTests):
    """How it ends."""

    def test_idle(self) -> None:
        """With nothing under way it is over at once, and nothing is left on the clock."""
        self.hook.start()
        self.successResultOf(self.hook.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_started(self) -> None:
        """One that was never started stops, too, and does nothing when woken."""
        self.writer.note("one")
        self.hook.wake()
        self.successResultOf(self.hook.stop())
        self.assertEqual(self.writer.asked, [])

    def test_retries_end(self) -> None:
        """What waits for another try stays in the store, and is not tried any more."""
        self.writer.note("one")
        self.treq.script = lambda one: 500
        self.hook.start()
        self.successResultOf(self.hook.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.hook.wake()
        self.assertEqual(len(self.treq.tries), 1)
        self.assertEqual(list(self.writer.kept), [1])

    def test_answered_in_time(self) -> None:
        """A request under way has 2 s: answered, its notice is forgotten. The call's next one stays."""
        self.writer.note("one")
        self.writer.note("one")
        self.hook.start()
        stopping = self.hook.stop()
        self.clock.advance(1.9)
        self.assertNoResult(stopping)
        self.treq.tries[0].answer(200)
        self.successResultOf(stopping)
        self.assertEqual((self.writer.dropped, len(self.treq.tries)), ([1], 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused_in_time(self) -> None:
        """Answered with something else, it stays."""
        self.writer.note("one")
        self.hook.start()
        stopping = self.hook.stop()
        self.treq.tries[0].answer(500)
        self.successResultOf(stopping)
        self.assertEqual(list(self.writer.kept), [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_answered(self) -> None:
        """After that the requests are cancelled, and their notices stay; those that wait for a turn never get one."""
        for number in range(20):
            self.writer.note(f"call {number}")
        self.hook.start()
        with capturedLogs() as events:
            stopping = self.hook.stop()
            self.clock.advance(2)
            self.successResultOf(stopping)
        self.assertTrue(all(one.cancelled for one in self.treq.tries))
        self.assertEqual((len(self.treq.tries), len(self.writer.kept), events), (8, 20, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_taken_but_endless(self) -> None:
        """A notice that was taken is forgotten also if the answer's body is cut off by the stop."""
        self.writer.note("one")
        self.hook.start()
        self.clock.advance(5)
        stopping = self.hook.stop()
        self.clock.advance(1)
        response = self.treq.tries[0].answer(200, has_body=True)
        self.assertNoResult(stopping)
        self.clock.advance(1)
        self.successResultOf(stopping)
        self.assertEqual((response.lost, self.writer.dropped), (True, [1]))

    def test_store_hangs(self) -> None:
        """A store that does not answer does not hold up the stop."""
        self.writer.notices = lambda limit, after=0: Deferred()
        self.hook.start()
        stopping = self.hook.stop()
        self.assertNoResult(stopping)
        self.clock.advance(2)
        self.successResultOf(stopping)

    def test_read_while_stopping(self) -> None:
        """What the store gives while all stops is not sent."""
        self.writer.note("one")
        found = self.successResultOf(self.writer.notices(1))
        reading: Deferred[list[Notice]] = Deferred()
        answers: list[Any] = [succeed(found), reading]
        self.writer.notices = lambda limit, after=0: answers.pop(0)
        self.hook.start()
        stopping = self.hook.stop()
        reading.callback(found)
        self.successResultOf(stopping)
        self.assertEqual((self.treq.tries, self.writer.dropped), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_twice(self) -> None:
        """Stopping twice is no mistake: both fire."""
        self.writer.note("one")
        self.hook.start()
        first, second = self.hook.stop(), self.hook.stop()
        self.clock.advance(2)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_restart(self) -> None:
        """A new one on the same store sends what the former one did not get rid of, under the same ids."""
        for number in range(10):
            self.writer.note(f"call {number}")
        self.hook.start()
        self.treq.tries[0].answer(200)
        stopping = self.hook.stop()
        self.clock.advance(2)
        self.successResultOf(stopping)
        asked_before = {one.event["id"] for one in self.treq.tries[1:]}
        self.treq.tries.clear()
        self.treq.script = lambda one: 200
        self.make_hook().start()
        self.assertEqual(self.treq.told, [(f"call {number}", number + 1) for number in range(1, 10)])
        self.assertEqual(asked_before - {one.event["id"] for one in self.treq.tries}, set())
        self.assertEqual(self.writer.kept, {})


class Received:
    """A notice as a receiver got it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.body: bytes = request.content.read()
        self.event = json.loads(self.body)
        self.call: str = self.event["call"]["context_id"]
        self.status: str = self.event["call"]["call_status"]
        self.signature: str = request.getHeader("X-Rapida-Signature")


class Receiver(Resource):
    """A receiver that answers as ``answer`` says: with a status, or with None, and then the test answers, or nobody."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.received: list[Received] = []
        self.answer: Callable[[Received], int | None] = lambda received: 204
        self.headers: dict[str, str] = {}

    def render_POST(self, request: Request) -> Any:
        """Take a notice."""
        received = Received(request)
        self.received.append(received)
        code = self.answer(received)
        if code is None:
            # The client may be gone before anybody answers.
            request.notifyFinish().addErrback(lambda _: None)
            return NOT_DONE_YET
        request.setResponseCode(code)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        return b""

    @property
    def told(self) -> list[tuple[str, str]]:
        """Call and status of all that came."""
        return [(received.call, received.status) for received in self.received]


class Endless(Resource):
    """Takes a notice, and answers with a body that never ends, as fast as it is read."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.sent_bytes = 0
        self.gone: Deferred[None] = Deferred()

    def render_POST(self, request: Request) -> int:
        """Begin."""
        request.notifyFinish().addErrback(lambda _: self.gone.callback(None))
        request.registerProducer(self, False)
        self.request = request
        return NOT_DONE_YET

    def resumeProducing(self) -> None:
        """More of it."""
        self.sent_bytes += 65_536
        self.request.write(bytes(65_536))

    def stopProducing(self) -> None:
        """Nobody is there any more."""


class QuietSite(Site):
    """A site that logs nothing: the receiver's own log is not what is looked at."""

    noisy = False

    def log(self, request: Request) -> None:
        """Say nothing."""


def verify_with_the_page(secret: str, received: Received) -> None:
    """What the docs' receiver makes of a notice's signature: nothing, or ValueError."""
    page_code()["verify"](secret, received.signature, received.body)


def page_code() -> dict[str, Any]:
    """The names of the page's receiver."""
    os.environ.setdefault("STATUS_WEBHOOK__SECRET", SECRET)
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(named_block("webhook.rst", "receiver"), names)
    return names


class LoopbackTestCase(TestCase):
    """A call store in a file, the program's own HTTP client, and receivers on loopback."""

    def setUp(self) -> Deferred[None]:
        """Open the store."""
        self.hooks: list[StatusWebhook] = []
        self.path = Path(self.mktemp()).absolute() / "calls.sqlite3"
        self.store = SqliteStore(self.path, reactor)
        return self.store.open()

    def tearDown(self) -> Deferred[None]:
        """Stop what runs."""
        return Deferred.fromCoroutine(self.end())

    async def end(self) -> None:
        """Stop the webhooks, then the store."""
        for hook in self.hooks:
            await hook.stop()
        await self.store.close()

    def start_hook(self, url: str, ca_file: str = "", pause_s: float = 0.01) -> StatusWebhook:
        """A webhook that runs until the test is over, with short pauses."""
        client, pool = make_client(reactor, ca_file)
        self.addCleanup(pool.closeCachedConnections)
        hook = StatusWebhook(
            self.store, url, SECRET, treq_client=client, reactor=reactor, pause=lambda tries: pause_s
        )  # fmt: skip
        self.hooks.append(hook)
        hook.start()
        return hook

    async def serve(self, resource: Resource, port: int = 0) -> str:
        """The address of a receiver that runs until the test is over."""
        site = QuietSite(resource)
        listening = await TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(site)
        self.addCleanup(listening.stopListening)
        return f"http://127.0.0.1:{listening.getHost().port}/calls"

    async def serve_tls(self, resource: Resource) -> tuple[str, str]:
        """The address of one with TLS, and the file of its authority."""
        authority = Authority(Path(self.mktemp()))
        authority.certify("127.0.0.1")
        context = ssl.DefaultOpenSSLContextFactory(str(authority.key), str(authority.certificate))
        site = QuietSite(resource)
        listening = await SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1").listen(site)
        self.addCleanup(listening.stopListening)
        return f"https://127.0.0.1:{listening.getHost().port}/calls", str(authority.authority)

    async def change(self, call: str, *statuses: str) -> None:
        """A call's status becomes so, one after another."""
        now = time.time()
        if not any(known.context_id == call for known in await self.store.recent(1000)):
            context = CallContext(
                context_id=call, assistant_id="1", created_at=now, expires_at=now + 300,
                direction=Direction.OUTBOUND, call_status=CallStatus.NEW, called="200",
            )  # fmt: skip
            await self.store.add(context, 1000)
        for status in statuses:
            await self.store.follow(call, CallProgress(status=CallStatus(status), at=time.time()), notify=True)

    async def until(self, done: Callable[[], Any], at_most_s: float = 5.0) -> None:
        """Wait for something."""
        until_s = time.monotonic() + at_most_s
        while not done():
            self.assertLess(time.monotonic(), until_s, "it did not come to that")
            await deferLater(reactor, 0.005)

    async def until_empty(self) -> None:
        """Wait until the writer is empty."""
        until_s = time.monotonic() + 5
        while await self.store.notices(1):
            self.assertLess(time.monotonic(), until_s, "the writer did not get empty")
            await deferLater(reactor, 0.005)


class LoopbackTests(LoopbackTestCase):
    """With real receivers."""

    async def test_a_call(self) -> None:
        """Each change of a call comes, in order, signed, as the store showed it just after the change."""
        receiver = Receiver()
        hook = self.start_hook(f"{await self.serve(receiver)}?token={TOKEN}&x=a%2Fb%20c+d")
        for status in ("initiated", "ringing", "answered", "completed"):
            await self.change("one", status)
            hook.wake()
        await self.until_empty()
        statuses = ["initiated", "ringing", "answered", "completed"]
        self.assertEqual(receiver.told, [("one", status) for status in statuses])
        for received in receiver.received:
            verify_with_the_page(SECRET, received)
            self.assertEqual(received.request.uri, f"/calls?token={TOKEN}&x=a%2Fb%20c+d".encode())
            self.assertEqual(received.request.getHeader("User-Agent"), f"rapida-media/{__version__}")
            self.assertEqual(received.request.getHeader("Content-Type"), "application/json")
        self.assertEqual(receiver.received[-1].event["call"], record_of(await self.store.get("one")))

    async def test_order_of_a_call(self) -> None:
        """A receiver that fails every other time gets each call's changes in order all the same."""
        receiver = Receiver()
        receiver.answer = lambda received: 503 if len(receiver.received) % 2 else 204
        statuses = ("initiated", "ringing", "answered", "completed")
        for number in range(12):
            await self.change(f"call {number}", *statuses)
        self.start_hook(await self.serve(receiver))
        await self.until_empty()
        for number in range(12):
            told = [status for call, status in receiver.told if call == f"call {number}"]
            self.assertEqual(sorted(told, key=statuses.index), told)
            self.assertEqual(tuple(dict.fromkeys(told)), statuses)
        self.assertGreater(len(receiver.told), 48)

    async def test_restart(self) -> None:
        """What nobody took survives the end of the program, in the file, and is sent by the next one."""
        await self.change("one", "initiated", "ringing")
        await self.change("two", "initiated")
        refusing, taking = Receiver(), Receiver()
        refusing.answer = lambda received: 204 if received.status == "ringing" or received.call == "two" else 500
        hook = self.start_hook(await self.serve(refusing))
        await self.until(lambda: len(refusing.received) > 4)
        await hook.stop()
        await self.store.close()
        self.store = SqliteStore(self.path, reactor)
        await self.store.open()
        self.start_hook(await self.serve(taking))
        await self.until_empty()
        self.assertEqual(taking.told, [("one", "initiated"), ("one", "ringing")])
        self.assertEqual(refusing.told.count(("two", "initiated")), 1)
        self.assertEqual(taking.received[0].event["id"], refusing.received[0].event["id"])

    async def test_slow_for_one_call(self) -> None:
        """A receiver that takes its time for one call delays no other one."""
        receiver = Receiver()
        receiver.answer = lambda received: None if received.call == "slow" else 204
        await self.change("slow", "initiated", "ringing")
        for number in range(20):
            await self.change(f"call {number}", "initiated", "ringing")
        self.start_hook(await self.serve(receiver))
        await self.until(lambda: len(receiver.received) == 41)
        self.assertEqual([status for call, status in receiver.told if call == "slow"], ["initiated"])
        slow = next(received for received in receiver.received if received.call == "slow")
        receiver.answer = lambda received: 204
        slow.request.setResponseCode(200)
        slow.request.finish()
        await self.until_empty()
        self.assertEqual(receiver.told[-1], ("slow", "ringing"))

    async def test_hanging(self) -> None:
        """A receiver that never answers is given up after the timeout, its connection closed, and tried again."""
        self.patch(webhook_receiver, "TRY_S", 0.1)
        receiver, closed = Receiver(), []
        receiver.answer = lambda received: None
        await self.change("one", "initiated")
        self.start_hook(await self.serve(receiver))
        await self.until(lambda: receiver.received)
        receiver.received[0].request.notifyFinish().addErrback(closed.append)
        await self.until(lambda: closed)
        receiver.answer = lambda received: 204
        await self.until_empty()
        self.assertGreater(len(receiver.received), 1)

    async def test_redirect(self) -> None:
        """A redirect is not followed: nothing comes where it leads."""
        elsewhere, receiver = Receiver(), Receiver()
        receiver.headers = {"Location": await self.serve(elsewhere)}
        codes = iter((301, 302, 303, 307, 308))
        receiver.answer = lambda received: next(codes, 204)
        await self.change("one", "initiated")
        self.start_hook(await self.serve(receiver))
        await self.until_empty()
        self.assertEqual((len(receiver.received), elsewhere.received), (6, []))

    async def test_not_there_yet(self) -> None:
        """A receiver that is started later gets what was noted before; the log has two lines."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
        port = listening.getHost().port
        await listening.stopListening()
        await self.change("one", "initiated", "ringing")
        with capturedLogs() as events:
            self.start_hook(f"http://127.0.0.1:{port}/calls?token={TOKEN}")
            await deferLater(reactor, 0.2)
            receiver = Receiver()
            await self.serve(receiver, port)
            await self.until_empty()
        self.assertEqual(receiver.told, [("one", "initiated"), ("one", "ringing")])
        lines = [formatEvent(event) for event in events if event["log_namespace"].endswith("StatusWebhook")]
        self.assertEqual(len(lines), 2, lines)
        self.assertIn("Connection was refused", lines[0])
        self.assertIn("works again", lines[1])
        for secret in (SECRET, TOKEN):
            self.assertNotIn(secret, repr(events) + "".join(formatEvent(event) for event in events))

    async def test_no_http(self) -> None:
        """What speaks something else, or hangs up in the middle, is tried again."""
        connections: list[Protocol] = []

        class Broken(Protocol):
            def dataReceived(self, data: bytes) -> None:
                connections.append(self)
                beginnings = (b"", b"220 mail.example.com\r\n", b"HTTP/1.1 200 OK\r\nContent-Le", b"\xff" * 10_000)
                self.transport.write(beginnings[len(connections) % 4])
                self.transport.loseConnection()

        factory = Factory.forProtocol(Broken)
        factory.noisy = False
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(listening.stopListening)
        await self.change("one", "initiated")
        self.start_hook(f"http://127.0.0.1:{listening.getHost().port}/calls")
        await self.until(lambda: len(connections) > 12)
        self.assertEqual(len(await self.store.notices(10)), 1)

    async def test_endless_body(self) -> None:
        """A body without end is cut off soon; the notice counts as taken."""
        endless = Endless()
        await self.change("one", "initiated")
        self.start_hook(await self.serve(endless))
        await self.until_empty()
        await endless.gone
        self.assertLess(endless.sent_bytes, 20_000_000)

    async def test_stop(self) -> None:
        """With a receiver that never answers, all is over after the grace, and the connections are closed."""
        self.patch(webhook, "GRACE_S", 0.3)
        receiver, closed = Receiver(), []

        def hang(received: Received) -> None:
            received.request.notifyFinish().addErrback(closed.append)

        receiver.answer = hang
        for number in range(20):
            await self.change(f"call {number}", "initiated")
        hook = self.start_hook(await self.serve(receiver))
        await self.until(lambda: len(receiver.received) == 8)
        before_s = time.monotonic()
        await hook.stop()
        self.assertGreater(time.monotonic() - before_s, 0.25)
        self.assertLess(time.monotonic() - before_s, 3)
        await self.until(lambda: len(closed) == 8)
        self.assertEqual(len(await self.store.notices(100)), 20)
        self.assertEqual(len(receiver.received), 8)


class TlsTests(LoopbackTestCase):
    """With real receivers over TLS."""

    async def test_private_authority(self) -> None:
        """With the file of its authority, a receiver is believed."""
        receiver = Receiver()
        url, ca_file = await self.serve_tls(receiver)
        await self.change("one", "initiated", "ringing")
        self.start_hook(url, ca_file)
        await self.until_empty()
        self.assertEqual(receiver.told, [("one", "initiated"), ("one", "ringing")])
        verify_with_the_page(SECRET, receiver.received[0])

    async def test_stranger(self) -> None:
        """A receiver whose certificate is not trusted gets nothing, and the notice stays."""
        receiver = Receiver()
        url, _ = await self.serve_tls(receiver)
        _, other_ca = await self.serve_tls(Receiver())
        await self.change("one", "initiated")
        for ca_file in ("", other_ca):
            with capturedLogs() as events:
                hook = self.start_hook(f"{url}?token={TOKEN}", ca_file)
                await self.until(
                    lambda: any("certificate that is not trusted" in formatEvent(event) for event in events)
                )
                await hook.stop()
            text = repr(events) + "".join(formatEvent(event) for event in events)
            self.assertNotIn(TOKEN, text)
        self.assertEqual(receiver.received, [])
        self.assertEqual(len(await self.store.notices(10)), 1)

    async def test_endless_body(self) -> None:
        """A body without end is cut off over TLS, too."""
        endless = Endless()
        url, ca_file = await self.serve_tls(endless)
        await self.change("one", "initiated")
        self.start_hook(url, ca_file)
        await self.until_empty()
        await endless.gone
        self.assertLess(endless.sent_bytes, 20_000_000)


class PageTests(SynchronousTestCase):
    """The page's code, used as it stands there."""

    BODY = b'{"event":"call.status"}'

    def setUp(self) -> None:
        """Read it."""
        self.verify = page_code()["verify"]

    def test_good(self) -> None:
        """What we sign is believed."""
        self.verify(SECRET, sign(SECRET, int(time.time()), self.BODY), self.BODY)
        self.verify("sécret", sign("sécret", int(time.time()) - 290, b""), b"")

    def test_bad(self) -> None:
        """Another body, secret or time is refused; so is what is no signature. All by ValueError."""
        now = int(time.time())
        good = sign(SECRET, now, self.BODY)
        for secret, header, body in (
            (SECRET, good, self.BODY + b" "),
            ("another secret", good, self.BODY),
            (SECRET, good.replace(str(now), str(now + 1)), self.BODY),
            (SECRET, good[:-1] + ("0" if good[-1] != "0" else "1"), self.BODY),
            (SECRET, sign(SECRET, now - 310, self.BODY), self.BODY),
            (SECRET, sign(SECRET, now + 310, self.BODY), self.BODY),
            *(
                (SECRET, header, self.BODY)
                for header in ("", "t=1", "v1=", "v1", "t=,v1=ü", f"t={now},v1=", "=,=", ",")
            ),
        ):
            self.assertRaises(ValueError, self.verify, secret, header, body)

    def test_notice(self) -> None:
        """The notice that the page shows has the form of ours, and fields that a record has."""
        shown = json.loads(named_block("webhook.rst", "notice"))
        treq, writer = FakeTreq(), FrameWriter()
        writer.note("one")
        hook: Any = StatusWebhook(writer, URL, SECRET, treq_client=treq, reactor=Clock())  # type: ignore[arg-type]
        hook.start()
        self.assertEqual(list(shown), list(treq.tries[0].event))
        self.assertEqual(shown["id"], f"{shown['call']['context_id']}-{shown['number']}")
        record = record_of(CallContext(context_id="one", assistant_id="1", created_at=0, expires_at=1))
        self.assertEqual(set(shown["call"]) - set(record), set())


class _Script(ProcessProtocol):
    """A program and what it prints."""

    def __init__(self) -> None:
        self.out = self.err = ""
        self.over: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        """It prints."""
        self.out += data.decode()

    def errReceived(self, data: bytes) -> None:  # noqa: N802
        """It complains, or logs."""
        self.err += data.decode()

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        """It is gone."""
        self.over.callback(None)


class PageReceiverTests(LoopbackTestCase):
    """The page's receiver, as a program of its own."""

    async def run_receiver(self, secret: str) -> tuple[_Script, str]:
        """Start it on a free port. The program and its address."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
        port = listening.getHost().port
        await listening.stopListening()
        code = named_block("webhook.rst", "receiver")
        self.assertEqual(code.count('("127.0.0.1", 9000)'), 1)
        script = Path(self.mktemp())
        script.write_text(code.replace("9000", str(port)))
        program = _Script()
        process = reactor.spawnProcess(
            program, sys.executable, [sys.executable, str(script)], {"STATUS_WEBHOOK__SECRET": secret}
        )  # fmt: skip

        def end() -> Deferred[None]:
            process.signalProcess("KILL")
            return program.over

        self.addCleanup(end)
        return program, f"http://127.0.0.1:{port}/calls"

    async def test_prints_each_once(self) -> None:
        """It prints each change of a call."""
        program, url = await self.run_receiver(SECRET)
        await self.change("one", "initiated", "ringing", "failed")
        self.start_hook(url, pause_s=0.1)
        await self.until_empty()
        await self.until(lambda: program.out.count("\n") >= 3)
        self.assertEqual(program.out, "one initiated\none ringing\none failed\n")

    async def test_another_secret(self) -> None:
        """With another secret it refuses all, and prints nothing."""
        program, url = await self.run_receiver("another-secret-of-the-webhook")
        await self.change("one", "initiated")
        self.start_hook(url, pause_s=0.1)
        await self.until(lambda: "401" in program.err)
        self.assertEqual(program.out, "")
        self.assertEqual(len(await self.store.notices(10)), 1)
