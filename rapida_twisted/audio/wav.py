"""WAV files: reads them part by part, and writes them so that a crash loses at most the last second."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import soundfile

from rapida_twisted.audio.arrays import float_samples

__all__ = ["WavReader", "WavWriter"]

_HEADER_BYTES = 44
_HEADER_EVERY_S = 1.0
_LARGEST_DATA_BYTES = 0xFFFFFFFF - _HEADER_BYTES
_UNKNOWN_RIFF_BYTES = 0x7FFFF000
"""Programs that write to a pipe do not know the length, and put this or more into the header."""
_RATES_HZ = range(1000, 768_001)


class WavReader:
    """Iterates over a sound file in parts: s16le mono at the file's own rate, several channels mixed down.

    It reads the formats of libsndfile: WAV (PCM of 8 to 32 bits, floating point, mu-law, A-law), FLAC, Ogg. Each part
    is read when it is requested.

    :param part_ms: the length of a part.
    :raises OSError: the file can't be opened.
    :raises ValueError: the file is no sound file, empty, or a truncated WAV file; the text is one sentence.
    """

    def __init__(self, path: Path | str, part_ms: float = 100.0) -> None:
        self.path = Path(path)
        _check_length(self.path)
        try:
            self._file = soundfile.SoundFile(self.path)
        except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a *.raw file has no rate.
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
        """Close the file before its end; the iteration stops."""
        self._file.close()

    def __next__(self) -> bytes:
        if self._file.closed:
            raise StopIteration
        # dtype="int16" would turn the samples of a floating point file into zeros.
        part = self._file.read(self._part_frames, dtype="float32", always_2d=True)
        if not len(part):
            self._file.close()
            raise StopIteration
        mono = part[:, 0] if part.shape[1] == 1 else part.mean(axis=1)
        return float_samples(mono)


class WavWriter:
    """A PCM WAV file (16 bits). If the process dies, the file lacks at most its last second.

    Each write passes the samples to the system; each second, and close(), update the length in the header. All methods
    may raise OSError.

    :param path: replaced if it exists.
    """

    def __init__(self, path: Path | str, rate_hz: int, channels: int = 1) -> None:
        self.path = Path(path)
        self._rate_hz = rate_hz
        self._channels = channels
        self._data_bytes = 0
        self._header_data_bytes = 0
        self._header_every_bytes = int(rate_hz * channels * 2 * _HEADER_EVERY_S)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(self._descriptor, self._header())
        except OSError:
            os.close(self._descriptor)
            raise

    def write(self, samples: bytes) -> None:
        """Append samples (s16le; interleaved if there are several channels). Samples beyond 4 GiB are dropped."""
        room = _LARGEST_DATA_BYTES - self._data_bytes
        samples = samples[:room]
        _write_all(self._descriptor, samples)
        self._data_bytes += len(samples)
        if self._data_bytes - self._header_data_bytes >= self._header_every_bytes:
            self._write_length()

    def close(self) -> None:
        """Complete the file. Idempotent."""
        if self._descriptor < 0:
            return
        try:
            self._write_length()
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_length(self) -> None:
        os.pwrite(self._descriptor, self._header(), 0)
        self._header_data_bytes = self._data_bytes

    def _header(self) -> bytes:
        block = self._channels * 2
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            b"RIFF", self._data_bytes + _HEADER_BYTES - 8, b"WAVE",
            b"fmt ", 16, 1, self._channels, self._rate_hz, self._rate_hz * block, block, 16,
            b"data", self._data_bytes,
        )  # fmt: skip


def _check_length(path: Path) -> None:
    """Reject a WAV file shorter than its header says: it would stop in the middle of a word."""
    with open(path, "rb") as file:
        header = file.read(12)
        actual = os.fstat(file.fileno()).st_size
    if len(header) == 12 and header[:4] == b"RIFF" and header[8:] == b"WAVE":
        expected = int.from_bytes(header[4:8], "little") + 8
        # Many programs omit the pad byte after an odd length.
        if actual < expected - 1 and expected < _UNKNOWN_RIFF_BYTES:
            raise ValueError(f"{path} is truncated: {actual} bytes, but its header says {expected}")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
