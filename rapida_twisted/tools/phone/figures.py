"""What a phone measures of a call: when audio came, how loud it was, and how long a sound took there and back.

AudioSocket numbers no frames, so nothing here counts sequence numbers: a frame is missing when the audio stays behind
the time, and late when the audio catches up again.
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
"""A frame that comes this much after its time was not there when a listener needed it."""
SETTLING_S = 1.0
"""What has not caught up after this long is missing, not late."""
TAIL_S = 0.100
"""So much silence before the end of a call is not yet a gap."""


@dataclass(frozen=True)
class Spread:
    """Some durations in short (ms)."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values_s: Sequence[float] | np.ndarray) -> Spread | None:
        """The spread of durations given in seconds; None without any."""
        if not len(values_s):
            return None
        p50, p99, top = np.percentile(np.asarray(values_s, dtype=float) * 1000, (50, 99, 100))
        return cls(round(float(p50), 2), round(float(p99), 2), round(float(top), 2))


@dataclass(frozen=True)
class ArrivalFigures:
    """How audio came."""

    frames: int
    audio_s: float
    gap_ms: Spread | None
    """Between one frame and the next."""
    jitter_ms: float
    """Interarrival jitter as RFC 3550 (6.4.1) reckons it, at the end."""
    late: int
    """Frames over 20 ms behind their time, after which the audio caught up."""
    late_ms: Spread | None
    """How far behind their time frames were, whether late or not."""
    missing: int
    """Frames of 20 ms that never came."""


class Arrivals:
    """When the frames of one call came."""

    def __init__(self) -> None:
        self._at_s = array("d")
        self._audio_s = array("d")

    def __len__(self) -> int:
        return len(self._at_s)

    @property
    def first_s(self) -> float | None:
        """When the first frame came, on the clock of :meth:`add`."""
        return self._at_s[0] if self._at_s else None

    def add(self, at_s: float, audio_s: float) -> None:
        """A frame of so many seconds came at this time (monotonic)."""
        self._at_s.append(at_s)
        self._audio_s.append(audio_s)

    def figures(self, end_s: float | None = None) -> ArrivalFigures:
        """The figures of all that came.

        :param end_s: when the call ended: audio that stopped before that is missing. None: it went on to the end.
        """
        if not self._at_s:
            return ArrivalFigures(0, 0.0, None, 0.0, 0, None, 0)
        at_s = np.frombuffer(self._at_s)
        audio_s = np.frombuffer(self._audio_s)
        behind_s = at_s - at_s[0] - np.concatenate(((0.0,), np.cumsum(audio_s[:-1])))
        lowest_s = _lowest_ahead(behind_s, at_s)
        late_s = behind_s - lowest_s
        missing = _missing(lowest_s)
        if end_s is not None and end_s - at_s[-1] > TAIL_S:
            missing += int((end_s - at_s[-1]) / FRAME_S) - 1
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
    """For each frame, how far behind the audio is at the best within the settling time from then on.

    Near the end there is little to look ahead at: a frame there is judged by what held before.
    """
    lowest = np.empty_like(behind_s)
    window: deque[int] = deque()  # indices, with rising values of behind_s
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
    """Frames that are missing for good: each is a step up that no later frame takes back."""
    missing, level_s = 0, float(lowest_s[0])
    for value_s in lowest_s:
        steps = round((float(value_s) - level_s) / FRAME_S)
        if steps:
            missing += max(0, steps)
            level_s += steps * FRAME_S
    return missing


def _jitter(differences_s: np.ndarray) -> float:
    """RFC 3550: ``J += (|D| - J) / 16`` for each frame."""
    jitter_s = 0.0
    for difference_s in np.abs(differences_s):
        jitter_s += (float(difference_s) - jitter_s) / 16
    return jitter_s


class Level:
    """How loud audio is: the RMS in dB, where 0 is a full-scale sine; None for silence."""

    def __init__(self) -> None:
        self._energy = self._recent_energy = 0.0
        self._samples = self._recent_samples = 0

    def add(self, samples: bytes) -> None:
        """Some more audio (s16le)."""
        values = np.frombuffer(samples, "<i2").astype(np.float64)
        energy = float(values @ values)
        self._energy += energy
        self._recent_energy += energy
        self._samples += len(values)
        self._recent_samples += len(values)

    def take_recent_db(self) -> float | None:
        """The level since this was last asked."""
        level = _db(self._recent_energy, self._recent_samples)
        self._recent_energy, self._recent_samples = 0.0, 0
        return level

    @property
    def db(self) -> float | None:
        """The level of all of it."""
        return _db(self._energy, self._samples)


def _db(energy: float, samples: int) -> float | None:
    return round(10 * math.log10(2 * energy / samples / 32768.0**2), 1) if energy else None


class RoundTrip:
    """How long a sound takes to the server and back, where what comes back is what was sent, byte for byte.

    Now and then a piece of what is being sent is remembered, and looked for in what comes. A piece that was sent
    before already (silence, a steady tone) could be found in an earlier echo, and is not used.
    """

    PIECE_BYTES = 64
    HISTORY_BYTES = 64_000
    """Where a piece must not occur a second time: 4 s at 8 kHz."""
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
        """The last round trip (ms), if any was measured."""
        return self.times_s[-1] * 1000 if self.times_s else None

    def sent(self, payload: bytes, at_s: float) -> None:
        """This left."""
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
        """This came."""
        piece = self._piece
        if piece is None:
            self._tail = payload
            return
        heard = self._tail + payload
        if piece in heard:
            self.times_s.append(at_s - self._piece_at_s)
            self._piece, self._next_s = None, at_s + self.EVERY_S
        self._tail = heard[-self.PIECE_BYTES + 1 :]
