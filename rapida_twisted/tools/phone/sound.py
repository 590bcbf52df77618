"""The audio that a phone sends, frame by frame, and the file that records what it receives."""

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
"""-10 dB, as the server's own tones."""


class Sound(Protocol):
    """The audio of a call. Several calls may share one."""

    @property
    def length_s(self) -> float | None:
        """None: silent or endless."""

    def frames(self) -> Iterator[bytes | None]:
        """An endless iterator of a call's frames (s16le mono, 8 kHz); None: send nothing."""


@dataclass(frozen=True)
class MuteSound:
    """No frames: a phone with silence suppression."""

    length_s: None = None

    def frames(self) -> Iterator[bytes | None]:
        return itertools.repeat(None)


@dataclass(frozen=True)
class RecordedSound:
    """Samples (s16le mono, 8 kHz), then silence."""

    samples: bytes
    frame_bytes: int
    length_s: float | None

    def frames(self) -> Iterator[bytes | None]:
        """The samples in frames, the last one padded, then silent frames."""
        size = self.frame_bytes
        for start in range(0, len(self.samples), size):
            yield self.samples[start : start + size].ljust(size, b"\0")
        yield from itertools.repeat(bytes(size))


@dataclass(frozen=True)
class ToneSound:
    """A steady tone with a little noise: every frame is unique, so that its echo can be identified.

    :ivar noise: amplitude: 1 for a lossless path (-90 dB), more where a codec would round it off.
    """

    hertz: float
    packet_ms: int
    noise: int = 1
    length_s: None = None

    def frames(self) -> Iterator[bytes | None]:
        count = SLIN.rate_hz * self.packet_ms // 1000
        random = np.random.default_rng()
        turn = 2 * np.pi * self.hertz / SLIN.rate_hz
        for start in itertools.count(0, count):
            wave = TONE_AMPLITUDE * np.sin(turn * np.arange(start, start + count))
            yield (np.rint(wave) + random.integers(-self.noise, self.noise + 1, count)).astype("<i2").tobytes()


def silence(packet_ms: int) -> Sound:
    return RecordedSound(b"", SLIN.bytes_for(packet_ms), None)


def read_wav(path: Path, packet_ms: int) -> Sound:
    """The sound of a WAV file of any rate.

    :raises OSError: the file cannot be read.
    :raises ValueError: it is not a supported WAV file.
    """
    reader = WavReader(path)
    to_wire = converter(AudioFormat("slin", reader.rate_hz), SLIN)
    parts = list(reader)
    samples = b"".join(parts) if to_wire is None else b"".join(map(to_wire, parts)) + to_wire.flush()
    return RecordedSound(samples, SLIN.bytes_for(packet_ms), SLIN.ms(len(samples)) / 1000)


class Recording:
    """A WAV file of the received audio, at the rate of the first frame. A write error does not end the call."""

    def __init__(self, path: Path) -> None:
        self.problem = ""
        """Why the file is incomplete; empty if it is complete."""
        self._path = path
        self._writer: WavWriter | None = None
        self._file_rate_hz = self._rate_hz = 0
        self._convert: Converter | None = None

    def add(self, samples: bytes, rate_hz: int) -> None:
        """Append audio (s16le mono)."""
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
        """Complete the file. Returns its name; empty if there is none."""
        if self._writer is None:
            return ""
        try:
            self._writer.close()
        except OSError as error:
            self._failed(error)
        return str(self._path)

    def _failed(self, error: OSError) -> None:
        self.problem = f"cannot write the received audio to {self._path}: {error.strerror or error}"
