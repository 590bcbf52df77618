"""Measures a phone's call: when audio arrives, how loud it is, and how long a sound takes to the server and back.

AudioSocket does not number its frames, so nothing here counts sequence numbers: a frame is missing when the audio falls
behind and stays behind, and late when the audio catches up again.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["ArrivalFigures", "Arrivals", "Level", "RoundTrip", "Spread"]

FRAME_S = 0.020
LATE_S = 0.020
"""A frame that arrives this long after its time is too late for a listener."""
SETTLING_S = 1.0
"""Audio that has not caught up after this long is missing, not late."""
HEAD_S = 0.200
"""A server may take this long to begin: Asterisk hears nothing until then."""
TAIL_S = 0.100
"""A silence up to this long before the end of a call is no gap."""


@dataclass(frozen=True)
class Spread:
    """The median, 99th percentile and maximum of some durations (ms)."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values_s: Sequence[float] | np.ndarray) -> Spread | None:
        """The spread of durations in seconds; None without any."""
        if not len(values_s):
            return None
        p50, p99, top = np.percentile(np.asarray(values_s, dtype=float) * 1000, (50, 99, 100))
        return cls(round(float(p50), 2), round(float(p99), 2), round(float(top), 2))


@dataclass(frozen=True)
class ArrivalFigures:
    """The arrival of a call's audio."""

    frames: int
    audio_s: float
    gap_ms: Spread | None
    """Between one frame and the next."""
    jitter_ms: float
    """Interarrival jitter at the end of the call (RFC 3550, 6.4.1)."""
    late: int
    """Frames over 20 ms behind their time, after which the audio caught up."""
    late_ms: Spread | None
    """How far behind their time frames were, late ones and others."""
    missing: int
    """Frames of 20 ms that never arrived."""


class Arrivals:
    """The arrival times of one call's frames."""

    def __init__(self) -> None:
        self._at_s = array("d")
        self._audio_s = array("d")

    def __len__(self) -> int:
        return len(self._at_s)

    @property
    def first_s(self) -> float | None:
        """The first arrival, on the clock of :meth:`add`."""
        return self._at_s[0] if self._at_s else None

    def add(self, at_s: float, audio_s: float) -> None:
        """A frame with ``audio_s`` seconds of audio arrived at ``at_s`` (monotonic)."""
        self._at_s.append(at_s)
        self._audio_s.append(audio_s)

    def figures(self, call_s: tuple[float, float] | None = None) -> ArrivalFigures:
        """The figures of all frames.

        :param call_s: when the call was up and when it ended: audio that begins later or stops before is missing. None:
            the audio lasted from the beginning to the end.
        """
        if not self._at_s:
            return ArrivalFigures(0, 0.0, None, 0.0, 0, None, 0)
        at_s = np.frombuffer(self._at_s)
        audio_s = np.frombuffer(self._audio_s)
        behind_s = at_s - at_s[0] - np.concatenate(((0.0,), np.cumsum(audio_s[:-1])))
        lowest_s = _lowest_ahead(behind_s, at_s)
        late_s = behind_s - lowest_s
        missing = _missing(lowest_s)
        if call_s is not None:
            missing += _missing_in(at_s[0] - call_s[0], HEAD_S) + _missing_in(call_s[1] - at_s[-1], TAIL_S)
        return ArrivalFigures(
            frames=len(at_s),
            audio_s=round(float(audio_s.sum()), 3),
            gap_ms=Spread.of(np.diff(at_s)),
            jitter_ms=round(_jitter(np.diff(behind_s)) * 1000, 2),
            late=int((late_s > LATE_S).sum()),
            late_ms=Spread.of(late_s),
            missing=missing,
        )


