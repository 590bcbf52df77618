"""Limits of outbound calls: concurrency, rate, queue."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.outbound.call_limiter import CallLimiter
from rapida_twisted.errors import TooManyCalls


class CallLimiterTests(SynchronousTestCase):
    """The limiter, on a fake clock."""

    def setUp(self) -> None:
        """A clock."""
        self.clock = Clock()
        self.clock.advance(1000)

    def limiter(self, calls: int = 100, rate: float = 1000.0, queue: int = 100) -> CallLimiter:
        """A limiter with wide limits by default."""
        return CallLimiter(calls=calls, rate=rate, queue=queue, reactor=self.clock)

    def admitted(self, admissions: list[Deferred[None]]) -> list[bool]:
        """Whether each call is admitted."""
        return [admission.called for admission in admissions]

    def test_at_once(self) -> None:
        """Up to the maximum calls are active; the others follow in order as places become free."""
        limiter = self.limiter(calls=2)
        admissions = [limiter.acquire() for _ in range(4)]
        self.assertEqual(self.admitted(admissions), [True, True, False, False])
        self.assertEqual((limiter.active, limiter.waiting), (2, 2))
        limiter.release()
        self.assertEqual(self.admitted(admissions), [True, True, True, False])
        limiter.release()
        limiter.release()
        self.assertEqual((limiter.active, limiter.waiting), (1, 0))

    def test_queue(self) -> None:
        """The queue is bounded; a cancelled admission leaves it."""
        limiter = self.limiter(calls=1, queue=2)
        admissions = [limiter.acquire() for _ in range(3)]
        error = self.assertRaises(TooManyCalls, limiter.acquire)
        self.assertIn("1 outbound calls are under way, and 2 wait", str(error))
        admissions[1].cancel()
        self.failureResultOf(admissions[1], CancelledError)
        last = limiter.acquire()
        limiter.release()
        self.assertEqual((admissions[2].called, last.called), (True, False))

    def test_rate(self) -> None:
        """No more calls than the rate are admitted within any second; the first ones without a delay."""
        limiter = self.limiter(rate=3)
        admissions = [limiter.acquire() for _ in range(7)]
        self.assertEqual(sum(self.admitted(admissions)), 3)
        self.clock.advance(0.9)
        self.assertEqual(sum(self.admitted(admissions)), 3)
        self.clock.advance(0.1)
        self.assertEqual(sum(self.admitted(admissions)), 6)
        self.clock.advance(1)
        self.assertEqual(sum(self.admitted(admissions)), 7)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow_rate(self) -> None:
        """A rate below one per second, and a fractional rate."""
        limiter = self.limiter(rate=0.5)
        admissions = [limiter.acquire() for _ in range(3)]
        for seconds, active in [(0, 1), (1.9, 1), (0.1, 2), (1.9, 2), (0.1, 3)]:
            self.clock.advance(seconds)
            self.assertEqual(sum(self.admitted(admissions)), active)
        limiter = self.limiter(rate=2.5)
        admissions = [limiter.acquire() for _ in range(20)]
        for _ in range(40):
            self.clock.advance(0.1)
        self.assertEqual(sum(self.admitted(admissions)), 12)

    def test_newcomer_waits_behind_others(self) -> None:
        """A new call queues behind the waiting ones."""
        limiter = self.limiter(rate=1)
        first, second = limiter.acquire(), limiter.acquire()
        self.clock.advance(0.5)
        third = limiter.acquire()
        self.clock.advance(0.5)
        self.assertEqual(self.admitted([first, second, third]), [True, True, False])

    def test_clock_set_back(self) -> None:
        """A clock that is set back by an hour does not delay calls by an hour."""
        limiter = self.limiter(rate=1)
        limiter.acquire()
        self.clock.rightNow -= 3600
        admission = limiter.acquire()
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertTrue(admission.called)

    def test_occupied(self) -> None:
        """Calls of an earlier process occupy places, even beyond the maximum."""
        limiter = self.limiter(calls=2)
        for _ in range(3):
            limiter.occupy()
        admission = limiter.acquire()
        limiter.release()
        self.assertFalse(admission.called)
        limiter.release()
        self.assertTrue(admission.called)

    def test_closed(self) -> None:
        """A closed limiter admits no call, and leaves no timer."""
        limiter = self.limiter(rate=1)
        admissions = [limiter.acquire() for _ in range(2)]
        limiter.close()
        self.clock.advance(10)
        limiter.release()
        self.assertEqual(self.admitted(admissions), [True, False])
        self.assertEqual(self.clock.getDelayedCalls(), [])
