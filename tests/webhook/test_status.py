"""The status webhook: the order of its notices, its log, the store behind it, its end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.interfaces import Notice
from rapida_twisted.webhook import status as webhook
from tests.webhook.clocked import SECRET, TOKEN, URL, ClockTests


class OrderTests(ClockTests):
    """Who waits for whom."""

    def test_one_after_another(self) -> None:
        """The notices of a call go in order, each when the one before was taken, however often that was tried."""
        for status in ("initiated", "ringing", "answered"):
            self.store.note("one", status)
        self.hook.start()
        self.assertEqual(self.treq.told, [("one", 1)])
        self.treq.tries[0].answer(503)
        self.clock.advance(1)
        self.assertEqual(self.treq.told, [("one", 1), ("one", 1)])
        self.treq.tries[1].answer(200)
        self.assertEqual(self.treq.told[2:], [("one", 2)])
        self.treq.tries[2].answer(200)
        self.treq.tries[3].answer(200)
        self.assertEqual(self.store.dropped, [1, 2, 3])

    def test_calls_do_not_wait(self) -> None:
        """A call whose notice is not taken, or not answered, holds up no other one."""
        for call in ("refused", "hanging", "fine"):
            self.store.note(call, "initiated")
            self.store.note(call, "ringing")
        self.treq.script = lambda one: {"refused": 500, "hanging": 0, "fine": 200}[one.call]
        self.hook.start()
        self.assertEqual(self.store.dropped, [5, 6])
        self.assertEqual(sorted(self.treq.told), [("fine", 5), ("fine", 6), ("hanging", 3), ("refused", 1)])

    def test_noted_later(self) -> None:
        """What is noted while a call's notice is under way, or waits, comes after it."""
        self.store.note("one")
        self.hook.start()
        self.store.note("one")
        self.hook.wake()
        self.treq.tries[0].answer(500)
        self.store.note("one")
        self.hook.wake()
        self.assertEqual(self.treq.told, [("one", 1)])
        self.treq.script = lambda one: 200
        self.clock.advance(1)
        self.assertEqual(self.treq.told, [("one", number) for number in (1, 1, 2, 3)])

    def test_eight_at_once(self) -> None:
        """No more than 8 requests are under way; the others wait for their turn, the oldest first."""
        for number in range(20):
            self.store.note(f"call {number}")
        self.hook.start()
        self.assertEqual(len(self.treq.open), 8)
        self.treq.open[3].answer(200)
        self.treq.open[3].answer(500)
        self.assertEqual(len(self.treq.open), 8)
        self.assertEqual(self.treq.told[8:], [("call 8", 9), ("call 9", 10)])
        while self.treq.open:
            self.assertLessEqual(len(self.treq.open), 8)
            self.treq.open[0].answer(200)
        self.assertEqual(len(self.store.dropped), 19)

    def test_pages(self) -> None:
        """The store is read in pages; of notices that wait only one at a time is read again, when it is sent."""
        for number in range(250):
            self.store.note(f"call {number}")
        self.hook.start()
        pages = [after for limit, after in self.store.asked if limit > 1]
        self.assertEqual(pages, [0, 100, 200])
        self.assertEqual({limit for limit, _ in self.store.asked}, {1, 100})
        self.assertEqual([after for limit, after in self.store.asked if limit == 1], list(range(8)))

    def test_most_calls(self) -> None:
        """Of so many calls at most the notices wait in memory; further ones are read when there is room."""
        self.patch(webhook, "MOST_CALLS", 10)
        self.patch(webhook, "PAGE", 5)
        for number in range(40):
            self.store.note(f"call {number}")
        self.hook.start()
        self.assertLess(len(self.hook._queues), 15)
        for _ in range(40):
            self.assertLess(len(self.hook._queues), 15)
            self.treq.open[0].answer(200)
        self.assertEqual(self.store.dropped, list(range(1, 41)))
        self.assertEqual(self.hook._queues, {})

    def test_nothing_is_kept(self) -> None:
        """A call of which all was told leaves nothing behind in memory, also if it had failed or was given up."""
        for number in range(6):
            self.store.note(f"call {number}")
        answers = {0: [200], 1: [500, 200], 2: [410], 3: [500, 410], 4: [500, 500, 200], 5: [200]}
        self.treq.script = lambda one: answers[one.event["number"] - 1].pop(0)
        self.hook.start()
        self.clock.pump([1, 2, 3])
        self.assertEqual((self.store.kept, self.hook._queues, self.hook._receiver_health._parts), ({}, {}, set()))

    def test_looks_by_itself(self) -> None:
        """A change that nobody told of is found within a minute."""
        self.hook.start()
        self.store.note("one")
        self.clock.advance(59)
        self.assertEqual(self.treq.told, [])
        self.clock.advance(1)
        self.assertEqual(self.treq.told, [("one", 1)])

    def test_woken_while_reading(self) -> None:
        """A change noted while the store is being read is not missed, and there is one reader at a time."""
        reading: list[Deferred[list[Notice]]] = []
        self.store.notices = lambda limit, after=0: reading.append(Deferred()) or reading[-1]
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
        self.store.note("one")
        self.store.note("one")
        self.hook.start()
        self.treq.tries[0].answer(500)
        del self.store.kept[1]
        self.clock.advance(1)
        self.assertEqual(self.treq.told, [("one", 1), ("one", 2)])

    def test_looking_back(self) -> None:
        """Older notices, of a process that is gone, are sent, too, and none that is under way is sent twice."""
        self.store.note("of another")
        theirs = self.store.kept.pop(1)
        self.store.note("mine")
        self.hook.start()
        self.assertEqual(self.treq.told, [("mine", 2)])
        self.store.kept = {1: theirs, **self.store.kept}
        self.hook.wake()
        self.assertEqual(self.treq.told, [("mine", 2)])
        self.hook.look_back()
        self.assertEqual(self.treq.told, [("mine", 2), ("of another", 1)])
        for each in self.treq.tries:
            each.answer(200)
        self.hook.look_back()
        self.assertEqual((len(self.treq.told), self.store.kept), (2, {}))


