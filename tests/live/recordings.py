"""What can be measured in a recording of a call."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STEP_S = 0.005
"""How finely a level is followed over time."""
FLOOR_DB = -120.0
DIGIT_S = 0.02
DIGIT_DB = -40.0
"""Each of a digit's two tones is at least this loud."""


@dataclass(frozen=True)
class Recording:
    """Samples from -1 to 1, mono. Levels are in dB below full scale, of the samples' root mean square."""

    samples: NDArray[np.float64]
    rate_hz: int

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a WAV file of 16-bit samples; of several channels the first."""
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise ValueError(f"{path}: {file.getsampwidth() * 8}-bit samples, not 16")
            raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return cls(raw[:: file.getnchannels()] / 32768.0, file.getframerate())

    @staticmethod
    def is_complete(path: Path) -> bool:
        """Whether Asterisk has closed a WAV file: only then does it write the lengths (``format_wav.c``)."""
        with path.open("rb") as file:
            riff_bytes = int.from_bytes(file.read(8)[4:], "little")
        return 0 < riff_bytes <= path.stat().st_size - 8

    @classmethod
    def tone(cls, frequency_hz: float, seconds: float, level_db: float = -15.0, rate_hz: int = 8000) -> Recording:
        """A pure tone."""
        times = np.arange(round(seconds * rate_hz)) / rate_hz
        return cls(np.sqrt(2.0) * 10 ** (level_db / 20) * np.sin(2 * np.pi * frequency_hz * times), rate_hz)

    def save(self, path: Path) -> None:
        """Write a WAV file of 16-bit samples."""
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.rate_hz)
            file.writeframes(np.round(self.samples * 32767).astype("<i2").tobytes())

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate_hz

    def part(self, from_s: float, to_s: float | None = None) -> Recording:
        """From one time to another, or to the end. Times beyond the end are the end."""
        end = None if to_s is None else round(to_s * self.rate_hz)
        return Recording(self.samples[round(from_s * self.rate_hz) : end], self.rate_hz)

    def level_db(self) -> float:
        """Its level as a whole."""
        return float(_level_db(self.samples)) if len(self.samples) else FLOOR_DB

    def levels_db(self, step_s: float = STEP_S) -> NDArray[np.float64]:
        """The level of each step; what is left at the end is not counted."""
        size = round(step_s * self.rate_hz)
        count = len(self.samples) // size
        return _level_db(self.samples[: count * size].reshape(count, size))

    def dominant_hz(self) -> float:
        """The frequency that holds the most, to a fraction of a hertz."""
        spectrum = np.abs(np.fft.rfft(self.samples * np.hanning(len(self.samples))))
        spectrum[0] = 0
        peak = int(np.argmax(spectrum))
        if not 0 < peak < len(spectrum) - 1:
            return 0.0
        # The top of the parabola through the peak and its neighbours, on a logarithmic scale.
        below, at, above = np.log(spectrum[peak - 1 : peak + 2] + 1e-12)
        top = peak + 0.5 * (below - above) / (below - 2 * at + above)
        return float(top * self.rate_hz / len(self.samples))

    def tone_db(self, frequency_hz: float) -> float:
        """The level of one frequency in it."""
        turn = np.exp(-2j * np.pi * frequency_hz * np.arange(len(self.samples)) / self.rate_hz)
        window = np.hanning(len(self.samples))
        amplitude = 2 * abs(np.sum(self.samples * window * turn)) / max(np.sum(window), 1e-12)
        return float(20 * np.log10(max(amplitude / np.sqrt(2.0), 1e-6)))

    def first_sound_s(self, above_db: float = -45.0) -> float | None:
        """When it is first louder than a level; None if never."""
        loud = np.flatnonzero(self.levels_db() > above_db)
        return float(loud[0] * STEP_S) if len(loud) else None

    def last_sound_s(self, above_db: float = -45.0) -> float | None:
        """When it was last louder than a level; None if never. After that there is silence."""
        loud = np.flatnonzero(self.levels_db() > above_db)
        return float((loud[-1] + 1) * STEP_S) if len(loud) else None

    def gaps(self, longer_than_s: float, below_db: float = -45.0) -> list[tuple[float, float]]:
        """Stretches quieter than a level and longer than a time: when each begins, and how long it is."""
        quiet = np.concatenate(([False], self.levels_db() < below_db, [False])).astype(np.int8)
        edges = np.flatnonzero(np.diff(quiet))
        begins, ends = edges[::2] * STEP_S, edges[1::2] * STEP_S
        stretches = zip(begins.tolist(), (ends - begins).tolist(), strict=True)
        return [(round(begin, 3), round(length, 3)) for begin, length in stretches if length > longer_than_s + 1e-9]

    def digit_s(self, low_hz: float, high_hz: float) -> float:
        """For how long both tones of a digit are in it, and together are nearly all there is."""
        size = round(DIGIT_S * self.rate_hz)
        heard = 0
        for begin in range(0, len(self.samples) - size + 1, size):
            step = Recording(self.samples[begin : begin + size], self.rate_hz)
            low, high, total = step.tone_db(low_hz), step.tone_db(high_hz), step.level_db()
            together = 10 * np.log10(10 ** (low / 10) + 10 ** (high / 10))
            heard += bool(min(low, high) > DIGIT_DB and together > total - 1.5)
        return heard * DIGIT_S

    def pieces(self, seconds: float, above_db: float) -> list[tuple[float, Recording]]:
        """Cut into pieces of a length, those louder than a level: when each begins, and the piece."""
        starts = np.arange(0, self.seconds - seconds, seconds)
        cut = [(float(start), self.part(start, start + seconds)) for start in starts]
        return [(start, piece) for start, piece in cut if piece.level_db() > above_db]

    def found_in(self, other: Recording) -> tuple[float, float]:
        """Where this is found in another, longer recording.

        :return: the time in the other (seconds) at which it fits best, and how well it fits there: 1 is the same
            sound, whatever its level, 0 another one.
        """
        size, lags = len(self.samples), len(other.samples) - len(self.samples) + 1
        products = np.correlate(other.samples, self.samples, "valid")
        sums = np.concatenate(([0.0], np.cumsum(np.square(other.samples))))
        norms = np.sqrt(np.maximum(sums[size:] - sums[:lags], 1e-12)) * np.linalg.norm(self.samples)
        likeness = products / np.maximum(norms, 1e-12)
        best = int(np.argmax(likeness))
        return best / self.rate_hz, float(likeness[best])


def _level_db(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.mean(np.square(samples), axis=-1)
    levels: NDArray[np.float64] = 10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))
    return levels
