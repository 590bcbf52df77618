"""The media clock on fake time: no drift, no lost call, no burst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.media.clock import MAX_FRAMES_PER_TICK, PERIOD_S, SLOTS, MediaClock
from rapida_twisted.media.lateness import Lateness

JUST_AFTER_S = PERIOD_S / 100


class Member:
    """A member of the clock that records its ticks."""

    def __init__(self, reactor: Clock, on_tick: Callable[[], None] = lambda: None) -> None:
        self.ticks: list[float] = []
        self._reactor = reactor
        self._on_tick = on_tick

    def tick(self) -> None:
        """Write down when."""
        self.ticks.append(self._reactor.seconds())
        self._on_tick()


class ClockTestCase(SynchronousTestCase):
    """A clock on fake time that is always a little after a deadline when nothing else is said."""

    def setUp(self) -> None:
        """Make a clock without members."""
        self.reactor = Clock()
        self.clock = MediaClock(self.reactor, now=self.reactor.seconds)

    def join(self, on_tick: Callable[[], None] = lambda: None) -> Member:
        """One more member."""
        member = Member(self.reactor, on_tick)
        self.clock.add(member)
        return member

    def periods(self, count: int) -> None:
        """Let several periods pass without a stall."""
        self.reactor.pump([PERIOD_S / SLOTS] * SLOTS * count)


class DeadlineTests(ClockTestCase):
    """When members are ticked."""

    def test_one_tick_each_period(self) -> None:
        """A member is ticked once each 20 ms, beginning one period after it joined."""
        member = self.join()
        self.reactor.advance(PERIOD_S - JUST_AFTER_S)
        self.assertEqual(member.ticks, [])
        self.reactor.advance(2 * JUST_AFTER_S)
        self.assertEqual(len(member.ticks), 1)
        self.reactor.pump([PERIOD_S] * 9)
        self.assertEqual(len(member.ticks), 10)

    def test_first_tick_within_a_period(self) -> None:
        """A new member's first tick comes within one period, at its slot's deadline."""
        self.join()
        self.reactor.advance(1.0 + JUST_AFTER_S)
        for _ in range(50):
            member = self.join()
            joined_s = self.reactor.seconds()
            self.reactor.pump([PERIOD_S / 40] * 41)
            self.assertLessEqual(member.ticks[0] - joined_s, PERIOD_S * 41 / 40 + 1e-9)
            self.reactor.advance(PERIOD_S * 0.37)

    def test_a_newcomer_is_not_late(self) -> None:
        """Joining an empty slot wakes the clock for that slot, not for the next deadline of the others."""
        self.join()
        self.reactor.advance(PERIOD_S + JUST_AFTER_S)
        self.clock.lateness.reset()
        self.join()
        self.reactor.pump([PERIOD_S / 40] * 400)
        self.assertLess(self.clock.lateness.max_s, PERIOD_S / 10)

    def test_no_drift_in_an_hour(self) -> None:
        """After an hour of jittery wake-ups the number of frames is exact, and each was near its own deadline."""
        member = self.join()
        jittery_ms = (13, 29, 18, 20, 25, 15, 30, 10, 22, 18)  # 200 ms together
        self.reactor.advance(JUST_AFTER_S)
        self.reactor.pump([ms / 1000 for ms in jittery_ms] * (3600 * 5))
        self.assertEqual(len(member.ticks), 3600 * 50)
        self.assertEqual(self.clock.forgiven, 0)
        self.assertLess(max(ticked_s - (n + 1) * PERIOD_S for n, ticked_s in enumerate(member.ticks)), 0.030)

    def test_members_are_spread(self) -> None:
        """Members share the period's slots evenly, so that they are not all ticked at once."""
        members = [self.join() for _ in range(4 * SLOTS)]
        self.reactor.pump([PERIOD_S / 40] * 80)
        at_once = Counter(round(member.ticks[1] * 1000, 1) for member in members)
        self.assertEqual(sorted(at_once.values()), [4] * SLOTS)

    def test_the_reactors_time_does_not_matter(self) -> None:
        """When the wall clock jumps, nothing happens: only the monotonic time counts."""
        monotonic = Clock()
        clock = MediaClock(self.reactor, now=monotonic.seconds)
        member = Member(monotonic)
        clock.add(member)
        for step in range(100):
            monotonic.advance(PERIOD_S)
            # Far more goes by on the wall clock: the timer fires each time, and finds nothing more to do.
            self.reactor.advance(PERIOD_S if step % 10 else 5.0)
        self.assertEqual(len(member.ticks), 100)


