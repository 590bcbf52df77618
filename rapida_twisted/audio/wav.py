"""WAV files: read as a stream of samples, and written so that what was written is there even if the process dies."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

__all__ = ["WavReader", "WavWriter"]

_HEADER_BYTES = 44
_HEADER_EVERY_S = 1.0
_LARGEST_DATA_BYTES = 0xFFFFFFFF - _HEADER_BYTES
_UNKNOWN_RIFF_BYTES = 0x7FFFF000
"""A header that tells of this much or more was written to a pipe, by a program that did not know the length."""
_RATES_HZ = range(1000, 768_001)


class WavReader:
    """The samples of a sound file, in parts: s16le mono at the file's own rate, several channels mixed down.

    It reads what libsndfile reads: WAV files of PCM (8 to 32 bits), floating point, mu-law or A-law; FLAC; Ogg. The
    parts are read as they are asked for.

    :param part_ms: how long a part is.
    :raises OSError: the file can't be opened.
    :raises ValueError: it is no sound file, an empty one, or a WAV file that is cut short; the text is one sentence.
    """

    def __init__(self, path: Path | str, part_ms: float = 100.0) -> None:
        self.path = Path(path)
        _check_length(self.path)
        try:
            self._file = soundfile.SoundFile(self.path)
        except (soundfile.SoundFileError, TypeError) as error:  # TypeError: named *.raw, which tells no rate.
            reason = getattr(error, "error_string", str(error))
            raise ValueError(f"{self.path} is no sound file that can be read: {reason}") from None
        self.rate_hz: int = self._file.samplerate
        if self.rate_hz not in _RATES_HZ:
            self._file.close()
            raise ValueError(f"{self.path} has a rate of {self.rate_hz} Hz, which can't be played")
        self.duration_s: float = self._file.frames / self.rate_hz
        self._part_frames = max(1, int(self.rate_hz * part_ms / 1000))
        if not self._file.frames:
            self._file.close()
            raise ValueError(f"{self.path} holds no sound")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def close(self) -> None:
        """Let go of the file before its end; no part comes any more."""
        self._file.close()

    def __next__(self) -> bytes:
        """The next part."""
        if self._file.closed:
            raise StopIteration
        # As int16, the samples of a floating point file would all be 0.
        part = self._file.read(self._part_frames, dtype="float32", always_2d=True)
        if not len(part):
            self._file.close()
            raise StopIteration
        mono = part[:, 0] if part.shape[1] == 1 else part.mean(axis=1)
        return bytes(np.clip(np.rint(np.nan_to_num(mono) * 32768), -32768, 32767).astype("<i2").tobytes())


class WavWriter:
    """A PCM WAV file (16 bits) that is complete up to its last second, whatever becomes of the process.

    Samples go to the system with each write; the header, which tells the length, follows each second and at the close.

    :param path: replaced if it exists.
    :raises OSError: it can't be written; so may all methods.
    """

    def __init__(self, path: Path | str, rate_hz: int, channels: int = 1) -> None:
        self.path = Path(path)
        self._rate_hz = rate_hz
        self._channels = channels
        self._data_bytes = 0
        self._told_bytes = 0
        self._header_every_bytes = int(rate_hz * channels * 2 * _HEADER_EVERY_S)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(self._descriptor, self._header())
        except OSError:
            os.close(self._descriptor)
            raise

    def write(self, samples: bytes) -> None:
        """Append samples (s16le; of several channels, one of each in turn). What exceeds 4 GiB is dropped."""
        room = _LARGEST_DATA_BYTES - self._data_bytes
        samples = samples[:room]
        _write_all(self._descriptor, samples)
        self._data_bytes += len(samples)
        if self._data_bytes - self._told_bytes >= self._header_every_bytes:
            self._tell_length()

    def close(self) -> None:
        """Complete the file; nothing happens if it is closed."""
        if self._descriptor < 0:
            return
        try:
            self._tell_length()
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def _tell_length(self) -> None:
        os.pwrite(self._descriptor, self._header(), 0)
        self._told_bytes = self._data_bytes

    def _header(self) -> bytes:
        block = self._channels * 2
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            b"RIFF", self._data_bytes + _HEADER_BYTES - 8, b"WAVE",
            b"fmt ", 16, 1, self._channels, self._rate_hz, self._rate_hz * block, block, 16,
            b"data", self._data_bytes,
        )  # fmt: skip


def _check_length(path: Path) -> None:
    """Refuse a WAV file that was not copied to its end: it would fall silent in the middle of a word.

    :raises OSError: it can't be opened.
    """
    with open(path, "rb") as file:
        header = file.read(12)
        there = os.fstat(file.fileno()).st_size
    if len(header) == 12 and header[:4] == b"RIFF" and header[8:] == b"WAVE":
        told = int.from_bytes(header[4:8], "little") + 8
        # One byte less: the one that fills up an odd length is often left out.
        if there < told - 1 and told < _UNKNOWN_RIFF_BYTES:
            raise ValueError(f"{path} is cut short: its header tells of {told} bytes, and {there} are there")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
