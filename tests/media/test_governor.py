"""When the governor chooses polling, and when events."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.media.clock import MediaClock
from rapida_twisted.media.governor import BUSY, IDLE, MIN_CALLS_TO_POLL, SECONDS, Governor
from tests.media.fakes import KeptLog


class Member:
    """A member of the clock."""

    def tick(self) -> None:
        """Nothing."""


class GovernorTests(SynchronousTestCase):
    """On fake time, with a load that the test sets."""

    def govern(self, mode: str = "auto", calls: int = MIN_CALLS_TO_POLL) -> None:
        """A governor at work."""
        self.log = KeptLog(self)
        self.reactor = Clock()
        self.cpu_s = 0.0
        self.clock = MediaClock(self.reactor, now=self.reactor.seconds)
        self.members = [Member() for _ in range(calls)]
        for member in self.members:
            self.clock.add(member)
        self.governor = Governor(self.clock, mode, self.reactor, cpu_s=lambda: self.cpu_s, now=self.reactor.seconds)
        self.governor.start()

    def seconds(self, count: int, load: float) -> None:
        """Several seconds with this load."""
        for _ in range(count):
            self.cpu_s += load
            self.reactor.pump([0.02] * 50)

    def test_busy_and_idle(self) -> None:
        """It changes over after two busy seconds in a row, and back after two idle ones; the log tells."""
        self.govern()
        self.seconds(SECONDS - 1, BUSY + 0.01)
        self.seconds(1, BUSY - 0.01)
        self.seconds(SECONDS - 1, BUSY + 0.01)
        self.assertFalse(self.clock.polling)
        self.seconds(1, BUSY + 0.01)
        self.assertTrue(self.clock.polling)
        self.seconds(10, (BUSY + IDLE) / 2)
        self.assertTrue(self.clock.polling)
        self.seconds(SECONDS, IDLE - 0.01)
        self.assertFalse(self.clock.polling)
        self.assertEqual((self.governor.changes, len(self.log.at(LogLevel.info))), (2, 2))
        self.assertApproximates(self.governor.load, IDLE - 0.01, 0.001)

    def test_few_calls(self) -> None:
        """With few calls it is something else that keeps the process busy."""
        self.govern(calls=MIN_CALLS_TO_POLL - 1)
        self.seconds(10, 1.0)
        self.assertFalse(self.clock.polling)

    def test_last_call(self) -> None:
        """When the last call is over it is the reactor's again, however busy the process is."""
        self.govern()
        self.seconds(SECONDS, 1.0)
        self.assertTrue(self.clock.polling)
        for member in self.members:
            self.clock.remove(member)
        self.seconds(SECONDS, 1.0)
        self.assertFalse(self.clock.polling)

    def test_forced(self) -> None:
        """A setting forces either way, from the start, whatever the load."""
        for mode, polling in (("polling", True), ("events", False)):
            self.govern(mode)
            for load in (0.0, 1.0):
                self.seconds(5, load)
                self.assertEqual(self.clock.polling, polling)

    def test_stop(self) -> None:
        """A governor that was stopped leaves no timer."""
        self.govern(calls=0)
        self.governor.stop()
        self.governor.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