class LateTests(ClockTestCase):
    """What happens when the process was held up."""

    def test_late_ticks_are_made_up_for(self) -> None:
        """Three frames late: two frames in this period, two in the next, then one again."""
        member = self.join()
        self.reactor.advance(3 * PERIOD_S + JUST_AFTER_S)
        sent = [len(member.ticks)]
        for _ in range(3):
            self.reactor.advance(PERIOD_S)
            sent.append(len(member.ticks))
        self.assertEqual(sent, [2, 4, 5, 6])
        self.assertEqual(self.clock.forgiven, 0)

    def test_the_debt_waits_for_the_next_period(self) -> None:
        """The wake-ups between a slot's deadlines, for other slots, pay nothing of its debt."""
        members = [self.join() for _ in range(SLOTS)]
        self.reactor.advance(4 * PERIOD_S + JUST_AFTER_S)
        self.assertEqual([len(member.ticks) for member in members], [2] * SLOTS)
        for number in range(1, SLOTS):
            self.reactor.advance(PERIOD_S / SLOTS)
            ticks = [2] + [4] * number + [2] * (SLOTS - 1 - number)
            self.assertEqual([len(member.ticks) for member in members], ticks)

    def test_old_debt_is_forgiven(self) -> None:
        """Of a second's hold-up 100 ms are made up for; the rest is counted, for each member."""
        first, second = self.join(), self.join()
        self.reactor.advance(1.0 + JUST_AFTER_S)
        self.periods(10)
        self.assertEqual(self.clock.forgiven, 2 * 50 - 2 * 5)
        self.assertEqual((len(first.ticks), len(second.ticks)), (5 + 10, 5 + 10))

    @given(stalls_ms=st.lists(st.integers(1, 400), max_size=30), members=st.integers(1, 6))
    def test_any_stalls(self, stalls_ms: list[int], members: int) -> None:
        """Whatever the hold-ups, every period is either a frame or forgiven, and no period has three frames."""
        reactor = Clock()
        clock = MediaClock(reactor, now=reactor.seconds)
        joined = [Member(reactor) for _ in range(members)]
        for member in joined:
            clock.add(member)
        reactor.advance(JUST_AFTER_S)
        reactor.pump([ms / 1000 for ms in stalls_ms])
        reactor.pump([PERIOD_S / SLOTS] * SLOTS * 6)
        due = sum(periods_at(number, reactor.seconds()) for number in range(members))
        self.assertEqual(sum(len(member.ticks) for member in joined) + clock.forgiven, due)
        for number, member in enumerate(joined):
            periods = Counter(periods_at(number, ticked_s) for ticked_s in member.ticks)
            self.assertLessEqual(max(periods.values()), MAX_FRAMES_PER_TICK)


def periods_at(number: int, at_s: float) -> int:
    """How many deadlines are over for the n-th of several members that joined at 0, each in the next slot."""
    slot = number % SLOTS
    return int((at_s + (PERIOD_S * (1 - slot / SLOTS) if slot else 0.0)) / PERIOD_S + 1e-6)


