"""From one format to another: the one place where a call's audio is converted, once in each direction."""

from __future__ import annotations

from collections.abc import Callable

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


class Converter:
    """A stream's conversion, step by step. One is made for each stream, since a resampler remembers.

    :param steps: applied in this order.
    :param resampler: the one among the steps, if there is one.
    :param last: what is still done to the resampler's samples after it.
    """

    def __init__(
        self,
        steps: list[Callable[[bytes], bytes]],
        resampler: Resampler | None,
        last: Callable[[bytes], bytes] | None,
    ) -> None:
        self._steps = steps
        self._resampler = resampler
        self._last = last

    def __call__(self, audio: bytes) -> bytes:
        """The next part of the stream, converted: whole samples in, whole samples out."""
        for step in self._steps:
            audio = step(audio)
        return audio

    def flush(self) -> bytes:
        """What is held back, at the end of a stream."""
        if self._resampler is None:
            return b""
        rest = self._resampler.flush()
        return rest if self._last is None else self._last(rest)


def converter(source: AudioFormat, target: AudioFormat) -> Converter | None:
    """What turns a stream of one format into another; None when there is nothing to do."""
    if source == target:
        return None
    if source.rate_hz == target.rate_hz and (source.encoding, target.encoding) in _DIRECT:
        return Converter([_DIRECT[source.encoding, target.encoding]], None, None)
    resampler = Resampler(source.rate_hz, target.rate_hz) if source.rate_hz != target.rate_hz else None
    last = _FROM_SLIN.get(target.encoding)
    steps = [_TO_SLIN.get(source.encoding), resampler.convert if resampler else None, last]
    return Converter([step for step in steps if step is not None], resampler, last)
