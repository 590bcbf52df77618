"""What Asterisk does with the audio and the commands that an application sends it: chan_websocket's queue.

For programs that stand in for Asterisk. No I/O and no clock: whoever has those feeds messages in, asks for a frame each
packet time, and sends the events that come out. The rules are those of ``channels/chan_websocket.c``
(``handle_command``, ``process_binary_message``, ``dequeue_frame``).
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
    """One channel's queue of what the application wants to be heard.

    :param frame_bytes: the channel's optimal_frame_size.
    :param say: called with each event for the application.
    :param form: the channel's control form; SET_MEDIA_DIRECTION exists in JSON only.
    """

    def __init__(
        self, frame_bytes: int, say: Callable[[Event], None], *, channel_id: str = "", form: ControlForm
    ) -> None:
        self.frames = 0
        """Frames that wait."""
        self.dropped_messages = 0
        """Audio messages that came to a full queue."""
        self.direction = "both"
        """Which ways audio goes, as the application sees it."""
        self._frame_bytes = frame_bytes
        self._say = say
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
        # Outside of buffering a message's tail is thrown away.
        if self._buffering:
            self._leftover = payload[whole:]

    def command(self, command: Command) -> None:
        """A command from the application; ANSWER, HANGUP and unknown ones are not the queue's business."""
        match command:
            case StartMediaBuffering():
                if self._may(command):
                    self._buffering = True
            case StopMediaBuffering(correlation_id):
                if self._may(command):
                    self._stop_buffering(correlation_id)
            case MarkMedia(correlation_id):
                if self._may(command):
                    self._mark(MediaMarkProcessed(correlation_id=correlation_id, channel_id=self._channel_id))
            case FlushMedia():
                self._waiting.clear()
                self.frames = 0
                self._buffering = False
                self._leftover = b""
            case PauseMedia() | ContinueMedia():
                if self._may(command):
                    self._paused = isinstance(command, PauseMedia)
            case ReportQueueDrained():
                self._report_drained = True
            case GetStatus():
                self._say(self.status())
            case SetMediaDirection(direction):
                self._set_direction(direction)

    def status(self) -> Status:
        """How the queue is now."""
        return Status(
            channel_id=self._channel_id,
            queue_length=self.frames,
            queue_full=self._full,
            bulk_media=self._buffering,
            media_paused=self._paused,
        )

    def take(self) -> bytes | None:
        """The packet time is over: the next frame to be heard, or None. Says what has become due before it."""
        if self.direction == "in":
            return None
        frame = None if self._paused else self._next_frame()
        if frame is None:
            # What is short of a frame does not wait for the rest of it, not even in a pause.
            frame, self._leftover = self._leftover or None, b""
        return frame

    def _next_frame(self) -> bytes | None:
        if self._full and self.frames < XON_LEVEL_FRAMES:
            self._full = False
            self._say(MediaXon(channel_id=self._channel_id))
        if not self._waiting and self._report_drained:
            self._report_drained = False
            self._say(QueueDrained(channel_id=self._channel_id))
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, bytes):
                self.frames -= 1
                return item
            self._say(item)
        return None

    def _queue(self, frame: bytes) -> None:
        self._waiting.append(frame)
        self.frames += 1
        if not self._full and self.frames >= XOFF_LEVEL_FRAMES:
            self._full = True
            self._say(MediaXoff(channel_id=self._channel_id))

    def _mark(self, event: Event) -> None:
        """An event that is said when what waits before it was heard; it takes no place in the queue's length."""
        self._waiting.append(event)

    def _stop_buffering(self, correlation_id: str) -> None:
        self._buffering = False
        leftover, self._leftover = self._leftover, b""
        if leftover:
            self._queue(leftover)
        self._mark(MediaBufferingCompleted(correlation_id=correlation_id, channel_id=self._channel_id))

    def _may(self, command: Command) -> bool:
        """Whether the direction allows the command; the application is told if not."""
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
        self._say(ErrorEvent(error_text=text, channel_id=self._channel_id))
