"""Clock drift: an hour of live audio on simulated time, and audio that is not live."""

from __future__ import annotations

import random
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, count, islice

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio.drift import TOO_LONG_S, WINDOW, DriftGuard, Step, is_silent
from rapida_twisted.audio.formats import ALAW, SLIN, ULAW, AudioFormat
from rapida_twisted.audio.g711 import slin_to_alaw, slin_to_ulaw

PERIOD_S = 0.020
HOUR = 180_000
LOUD = array("h", [3000]).tobytes() * 160
QUIET = array("h", [60]).tobytes() * 160


class Frame(bytes):
    """A frame that knows its number."""

    number: int

    @classmethod
    def of(cls, number: int, payload: bytes) -> Frame:
        """One."""
        made = cls(payload)
        made.number = number
        return made


def talk(speech: int, silence: int) -> Iterator[bytes]:
    """Frames of speech and silence in turn, for ever."""
    while True:
        yield from (LOUD for _ in range(speech))
        yield from (QUIET for _ in range(silence))


def sent(
    payloads: Iterable[bytes], ppm: float, jitter_s: float = 0.0, packet: int = 1, seed: int = 0, start_s: float = 0.0
) -> Iterator[tuple[float, list[Frame]]]:
    """Packets with arrival times, from a clock with an error in ppm and with jitter."""
    rng = random.Random(seed)
    before_s = 0.0
    numbered = (Frame.of(number, payload) for number, payload in enumerate(payloads))
    for number in count():
        frames = list(islice(numbered, packet))
        if not frames:
            return
        due_s = start_s + number * packet * PERIOD_S / (1 + ppm / 1e6)
        # A stream keeps its order.
        before_s = max(before_s, due_s + rng.uniform(0, jitter_s))
        yield before_s, frames


class Taker:
    """Takes a frame each period, as a call does."""

    def __init__(self) -> None:
        self.guard = DriftGuard(SLIN)
        self.waiting: deque[Frame] = deque()
        self.heard: list[Frame | None] = []
        self.waits_s: list[float] = []
        """Of each period: how long what is at the front had waited."""
        self.most = 0
        self._arrived: deque[float] = deque()

    def run(self, packets: Iterator[tuple[float, list[Frame]]], periods: int, first_s: float = 0.011) -> Taker:
        """Take frames for several periods."""
        coming = next(packets, None)
        for number in range(periods):
            now_s = first_s + number * PERIOD_S
            while coming is not None and coming[0] <= now_s:
                self.waiting.extend(coming[1])
                self._arrived.extend([coming[0]] * len(coming[1]))
                self.guard.arrived(len(coming[1]), coming[0])
                coming = next(packets, None)
            self.most = max(self.most, len(self.waiting))
            self.heard.append(self._take(now_s))
        return self

    def _take(self, now_s: float) -> Frame | None:
        while self.waiting:
            frame = self.waiting[0]
            step = self.guard.due(frame, now_s)
            if step is not Step.REPEAT:
                self.waiting.popleft()
                arrived_s = self._arrived.popleft()
            if step is Step.SKIP:
                continue
            self.waits_s.append(now_s - (arrived_s if step is Step.TAKE else self._arrived[0]))
            return frame
        self.guard.empty()
        return None

    def least_wait_ms(self, periods: slice) -> float:
        """The least wait within these periods."""
        return min(self.waits_s[periods]) * 1000