class LogTests(ClockTests):
    """What the log says, and what it never says."""

    def test_one_line_each(self) -> None:
        """One warning when the receiver begins to fail, one line when it works again: not one for each try."""
        for number in range(5):
            self.store.note(f"call {number}")
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
        self.assertEqual(self.store.kept, {})

    def test_one_bad_call(self) -> None:
        """A call that is never taken gives one warning, however many others are taken in the meantime."""
        self.store.note("bad")
        self.treq.script = lambda one: 400 if one.call == "bad" else 200
        with capturedLogs() as events:
            self.hook.start()
            for number in range(50):
                self.store.note(f"fine {number}")
                self.hook.wake()
                self.clock.advance(1)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])
        self.assertEqual(list(self.store.kept), [1])

    def test_works_after_giving_up(self) -> None:
        """When the notice that failed was given up, the next one that is taken says that the receiver works."""
        self.store.note("one")
        answers = [500, 410, 200]
        self.treq.script = lambda one: answers.pop(0)
        with capturedLogs() as events:
            self.hook.start()
            self.clock.advance(1)
            self.store.note("two")
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
            self.store.note("one")
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
            self.store.note(call)
        with capturedLogs() as events:
            self.hook.start()
            for one, code in zip(self.treq.open[:2], (500, 410), strict=True):
                one.answer(code)
            self.treq.open[0].fail(RuntimeError(f"{URL} {SECRET}"))
            self.treq.open[0].fail(ResponseFailed([Failure(ValueError(URL))]))
            self.clock.advance(10)
            self.store.read_error = KeyError("a mistake")
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
        """The store is looked into again with the same pauses; one line when it begins, one when it is over."""
        self.store.note("one")
        self.store.read_error = StoreUnavailable("the disk is full")
        with capturedLogs() as events:
            self.hook.start()
            self.clock.pump([1, 2, 3])
            self.assertEqual(len(self.store.asked), 4)
            self.clock.advance(3.9)
            self.assertEqual(len(self.store.asked), 4)
            self.store.read_error = None
            self.clock.advance(0.1)
        self.assertEqual(self.treq.told, [("one", 1)])
        warning, working = events
        self.assertIn("the disk is full", formatEvent(warning))
        self.assertIn("works again", formatEvent(working))
        self.assertEqual((warning["log_level"], working["log_level"]), (LogLevel.warn, LogLevel.info))

    def test_a_change_is_proof(self) -> None:
        """Woken while the store failed, it looks at once: who noted a change has seen the store work."""
        self.store.read_error = StoreUnavailable()
        self.hook.start()
        self.store.read_error = None
        self.store.note("one")
        self.hook.wake()
        self.assertEqual(self.treq.told, [("one", 1)])

    def test_not_found_for_now(self) -> None:
        """A notice that can't be read when its turn comes is tried again later."""
        self.store.note("one")
        self.hook.start()
        self.treq.tries[0].answer(500)
        self.store.read_error = StoreUnavailable()
        self.clock.advance(1)
        self.assertEqual(len(self.treq.tries), 1)
        self.store.read_error = None
        self.clock.advance(2)
        self.assertEqual(len(self.treq.tries), 2)
        self.treq.tries[1].answer(200)
        self.assertEqual(self.store.dropped, [1])

    def test_not_forgotten(self) -> None:
        """What was taken, but can't be forgotten yet, is not sent a second time; the log does not fill up."""
        self.store.note("one")
        self.store.note("one")
        self.store.drop_error = StoreUnavailable("the disk is full")
        self.treq.script = lambda one: 200
        with capturedLogs() as events:
            self.hook.start()
            for number in range(10):
                self.clock.advance(1)
                self.store.note(f"call {number}")
                self.hook.wake()
            self.assertEqual(self.treq.told.count(("one", 1)), 1)
            self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])
            self.store.drop_error = None
            self.clock.pump([1] * 20)
        self.assertEqual(sorted(self.store.dropped), list(range(1, 13)))
        self.assertEqual(len(self.treq.tries), 12)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn, LogLevel.info])

    def test_mistakes(self) -> None:
        """Whatever else a store raises is logged with its traceback, and nothing stands still for it."""
        self.store.read_error = KeyError("a mistake")
        self.hook.start()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.store.read_error = None
        for number in range(20):
            self.store.note(f"call {number}")
        self.store.drop_error = KeyError("another")
        self.treq.script = lambda one: 200
        self.clock.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 20)
        self.store.drop_error = None
        self.clock.advance(1)
        self.assertEqual(len(self.store.dropped), 20)

    def test_cancelled_by_somebody_else(self) -> None:
        """A store or client that cancels what we asked for ends no worker."""
        for number in range(20):
            self.store.note(f"call {number}")
        self.hook.start()
        for one in self.treq.open:
            one.fail(CancelledError())
        self.store.read_error = CancelledError()
        for one in self.treq.open:
            one.fail(CancelledError())
        self.hook.wake()
        self.store.read_error = None
        self.treq.script = lambda one: 200
        self.clock.pump([1] * 5)
        self.flushLoggedErrors(CancelledError)
        for one in self.treq.open:
            one.answer(200)
        self.assertEqual(self.store.kept, {})


