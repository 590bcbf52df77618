"""Asterisk's queue in chan_websocket: flow control, marks, buffering and FLUSH_MEDIA, for Asterisk's side.

It follows ``channels/chan_websocket.c`` (``handle_command``, ``process_binary_message``, ``dequeue_frame``). No I/O and
no clock: its owner passes messages in, takes a frame each 20 ms, and sends the events that the queue emits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rapida_twisted.wire.chan_websocket import (
    QUEUE_MAX_FRAMES,
    XOFF_LEVEL_FRAMES,
    XON_LEVEL_FRAMES,
    Command,
    ContinueMedia,
    ControlForm,
    ErrorEvent,
    Event,
    FlushMedia,
    GetStatus,
    MarkMedia,
    MediaBufferingCompleted,
    MediaMarkProcessed,
    MediaXoff,
    MediaXon,
    PauseMedia,
    QueueDrained,
    ReportQueueDrained,
    SetMediaDirection,
    StartMediaBuffering,
    Status,
    StopMediaBuffering,
)

__all__ = ["MediaQueue"]

_DIRECTIONS = ("both", "in", "out")


class MediaQueue:
    """The queue of one channel, with the application's audio.

    :param frame_bytes: the channel's optimal_frame_size.
    :param send_event: called with each event for the application.
    :param form: the channel's control form; SET_MEDIA_DIRECTION exists in JSON only.
    """

    def __init__(
        self, frame_bytes: int, send_event: Callable[[Event], None], *, channel_id: str = "", form: ControlForm
    ) -> None:
        self.frames = 0
        """Frames queued."""
        self.dropped_messages = 0
        """Audio messages dropped because the queue was full."""
        self.direction = "both"
        """The audio directions, as the application sees them: ``both``, ``in`` or ``out``."""
        self._frame_bytes = frame_bytes
        self._send_event = send_event
        self._channel_id = channel_id
        self._form = form
        self._waiting: deque[bytes | Event] = deque()
        self._leftover = b""
        self._buffering = False
        self._paused = False
        self._full = False
        self._report_drained = False

    def audio(self, payload: bytes) -> None:
        """A binary message from the application."""
        if self.direction == "in":
            return
        if self.frames >= QUEUE_MAX_FRAMES:
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

    def command(self, command: Command) -> None:
        """A command from the application. ANSWER, HANGUP and unknown commands do nothing here."""
        match command:
            case StartMediaBuffering():
                if self._is_allowed(command):
                    self._buffering = True
            case StopMediaBuffering(correlation_id):
                if self._is_allowed(command):
                    self._stop_buffering(correlation_id)
            case MarkMedia(correlation_id):
                if self._is_allowed(command):
                    # Due after the audio before it, and not counted in the queue's length.
                    self._waiting.append(MediaMarkProcessed(correlation_id=correlation_id, channel_id=self._channel_id))
            case FlushMedia():
                self._waiting.clear()
                self.frames = 0
                self._buffering = False
                self._leftover = b""
            case PauseMedia() | ContinueMedia():
                if self._is_allowed(command):
                    self._paused = isinstance(command, PauseMedia)
            case ReportQueueDrained():
                self._report_drained = True
            case GetStatus():
                self._send_event(self.status())
            case SetMediaDirection(direction):
                self._set_direction(direction)

    def status(self) -> Status:
        """The queue's state, as the answer to GET_STATUS."""
        return Status(
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
        if self._full and self.frames < XON_LEVEL_FRAMES:
            self._full = False
            self._send_event(MediaXon(channel_id=self._channel_id))
        if not self._waiting and self._report_drained:
            self._report_drained = False
            self._send_event(QueueDrained(channel_id=self._channel_id))
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, bytes):
                self.frames -= 1
                return item
            self._send_event(item)
        return None

    def _queue(self, frame: bytes) -> None:
        self._waiting.append(frame)
        self.frames += 1
        if not self._full and self.frames >= XOFF_LEVEL_FRAMES:
            self._full = True
            self._send_event(MediaXoff(channel_id=self._channel_id))

    def _stop_buffering(self, correlation_id: str) -> None:
        self._buffering = False
        leftover, self._leftover = self._leftover, b""
        if leftover:
            self._queue(leftover)
        self._waiting.append(MediaBufferingCompleted(correlation_id=correlation_id, channel_id=self._channel_id))

    def _is_allowed(self, command: Command) -> bool:
        """True if the direction allows the command; otherwise emits an ERROR event."""
        if self.direction != "in":
            return True
        self._error(f"{command.NAME} not supported while media direction is 'in'")
        return False

    def _set_direction(self, direction: str) -> None:
        if self._form is not ControlForm.JSON:
            self._error("SET_MEDIA_DIRECTION only supports JSON format.\n")
        elif not direction:
            self._error("SET_MEDIA_DIRECTION requires a 'direction' parameter.\n")
        elif direction not in _DIRECTIONS:
            self._error(f"'{direction}' is not a valid direction for SET_MEDIA_DIRECTION.\n")
        else:
            self.direction = direction

    def _error(self, text: str) -> None:
        self._send_event(ErrorEvent(error_text=text, channel_id=self._channel_id))
