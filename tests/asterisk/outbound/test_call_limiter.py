"""How many outbound calls at once, how many a second, how many wait."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.outbound.call_limiter import CallLimiter
from rapida_twisted.errors import TooManyCalls


class AdmissionTests(SynchronousTestCase):
    """The door."""

    def setUp(self) -> None:
        """A clock."""
        self.clock = Clock()
        self.clock.advance(1000)

    def door(self, calls: int = 100, rate: float = 1000.0, queue: int = 100) -> CallLimiter:
        """A door that is wide open but for what is said."""
        return CallLimiter(calls=calls, rate=rate, queue=queue, reactor=self.clock)

    def entered(self, turns: list[Deferred[None]]) -> list[bool]:
        """Who has come in."""
        return [turn.called for turn in turns]

    def test_at_once(self) -> None:
        """So many are within at once; the others come in in their order as others go out."""
        door = self.door(calls=2)
        turns = [door.enter() for _ in range(4)]
        self.assertEqual(self.entered(turns), [True, True, False, False])
        self.assertEqual((door.within, door.waiting), (2, 2))
        door.leave()
        self.assertEqual(self.entered(turns), [True, True, True, False])
        door.leave()
        door.leave()
        self.assertEqual((door.within, door.waiting), (1, 0))

    def test_queue(self) -> None:
        """No more wait than may; whoever leaves the queue makes room in it."""
        door = self.door(calls=1, queue=2)
        turns = [door.enter() for _ in range(3)]
        error = self.assertRaises(TooManyCalls, door.enter)
        self.assertIn("1 outbound calls are under way, and 2 wait", str(error))
        turns[1].cancel()
        self.failureResultOf(turns[1], CancelledError)
        last = door.enter()
        door.leave()
        self.assertEqual((turns[2].called, last.called), (True, False))

    def test_rate(self) -> None:
        """No more than so many come in within any second, early ones not spread without need."""
        door = self.door(rate=3)
        turns = [door.enter() for _ in range(7)]
        self.assertEqual(sum(self.entered(turns)), 3)
        self.clock.advance(0.9)
        self.assertEqual(sum(self.entered(turns)), 3)
        self.clock.advance(0.1)
        self.assertEqual(sum(self.entered(turns)), 6)
        self.clock.advance(1)
        self.assertEqual(sum(self.entered(turns)), 7)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow_rate(self) -> None:
        """A rate below one a second, and one that is no whole number."""
        door = self.door(rate=0.5)
        turns = [door.enter() for _ in range(3)]
        for seconds, within in [(0, 1), (1.9, 1), (0.1, 2), (1.9, 2), (0.1, 3)]:
            self.clock.advance(seconds)
            self.assertEqual(sum(self.entered(turns)), within)
        door = self.door(rate=2.5)
        turns = [door.enter() for _ in range(20)]
        for _ in range(40):
            self.clock.advance(0.1)
        self.assertEqual(sum(self.entered(turns)), 12)

    def test_newcomer_waits_behind_others(self) -> None:
        """Who comes while others wait waits too, though there be room a moment later."""
        door = self.door(rate=1)
        first, second = door.enter(), door.enter()
        self.clock.advance(0.5)
        third = door.enter()
        self.clock.advance(0.5)
        self.assertEqual(self.entered([first, second, third]), [True, True, False])

    def test_clock_set_back(self) -> None:
        """A clock that was set back by an hour delays nobody for an hour."""
        door = self.door(rate=1)
        door.enter()
        self.clock.rightNow -= 3600
        turn = door.enter()
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertTrue(turn.called)

    def test_occupied(self) -> None:
        """Calls of an earlier process take their places, more than there are if need be."""
        door = self.door(calls=2)
        for _ in range(3):
            door.occupy()
        turn = door.enter()
        door.leave()
        self.assertFalse(turn.called)
        door.leave()
        self.assertTrue(turn.called)

    def test_closed(self) -> None:
        """Nobody comes in any more, and nothing is left to run."""
        door = self.door(rate=1)
        turns = [door.enter() for _ in range(2)]
        door.close()
        self.clock.advance(10)
        door.leave()
        self.assertEqual(self.entered(turns), [True, False])
        self.assertEqual(self.clock.getDelayedCalls(), [])