class StopTests(ClockTests):
    """How it ends."""

    def test_idle(self) -> None:
        """With nothing under way it is over at once, and nothing is left on the clock."""
        self.hook.start()
        self.successResultOf(self.hook.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_started(self) -> None:
        """One that was never started stops, too, and does nothing when woken."""
        self.store.note("one")
        self.hook.wake()
        self.successResultOf(self.hook.stop())
        self.assertEqual(self.store.asked, [])

    def test_retries_end(self) -> None:
        """What waits for another try stays in the store, and is not tried any more."""
        self.store.note("one")
        self.treq.script = lambda one: 500
        self.hook.start()
        self.successResultOf(self.hook.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.hook.wake()
        self.assertEqual(len(self.treq.tries), 1)
        self.assertEqual(list(self.store.kept), [1])

    def test_answered_in_time(self) -> None:
        """A request under way has 2 s: answered, its notice is forgotten. The call's next one stays."""
        self.store.note("one")
        self.store.note("one")
        self.hook.start()
        stopping = self.hook.stop()
        self.clock.advance(1.9)
        self.assertNoResult(stopping)
        self.treq.tries[0].answer(200)
        self.successResultOf(stopping)
        self.assertEqual((self.store.dropped, len(self.treq.tries)), ([1], 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused_in_time(self) -> None:
        """Answered with something else, it stays."""
        self.store.note("one")
        self.hook.start()
        stopping = self.hook.stop()
        self.treq.tries[0].answer(500)
        self.successResultOf(stopping)
        self.assertEqual(list(self.store.kept), [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_answered(self) -> None:
        """After that the requests are cancelled, and their notices stay; those that wait for a turn never get one."""
        for number in range(20):
            self.store.note(f"call {number}")
        self.hook.start()
        with capturedLogs() as events:
            stopping = self.hook.stop()
            self.clock.advance(2)
            self.successResultOf(stopping)
        self.assertTrue(all(one.cancelled for one in self.treq.tries))
        self.assertEqual((len(self.treq.tries), len(self.store.kept), events), (8, 20, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_taken_but_endless(self) -> None:
        """A notice that was taken is forgotten also if the answer's body is cut off by the stop."""
        self.store.note("one")
        self.hook.start()
        self.clock.advance(5)
        stopping = self.hook.stop()
        self.clock.advance(1)
        response = self.treq.tries[0].answer(200, has_body=True)
        self.assertNoResult(stopping)
        self.clock.advance(1)
        self.successResultOf(stopping)
        self.assertEqual((response.lost, self.store.dropped), (True, [1]))

    def test_store_hangs(self) -> None:
        """A store that does not answer does not hold up the stop."""
        self.store.notices = lambda limit, after=0: Deferred()
        self.hook.start()
        stopping = self.hook.stop()
        self.assertNoResult(stopping)
        self.clock.advance(2)
        self.successResultOf(stopping)

    def test_read_while_stopping(self) -> None:
        """What the store gives while all stops is not sent."""
        self.store.note("one")
        found = self.successResultOf(self.store.notices(1))
        reading: Deferred[list[Notice]] = Deferred()
        answers: list[Any] = [succeed(found), reading]
        self.store.notices = lambda limit, after=0: answers.pop(0)
        self.hook.start()
        stopping = self.hook.stop()
        reading.callback(found)
        self.successResultOf(stopping)
        self.assertEqual((self.treq.tries, self.store.dropped), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_twice(self) -> None:
        """Stopping twice is no mistake: both fire."""
        self.store.note("one")
        self.hook.start()
        first, second = self.hook.stop(), self.hook.stop()
        self.clock.advance(2)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_restart(self) -> None:
        """A new one on the same store sends what the former one did not get rid of, under the same ids."""
        for number in range(10):
            self.store.note(f"call {number}")
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
        self.assertEqual(self.store.kept, {})
