"""What an assistant says: every kind of audio becomes a source in the playout queue, and its end is told."""

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
"""How much of an async iterable is read ahead of what was heard."""
PART_MS = 100.0
"""Whatever is said is converted in parts of this length at the most, when they are about to be heard."""


class Speech:
    """The things that one call says, from their being queued to their being heard or flushed.

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
        """Queue something; fires with what became of it. Cancelling stops this one thing.

        :param rate_hz: the rate of samples; a WAV file tells its own.
        """
        source = self._source(audio, rate_hz)
        spoken: Deferred[PlayOutcome] = Deferred(lambda _: self._withdraw(source))
        self._waiting[source] = spoken
        self._playout.put(source)
        return spoken

    def played(self, source: Source) -> None:
        """All of this source was heard."""
        self._settle(source, PlayOutcome.PLAYED)

    def flush(self) -> float:
        """Drop everything that waits; how much that was (ms)."""
        dropped_ms = self._playout.flush()
        # Also those that were taken, but are not known to be heard yet.
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
            raise TypeError(f"a call says bytes, a WAV file's path or an iterable of bytes, not {type(audio).__name__}")
        return self._streamed(audio, source_format)

    def _streamed(self, parts: AsyncIterable[bytes], source_format: AudioFormat) -> PipeSource:
        """A source that a coroutine feeds, no more than a second ahead of what is heard."""
        pausing: list[Deferred[None]] = []

        def go_on() -> None:
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

        pipe = PipeSource(source_format, self._playout.format, go_on)
        pumping = Deferred.fromCoroutine(pump())
        self._pumps[pipe] = pumping
        pumping.addErrback(self._pump_failed, pipe)
        return pipe

    def _pump_failed(self, failure: Failure, pipe: PipeSource) -> None:
        # How one that was stopped took it, is nobody's concern.
        if pipe in self._pumps:
            self._failed(failure)

    def _stop_pump(self, source: Source) -> None:
        pumping = self._pumps.pop(source, None)
        if pumping is not None:
            # Not now: it may be the very one that is running.
            self._reactor.callLater(0, pumping.cancel)


def _in_memory(samples: bytes, source_format: AudioFormat, wire: AudioFormat) -> PipeSource:
    """A source that was fed all there is: so its length is known."""
    source = PipeSource(source_format, wire)
    for piece in _slices([samples], source_format):
        source.feed(piece)
    source.close()
    return source


def _slices(parts: Iterable[bytes], source_format: AudioFormat) -> Iterator[bytes]:
    """The parts, cut where they are long, so that none takes long to convert."""
    piece_bytes = source_format.bytes_for(PART_MS)
    for part in parts:
        for begin in range(0, len(part), piece_bytes):
            yield part[begin : begin + piece_bytes]
