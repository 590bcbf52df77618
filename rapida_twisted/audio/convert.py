"""Converts streams between audio formats: encoding and sample rate. A call converts its audio once per direction."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from rapida_twisted.audio import g711
from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.audio.resample import Resampler

__all__ = ["Converter", "converter"]

_TO_SLIN: dict[str, Callable[[bytes], bytes]] = {"ulaw": g711.ulaw_to_slin, "alaw": g711.alaw_to_slin}
_FROM_SLIN: dict[str, Callable[[bytes], bytes]] = {"ulaw": g711.slin_to_ulaw, "alaw": g711.slin_to_alaw}
_DIRECT: dict[tuple[str, str], Callable[[bytes], bytes]] = {
    ("ulaw", "alaw"): g711.ulaw_to_alaw,
    ("alaw", "ulaw"): g711.alaw_to_ulaw,
}


@attrs.define(eq=False, repr=False, slots=False)
class Converter:
    """Converts one stream, by its steps in their order; its resampler keeps state between calls."""

    _steps: list[Callable[[bytes], bytes]]
    _resampler: Resampler | None = None
    _last: Callable[[bytes], bytes] | None = None
    """The step after the resampler, if any."""

    def __call__(self, audio: bytes) -> bytes:
        """Convert the next part of the stream: whole samples in, whole samples out."""
        for step in self._steps:
            audio = step(audio)
        return audio

    def flush(self) -> bytes:
        """The samples that the resampler holds back, at the end of a stream."""
        if self._resampler is None:
            return b""
        rest = self._resampler.flush()
        return rest if self._last is None else self._last(rest)


def converter(source: AudioFormat, target: AudioFormat) -> Converter | None:
    """The converter for a stream; None if the formats are equal."""
    if source == target:
        return None
    if source.rate_hz == target.rate_hz and (source.encoding, target.encoding) in _DIRECT:
        return Converter([_DIRECT[source.encoding, target.encoding]])
    resampler = Resampler(source.rate_hz, target.rate_hz) if source.rate_hz != target.rate_hz else None
    last = _FROM_SLIN.get(target.encoding)
    steps = [_TO_SLIN.get(source.encoding), resampler.convert if resampler else None, last]
    return Converter([step for step in steps if step is not None], resampler, last)
