"""The playout queue of one call: audio for the caller, in the wire's format, taken in frames of 20 ms.

The queue holds two kinds of audio. *Speech* (a file, samples, a stream) is a :class:`Source`, whose parts are converted
as they are taken: a minute of speech costs neither a minute's memory nor a long conversion. *Live* audio (an echo, a
bridge) plays when no speech is queued, and only its newest ``live_limit_ms`` are kept.

The queue also knows what was heard. It counts positions in ms of audio taken; the frames in ``ahead`` were taken and
sent, and the caller has not heard them yet::

    sources     |---- A ----|-- B --|------- C ...
    taken       |=====================|                frames * 20 ms
    ahead                       |=====|
    heard       |===============|                      all of A, half of B, nothing of C
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from rapida_twisted.audio.convert import Converter, converter
from rapida_twisted.audio.formats import FRAME_MS, AudioFormat

__all__ = ["STANDING_FRAMES", "PartsSource", "PipeSource", "Playout", "Source"]

STANDING_FRAMES = 50
"""Frames of live audio (1 s) after which a standing queue is shortened."""
FILLS_KEPT = 64
"""Filled frames whose positions are known: more than are ever sent ahead at once."""


class Source:
    """One piece of speech: samples that come in parts and leave in the wire's format.

    :param source_format: of the parts; always linear.
    :param wire_format: of the frames taken.
    """

    def __init__(self, source_format: AudioFormat, wire_format: AudioFormat) -> None:
        self._source_format = source_format
        self._wire_format = wire_format
        self._convert: Converter | None = converter(source_format, wire_format)
        self._ready = b""
        self._odd = b""
        self._tail_due = True
        self._made_bytes = 0
        """All that was put into ``_ready`` so far. It grows with each part, and costs nothing per frame."""
        self._taken_ms = 0.0
        """Audio taken in an earlier format of the wire (ms)."""
        self.end_ms: float | None = None
        """The queue's position after the last sample; None until all was taken."""

    @property
    def taken_ms(self) -> float:
        """Audio taken so far (ms)."""
        return self._taken_ms + self._wire_format.ms(self._made_bytes - len(self._ready))

    @property
    def rest_ms(self) -> float | None:
        """Audio that was not taken yet (ms); None if that is not known."""
        return self.queued_ms if self._exhausted else None

    @property
    def ended(self) -> bool:
        """True once all of it was taken."""
        return not self._tail_due and not self._ready and self._exhausted

    @property
    def queued_ms(self) -> float:
        """Audio that has arrived and was not taken yet (ms)."""
        return self._wire_format.ms(len(self._ready))

    @property
    def _exhausted(self) -> bool:
        """True once no further part will come."""
        raise NotImplementedError

    def _next_part(self) -> bytes | None:
        """The next part, or None if there is none now."""
        raise NotImplementedError

    def take(self, byte_count: int) -> bytes:
        """Up to ``byte_count`` bytes in the wire's format; fewer if no more are available now."""
        while len(self._ready) < byte_count:
            part = self._next_part()
            if part is None:
                if self._exhausted and self._tail_due:
                    self._tail_due = False
                    if self._convert is not None:
                        self._add(self._convert.flush())
                break
            self._add(self._converted(part))
        taken = self._ready[:byte_count]
        self._ready = self._ready[byte_count:]
        return taken

    def clear(self) -> None:
        """It is no longer queued: free its audio, since code that still waits for its outcome holds the source."""
        self._ready = b""

    def retarget(self, wire_format: AudioFormat) -> None:
        """Change the wire's format, and convert the audio that waits."""
        self._taken_ms = self.taken_ms
        again = converter(self._wire_format, wire_format)
        if again is not None and self._ready:
            self._ready = again(self._ready)
        self._made_bytes = len(self._ready)
        self._wire_format = wire_format
        self._convert = converter(self._source_format, wire_format)

    def _add(self, samples: bytes) -> None:
        self._ready += samples
        self._made_bytes += len(samples)

    def _converted(self, part: bytes) -> bytes:
        """A part in the wire's format. Half a sample at the end of a part waits for the next part."""
        if self._odd or len(part) % 2:
            part = self._odd + part
            cut = len(part) // 2 * 2
            part, self._odd = part[:cut], part[cut:]
        return part if self._convert is None else self._convert(part)


