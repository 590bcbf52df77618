"""What waits to be heard by one caller: bounded, in the wire's format, taken one frame of 20 ms at a time.

Two kinds of audio wait here. What is *said* (a file, samples, a stream) is a :class:`Source`: its parts are converted
as they are taken, so a minute of speech costs neither a minute's memory nor a long conversion. What is *live* (an
echo, a bridge) is heard when nothing said is waiting, and only its newest ``live_limit_ms`` are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from rapida_twisted.audio.convert import Converter, converter
from rapida_twisted.audio.formats import AudioFormat

__all__ = ["STANDING_FRAMES", "PartsSource", "PipeSource", "Playout", "Source"]

STANDING_FRAMES = 50
"""After so many frames of live audio (1 s) its queue is looked at."""


class Source:
    """One thing being said: samples that come in parts and leave in the wire's format."""

    def __init__(self, source_format: AudioFormat, wire_format: AudioFormat) -> None:
        """:param source_format: of the parts: always linear; ``wire_format``: of what is taken."""
        self._source_format = source_format
        self._wire_format = wire_format
        self._convert: Converter | None = converter(source_format, wire_format)
        self._ready = b""
        self._odd = b""
        self._tail_due = True

    @property
    def ended(self) -> bool:
        """Whether all of it was taken."""
        return self._exhausted and not self._tail_due and not self._ready

    @property
    def queued_ms(self) -> float:
        """How much of it has arrived and was not taken yet (ms)."""
        return self._wire_format.ms(len(self._ready))

    @property
    def _exhausted(self) -> bool:
        """Whether no further part will come."""
        raise NotImplementedError

    def _next_part(self) -> bytes | None:
        """The next part, or None when there is none now."""
        raise NotImplementedError

    def take(self, byte_count: int) -> bytes:
        """Up to so many bytes in the wire's format; fewer when there are no more for now."""
        while len(self._ready) < byte_count:
            part = self._next_part()
            if part is None:
                if self._exhausted and self._tail_due:
                    self._tail_due = False
                    if self._convert is not None:
                        self._ready += self._convert.flush()
                break
            self._ready += self._converted(part)
        taken = self._ready[:byte_count]
        self._ready = self._ready[byte_count:]
        return taken

    def retarget(self, wire_format: AudioFormat) -> None:
        """The wire's format is another from now on; what waits is converted to it."""
        again = converter(self._wire_format, wire_format)
        if again is not None and self._ready:
            self._ready = again(self._ready)
        self._wire_format = wire_format
        self._convert = converter(self._source_format, wire_format)

    def _converted(self, part: bytes) -> bytes:
        """A part in the wire's format. A stream may be cut in the middle of a sample: half of one is kept back."""
        if self._odd or len(part) % 2:
            part = self._odd + part
            cut = len(part) // 2 * 2
            part, self._odd = part[:cut], part[cut:]
        return part if self._convert is None else self._convert(part)


class PartsSource(Source):
    """Parts that can be had at once, each read when it is about to be heard: samples in memory, a file."""

    def __init__(self, parts: Iterable[bytes], source_format: AudioFormat, wire_format: AudioFormat) -> None:
        super().__init__(source_format, wire_format)
        self._parts: Iterator[bytes] | None = iter(parts)

    @property
    def _exhausted(self) -> bool:
        return self._parts is None

    def _next_part(self) -> bytes | None:
        if self._parts is None:
            return None
        part = next(self._parts, None)
        if part is None:
            self._parts = None
        return part


