"""Asterisk's queue in chan_websocket: flow control, marks, buffering and FLUSH_MEDIA, for Asterisk's side.

It follows ``channels/chan_websocket.c`` (``handle_command``, ``process_binary_message``, ``dequeue_frame``). No I/O and
no clock: its owner passes messages in, takes a frame each 20 ms, and sends the events that the queue emits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs

from rapida_twisted.wire import chan_websocket as wire

__all__ = ["EVENTS_OF_FRAME", "MAX_EVENTS", "MediaQueue"]

MAX_EVENTS = 5000
"""Maximum events queued. Asterisk itself has no limit."""
EVENTS_OF_FRAME = 20
"""Maximum events emitted in one frame's time; the next ones wait for the next frame."""
_DIRECTIONS = ("both", "in", "out")


@attrs.define(eq=False, slots=False, repr=False)
class MediaQueue:
    """The queue of one channel, with the application's audio.

    :param frame_bytes: the channel's optimal_frame_size.
    :param send_event: called with each event for the application.
    :param form: the channel's control form; SET_MEDIA_DIRECTION exists in JSON only.
    """

    _frame_bytes: int
    _send_event: Callable[[wire.Event], None]
    _channel_id: str = attrs.field(default="", kw_only=True)
    _form: wire.ControlForm = attrs.field(kw_only=True)
    _waiting: deque[bytes | wire.Event] = attrs.field(init=False, factory=deque)
    frames: int = attrs.field(init=False, default=0)
    """Frames queued."""
    dropped_messages: int = attrs.field(init=False, default=0)
    """Audio messages dropped because the queue was full."""
    direction: str = attrs.field(init=False, default="both")
    """The audio directions, as the application sees them: ``both``, ``in`` or ``out``."""
    _leftover: bytes = attrs.field(init=False, default=b"")
    _buffering: bool = attrs.field(init=False, default=False)
    _paused: bool = attrs.field(init=False, default=False)
    _full: bool = attrs.field(init=False, default=False)
    _report_drained: bool = attrs.field(init=False, default=False)

    def audio(self, payload: bytes) -> None:
        """A binary message from the application."""
        if self.direction == "in":
            return
        if self.frames >= wire.QUEUE_MAX_FRAMES:
            self.dropped_messages += 1
            return
        if self._buffering:
            payload = self._leftover + payload
        self._leftover = b""
        size = self._frame_bytes
        whole = len(payload) // size * size
        for begin in range(0, whole, size):
            self._queue(payload[begin : begin + size])
        # Outside of buffering, Asterisk discards a message's partial frame.
        if self._buffering:
            self._leftover = payload[whole:]

    def command(self, command: wire.Command) -> None:
        """A command from the application. ANSWER, HANGUP and unknown commands do nothing here."""
        match command:
            case wire.StartMediaBuffering():
                if self._is_allowed(command):
                    self._buffering = True
            case wire.StopMediaBuffering(correlation_id):
                if self._is_allowed(command):
                    self._stop_buffering(correlation_id)
            case wire.MarkMedia(correlation_id):
                if self._is_allowed(command):
                    # Due after the audio before it, and not counted in the queue's length.
                    self._queue_event(
                        wire.MediaMarkProcessed(correlation_id=correlation_id, channel_id=self._channel_id)
                    )
            case wire.FlushMedia():
                self._waiting.clear()
                self.frames = 0
                self._buffering = False
                self._leftover = b""
            case wire.PauseMedia() | wire.ContinueMedia():
                if self._is_allowed(command):
                    self._paused = isinstance(command, wire.PauseMedia)
            case wire.ReportQueueDrained():
                self._report_drained = True
            case wire.GetStatus():
                self._send_event(self.status())
            case wire.SetMediaDirection(direction):
                self._set_direction(direction)

    def status(self) -> wire.Status:
        """The queue's state, as the answer to GET_STATUS."""
        return wire.Status(
            channel_id=self._channel_id,
            queue_length=self.frames,
            queue_full=self._full,
            bulk_media=self._buffering,
            media_paused=self._paused,
        )

    def take(self) -> bytes | None:
        """Take the frame that plays now, or None; emit the events that are due before it. Call it each 20 ms."""
        if self.direction == "in":
            return None
        frame = None if self._paused else self._next_frame()
        if frame is None:
            # A partial frame plays without its rest, even during a pause.
            frame, self._leftover = self._leftover or None, b""
        return frame

    def _next_frame(self) -> bytes | None:
        if self._full and self.frames < wire.XON_LEVEL_FRAMES:
            self._full = False
            self._send_event(wire.MediaXon(channel_id=self._channel_id))
        if not self._waiting and self._report_drained:
            self._report_drained = False
            self._send_event(wire.QueueDrained(channel_id=self._channel_id))
        for _ in range(min(len(self._waiting), EVENTS_OF_FRAME)):
            item = self._waiting.popleft()
            if isinstance(item, bytes):
                self.frames -= 1
                return item
            self._send_event(item)
        return None

    def _queue(self, frame: bytes) -> None:
        self._waiting.append(frame)
        self.frames += 1
        if not self._full and self.frames >= wire.XOFF_LEVEL_FRAMES:
            self._full = True
            self._send_event(wire.MediaXoff(channel_id=self._channel_id))

    def _stop_buffering(self, correlation_id: str) -> None:
        self._buffering = False
        leftover, self._leftover = self._leftover, b""
        if leftover:
            self._queue(leftover)
        self._queue_event(wire.MediaBufferingCompleted(correlation_id=correlation_id, channel_id=self._channel_id))

    def _queue_event(self, event: wire.Event) -> None:
        """Have an event follow the audio before it, or refuse it."""
        if len(self._waiting) - self.frames < MAX_EVENTS:
            self._waiting.append(event)
        else:
            self._error(f"{event.NAME}: {MAX_EVENTS} events wait already")

    def _is_allowed(self, command: wire.Command) -> bool:
        """True if the direction allows the command; otherwise emits an ERROR event."""
        if self.direction != "in":
            return True
        self._error(f"{command.NAME} not supported while media direction is 'in'")
        return False

    def _set_direction(self, direction: str) -> None:
        if self._form is not wire.ControlForm.JSON:
            self._error("SET_MEDIA_DIRECTION only supports JSON format.\n")
        elif not direction:
            self._error("SET_MEDIA_DIRECTION requires a 'direction' parameter.\n")
        elif direction not in _DIRECTIONS:
            self._error(f"'{direction}' is not a valid direction for SET_MEDIA_DIRECTION.\n")
        else:
            self.direction = direction

    def _error(self, text: str) -> None:
        self._send_event(wire.ErrorEvent(error_text=text, channel_id=self._channel_id))
