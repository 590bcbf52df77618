"""Collecting digits, on fake time."""

from __future__ import annotations

import re

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import CallEnded
from rapida_twisted.media.digits import KEPT, Digits
from rapida_twisted.media.requests import Requests


class DigitsTestCase(SynchronousTestCase):
    """One call's digits."""

    def setUp(self) -> None:
        """Nothing was pressed yet."""
        self.reactor = Clock()
        self.digits = Digits(self.reactor, Requests(self.reactor, lambda failure: None))

    def press(self, keys: str) -> None:
        """The caller presses one key after the other."""
        for key in keys:
            self.digits.received(key)

    def assert_no_timer(self) -> None:
        """No timer is left after this turn of the reactor."""
        self.reactor.advance(0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def collect(self, count: int, timeout_s: float = 5.0, terminator: str = "#") -> Deferred[str]:
        """Wait for digits."""
        return self.digits.collect(count, timeout_s, terminator)


class DigitsTests(DigitsTestCase):
    """Collecting a number of digits."""

    def test_as_many_as_wanted(self) -> None:
        """The Deferred fires with the last digit wanted, no timer stays, and what follows is for the next."""
        collected = self.collect(4)
        self.press("123")
        self.assertNoResult(collected)
        self.press("456")
        self.assertEqual(self.successResultOf(collected), "1234")
        self.assert_no_timer()
        self.assertEqual(self.successResultOf(self.collect(2)), "56")

    def test_terminator(self) -> None:
        """The terminator ends the digits early and is not one of them."""
        collected = self.collect(10)
        self.press("42#7")
        self.assertEqual(self.successResultOf(collected), "42")
        self.assertEqual(self.successResultOf(self.collect(1)), "7")

    def test_terminator_alone(self) -> None:
        """The terminator alone gives no digits, at once."""
        collected = self.collect(10)
        self.press("#")
        self.assertEqual(self.successResultOf(collected), "")

    def test_without_a_terminator(self) -> None:
        """With no terminator every key counts."""
        collected = self.collect(3, terminator="")
        self.press("*#A")
        self.assertEqual(self.successResultOf(collected), "*#A")

    def test_timeout(self) -> None:
        """At the timeout, the digits so far are the result, and the wait is over."""
        collected = self.collect(4, timeout_s=5.0)
        self.press("12")
        self.reactor.advance(4.9)
        self.assertNoResult(collected)
        self.reactor.advance(0.2)
        self.assertEqual(self.successResultOf(collected), "12")
        self.press("3")
        self.assertEqual(self.successResultOf(self.collect(1)), "3")

    def test_pressed_before(self) -> None:
        """Digits from before collect() count first."""
        self.press("12")
        collected = self.collect(3)
        self.assertNoResult(collected)
        self.press("3")
        self.assertEqual(self.successResultOf(collected), "123")

    def test_pressed_before_with_terminator(self) -> None:
        """A terminator that came before ends the digits too; what came after it is kept."""
        self.press("12#3")
        self.assertEqual(self.successResultOf(self.collect(4)), "12")
        self.assertEqual(self.successResultOf(self.collect(1)), "3")

    def test_uncollected_digits_are_bounded(self) -> None:
        """Of digits that are not collected, the newest are kept."""
        self.press("0" * KEPT + "123")
        self.assertEqual(self.successResultOf(self.collect(KEPT))[-3:], "123")
        self.assertNoResult(self.collect(1))

    def test_asking_again_from_the_callback(self) -> None:
        """A callback may collect again at once."""
        results: list[str] = []

        async def menu() -> None:
            results.append(await self.collect(1))
            results.append(await self.collect(2))

        done = Deferred.fromCoroutine(menu())
        self.press("123")
        self.successResultOf(done)
        self.assertEqual(results, ["1", "23"])

    def test_cancelled(self) -> None:
        """A cancelled wait leaves no timer, and the next one can begin."""
        collected = self.collect(4)
        collected.cancel()
        self.failureResultOf(collected, CancelledError)
        self.assert_no_timer()
        again = self.collect(1)
        self.press("9")
        self.assertEqual(self.successResultOf(again), "9")

    def test_two_at_once(self) -> None:
        """Only one collect() may wait at a time; a second one does not disturb it."""
        collected = self.collect(1)
        self.assertRaises(RuntimeError, self.collect, 1)
        self.press("5")
        self.assertEqual(self.successResultOf(collected), "5")

    def test_none_wanted(self) -> None:
        """A count of zero is an error at once, and does not count as waiting."""
        self.assertRaises(ValueError, self.collect, 0)
        self.press("1")
        self.assertEqual(self.successResultOf(self.collect(1)), "1")

    def test_end_of_the_call(self) -> None:
        """The end of the call fails a waiting collect() and later ones with the same error."""
        collected = self.collect(4)
        self.press("12")
        self.digits.close(CallEnded("it is over"))
        self.failureResultOf(collected, CallEnded)
        self.failureResultOf(self.collect(1), CallEnded)
        self.assert_no_timer()


class PatternTests(DigitsTestCase):
    """Digits that end with a match, and that are reported one by one."""

    def test_pattern(self) -> None:
        """The first match of all digits so far is the result; the terminator and the timeout hold as ever."""
        for keys, expected in (("0", "0"), ("42", "42"), ("1#", "1")):
            collected = self.digits.collect(None, 5.0, "#", "0|[1-9][0-9]")
            self.press(keys)
            self.assertEqual(self.successResultOf(collected), expected)
        collected = self.digits.collect(None, 5.0, "#", "0|[1-9][0-9]")
        self.press("7")
        self.reactor.advance(5.1)
        self.assertEqual(self.successResultOf(collected), "7")
        self.assertRaises(ValueError, self.digits.collect, None, 5.0, "#")
        self.assertRaises(re.error, self.digits.collect, None, 5.0, "#", "(")

    def test_pattern_and_count(self) -> None:
        """Whichever comes first."""
        self.press("77712")
        self.assertEqual(self.successResultOf(self.digits.collect(3, 5.0, "#", "1.")), "777")
        self.assertEqual(self.successResultOf(self.digits.collect(3, 5.0, "#", "1.")), "12")

    def test_running(self) -> None:
        """The callback gets all digits so far, those from before too, and not the terminator."""
        progress: list[str] = []
        self.press("12")
        collected = self.digits.collect(9, 5.0, "#", None, progress.append)
        self.press("3#")
        self.assertEqual(progress, ["1", "12", "123"])
        self.assertEqual(self.successResultOf(collected), "123")

    def test_callback_raises(self) -> None:
        """Its error fails the Deferred, whenever the digit came."""
        for early in (True, False):
            self.press("1" * early)
            collected = self.digits.collect(2, 5.0, "#", None, lambda digits: 1 // 0)
            self.press("1" * (not early))
            self.failureResultOf(collected, ZeroDivisionError)
        self.assert_no_timer()

    def test_callback_cancels(self) -> None:
        """Code in the callback may cancel the wait."""
        collected = self.digits.collect(1, 5.0, "#", None, lambda digits: collected.cancel())
        self.press("1")
        self.failureResultOf(collected, CancelledError)
