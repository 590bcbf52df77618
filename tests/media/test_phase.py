"""The slot that a call chooses from the arrival of its packets."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.media.phase import FLOWING, LONG_GAP, LONGEST_PERIODS, Phase


class PhaseTests(SynchronousTestCase):
    """Without any clock."""

    def listened(self, slot: int, *came: tuple[int, ...], slots: int = 5) -> Phase:
        """A phase that has listened to periods in which something came in these slots, over and over."""
        phase = Phase(slots, slot)
        phase.measure()
        for period in range(LONGEST_PERIODS):
            for offset in range(1, slots + 1):
                read = (slot + offset) % slots
                # The very first read finds what was there before.
                phase.polled(read, read in came[period % len(came)] or (period == 0 and offset == 1), False)
            if phase.turn_over(0):
                return phase
        self.fail("it listens for ever")

    def test_steps(self) -> None:
        """A call that does not echo moves back to the slot of its packets; not if it is there, nor for one slot."""
        for slot in range(5):
            for came in range(5):
                steps = (slot - came) % 5
                self.assertEqual(self.listened(slot, (came,)).steps, steps if steps > 1 else 0)

    def test_astride(self) -> None:
        """Where packets come now in one slot, now in the next, the next is the best; also across the period's end."""
        for first in range(5):
            second = (first + 1) % 5
            for slot in range(5):
                steps = (slot - second) % 5
                self.assertEqual(self.listened(slot, (first,), (second,)).steps, steps if steps > 1 else 0)

    def test_half_packets(self) -> None:
        """Packets of 10 ms come in two slots of each period: it sits at the nearest one that has room behind it."""
        self.assertEqual(self.listened(2, (0, 2)).steps, 0)
        self.assertEqual(self.listened(1, (0, 2)).steps, 4)

    def test_nothing_came(self) -> None:
        """It stays where it is, and soon listens again."""
        phase = self.listened(3, ())
        self.assertEqual((phase.steps, phase.measuring), (0, False))
        self.assertTrue(phase.second())

    def test_rarer(self) -> None:
        """While nothing is to be done it listens after 2, 4, 8, up to 60 s."""
        phase, pauses = Phase(5, 2), []
        for _ in range(8):
            seconds = 1
            while not phase.second():
                seconds += 1
            pauses.append(seconds)
            while phase.measuring:
                phase.polled(2, True, False)
                phase.turn_over(0)
        self.assertEqual(pauses, [1, 2, 4, 8, 16, 32, 60, 60])

    def said(self, *ready: int, lefts: tuple[int, ...] = (0,)) -> int:
        """By how many slots a call moves that says what it hears.

        :param ready: for how many slots before its turn a frame was ready, turn by turn, over and over.
        :param lefts: how many whole frames its turns left.
        """
        phase = Phase(5, 2)
        phase.measure()
        for period in range(LONGEST_PERIODS):
            since = ready[period % len(ready)]
            for back in (4, 3, 2, 1, 0):
                phase.polled((2 - back) % 5, back == since, back <= since)
            if phase.turn_over(lefts[period % len(lefts)]):
                return phase.steps
        self.fail("it listens for ever")

    def test_ready(self) -> None:
        """It moves by as much as a frame was ready before each turn, and never so far that one would not have been."""
        for since in range(5):
            self.assertEqual(self.said(since), since)
        self.assertEqual(self.said(4, 1, 3), 1)
        self.assertEqual(self.said(4, 0, 3), 0)

    def test_left_over(self) -> None:
        """A frame that is left over by each turn costs a round; one that is left now and then, nothing."""
        self.assertEqual(self.said(4, lefts=(1,)), 5)
        self.assertEqual(self.said(4, lefts=(3,)), 5)
        self.assertEqual(self.said(4, lefts=(1, 0)), 4)

    def test_moving(self) -> None:
        """Each move is a step to an earlier slot, round the period's end."""
        phase = self.listened(1, (4,))
        self.assertEqual(phase.steps, 2)
        phase.move()
        phase.move()
        self.assertEqual((phase.slot, phase.steps), (4, 0))

    def test_expected(self) -> None:
        """After some turns with packets one is expected before the next; after one without, none."""
        phase = Phase(5, 0)
        for _ in range(FLOWING):
            self.assertTrue(phase.turn(True))
        self.assertFalse(phase.turn(False))
        self.assertTrue(phase.turn(False))
        for _ in range(FLOWING - 1):
            self.assertTrue(phase.turn(True))
        self.assertTrue(phase.turn(False))

    def test_after_a_gap(self) -> None:
        """Packets that come again after a long gap may have another phase: it listens; after a short one, not."""
        for gap, listens in ((LONG_GAP - 1, False), (LONG_GAP, True)):
            phase = self.listened(0, (0,))
            phase.second()
            phase.stop()
            phase.second()
            phase.turn(True)
            for _ in range(gap):
                phase.turn(False)
            phase.turn(True)
            self.assertEqual(phase.measuring, listens)

    def test_waiting(self) -> None:
        """A call that waited for its packets sits a slot later, drops its plans, and listens less often."""
        phase = self.listened(1, (0,))
        phase.wait()
        self.assertEqual((phase.slot, phase.steps, phase.measuring), (2, 0, False))
        self.assertEqual([phase.second() for _ in range(8)], [False] * 7 + [True])