class PipeSource(Source):
    """Parts that somebody feeds while others are heard. ``hungry`` is called when a fed part was taken up."""

    def __init__(
        self, source_format: AudioFormat, wire_format: AudioFormat, hungry: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(source_format, wire_format)
        self._fed: deque[bytes] = deque()
        self._fed_bytes = 0
        self._closed = False
        self._hungry = hungry

    @property
    def _exhausted(self) -> bool:
        return self._closed and not self._fed

    @property
    def queued_ms(self) -> float:
        return super().queued_ms + self._source_format.ms(self._fed_bytes)

    def feed(self, part: bytes) -> None:
        """One more part."""
        self._fed.append(part)
        self._fed_bytes += len(part)

    def close(self) -> None:
        """That was the last part."""
        self._closed = True

    def _next_part(self) -> bytes | None:
        if not self._fed:
            return None
        part = self._fed.popleft()
        self._fed_bytes -= len(part)
        self._hungry()
        return part


class Playout:
    """The queue of one call."""

    def __init__(self, wire_format: AudioFormat, live_limit_ms: float = 200.0) -> None:
        self.format = wire_format
        self.finished: list[Source] = []
        """Sources whose last sample was taken; whoever takes frames empties it."""
        self.live_dropped_ms = 0.0
        """Live audio that was too old when its turn came (ms)."""
        self.underruns = 0
        """Frames for which what is being said had too little ready."""
        self._frame_bytes = wire_format.frame_bytes
        self._sources: deque[Source] = deque()
        self._partial = b""
        """The beginning of a frame whose rest has not come yet."""
        self.fetch: Callable[[], bytes | None] | None = None
        """Gives live audio in the wire's format when its turn comes, or None where there is none now."""
        self._live: deque[bytes] = deque()
        self._live_bytes = 0
        self._live_least = 0
        """The least that waited after a take, since the queue was last looked at (bytes)."""
        self._live_taken = 0
        self._live_limit_ms = live_limit_ms
        self._live_limit_bytes = wire_format.bytes_for(live_limit_ms)

    @property
    def is_saying(self) -> bool:
        """Whether something said is waiting; only live audio is, otherwise, if anything."""
        return bool(self._sources)

    @property
    def is_fetching(self) -> bool:
        """Whether what is heard now is fetched."""
        return self.fetch is not None and not self._sources

    @property
    def idle(self) -> bool:
        """Whether nothing waits, and nothing is fetched."""
        return not (self._live or self._sources or self._partial or self.fetch)

    @property
    def ready(self) -> int:
        """Whole frames of live audio that wait although nothing else is to be heard before them."""
        return 0 if self._sources else self._live_bytes // self.format.frame_bytes

    def put(self, source: Source) -> None:
        """Something more to say, after what was put before."""
        self._sources.append(source)

    def discard(self, source: Source) -> bool:
        """Take one source out, wherever it stands; whether it was there."""
        try:
            self._sources.remove(source)
        except ValueError:
            return False
        return True

    def write(self, payload: bytes) -> None:
        """Live audio in the wire's format; the oldest is dropped where too much would wait."""
        if not payload:
            return
        self._live.append(payload)
        self._live_bytes += len(payload)
        excess = self._live_bytes - self._live_limit_bytes
        if excess > 0:
            self._drop_live(excess)

    @property
    def sources(self) -> int:
        """How many things said wait or are being heard."""
        return len(self._sources)

    def take(self, fill: bool = True) -> bytes | None:
        """One frame of 20 ms; None when nothing is to be heard.

        :param fill: whether something said that has too little ready is filled up with silence, or waits for its rest.
        """
        if self._sources:
            frame = self._take_said(fill)
            # That the last source had ended may show only now.
            if frame is not None or self._sources:
                return frame
        return self._take_live()

    def _take_live(self) -> bytes | None:
        """A whole frame of live audio, if there is one: a part of one waits for its rest, or packets of another length
        than ours would be cut up by silence."""
        wanted = self._frame_bytes
        if self.fetch is not None and self._live_bytes < wanted:
            self.write(self.fetch() or b"")
        if self._live_bytes < wanted:
            self._live_least = 0
            return None
        frame = self._live.popleft()
        if len(frame) != wanted:
            while len(frame) < wanted:
                frame += self._live.popleft()
            if len(frame) > wanted:
                self._live.appendleft(frame[wanted:])
                frame = frame[:wanted]
        self._live_bytes -= wanted
        self._shorten_standing_queue()
        return frame

    def _shorten_standing_queue(self) -> None:
        """Live audio comes as fast as it goes, so what a hold-up has left waiting would wait for ever. When two frames
        or more were left by each take of a second, one is dropped."""
        self._live_least = min(self._live_least, self._live_bytes)
        self._live_taken += 1
        if self._live_taken == STANDING_FRAMES:
            if self._live_least >= 2 * self._frame_bytes:
                self._drop_live(self._frame_bytes)
            self._live_taken, self._live_least = 0, self._live_bytes

    def flush(self) -> float:
        """Drop everything that waits; how much that was (ms)."""
        queued_ms = self.queued_ms
        self._partial = b""
        self._sources.clear()
        self._live.clear()
        self._live_bytes = 0
        return queued_ms

    @property
    def queued_ms(self) -> float:
        """How much waits, as far as it is known: a file's or a stream's unread parts are not (ms)."""
        waiting_bytes = self._live_bytes + len(self._partial)
        return sum(source.queued_ms for source in self._sources) + self.format.ms(waiting_bytes)

    def retarget(self, wire_format: AudioFormat) -> None:
        """The wire's format is another from now on: what waits is converted."""
        again = converter(self.format, wire_format)
        if again is not None and self._live:
            self._live = deque([again(b"".join(self._live))])
            self._live_bytes = len(self._live[0])
        if again is not None and self._partial:
            self._partial = again(self._partial)
        for source in self._sources:
            source.retarget(wire_format)
        self.format = wire_format
        self._frame_bytes = wire_format.frame_bytes
        self._live_limit_bytes = wire_format.bytes_for(self._live_limit_ms)

    def _take_said(self, fill: bool) -> bytes | None:
        """A frame from the sources in their order, without a gap between one and the next."""
        frame, self._partial = self._partial, b""
        while self._sources:
            source = self._sources[0]
            frame += source.take(self._frame_bytes - len(frame))
            if not source.ended:
                break
            # An iterable's own code may have flushed the queue meanwhile.
            if self.discard(source):
                self.finished.append(source)
        if len(frame) == self._frame_bytes:
            return frame
        if self._sources:
            if not fill:
                self._partial = frame
                return None
            self.underruns += 1
        return self._filled(frame) if frame else None

    def _drop_live(self, excess: int) -> None:
        """Drop so many bytes of live audio, the oldest first."""
        self._live_bytes -= excess
        self.live_dropped_ms += self.format.ms(excess)
        while excess > 0:
            oldest = self._live.popleft()
            if len(oldest) > excess:
                self._live.appendleft(oldest[excess:])
            excess -= len(oldest)

    def _filled(self, frame: bytes) -> bytes:
        """A short frame with silence behind it."""
        return frame + self.format.silent_frame[len(frame) :]