class PartsSource(Source):
    """Speech that is available at once, such as a file. Each part is read just before it is played.

    :param duration_ms: the length of all parts, where it is known.
    """

    def __init__(
        self,
        parts: Iterable[bytes],
        source_format: AudioFormat,
        wire_format: AudioFormat,
        duration_ms: float | None = None,
    ) -> None:
        super().__init__(source_format, wire_format)
        self._parts: Iterator[bytes] | None = iter(parts)
        self._duration_ms = duration_ms

    @property
    def rest_ms(self) -> float | None:
        if self._parts is None or self._duration_ms is None:
            return super().rest_ms
        return max(0.0, self._duration_ms - self.taken_ms)

    @property
    def _exhausted(self) -> bool:
        return self._parts is None

    def clear(self) -> None:
        super().clear()
        self._parts = None

    def _next_part(self) -> bytes | None:
        if self._parts is None:
            return None
        part = next(self._parts, None)
        if part is None:
            self._parts = None
        return part


class PipeSource(Source):
    """Speech that is fed while it plays.

    :param part_taken: called when a part was taken.
    """

    def __init__(
        self, source_format: AudioFormat, wire_format: AudioFormat, part_taken: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(source_format, wire_format)
        self._fed: deque[bytes] = deque()
        self._fed_bytes = 0
        self._closed = False
        self._part_taken = part_taken

    @property
    def _exhausted(self) -> bool:
        return self._closed and not self._fed

    @property
    def queued_ms(self) -> float:
        return super().queued_ms + self._source_format.ms(self._fed_bytes)

    @property
    def rest_ms(self) -> float | None:
        return self.queued_ms if self._closed else None

    def feed(self, part: bytes) -> None:
        self._fed.append(part)
        self._fed_bytes += len(part)

    def close(self) -> None:
        """No further part will be fed."""
        self._closed = True

    def clear(self) -> None:
        super().clear()
        self.close()
        self._fed.clear()
        self._fed_bytes = 0

    def _next_part(self) -> bytes | None:
        if not self._fed:
            return None
        part = self._fed.popleft()
        self._fed_bytes -= len(part)
        self._part_taken()
        return part


class Playout:
    """The queue of one call."""

    def __init__(self, wire_format: AudioFormat, live_limit_ms: float = 200.0) -> None:
        self.format = wire_format
        self.finished: list[Source] = []
        """Sources whose last sample was taken. The caller of :meth:`take` empties the list."""
        self.live_dropped_ms = 0.0
        """Live audio dropped because too much was queued (ms)."""
        self.underruns = 0
        """Frames filled up with silence because a stream was too slow."""
        self.frames = 0
        """Frames taken so far."""
        self.ahead: deque[bytes] = deque()
        """Frames taken that the caller has not heard yet, as far as known. Its pacer fills and empties it."""
        self._lost_ms = 0.0
        """Audio that was taken and never heard (ms)."""
        self._filled_ms = 0.0
        """Silence that filled up frames (ms)."""
        self._fills: deque[tuple[float, float]] = deque(maxlen=FILLS_KEPT)
        """The position and length (ms) of the latest of it."""
        self._frame_bytes = wire_format.frame_bytes
        self._sources: deque[Source] = deque()
        self._partial = b""
        """The beginning of a frame whose rest has not arrived yet."""
        self.fetch: Callable[[], bytes | None] | None = None
        """Returns live audio in the wire's format when it is due, or None if there is none now."""
        self._live: deque[bytes] = deque()
        self._live_bytes = 0
        self._live_least = 0
        """The shortest queue after a take since the last check (bytes)."""
        self._live_taken = 0
        self._live_limit_ms = live_limit_ms
        self._live_limit_bytes = wire_format.bytes_for(live_limit_ms)

    @property
    def is_saying(self) -> bool:
        """True if speech is queued."""
        return bool(self._sources)

    @property
    def is_fetching(self) -> bool:
        """True if the next frame is fetched."""
        return self.fetch is not None and not self._sources

    @property
    def idle(self) -> bool:
        """True if nothing is queued and nothing is fetched."""
        return not (self._live or self._sources or self._partial or self.fetch)

    @property
    def ready(self) -> int:
        """Whole live frames that could be sent now; 0 while speech is queued."""
        return 0 if self._sources else self._live_bytes // self.format.frame_bytes

    def put(self, source: Source) -> None:
        self._sources.append(source)

    def discard(self, source: Source) -> bool:
        """Remove a source; False if it was not queued."""
        try:
            self._sources.remove(source)
        except ValueError:
            return False
        return True

    def write(self, payload: bytes) -> None:
        """Queue live audio in the wire's format; beyond the limit the oldest is dropped."""
        if not payload:
            return
        self._live.append(payload)
        self._live_bytes += len(payload)
        excess = self._live_bytes - self._live_limit_bytes
        if excess > 0:
            self._drop_live(excess)

    @property
    def sources(self) -> int:
        """The number of queued sources, with the one that plays."""
        return len(self._sources)

    def take(self, fill: bool = True) -> bytes | None:
        """One frame of 20 ms; None if there is none.

        :param fill: fill a partial frame of speech up with silence; otherwise it waits for its rest.
        """
        if self._sources or self._partial:
            frame = self._take_speech(fill)
            # The last source may have ended without a further sample.
            if frame is not None or self._sources:
                return frame
        return self._take_live()

    def _take_live(self) -> bytes | None:
        """A whole frame of live audio, or None.

        A partial frame waits for its rest: filling it up would put silence into packets of other lengths than 20 ms.
        """
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
        self.frames += 1
        self._shorten_standing_queue()
        return frame

    def _shorten_standing_queue(self) -> None:
        """Drop a frame if every take of the last second left two or more.

        Live audio arrives as fast as it is taken, so a backlog from a stall would otherwise stay for ever.
        """
        self._live_least = min(self._live_least, self._live_bytes)
        self._live_taken += 1
        if self._live_taken == STANDING_FRAMES:
            if self._live_least >= 2 * self._frame_bytes:
                self._drop_live(self._frame_bytes)
            self._live_taken, self._live_least = 0, self._live_bytes

    def flush(self) -> float:
        """Drop all queued audio; returns its length (ms)."""
        queued_ms = self.queued_ms
        self._partial = b""
        self._sources.clear()
        self._live.clear()
        self._live_bytes = 0
        return queued_ms

    def drop_ahead(self) -> None:
        """The frames that were sent ahead will not be heard."""
        self._lost_ms += self.ahead_ms
        self.ahead.clear()
        self._partial = b""

    @property
    def queued_ms(self) -> float:
        """The length of the queued audio (ms), without the unread parts of files and streams."""
        waiting_bytes = self._live_bytes + len(self._partial)
        return sum(source.queued_ms for source in self._sources) + self.format.ms(waiting_bytes)

    @property
    def rest_ms(self) -> float | None:
        """All audio that was not heard yet (ms), also what was sent ahead; None while a stream's end is not known."""
        known_ms = self.format.ms(self._live_bytes + len(self._partial)) + self.ahead_ms
        for source in self._sources:
            rest_ms = source.rest_ms
            if rest_ms is None:
                return None
            known_ms += rest_ms
        return known_ms

    @property
    def ahead_ms(self) -> float:
        """Audio that was sent ahead and not heard yet (ms)."""
        return self._unheard_ms(self.frames * FRAME_MS)

    @property
    def heard_ms(self) -> float:
        """Audio heard so far (ms), without the silence that filled up frames."""
        return max(0.0, self.frames * FRAME_MS - self._filled_ms - self.ahead_ms - self._lost_ms)

    def heard_of(self, source: Source) -> float:
        """How much of a source was heard so far (ms)."""
        end_ms = source.end_ms
        if end_ms is None:
            end_ms = self.frames * FRAME_MS + self.format.ms(len(self._partial))
        return max(0.0, source.taken_ms - self._unheard_ms(end_ms))

    def _unheard_ms(self, end_ms: float) -> float:
        """Audio between the position that was heard last and this one (ms)."""
        heard_ms = (self.frames - len(self.ahead)) * FRAME_MS
        if end_ms <= heard_ms:
            return 0.0
        return end_ms - heard_ms - sum(ms for begin_ms, ms in self._fills if heard_ms <= begin_ms < end_ms)

    def retarget(self, wire_format: AudioFormat) -> None:
        """Change the wire's format, and convert the queued audio."""
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

    def _take_speech(self, fill: bool) -> bytes | None:
        """A frame from the sources in their order, without gaps between them."""
        frame, self._partial = self._partial, b""
        while self._sources:
            source = self._sources[0]
            frame += source.take(self._frame_bytes - len(frame))
            if not source.ended:
                break
            # An iterable's own code may have flushed the queue meanwhile.
            if self.discard(source):
                source.end_ms = self.frames * FRAME_MS + self.format.ms(len(frame))
                self.finished.append(source)
        if len(frame) != self._frame_bytes:
            if self._sources:
                if not fill:
                    self._partial = frame
                    return None
                self.underruns += 1
            if not frame:
                return None
            frame = self._filled(frame)
        self.frames += 1
        return frame

    def _filled(self, frame: bytes) -> bytes:
        """A partial frame, filled up with silence."""
        filled_ms = FRAME_MS - self.format.ms(len(frame))
        self._filled_ms += filled_ms
        self._fills.append((self.frames * FRAME_MS + self.format.ms(len(frame)), filled_ms))
        return frame + self.format.silent_frame[len(frame) :]

    def _drop_live(self, excess: int) -> None:
        """Drop the oldest ``excess`` bytes of live audio."""
        self._live_bytes -= excess
        self.live_dropped_ms += self.format.ms(excess)
        while excess > 0:
            oldest = self._live.popleft()
            if len(oldest) > excess:
                self._live.appendleft(oldest[excess:])
            excess -= len(oldest)
