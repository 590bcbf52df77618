"""Timers that do not care for the wall clock, on a reactor of their own."""

from __future__ import annotations

import time

from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.server.monotonic import use_monotonic_time


class SteadyTests(SynchronousTestCase):
    """One reactor."""

    def setUp(self) -> None:
        self.reactor = SelectReactor()
        self.fired: list[int] = []

    def later(self, seconds: float, number: int) -> None:
        """Have something happen."""
        self.reactor.callLater(seconds, self.fired.append, number)

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.reactor.runUntilCurrent()
            time.sleep(0.002)

    def test_in_time(self) -> None:
        """What was to happen before and what comes later happen in their order, and when they should."""
        for seconds, number in ((0.06, 3), (0.02, 1), (60.0, 5)):
            self.later(seconds, number)
        use_monotonic_time(self.reactor)
        for seconds, number in ((0.04, 2), (0.08, 4), (60.0, 6)):
            self.later(seconds, number)
        self.run_for(0.15)
        self.assertEqual(self.fired, [1, 2, 3, 4])
        left = sorted(call.getTime() - time.monotonic() for call in self.reactor.getDelayedCalls())
        self.assertTrue(all(59 < seconds < 60.1 for seconds in left), left)

    def test_clock(self) -> None:
        """It is the monotonic clock."""
        use_monotonic_time(self.reactor)
        self.assertLess(abs(self.reactor.seconds() - time.monotonic()), 1)
