"""Conversion between all formats: the result does not depend on packet lengths."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio.convert import Converter, converter
from rapida_twisted.audio.formats import ALAW, SLIN, ULAW, AudioFormat
from rapida_twisted.audio.tones import tone
from tests.audio.signals import measure, samples_of

WIDE = tuple(AudioFormat("slin", rate_hz) for rate_hz in (16000, 24000, 44100, 48000))
FORMATS = (SLIN, ULAW, ALAW, *WIDE)
FORMAT_PAIRS = tuple((source, target) for source in FORMATS for target in FORMATS if source != target)


def must_convert(source: AudioFormat, target: AudioFormat) -> Converter:
    """The converter of two formats that differ."""
    made = converter(source, target)
    assert made is not None
    return made


def through(audio: bytes, *formats: AudioFormat) -> bytes:
    """Audio from the first format to the last, by way of those between."""
    for source, target in pairwise(formats):
        convert = converter(source, target)
        if convert is not None:
            audio = convert(audio) + convert.flush()
    return audio


class ConverterTests(SynchronousTestCase):
    def test_nothing_to_do(self) -> None:
        """Between equal formats there is no converter."""
        for audio_format in FORMATS:
            self.assertIsNone(converter(audio_format, AudioFormat(audio_format.encoding, audio_format.rate_hz)))

    def test_frames_stay_frames(self) -> None:
        """A frame of one format becomes a frame of the other, from the first on."""
        for source, target in FORMAT_PAIRS:
            convert = must_convert(source, target)
            lengths = {len(convert(source.silent_frame)) for _ in range(20)}
            self.assertEqual(lengths, {target.frame_bytes}, f"{source} -> {target}")

    def test_silence_stays_silence(self) -> None:
        """Silence of one format is silence of the other; A-law has no zero, so its silence is one step at the most."""
        for source, target in FORMAT_PAIRS:
            heard = through(must_convert(source, target)(source.silent_frame * 5), target, target.linear())
            self.assertLessEqual(abs(samples_of(heard)).max(), 16, f"{source} -> {target}")

    def test_flush_only_resampled(self) -> None:
        """Only a resampler holds something back, and its tail comes in the target's encoding."""
        self.assertEqual(must_convert(ULAW, SLIN).flush(), b"")
        self.assertEqual(must_convert(ULAW, ALAW).flush(), b"")
        tail = must_convert(WIDE[0], ULAW).flush()
        self.assertEqual(tail, ULAW.silent_frame[: len(tail)])
        self.assertLess(ULAW.ms(len(tail)), 3)

    @given(
        st.sampled_from(FORMAT_PAIRS),
        st.binary(min_size=0, max_size=3000),
        st.lists(st.integers(0, 1500), max_size=6),
    )
    def test_any_split(self, pair: tuple[AudioFormat, AudioFormat], audio: bytes, cuts: list[int]) -> None:
        """Any bytes, cut anywhere between samples, give the same audio as in one piece, in whole samples."""
        source, target = pair
        size = source.sample_bytes
        audio = audio[: len(audio) // size * size]
        edges = [0, *sorted(min(cut * size, len(audio)) for cut in cuts), len(audio)]
        whole, split = must_convert(source, target), must_convert(source, target)
        parts = [split(audio[begin:end]) for begin, end in pairwise(edges)]
        expected = whole(audio)
        self.assertEqual(b"".join(parts), expected)
        self.assertEqual(split.flush(), whole.flush())
        self.assertEqual(len(expected) % target.sample_bytes, 0)

    @given(st.sampled_from(FORMAT_PAIRS), st.integers(0, 2000))
    def test_exact_length(self, pair: tuple[AudioFormat, AudioFormat], count: int) -> None:
        """The number of samples out follows the ratio of the rates, within one."""
        source, target = pair
        out = must_convert(source, target)(bytes(count * source.sample_bytes))
        self.assertLessEqual(abs(len(out) / target.sample_bytes - count * target.rate_hz / source.rate_hz), 1)


class SoundTests(SynchronousTestCase):
    def test_each_way(self) -> None:
        """A tone of 1 kHz comes through every conversion with its frequency, and its level within 0.5 dB."""
        for source, target in FORMAT_PAIRS:
            audio = through(tone(1000, 600, source.rate_hz), source.linear(), source)
            heard = through(audio, source, target, target.linear())
            measured = measure(heard, 1000, target.rate_hz)
            self.assertApproximates(measured.hz, 1000, 2, f"{source} -> {target}")
            self.assertApproximates(measured.level_db, -10, 0.5, f"{source} -> {target}")
            floor = 80 if source.is_linear and target.is_linear else 36
            self.assertGreater(measured.snr_db, floor, f"{source} -> {target}")

    def test_there_and_back(self) -> None:
        """To each wide rate and back, a tone has its level within 0.1 dB and at most -80 dB of noise."""
        for wide in WIDE:
            measured = measure(through(tone(1000, 600, 8000), SLIN, wide, SLIN), 1000, 8000)
            self.assertApproximates(measured.level_db, -10, 0.1, str(wide))
            self.assertGreater(measured.snr_db, 80, wide)
