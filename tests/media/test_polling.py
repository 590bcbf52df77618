"""The clock reads connections: no packet is lost or duplicated, and packets soon wait only briefly."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.media.clock import PERIOD_S, SLOTS
from tests.media.polled import STEP_S, EchoCall, Room

SLOT_S = PERIOD_S / SLOTS


class PollingTestCase(SynchronousTestCase):
    """What holds for each call, whatever happens."""

    def assert_whole(self, call: EchoCall) -> None:
        """All that came was heard once, in order, and said once, in order; one frame left at a time."""
        self.assertEqual(call.heard, list(range(len(call.heard))))
        self.assertEqual(call.said, call.heard[: len(call.said)])
        gaps = {
            round((later - former) * 1000, 1) for former, later in zip(call.ticks_s, call.ticks_s[1:], strict=False)
        }
        self.assertLessEqual(gaps, {16.0, 16.5, 15.5, 19.5, 20.0, 20.5, 23.5, 24.0, 24.5}, "gaps between ticks (ms)")
        lasted_s = call.ticks_s[-1] - call.ticks_s[0]
        self.assertApproximates(len(call.ticks_s), lasted_s / PERIOD_S, 2 + lasted_s)


class PhaseTests(PollingTestCase):
    """Where calls come to sit."""

    def test_any_phase(self) -> None:
        """Packets of 20 ms, whenever they come: after some seconds none waits for two slots, and none is silence."""
        room = Room()
        calls = [room.call(phase_s=0.1 + 0.0005 * number) for number in range(40)]
        room.run(6)
        before = [(len(call.delays_s), call.silences) for call in calls]
        room.run(3)
        for call, (said, silences) in zip(calls, before, strict=True):
            self.assert_whole(call)
            self.assertLess(max(call.delays_s[said:]), 2 * SLOT_S)
            self.assertEqual(call.silences, silences)

    def test_other_lengths(self) -> None:
        """Packets of 10, 30 and 60 ms: they are said whole, and no frame waits for longer than they make it."""
        for packet_ms, longest_s in ((10, 0.020), (30, 0.050), (60, 0.080)):
            with self.subTest(packet_ms):
                room = Room()
                calls = [room.call(packet_ms, 0.1 + 0.0015 * number) for number in range(14)]
                room.run(8)
                said = [len(call.delays_s) for call in calls]
                room.run(3)
                for call, before in zip(calls, said, strict=True):
                    self.assert_whole(call)
                    self.assertLess(max(call.delays_s[before:]), longest_s + 2 * STEP_S)

    def test_jitter(self) -> None:
        """With packets that are late by up to 8 ms at random, all is said, and little of it is late for long."""
        room = Room()
        calls = [room.call(phase_s=0.1 + 0.002 * number, jitter_s=0.008, seed=number) for number in range(10)]
        room.run(20)
        for call in calls:
            self.assert_whole(call)
            self.assertLess(sorted(call.delays_s[500:])[-50], PERIOD_S + 2 * SLOT_S)

    def test_drift(self) -> None:
        """Clocks that are 200 ppm fast or slow: the calls follow them, and in a minute lose or wait for nothing."""
        room = Room()
        fast, slow = room.call(ppm=200, phase_s=0.1), room.call(ppm=-200, phase_s=0.1)
        room.run(5)
        silences = slow.silences
        room.run(60)
        for call in (fast, slow):
            self.assert_whole(call)
            self.assertLess(max(call.delays_s[300:]), PERIOD_S + 2 * SLOT_S)
        self.assertEqual(slow.silences, silences)

    def test_pause(self) -> None:
        """A caller silent for a second, whose packets then arrive at another time, is soon read in time again."""
        room = Room()
        call = room.call(phase_s=0.1)
        room.run(8)
        call.reading.silent_from_s, call.reading.silent_until_s = 8.0, 9.0
        call.reading._next_s += 0.011
        room.run(6)
        self.assert_whole(call)
        self.assertLess(max(call.delays_s[-100:]), 2 * SLOT_S)

    def test_a_frame_that_is_left_over(self) -> None:
        """One packet that is far too late leaves a silence, and with it a frame that waits: not for ever."""
        room = Room()
        calls = [room.call(phase_s=0.1 + 0.002 * number) for number in range(10)]
        room.run(6)
        for call in calls:
            call.reading.late_once_s = 0.015
        room.run(0.5)
        self.assertGreater(min(max(call.delays_s[-10:]) for call in calls), PERIOD_S)
        room.run(30)
        for call in calls:
            self.assert_whole(call)
            self.assertLess(max(call.delays_s[-100:]), 3 * SLOT_S)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32), st.lists(st.integers(1, 80), min_size=1, max_size=20))
    def test_held_up(self, seed: int, hold_ups_ms: list[int]) -> None:
        """However the process is held up: all in order, and never more than two frames at once."""
        choose = random.Random(seed)
        room = Room()
        calls = [room.call(20, choose.random() * 0.02, jitter_s=0.004, seed=number) for number in range(8)]
        room.run(0.3)
        for ms in hold_ups_ms:
            room.hold_up(ms / 1000)
            room.run(choose.random() * 0.1)
        for call in calls:
            self.assertEqual(call.heard, list(range(len(call.heard))))
            self.assertEqual(call.said, call.heard[: len(call.said)])
            for at, tick_s in enumerate(call.ticks_s[2:]):
                self.assertGreater(tick_s, call.ticks_s[at], "three frames at once")

    def test_deadlines_of_who_talks(self) -> None:
        """Speech leaves on time, whatever arrives from the caller."""
        room = Room()
        call = room.call(phase_s=0.1, talks=True, jitter_s=0.015)
        room.run(10)
        gaps = [later - former for former, later in zip(call.ticks_s, call.ticks_s[1:], strict=False)]
        self.assertLess(max(gaps), PERIOD_S + 2 * STEP_S)

    def test_measuring_grows_rare(self) -> None:
        """Where nothing changes, a call is soon read no more than once a period, but for a moment each minute."""
        room = Room()
        call = room.call(phase_s=0.1)
        room.run(130)
        polls = call.reading.polls
        room.run(60)
        self.assertLess(call.reading.polls - polls, 60 * 50 + 2 * SLOTS * 10)


class ChangeoverTests(PollingTestCase):
    """From one way of reading to the other, and back."""

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32), st.lists(st.integers(1, 400), min_size=1, max_size=12))
    def test_in_the_middle_of_calls(self, seed: int, changes: list[int]) -> None:
        """At any moments, with calls of all kinds: nothing is lost, doubled or misplaced."""
        choose = random.Random(seed)
        room = Room(polling=choose.random() < 0.5)
        for number in range(6):
            room.call(
                choose.choice((10, 20, 30, 60)), choose.random() * 0.02, ppm=choose.uniform(-300, 300),
                jitter_s=choose.choice((0, 0.003, 0.025)), seed=number,
            )  # fmt: skip
        for pause in changes:
            room.run(pause * STEP_S)
            room.clock.set_polling(not room.clock.polling)
        room.run(0.1)
        room.clock.set_polling(False)
        for call in room.calls:
            self.assertEqual(call.heard, list(range(call.reading.sent)))
            self.assertEqual(call.said, call.heard[: len(call.said)])
            self.assertFalse(call.reading.polled)

    def test_leaving(self) -> None:
        """The reactor reads a call again at once when it leaves the clock."""
        room = Room()
        call = room.call(phase_s=0.003)
        room.run(0.5)
        room.clock.remove(call)
        self.assertFalse(call.reading.polled)
        self.assertEqual(call.heard, list(range(call.reading.sent)))
        self.assertEqual((len(room.clock), room.reactor.getDelayedCalls()), (0, []))

    def test_leaving_while_it_is_read(self) -> None:
        """What is read may end the call: it gets no tick any more, and others go on."""
        room = Room()
        call, other = room.call(phase_s=0.1), room.call(phase_s=0.1)
        room.run(1.0)
        received = call.reading.received

        def ends(number: int, came_s: float) -> None:
            received(number, came_s)
            room.clock.remove(call)

        call.reading.received = ends
        ticks = len(call.ticks_s)
        room.run(1.0)
        self.assertLessEqual(len(call.ticks_s) - ticks, 1)
        self.assertEqual(len(room.clock), 1)
        self.assert_whole(other)
        self.flushLoggedErrors()

    def test_not_every_line_can_be_polled(self) -> None:
        """A call whose connection only the reactor can read stays as it is."""
        room = Room(polling=False)
        call = room.call(phase_s=0.1)
        call.reading.polled = False
        room.clock.remove(call)
        call_without = EchoCall(call.reading, room.reactor)
        call_without.reading = None  # type: ignore[assignment]
        room.clock.add(call_without)
        room.clock.set_polling(True)
        room.reactor.pump([STEP_S] * 100)
        self.assertEqual((room.clock.polled, len(call_without.ticks_s)), (0, 2))

    def test_figures(self) -> None:
        """How many are polled, where they sit, how often they moved, and how long it took."""
        room = Room()
        for number in range(10):
            room.call(phase_s=0.1 + 0.002 * number)
        room.run(5)
        clock = room.clock
        self.assertEqual((clock.polled, sum(clock.calls_of_slots), len(clock.calls_of_slots)), (10, 10, SLOTS))
        self.assertGreater(clock.moves, 0)
        # On fake time a tick takes none.
        self.assertEqual(clock.share, 0.0)
        clock.busy_s = 0.5
        self.assertApproximates(clock.share, 0.1, 0.001)
        clock.reset_figures()
        self.assertEqual((clock.moves, clock.late_ticks, clock.busy_s), (0, 0, 0.0))