def _lowest_ahead(behind_s: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """For each frame, the smallest lag within the settling time that follows it.

    Near the end little follows: there the lag before the frame counts, too.
    """
    lowest = np.empty_like(behind_s)
    window: deque[int] = deque()  # indices, in rising order of behind_s
    ahead = 0
    for index, now_s in enumerate(at_s):
        while ahead < len(at_s) and at_s[ahead] <= now_s + SETTLING_S:
            while window and behind_s[window[-1]] >= behind_s[ahead]:
                window.pop()
            window.append(ahead)
            ahead += 1
        while window[0] < index:
            window.popleft()
        lowest[index] = behind_s[window[0]]
        if index and at_s[-1] - now_s < TAIL_S:
            lowest[index] = min(lowest[index], lowest[index - 1])
    return lowest


def _missing(lowest_s: np.ndarray) -> int:
    """Counts missing frames: each is a step up in lag that no later frame takes back."""
    missing, level_s = 0, float(lowest_s[0])
    for value_s in lowest_s:
        steps = round((float(value_s) - level_s) / FRAME_S)
        if steps:
            missing += max(0, steps)
            level_s += steps * FRAME_S
    return missing


def _missing_in(silence_s: float, allowed_s: float) -> int:
    """Frames in the silence before the first frame, or after the last one."""
    return int(silence_s / FRAME_S) - 1 if silence_s > allowed_s else 0


def _jitter(differences_s: np.ndarray) -> float:
    """RFC 3550: ``J += (|D| - J) / 16`` for each frame."""
    jitter_s = 0.0
    for difference_s in np.abs(differences_s):
        jitter_s += (float(difference_s) - jitter_s) / 16
    return jitter_s


class Level:
    """The RMS level in dB, where 0 is a full-scale sine; None for silence."""

    def __init__(self) -> None:
        self._energy = self._recent_energy = 0.0
        self._samples = self._recent_samples = 0

    def add(self, samples: bytes) -> None:
        """Measure more audio (s16le)."""
        values = np.frombuffer(samples, "<i2").astype(np.float64)
        energy = float(values @ values)
        self._energy += energy
        self._recent_energy += energy
        self._samples += len(values)
        self._recent_samples += len(values)

    def take_recent_db(self) -> float | None:
        """The level since the last call of this method."""
        level = _db(self._recent_energy, self._recent_samples)
        self._recent_energy, self._recent_samples = 0.0, 0
        return level

    @property
    def db(self) -> float | None:
        return _db(self._energy, self._samples)


def _db(energy: float, samples: int) -> float | None:
    return round(10 * math.log10(2 * energy / samples / 32768.0**2), 1) if energy else None


class RoundTrip:
    """Measures how long a sound takes to the server and back, if the server echoes it byte for byte.

    From time to time it picks a piece of the sent audio, and looks for it in the received audio. It uses no piece that
    was sent before (silence, a steady tone): an earlier echo could hold it.
    """

    PIECE_BYTES = 64
    HISTORY_BYTES = 64_000
    """Sent audio that must not hold the piece already: 4 s at 8 kHz."""
    EVERY_S = 0.25
    GIVE_UP_S = 5.0

    def __init__(self) -> None:
        self.times_s = array("d")
        self._sent = bytearray()
        self._tail = b""
        self._piece: bytes | None = None
        self._piece_at_s = 0.0
        self._next_s = 0.0

    @property
    def latest_ms(self) -> float | None:
        """The last round trip (ms), if any."""
        return self.times_s[-1] * 1000 if self.times_s else None

    def sent(self, payload: bytes, at_s: float) -> None:
        if self._piece is not None and at_s - self._piece_at_s > self.GIVE_UP_S:
            self._piece = None
        if self._piece is None and at_s >= self._next_s:
            piece = payload[: self.PIECE_BYTES]
            if len(piece) == self.PIECE_BYTES and len(set(piece)) > 8 and piece not in self._sent:
                self._piece, self._piece_at_s = piece, at_s
        self._sent += payload
        if len(self._sent) > 2 * self.HISTORY_BYTES:
            del self._sent[: -self.HISTORY_BYTES]

    def heard(self, payload: bytes, at_s: float) -> None:
        piece = self._piece
        if piece is None:
            self._tail = payload
            return
        heard = self._tail + payload
        if piece in heard:
            self.times_s.append(at_s - self._piece_at_s)
            self._piece, self._next_s = None, at_s + self.EVERY_S
        self._tail = heard[-self.PIECE_BYTES + 1 :]
