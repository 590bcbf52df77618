"""The resampler as a stream: lengths, splits, levels, aliases."""

from __future__ import annotations

from array import array
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio.resample import Resampler
from rapida_twisted.audio.tones import tone
from tests.audio.signals import level_db, measure, samples_of, sign_changes

PAIRS = (
    (8000, 16000), (16000, 8000), (8000, 24000), (24000, 8000), (8000, 48000), (48000, 8000), (16000, 24000),
    (24000, 16000), (44100, 8000), (8000, 44100), (12000, 8000), (192000, 8000), (8000, 192000),
)  # fmt: skip
LONGEST_DELAY_MS = 3.0
NOISE = array("h", [(number * number * 40503 >> 4) % 40001 - 20000 for number in range(4000)]).tobytes()


def frames_of(samples: bytes, rate_hz: int) -> list[bytes]:
    """Cut into 20 ms."""
    step = rate_hz // 50 * 2
    return [samples[begin : begin + step] for begin in range(0, len(samples), step)]


def convert_all(samples: bytes, from_hz: int, to_hz: int) -> bytes:
    """A whole stream in frames of 20 ms, its tail included."""
    resampler = Resampler(from_hz, to_hz)
    return b"".join(map(resampler.convert, frames_of(samples, from_hz))) + resampler.flush()


class LengthTests(SynchronousTestCase):
    def test_constant(self) -> None:
        """20 ms give 20 ms, from the first frame on."""
        for from_hz, to_hz in PAIRS:
            resampler = Resampler(from_hz, to_hz)
            frame = bytes(from_hz // 50 * 2)
            self.assertEqual({len(resampler.convert(frame)) for _ in range(500)}, {to_hz // 50 * 2}, (from_hz, to_hz))

    def test_other_packets(self) -> None:
        """Packets of 10, 30 and 60 ms, as other telephones send them, keep their length too."""
        resampler = Resampler(8000, 16000)
        self.assertEqual([len(resampler.convert(bytes(8 * 2 * ms))) for ms in (30, 10, 60)], [960, 320, 1920])

    def test_exact_over_time(self) -> None:
        """Where the ratio gives no whole frame, a minute is still a minute, to the sample."""
        resampler = Resampler(11025, 8000)
        samples = sum(len(resampler.convert(bytes(440))) // 2 for _ in range(3000))
        self.assertLessEqual(abs(samples - 220 * 3000 * 8000 / 11025), 1)

    def test_nothing_lost(self) -> None:
        """The flush gives what further silence would have brought out, 3 ms at the most, and the last click with it."""
        for from_hz, to_hz in PAIRS:
            half_ms = from_hz // 2000
            click = bytes((from_hz // 50 - 2 * half_ms) * 2) + b"\x00\x40" * half_ms + bytes(half_ms * 2)
            heard = convert_all(click, from_hz, to_hz)
            self.assertLessEqual(len(heard) // 2 - to_hz // 50, LONGEST_DELAY_MS * to_hz / 1000, (from_hz, to_hz))
            longer = convert_all(click + bytes(len(click)), from_hz, to_hz)
            self.assertEqual(heard, longer[: len(heard)], (from_hz, to_hz))
            self.assertEqual(abs(samples_of(heard)).max(), abs(samples_of(longer)).max(), (from_hz, to_hz))

    def test_empty(self) -> None:
        """Nothing in, nothing out, and a stream that never began has a silent tail."""
        resampler = Resampler(8000, 16000)
        self.assertEqual(resampler.convert(b""), b"")
        self.assertEqual(set(resampler.flush()), {0})


class SplitTests(SynchronousTestCase):
    @given(st.sampled_from(PAIRS), st.lists(st.integers(0, len(NOISE) // 2), max_size=8))
    def test_any_split(self, pair: tuple[int, int], cuts: list[int]) -> None:
        """However a stream is cut, the same samples come out of it."""
        whole, split = Resampler(*pair), Resampler(*pair)
        edges = [0, *sorted(cuts), len(NOISE) // 2]
        parts = [NOISE[begin * 2 : end * 2] for begin, end in pairwise(edges)]
        self.assertEqual(
            b"".join(map(split.convert, parts)) + split.flush(), whole.convert(NOISE) + whole.flush(), pair
        )


class SoundTests(SynchronousTestCase):
    def test_tone(self) -> None:
        """A tone of 1 kHz keeps its frequency, and its level within 0.1 dB, with at most -80 dB of noise."""
        for from_hz, to_hz in PAIRS:
            heard = measure(convert_all(tone(1000, 1000, from_hz), from_hz, to_hz), 1000, to_hz)
            self.assertApproximates(heard.hz, 1000, 1, str((from_hz, to_hz)))
            self.assertApproximates(heard.level_db, -10, 0.1, str((from_hz, to_hz)))
            self.assertGreater(heard.snr_db, 80, (from_hz, to_hz))

    def test_band(self) -> None:
        """From 300 Hz to 2.9 kHz the level stays within 0.5 dB, down to 8 kHz and up from it."""
        for from_hz, to_hz in ((8000, 16000), (16000, 8000), (48000, 8000)):
            for hz in (300, 2000, 2900):
                heard = measure(convert_all(tone(hz, 500, from_hz), from_hz, to_hz), hz, to_hz)
                self.assertApproximates(heard.level_db, -10, 0.5, f"{from_hz} -> {to_hz} at {hz} Hz")

    def test_no_alias(self) -> None:
        """What 8 kHz can't carry is gone, 80 dB below, and not heard somewhere else."""
        for from_hz, hz in ((16000, 4600), (16000, 6000), (24000, 5000), (48000, 5000), (48000, 20000), (44100, 7000)):
            heard = convert_all(tone(hz, 500, from_hz), from_hz, 8000)
            self.assertLess(level_db(heard[2000:-2000]), -90, f"{from_hz} Hz, tone of {hz} Hz")

    def test_no_image(self) -> None:
        """Nothing is added above what 8 kHz carried: 3 kHz has no image at 5 kHz."""
        heard = measure(convert_all(tone(3000, 500, 8000), 8000, 48000), 3000, 48000)
        self.assertGreater(heard.snr_db, 80)

    def test_saturates(self) -> None:
        """A square wave of full scale, which overshoots, is clipped and does not wrap around."""
        half = 40
        square = (b"\xff\x7f" * half + b"\x00\x80" * half) * 50
        heard = samples_of(convert_all(square, 8000, 16000))
        self.assertEqual((heard.max(), heard.min()), (32767, -32768))
        # Ten whole periods from its middle: two changes of sign in each.
        self.assertEqual(sign_changes(heard[4000 : 4000 + 10 * 4 * half]), 20)
