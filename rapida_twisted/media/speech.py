"""An assistant's speech: queues samples, sound files and streams, and reports how much of each was heard."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.audio.playout import PartsSource, PipeSource, Playout, Source
from rapida_twisted.audio.wav import WavReader
from rapida_twisted.interfaces import Playable, PlayEnd, PlayOutcome
from rapida_twisted.media.answering import run_stream
from rapida_twisted.media.assistant import ASSISTANT_ERRORS
from rapida_twisted.media.playable import PART_MS, checked, pieces
from rapida_twisted.media.requests import Request, Requests

__all__ = ["Speech"]

AHEAD_MS = 1000.0
"""How far an async iterable is read ahead of playing."""


@attrs.define(eq=False)
class _Playing:
    """One play() that has not ended."""

    outcome: Deferred[PlayOutcome]
    close: Callable[[], object] = lambda: None
    """Releases the file or the stream, when it is stopped before its end."""
    failure: Failure | None = None
    """What its stream raised; what the stream gave before is still to be heard."""


class Speech:
    """Everything that one call plays, until it was heard or dropped.

    :param playout: the call's queue.
    :param requests: the call's; reports failures that nobody handles.
    :param reactor: provides IReactorTime.
    :param drop_sent: has the peer drop what was sent ahead.
    """

    def __init__(
        self, playout: Playout, requests: Requests, reactor: Any, drop_sent: Callable[[], None] = lambda: None
    ) -> None:
        self._playout = playout
        self._requests = requests
        self._reactor = reactor
        self._drop_sent = drop_sent
        self._playing: dict[Source, _Playing] = {}
        self._barriers: list[tuple[set[Source], Deferred[None]]] = []
        """The sources that each queued() still waits for."""

    def play(self, audio: Playable, rate_hz: int) -> Deferred[PlayOutcome]:
        """Queue audio; fires with its outcome. Cancelling removes only this audio.

        :param rate_hz: the sample rate; sound files have their own.
        :raises TypeError: it can't be played; so does ``ValueError``. A file's errors fail the Deferred.
        """
        parts, source_format = checked(audio), AudioFormat("slin", rate_hz)
        playing = _Playing(Request(lambda _: self._cancelled(source)))
        try:
            source = self._source(parts, source_format, playing)
        except (OSError, ValueError) as error:
            return self._requests.refuse(error)
        self._playing[source] = playing
        self._playout.put(source)
        return playing.outcome

    def played(self, source: Source) -> None:
        """The caller has heard all of a source."""
        self._settle(source, PlayEnd.PLAYED, source.taken_ms)

    def stop(self, outcome: Deferred[PlayOutcome]) -> None:
        """Stop one thing; its Deferred fires. Nothing happens if it has ended."""
        for source, playing in self._playing.items():
            if playing.outcome is outcome:
                self._settle(source, PlayEnd.FLUSHED, self._withdraw(source))
                return

    def flush(self) -> float | None:
        """Drop all audio that was not heard; returns its length (ms), None if that is not known."""
        rest_ms = self._playout.rest_ms
        # Sources that were sent, and not reported as heard, are dropped too.
        heard_ms = {source: self._playout.heard_of(source) for source in self._playing}
        self._playout.flush()
        self._drop_sent()
        for source, of_source_ms in heard_ms.items():
            self._settle(source, PlayEnd.FLUSHED, of_source_ms)
        return rest_ms

    def queued(self) -> Deferred[None]:
        """Fires when all that is queued now was heard or dropped; at once if nothing is queued."""
        empty: Deferred[None] = Deferred(self._barrier_cancelled)
        self._barriers.append((set(self._playing), empty))
        self._lift_barriers()
        return empty

    # The end of one play()

    def _settle(self, source: Source, end: PlayEnd, heard_ms: float) -> None:
        playing = self._playing.pop(source, None)
        if playing is None:
            return
        if end is not PlayEnd.PLAYED:
            self._drop(source, playing)
        if playing.failure is not None:
            self._requests.fail(playing.outcome, playing.failure)
        else:
            playing.outcome.callback(PlayOutcome(end, heard_ms))
            self._requests.check(playing.outcome)
        self._lift_barriers(source)

    def _cancelled(self, source: Source) -> None:
        playing = self._playing.get(source)
        if playing is not None:
            self._withdraw(source)
            self._playing.pop(source, None)
            self._drop(source, playing)
            self._requests.check_later(playing.outcome)
            self._lift_barriers(source)

    def _withdraw(self, source: Source) -> float:
        """Take one source out of the queue; returns how much of it was heard (ms).

        The peer drops all that was sent ahead, or nothing: where that holds other speech too, it is still heard.
        """
        heard_ms = self._playout.heard_of(source)
        self._playout.discard(source)
        if heard_ms < source.taken_ms:
            if any(other.taken_ms for other in self._playing if other is not source):
                return source.taken_ms
            self._drop_sent()
            # The peer drops the marks, too, also those of audio without sound.
            for other in [other for other in self._playing if other is not source and other.end_ms is not None]:
                self._settle(other, PlayEnd.PLAYED, 0.0)
        return heard_ms

    def _drop(self, source: Source, playing: _Playing) -> None:
        source.clear()
        # Later: the stream may be the code that is running now.
        self._reactor.callLater(0, playing.close)

    def _lift_barriers(self, ended: Source | None = None) -> None:
        for sources, _ in self._barriers:
            sources.discard(ended)
        lifted = [empty for sources, empty in self._barriers if not sources]
        self._barriers = [barrier for barrier in self._barriers if barrier[0]]
        for empty in lifted:
            # The one before may have cancelled it.
            if not empty.called:
                empty.callback(None)

    def _barrier_cancelled(self, empty: Deferred[None]) -> None:
        self._barriers = [barrier for barrier in self._barriers if barrier[1] is not empty]
        self._requests.check_later(empty)

    # Sources

    def _source(self, parts: Any, source_format: AudioFormat, playing: _Playing) -> Source:
        wire = self._playout.format
        if isinstance(parts, Path):
            reader = WavReader(parts, PART_MS)
            playing.close = reader.close
            in_file = AudioFormat("slin", reader.rate_hz)
            return PartsSource(_read(reader, in_file, playing), in_file, wire, reader.duration_s * 1000)
        if isinstance(parts, bytes):
            return _in_memory(parts, source_format, wire)
        if isinstance(parts, AsyncIterable):
            return self._streamed(parts, source_format, playing)
        playing.close = lambda: _close_generator(parts)
        return PartsSource(_read(parts, source_format, playing), source_format, wire)

    def _streamed(self, parts: AsyncIterable[Any], source_format: AudioFormat, playing: _Playing) -> PipeSource:
        """A source that a coroutine feeds, at most AHEAD_MS ahead of playing."""
        pausing: list[Deferred[None]] = []
        stopped = False

        def resume() -> None:
            if pausing and pipe.queued_ms < AHEAD_MS:
                pausing.pop().callback(None)

        async def pump() -> None:
            try:
                async for part in parts:
                    if stopped:  # A generator that ignores that it was cancelled.
                        break
                    for piece in pieces(part, source_format):
                        pipe.feed(piece)
                    if pipe.queued_ms >= AHEAD_MS:
                        pause: Deferred[None] = Deferred()
                        pausing.append(pause)
                        await pause
            finally:
                if isinstance(parts, AsyncGenerator):
                    await parts.aclose()

        def failed(failure: Failure) -> None:
            playing.failure = failure

        def stop() -> None:
            nonlocal stopped
            stopped = True
            pumping.cancel()

        pipe = PipeSource(source_format, self._playout.format, resume)
        pumping = run_stream(pump(), self._reactor)
        playing.close = stop
        # A pump that fails because it is stopped fails a play() that has ended.
        pumping.addErrback(failed).addCallback(lambda _: pipe.close())
        return pipe


def _read(parts: Iterable[Any], source_format: AudioFormat, playing: _Playing) -> Iterator[bytes]:
    try:
        for part in parts:
            yield from pieces(part, source_format)
    except GeneratorExit:
        raise  # It is closed, or its code raised this.
    except ASSISTANT_ERRORS:
        playing.failure = Failure()


def _close_generator(parts: Iterable[Any]) -> None:
    """Run the generator's ``finally``. What it raises then is ignored: its play() has ended."""
    if isinstance(parts, Generator):
        with suppress(*ASSISTANT_ERRORS):
            parts.close()


def _in_memory(samples: bytes, source_format: AudioFormat, wire: AudioFormat) -> PipeSource:
    """A source that holds all its samples, so that its length is known."""
    source = PipeSource(source_format, wire)
    for piece in pieces(samples, source_format):
        source.feed(piece)
    source.close()
    return source
