"""Collecting digits, on fake time."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import CallEnded
from rapida_twisted.media.digits import KEPT, Digits


class DigitsTests(SynchronousTestCase):
    """One call's digits."""

    def setUp(self) -> None:
        """Nothing was pressed yet."""
        self.reactor = Clock()
        self.digits = Digits(self.reactor)

    def press(self, keys: str) -> None:
        """The caller presses one key after the other."""
        for key in keys:
            self.digits.received(key)

    def collect(self, count: int, timeout_s: float = 5.0, terminator: str = "#") -> Deferred[str]:
        """Wait for digits."""
        return self.digits.collect(count, timeout_s, terminator)

    def test_as_many_as_wanted(self) -> None:
        """The Deferred fires with the last digit wanted, no timer stays, and what follows is for the next."""
        collected = self.collect(4)
        self.press("123")
        self.assertNoResult(collected)
        self.press("456")
        self.assertEqual(self.successResultOf(collected), "1234")
        self.assertEqual(self.reactor.getDelayedCalls(), [])
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
        self.assertEqual(self.reactor.getDelayedCalls(), [])
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
        self.assertEqual(self.reactor.getDelayedCalls(), [])