class MembershipTests(ClockTestCase):
    """Joining and leaving, also in the middle of a tick."""

    def test_idle_when_empty(self) -> None:
        """The clock has no timer before the first member and after the last one, and starts anew after that."""
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        member = self.join()
        self.assertEqual(len(self.clock), 1)
        self.reactor.advance(PERIOD_S + JUST_AFTER_S)
        self.clock.remove(member)
        self.assertEqual(len(self.clock), 0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.reactor.advance(7.123)
        again = self.join()
        self.reactor.advance(JUST_AFTER_S)
        self.reactor.pump([PERIOD_S] * 3)
        self.assertEqual((len(member.ticks), len(again.ticks)), (1, 3))
        self.assertEqual(self.clock.forgiven, 0)

    def test_twice_is_once(self) -> None:
        """Joining twice ticks once; leaving twice, or without having joined, does nothing."""
        member = self.join()
        self.clock.add(member)
        self.reactor.advance(PERIOD_S + JUST_AFTER_S)
        self.assertEqual(len(member.ticks), 1)
        self.clock.remove(member)
        self.clock.remove(member)
        self.clock.remove(Member(self.reactor))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_leaving_in_the_own_tick(self) -> None:
        """A member that leaves in its own tick gets no further tick, not even to catch up."""
        member = self.join(lambda: self.clock.remove(member))
        self.reactor.advance(3 * PERIOD_S + JUST_AFTER_S)
        self.assertEqual(len(member.ticks), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_leaving_in_anothers_tick(self) -> None:
        """A member that another one removes in the same tick gets no further tick; the rest do."""
        first = self.join(lambda: self.clock.remove(second))
        others = [self.join() for _ in range(SLOTS - 1)]
        second = self.join()
        last = [self.join() for _ in range(SLOTS)]
        self.reactor.advance(PERIOD_S + JUST_AFTER_S)
        self.assertEqual((len(first.ticks), len(second.ticks)), (1, 0))
        self.assertTrue(all(member.ticks for member in (*others, *last)))

    def test_joining_in_a_tick(self) -> None:
        """A member that joins in another's tick is ticked from the next period on."""
        joined: list[Member] = []

        def on_tick() -> None:
            if not joined:
                joined.append(self.join())

        self.join(on_tick)
        self.reactor.advance(PERIOD_S + JUST_AFTER_S)
        self.assertEqual(joined[0].ticks, [])
        self.reactor.pump([PERIOD_S / SLOTS] * SLOTS)
        self.assertEqual(len(joined[0].ticks), 1)

    def test_the_last_leaves_as_another_joins(self) -> None:
        """A tick in which the last member leaves and a new one joins keeps the clock going."""
        successor = Member(self.reactor)

        def hand_over() -> None:
            self.clock.remove(member)
            self.clock.add(successor)

        member = self.join(hand_over)
        self.reactor.advance(PERIOD_S + JUST_AFTER_S)
        self.reactor.pump([PERIOD_S] * 3)
        self.assertEqual((len(member.ticks), len(successor.ticks)), (1, 3))

    def test_one_that_raises(self) -> None:
        """A member that raises is logged and leaves; the others, in its slot and in later ones, are ticked on."""
        broken = self.join(lambda: 1 // 0)  # type: ignore[arg-type]
        others = [self.join() for _ in range(2 * SLOTS)]
        self.reactor.advance(PERIOD_S + JUST_AFTER_S)
        self.periods(2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(broken.ticks), 1)
        self.assertEqual({len(member.ticks) for member in others}, {3})
        self.assertEqual(len(self.clock), 2 * SLOTS)


class LatenessTests(ClockTestCase):
    """The figures of how late frames left."""

    def test_each_frame_has_its_own_deadline(self) -> None:
        """Frames that make up for a late tick count with their own deadlines, each once."""
        self.join()
        self.reactor.advance(2 * PERIOD_S + 0.001)
        self.assertEqual(sum(self.clock.lateness.counts), 2)
        self.assertApproximates(self.clock.lateness.max_s, PERIOD_S + 0.001, 1e-9)
        self.assertApproximates(self.clock.lateness.percentile_ms(0.5), 1.5, 0.51)

    def test_percentiles(self) -> None:
        """A percentile is right to half a millisecond, the highest is the maximum itself."""
        lateness = Lateness()
        for late_ms in range(100):
            lateness.add(late_ms / 1000 + 0.0002)
        self.assertApproximates(lateness.percentile_ms(0.5), 49.5, 0.01)
        self.assertApproximates(lateness.percentile_ms(0.99), 98.5, 0.01)
        self.assertApproximates(lateness.percentile_ms(1.0), 99.2, 0.01)

    def test_beyond_the_last_step(self) -> None:
        """A frame that was later than the last step counts as late as the latest one, never as less late."""
        lateness = Lateness()
        lateness.add(7.0)
        self.assertEqual(lateness.percentile_ms(0.99), 7000.0)

    def test_early_is_not_late(self) -> None:
        """A wake-up a hair early counts as not late at all."""
        lateness = Lateness()
        lateness.add(-0.0001)
        lateness.add(-0.1)
        self.assertEqual(lateness.counts[0], 2)
        self.assertEqual(lateness.max_s, 0.0)

    def test_without_frames(self) -> None:
        """Without frames every percentile is 0; a reset forgets all."""
        lateness = Lateness()
        self.assertEqual(lateness.percentile_ms(0.99), 0.0)
        lateness.add(0.003)
        lateness.reset()
        self.assertEqual((sum(lateness.counts), lateness.max_s), (0, 0.0))
