"""What a phone says, frame by frame, and the file that takes what it hears."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from rapida_twisted.audio.convert import Converter, converter
from rapida_twisted.audio.formats import SLIN, AudioFormat
from rapida_twisted.audio.wav import WavReader, WavWriter

__all__ = ["MuteSound", "Recording", "Sound", "ToneSound", "read_wav", "silence"]

TONE_AMPLITUDE = 10_362
"""-10 dB, as the house's tones are."""


class Sound(Protocol):
    """What a call says. One sound serves many calls."""

    @property
    def length_s(self) -> float | None:
        """When it is over; None: it says nothing of its own, or goes on for ever."""

    def frames(self) -> Iterator[bytes | None]:
        """A call's frames (s16le mono, 8 kHz), without end; None where nothing is sent."""


@dataclass(frozen=True)
class MuteSound:
    """No frame at all: a phone with silence suppression."""

    length_s: None = None

    def frames(self) -> Iterator[bytes | None]:
        """None, for ever."""
        return itertools.repeat(None)


@dataclass(frozen=True)
class RecordedSound:
    """Samples (s16le mono, 8 kHz), then silence."""

    samples: bytes
    frame_bytes: int
    length_s: float | None

    def frames(self) -> Iterator[bytes | None]:
        """The samples in frames, the last one filled up, then silent frames for ever."""
        size = self.frame_bytes
        silent = bytes(size)
        for begin in range(0, len(self.samples), size):
            yield self.samples[begin : begin + size].ljust(size, b"\0")
        yield from itertools.repeat(silent)


@dataclass(frozen=True)
class ToneSound:
    """A steady tone, with a little noise, so that no frame is like another: its echo can be told.

    :ivar noise: its amplitude: 1 where samples arrive as they are (-90 dB), more where a codec would round it off.
    """

    hertz: float
    packet_ms: int
    noise: int = 1
    length_s: None = None

    def frames(self) -> Iterator[bytes | None]:
        """The tone, for ever."""
        count = SLIN.rate_hz * self.packet_ms // 1000
        random = np.random.default_rng()
        turn = 2 * np.pi * self.hertz / SLIN.rate_hz
        for begin in itertools.count(0, count):
            wave = TONE_AMPLITUDE * np.sin(turn * np.arange(begin, begin + count))
            yield (np.rint(wave) + random.integers(-self.noise, self.noise + 1, count)).astype("<i2").tobytes()


def silence(packet_ms: int) -> Sound:
    """A quiet line: silent frames."""
    return RecordedSound(b"", SLIN.bytes_for(packet_ms), None)


def read_wav(path: Path, packet_ms: int) -> Sound:
    """A WAV file of any rate, as a sound.

    :raises OSError: it can't be read.
    :raises ValueError: it is no WAV file that can be used.
    """
    reader = WavReader(path)
    to_wire = converter(AudioFormat("slin", reader.rate_hz), SLIN)
    parts = list(reader)
    samples = b"".join(parts) if to_wire is None else b"".join(map(to_wire, parts)) + to_wire.flush()
    return RecordedSound(samples, SLIN.bytes_for(packet_ms), SLIN.ms(len(samples)) / 1000)


class Recording:
    """What was heard, in a WAV file at the rate of the first frame. A file that can't be written ends no call."""

    def __init__(self, path: Path) -> None:
        self.problem = ""
        """Why the file is not complete; empty if it is."""
        self._path = path
        self._writer: WavWriter | None = None
        self._file_rate_hz = self._rate_hz = 0
        self._convert: Converter | None = None

    def add(self, samples: bytes, rate_hz: int) -> None:
        """Some more (s16le mono)."""
        if self.problem:
            return
        try:
            if self._writer is None:
                self._writer = WavWriter(self._path, rate_hz)
                self._file_rate_hz = self._rate_hz = rate_hz
            if rate_hz != self._rate_hz:
                self._rate_hz = rate_hz
                self._convert = converter(AudioFormat("slin", rate_hz), AudioFormat("slin", self._file_rate_hz))
            self._writer.write(samples if self._convert is None else self._convert(samples))
        except OSError as error:
            self._failed(error)

    def close(self) -> str:
        """Complete the file. Gives its name, or nothing if there is none."""
        if self._writer is None:
            return ""
        try:
            self._writer.close()
        except OSError as error:
            self._failed(error)
        return str(self._path)

    def _failed(self, error: OSError) -> None:
        self.problem = f"what was heard can't be written to {self._path}: {error.strerror or error}"
