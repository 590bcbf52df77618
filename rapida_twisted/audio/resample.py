"""Resamples a stream: each call returns as many ms as it gets."""

from __future__ import annotations

import math

import numpy as np
import samplerate

__all__ = ["Resampler"]

_QUALITY = "sinc_fastest"
_PRIMING_MS = 20
"""Longer than the filter's delay at any ratio."""


class Resampler:
    """Resamples one stream of s16le mono, with a delay of 2.5 ms.

    The filter looks ahead and so holds back its first samples. Priming it with silence turns that into 2.5 ms of
    silence at the beginning instead of a gap.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._ratio = to_hz / from_hz
        self._resampler = samplerate.Resampler(_QUALITY, channels=1)
        primed = from_hz * _PRIMING_MS // 1000
        given = len(self._resampler.process(np.zeros(primed, np.float32), self._ratio))
        self._held_back = round(primed * self._ratio) - given

    def convert(self, samples: bytes) -> bytes:
        """The next samples. Overshoot is clipped."""
        incoming = np.frombuffer(samples, "<i2").astype(np.float32)
        return _as_samples(self._resampler.process(incoming, self._ratio))

    def flush(self) -> bytes:
        """The samples held back, at the end of the stream."""
        silence = np.zeros(math.ceil(self._held_back / self._ratio) + 1, np.float32)
        return _as_samples(self._resampler.process(silence, self._ratio)[: self._held_back])


def _as_samples(outgoing: np.ndarray) -> bytes:
    return bytes(np.clip(np.rint(outgoing), -32768, 32767).astype("<i2").tobytes())
