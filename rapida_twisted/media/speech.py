"""An assistant's speech: turns bytes, WAV files and iterables into queued sources, and reports how each one ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.audio.playout import PartsSource, PipeSource, Playout, Source
from rapida_twisted.audio.wav import WavReader
from rapida_twisted.interfaces import Playable, PlayOutcome

__all__ = ["Speech"]

AHEAD_MS = 1000.0
"""How far an async iterable is read ahead of playing."""
PART_MS = 100.0
"""Audio is converted in parts of at most this length, just before they are played."""


class Speech:
    """Everything that one call plays, until it was heard or flushed.

    :param playout: the call's queue.
    :param failed: called when an async iterable raised.
    :param reactor: provides IReactorTime.
    """

    def __init__(self, playout: Playout, failed: Callable[[Failure], None], reactor: Any) -> None:
        self._playout = playout
        self._reactor = reactor
        self._failed = failed
        self._waiting: dict[Source, Deferred[PlayOutcome]] = {}
        self._pumps: dict[Source, Deferred[None]] = {}

    def play(self, audio: Playable, rate_hz: int) -> Deferred[PlayOutcome]:
        """Queue audio; fires with its outcome. Cancelling removes only this audio.

        :param rate_hz: the sample rate; WAV files have their own.
        """
        source = self._source(audio, rate_hz)
        spoken: Deferred[PlayOutcome] = Deferred(lambda _: self._withdraw(source))
        self._waiting[source] = spoken
        self._playout.put(source)
        return spoken

    def played(self, source: Source) -> None:
        """The caller has heard all of a source."""
        self._settle(source, PlayOutcome.PLAYED)

    def flush(self) -> float:
        """Drop all queued audio; returns its length (ms)."""
        dropped_ms = self._playout.flush()
        # Sources that were sent, and not reported as heard, count as flushed too.
        for source in list(self._waiting):
            self._settle(source, PlayOutcome.FLUSHED)
        return dropped_ms

    def _settle(self, source: Source, spoken: PlayOutcome) -> None:
        self._stop_pump(source)
        waiting = self._waiting.pop(source, None)
        if waiting is not None:
            waiting.callback(spoken)

    def _withdraw(self, source: Source) -> None:
        self._waiting.pop(source, None)
        self._stop_pump(source)
        self._playout.discard(source)

    def _source(self, audio: Playable, rate_hz: int) -> Source:
        wire = self._playout.format
        if isinstance(audio, str | Path):
            reader = WavReader(Path(audio), PART_MS)
            return PartsSource(reader, AudioFormat("slin", reader.rate_hz), wire)
        source_format = AudioFormat("slin", rate_hz)
        if isinstance(audio, bytes | bytearray | memoryview):
            return _in_memory(bytes(audio), source_format, wire)
        if isinstance(audio, Iterable):
            return PartsSource(_slices(audio, source_format), source_format, wire)
        if not isinstance(audio, AsyncIterable):
            raise TypeError(
                f"a call plays bytes, a WAV file's path or an iterable of bytes, not {type(audio).__name__}"
            )
        return self._streamed(audio, source_format)

    def _streamed(self, parts: AsyncIterable[bytes], source_format: AudioFormat) -> PipeSource:
        """A source that a coroutine feeds, at most AHEAD_MS ahead of playing."""
        pausing: list[Deferred[None]] = []

        def resume() -> None:
            if pausing and pipe.queued_ms < AHEAD_MS:
                pausing.pop().callback(None)

        async def pump() -> None:
            try:
                async for part in parts:
                    for piece in _slices([part], source_format):
                        pipe.feed(piece)
                    if pipe.queued_ms >= AHEAD_MS:
                        pause: Deferred[None] = Deferred()
                        pausing.append(pause)
                        await pause
                pipe.close()
            except CancelledError:
                if isinstance(parts, AsyncGenerator):
                    await parts.aclose()
                raise

        pipe = PipeSource(source_format, self._playout.format, resume)
        pumping = Deferred.fromCoroutine(pump())
        self._pumps[pipe] = pumping
        pumping.addErrback(self._pump_failed, pipe)
        return pipe

    def _pump_failed(self, failure: Failure, pipe: PipeSource) -> None:
        # The errors of stopped pumps are ignored.
        if pipe in self._pumps:
            self._failed(failure)

    def _stop_pump(self, source: Source) -> None:
        pumping = self._pumps.pop(source, None)
        if pumping is not None:
            # Later: the pump may be the code that is running now.
            self._reactor.callLater(0, pumping.cancel)


def _in_memory(samples: bytes, source_format: AudioFormat, wire: AudioFormat) -> PipeSource:
    """A source that holds all its samples, so that its length is known."""
    source = PipeSource(source_format, wire)
    for piece in _slices([samples], source_format):
        source.feed(piece)
    source.close()
    return source


def _slices(parts: Iterable[bytes], source_format: AudioFormat) -> Iterator[bytes]:
    """The parts, split to at most PART_MS."""
    piece_bytes = source_format.bytes_for(PART_MS)
    for part in parts:
        for begin in range(0, len(part), piece_bytes):
            yield part[begin : begin + piece_bytes]
