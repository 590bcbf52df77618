"""From one rate to another, as a stream: as many ms come out of each call as go in."""

from __future__ import annotations

import math

import numpy as np
import samplerate

__all__ = ["Resampler"]

_QUALITY = "sinc_fastest"
_PRIMING_MS = 20
"""Longer than the filter's delay at any ratio."""


class Resampler:
    """A stream of s16le mono samples at another rate, 2.5 ms late.

    The filter looks ahead, so it holds back its first samples. It is primed with silence instead: the delay is heard as
    2.5 ms of silence at the beginning, and never as a gap.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._ratio = to_hz / from_hz
        self._resampler = samplerate.Resampler(_QUALITY, channels=1)
        primed = from_hz * _PRIMING_MS // 1000
        given = len(self._resampler.process(np.zeros(primed, np.float32), self._ratio))
        self._held_back = round(primed * self._ratio) - given

    def convert(self, samples: bytes) -> bytes:
        """The next samples; full scale is clipped, not wrapped."""
        incoming = np.frombuffer(samples, "<i2").astype(np.float32)
        return _as_samples(self._resampler.process(incoming, self._ratio))

    def flush(self) -> bytes:
        """The last samples of a stream that ends here."""
        silence = np.zeros(math.ceil(self._held_back / self._ratio) + 1, np.float32)
        return _as_samples(self._resampler.process(silence, self._ratio)[: self._held_back])


def _as_samples(outgoing: np.ndarray) -> bytes:
    return bytes(np.clip(np.rint(outgoing), -32768, 32767).astype("<i2").tobytes())
