"""The status webhook: its requests, and when they are made again."""

from __future__ import annotations

from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import connectionDone
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure

from rapida_twisted import __version__
from rapida_twisted.webhook.delivery import sign
from rapida_twisted.webhook.status import StatusWebhook
from tests.webhook.clocked import DAY_S, NOW, SECRET, URL, ClockTests


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
        self.store.note("one", "answered", made_at=NOW - 1)
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
        self.store.note("one")
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
            number = self.store.note(f"call {code}")
            if code == 200:
                self.hook.start()
            else:
                self.hook.wake()
            self.treq.tries[-1].answer(code)
            self.assertEqual(self.store.dropped[-1], number)
        self.clock.advance(1000)
        self.assertEqual(len(self.treq.tries), 5)
        self.assertEqual(self.store.kept, {})

    def test_body_is_discarded(self) -> None:
        """64 KiB of an answer's body are read and forgotten; then it is hung up. The status counts."""
        number = self.store.note("one")
        self.hook.start()
        response = self.treq.tries[0].answer(200, has_body=True)
        response.body.dataReceived(b"x" * 65_536)
        self.assertEqual((response.lost, self.store.dropped), (False, []))
        response.body.dataReceived(b"x")
        self.assertEqual((response.lost, self.store.dropped), (True, [number]))

    def test_endless_body(self) -> None:
        """A body that does not come is waited for 2 s; the status counts."""
        self.store.note("one")
        self.store.note("two")
        self.hook.start()
        fine, bad = (one.answer(code, has_body=True) for one, code in zip(self.treq.tries, (200, 500), strict=True))
        self.clock.advance(1.9)
        self.assertEqual((fine.lost, bad.lost), (False, False))
        self.clock.advance(0.2)
        self.assertEqual((fine.lost, bad.lost, self.store.dropped), (True, True, [1]))

    def test_body_ends(self) -> None:
        """A body that ends is not hung up on: the connection can be used again."""
        self.store.note("one")
        self.hook.start()
        response = self.treq.tries[0].answer(200, has_body=True)
        response.body.dataReceived(b"OK")
        response.body.connectionLost(Failure(connectionDone.value))
        self.assertEqual((response.lost, self.store.dropped), (False, [1]))


class RetryTests(ClockTests):
    """What is tried again, when, and when it is given up."""

    def test_whatever_else(self) -> None:
        """All but 2xx and 410 is tried again, and kept until it was taken."""
        failures = [301, 302, 307, 400, 401, 403, 404, 408, 418, 429, 500, 502, 503]
        for number, code in enumerate(failures, 1):
            self.store.note(f"call {number}")
            if number == 1:
                self.hook.start()
            else:
                self.hook.wake()
            self.treq.open[-1].answer(code)
        self.store.note("refused")
        self.hook.wake()
        self.treq.open[-1].fail(Refused())
        self.assertEqual((self.treq.open, self.store.dropped), ([], []))
        self.treq.script = lambda one: 204
        self.clock.advance(1)
        self.assertEqual(len(self.treq.tries), 2 * len(failures) + 2)
        self.assertEqual(self.store.kept, {})

    def test_pauses(self) -> None:
        """The pause depends on the tries of one notice, and begins anew with the next one."""
        self.store.note("one")
        self.store.note("one")
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
            self.store, URL, SECRET, treq_client=self.treq, reactor=self.clock, now=lambda: NOW
        )  # fmt: skip
        self.store.note("one")
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
        self.store.note("one")
        self.hook.start()
        self.clock.advance(9.9)
        self.assertFalse(self.treq.tries[0].cancelled)
        self.clock.advance(0.1)
        self.assertTrue(self.treq.tries[0].cancelled)
        self.assertEqual(len(self.treq.tries), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.treq.tries), 2)
        self.treq.tries[1].answer(200)
        self.assertEqual(self.store.dropped, [1])

    def pause_after(self, code: int, headers: dict[str, str]) -> int:
        """The seconds between such an answer and the next try."""
        self.store.note(f"call {len(self.treq.tries)}")
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
        self.store.note("one", "ringing")
        self.store.note("one", "completed")
        self.hook.start()
        with capturedLogs() as events:
            self.treq.tries[0].answer(410)
            self.treq.tries[1].answer(200)
        (line,) = [formatEvent(event) for event in events]
        self.assertEqual(events[0]["log_level"], LogLevel.error)
        for word in ("call one", "status ringing", "HTTP status 410"):
            self.assertIn(word, line)
        self.assertEqual(self.store.dropped, [1, 2])

    def test_a_day(self) -> None:
        """24 hours after the change a notice is given up, with one error line that has the last answer."""
        self.store.note("one", "ringing")
        self.treq.script = lambda one: 502
        self.hook = self.make_hook(pause=lambda tries: 300.0)
        with capturedLogs() as events:
            self.hook.start()
            self.clock.pump([60.0] * (24 * 60))
            self.assertEqual((len(self.treq.tries), self.store.dropped), (24 * 12 + 1, []))
            self.clock.pump([60.0] * 5)
        (line,) = self.logged(events, LogLevel.error)
        self.assertIn("one", line)
        self.assertIn("HTTP status 502", line)
        self.assertEqual(self.store.dropped, [1])
        self.clock.advance(1000)
        self.assertEqual(len(self.treq.tries), 24 * 12 + 2)

    def test_old_ones_get_a_try(self) -> None:
        """What became old while the server was not there is tried once, and may be taken."""
        self.store.note("taken", made_at=NOW - 2 * DAY_S)
        self.store.note("refused", made_at=NOW - 2 * DAY_S)
        self.treq.script = lambda one: 200 if one.call == "taken" else 500
        with capturedLogs() as events:
            self.hook.start()
        (line,) = self.logged(events, LogLevel.error)
        self.assertIn("refused", line)
        self.assertEqual(self.store.dropped, [1, 2])