class DriftTests(SynchronousTestCase):
    """An hour, or a part of one."""

    def assert_nothing_lost(self, taker: Taker, loud_too: bool = False) -> None:
        """What was heard is what was sent in its order, but for silent frames, which are counted."""
        numbers = [frame.number for frame in taker.heard if frame is not None]
        self.assertEqual(numbers, sorted(numbers))
        missing = set(range(numbers[0], numbers[-1] + 1)) - set(numbers)
        self.assertEqual(len(missing), taker.guard.skipped)
        self.assertEqual(len(numbers) - len(set(numbers)), taker.guard.repeated)
        heard_loud = {frame.number for frame in taker.heard if frame is not None and frame == LOUD}
        if not loud_too:
            self.assertEqual(heard_loud & missing, set())

    def test_hour_with_a_fast_sender(self) -> None:
        """An hour of a sender that is 200 ppm fast: 36 frames too many, each left out in a silence."""
        taker = Taker().run(sent(talk(75, 25), 200, jitter_s=0.012), HOUR)
        self.assertApproximates(taker.guard.skipped, 36, 2)
        self.assertEqual(taker.guard.repeated, 0)
        self.assertEqual(taker.heard[WINDOW:].count(None), 0)
        begin, end = taker.least_wait_ms(slice(0, 500)), taker.least_wait_ms(slice(-500, None))
        self.assertApproximates(end, begin, 20)
        self.assertLessEqual(taker.most, 3)
        self.assert_nothing_lost(taker)
        self.assertEqual([n for n in range(1000) if n % 100 < 75], [f.number for f in taker.heard[:1000] if f == LOUD])

    def test_hour_with_a_slow_sender(self) -> None:
        """An hour of one that is 200 ppm slow: silent frames are heard twice, and no word is torn."""
        taker = Taker().run(sent(talk(75, 25), -200, jitter_s=0.008), HOUR)
        self.assertApproximates(taker.guard.repeated, 36, 2)
        self.assertEqual(taker.guard.skipped, 0)
        self.assertEqual(taker.heard[WINDOW:].count(None), 0)
        begin, end = taker.least_wait_ms(slice(0, 500)), taker.least_wait_ms(slice(-500, None))
        self.assertApproximates(end, begin, 20)
        self.assertLessEqual(taker.most, 3)
        self.assert_nothing_lost(taker)

    def test_half_fast_half_slow(self) -> None:
        """One that is fast for half an hour, and slow for the other half."""
        halves = chain(
            islice(sent(talk(100, 40), 200), HOUR // 2),
            sent(talk(100, 40), -200, start_s=HOUR // 2 * PERIOD_S / (1 + 200e-6)),
        )
        numbers = count()
        whole = ((at, [Frame.of(next(numbers), frame) for frame in frames]) for at, frames in halves)
        taker = Taker().run(whole, HOUR)
        begin, end = taker.least_wait_ms(slice(0, 500)), taker.least_wait_ms(slice(-500, None))
        self.assertApproximates(end, begin, 20)
        self.assertApproximates(taker.guard.skipped, 18, 2)
        self.assertApproximates(taker.guard.repeated, 18, 2)
        self.assert_nothing_lost(taker)

    @settings(max_examples=25, deadline=None)
    @given(
        ppm=st.integers(-300, 300),
        jitter_ms=st.integers(0, 15),
        packet=st.sampled_from([1, 1, 2, 3]),
        speech=st.integers(1, 400),
        silence=st.integers(5, 100),
        offset_ms=st.integers(0, 19),
        seed=st.integers(0, 1000),
    )
    def test_any_clock(
        self, ppm: int, jitter_ms: int, packet: int, speech: int, silence: int, offset_ms: int, seed: int
    ) -> None:
        """Whatever the two clocks, packets and pauses are: after four minutes little waits, and no word was torn."""
        packets = sent(talk(speech, silence), ppm, jitter_ms / 1000, packet, seed)
        taker = Taker().run(packets, 12_000, first_s=offset_ms / 1000)
        self.assert_nothing_lost(taker)
        # What waits: what the guard aims at, a packet, its jitter, and what the drift brings until a silence comes.
        self.assertLessEqual(taker.least_wait_ms(slice(-1000, None)), 45)
        self.assertLess(taker.guard.skipped + taker.guard.repeated, 12)
        self.assertLessEqual(taker.heard[1000:].count(None), 2)

    def test_no_silence_and_slow(self) -> None:
        """Where no silence ever comes a slow sender leaves a gap now and then, and nothing more."""
        taker = Taker().run(sent(talk(1, 0), -200), HOUR // 4)
        self.assertEqual((taker.guard.skipped, taker.guard.repeated), (0, 0))
        self.assertApproximates(taker.heard[10:].count(None), 9, 2)

    def test_no_silence_and_fast(self) -> None:
        """Where no silence ever comes frames are left out of the noise, once over 60 ms have waited for a second."""
        taker = Taker().run(sent(talk(1, 0), 200), HOUR)
        self.assertLessEqual(taker.most, 6)
        self.assertGreater(taker.guard.skipped, 25)
        self.assert_nothing_lost(taker, loud_too=True)
        self.assertLess(taker.least_wait_ms(slice(-500, None)), TOO_LONG_S * 1000 + 30)

    def test_hold_up(self) -> None:
        """What a network's hold-up of half a second left waiting is left out: down to 60 ms within two seconds, said or
        not; the rest in the next pauses."""
        packets = list(islice(sent(talk(75, 25), 0), 3000))
        held_up = [(max(at, 20.5) if at > 20 else at, frames) for at, frames in packets]
        taker = Taker().run(iter(held_up), 2900)
        self.assertGreater(taker.least_wait_ms(slice(1030, 1045)), 400)
        self.assertLess(max(taker.waits_s[1130:]) * 1000, TOO_LONG_S * 1000 + 20)
        self.assertLess(taker.least_wait_ms(slice(-500, None)), 45)
        self.assert_nothing_lost(taker, loud_too=True)

    def test_sent_ahead(self) -> None:
        """Speech that was sent at once waits, and is heard whole with all its pauses, however it was cut."""
        for packet in (1, 10, 1000):
            at_once = [(1.0, frames) for _, frames in islice(sent(talk(75, 25), 0, packet=packet), 3000 // packet)]
            taker = Taker().run(iter(at_once), 3200)
            self.assertEqual((taker.guard.skipped, taker.guard.repeated), (0, 0), packet)
            self.assertEqual([f.number for f in taker.heard if f is not None], list(range(3000)))

    def test_lead_of_speech(self) -> None:
        """So does speech whose sender keeps a lead of 200 ms, five frames at a time."""
        frames = sent(talk(75, 25), 0, packet=5)
        taker = Taker().run(((max(0.0, at - 0.2), packet) for at, packet in frames), 5000)
        self.assertEqual((taker.guard.skipped, taker.guard.repeated), (0, 0))

    def test_pauses_of_the_sender(self) -> None:
        """A sender that says nothing in pauses loses none of what it says."""
        frames = sent(talk(150, 150), 100)
        taker = Taker().run(((at, packet) for at, packet in frames if packet[0] == LOUD), 15_000)
        self.assertEqual((taker.guard.skipped, taker.guard.repeated), (0, 0))

    def test_cleared(self) -> None:
        """When all that waited was thrown away nothing is left out for its sake."""
        guard = DriftGuard(SLIN)
        for number in range(WINDOW):
            guard.arrived(1, number * PERIOD_S - 0.05)
            guard.due(QUIET, number * PERIOD_S)
        guard.arrived(2, 5.0)
        guard.cleared()
        guard.arrived(2, 5.0)
        self.assertIs(guard.due(QUIET, 5.0), Step.TAKE)


class SilenceTests(SynchronousTestCase):
    """What is called silence."""

    def test_each_encoding(self) -> None:
        """Below -50 dBFS is silence, above it is not, in each encoding; so is a format's own silent frame."""

        def as_is(samples: bytes) -> bytes:
            return samples

        wide = AudioFormat("slin", 16000)
        for format, encode in ((SLIN, as_is), (wide, as_is), (ULAW, slin_to_ulaw), (ALAW, slin_to_alaw)):
            self.assertTrue(is_silent(format.silent_frame, format), str(format))
            self.assertTrue(is_silent(encode(QUIET), format), str(format))
            self.assertFalse(is_silent(encode(QUIET[:-2] + b"\0\1"), format), str(format))
            self.assertFalse(is_silent(encode(LOUD), format), str(format))

    def test_half_a_sample(self) -> None:
        """A frame that was cut in the middle of a sample is looked at all the same."""
        self.assertTrue(is_silent(QUIET + b"\7", SLIN))
        self.assertTrue(is_silent(b"", SLIN))
