"""The events and commands of chan_websocket (MEDIA_START, FLUSH_MEDIA, ...) as dataclasses.

Asterisk (``channels/chan_websocket.c``) sends events to the application; the application sends commands to Asterisk.
Each is one WebSocket text message, which :mod:`rapida_twisted.wire.chan_websocket_text` encodes and decodes. Audio
travels in binary messages between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar

__all__ = [
    "COMMANDS", "EVENTS", "MAX_COMMAND_BYTES", "QUEUE_MAX_FRAMES", "SUBPROTOCOL", "XOFF_LEVEL_FRAMES",
    "XON_LEVEL_FRAMES", "Answer", "Command", "ContinueMedia", "ControlForm", "DtmfEnd", "ErrorEvent", "Event",
    "FlushMedia", "GetStatus", "Hangup", "MarkMedia", "MediaBufferingCompleted", "MediaMarkProcessed", "MediaStart",
    "MediaXoff", "MediaXon", "PauseMedia", "QueueDrained", "ReportQueueDrained", "SetMediaDirection",
    "StartMediaBuffering", "Status", "StopMediaBuffering", "UnknownCommand", "UnknownEvent", "nothing",
]  # fmt: skip

SUBPROTOCOL = "media"
"""The WebSocket subprotocol."""
MAX_COMMAND_BYTES = 128
"""Asterisk ignores longer commands (MAX_TEXT_MESSAGE_LEN)."""
QUEUE_MAX_FRAMES = 1000
"""Asterisk drops messages while its queue holds this many frames (QUEUE_LENGTH_MAX)."""
XOFF_LEVEL_FRAMES = 900
"""Asterisk sends MEDIA_XOFF when its queue reaches this length."""
XON_LEVEL_FRAMES = 800
"""Asterisk sends MEDIA_XON when its queue falls below this length."""


def nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


class ControlForm(StrEnum):
    """How a channel writes its control messages: ``f(plain-text)``, the default, or ``f(json)``."""

    PLAIN = "plain-text"
    JSON = "json"


# Events, from Asterisk. ``extra`` keeps the fields that this version does not know.


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event from Asterisk. ``channel_id`` is empty where the plain-text form omits it."""

    NAME: ClassVar[str]
    channel_id: str = ""
    extra: Mapping[str, Any] = field(default_factory=nothing)


@dataclass(frozen=True, kw_only=True)
class MediaStart(Event):
    """The first event: names the channel and its audio format."""

    NAME = "MEDIA_START"
    format: str
    """Asterisk's codec name: ``ulaw``, ``slin16`` ..."""
    optimal_frame_size: int
    """Bytes of one frame."""
    ptime: int = 20
    """Duration of one frame (ms)."""
    connection_id: str = ""
    channel: str = ""
    """The channel's name."""
    channel_variables: Mapping[str, str] = field(default_factory=nothing)
    """The channel's variables; JSON only."""


@dataclass(frozen=True, kw_only=True)
class Status(Event):
    """The answer to GET_STATUS. Lengths and levels are in frames."""

    NAME = "STATUS"
    queue_length: int
    xon_level: int = XON_LEVEL_FRAMES
    xoff_level: int = XOFF_LEVEL_FRAMES
    queue_full: bool = False
    bulk_media: bool = False
    media_paused: bool = False


@dataclass(frozen=True, kw_only=True)
class DtmfEnd(Event):
    NAME = "DTMF_END"
    digit: str


class MediaXoff(Event):
    """Asterisk's queue is nearly full: the application must pause its audio."""

    NAME = "MEDIA_XOFF"


class MediaXon(Event):
    NAME = "MEDIA_XON"


class QueueDrained(Event):
    """Asterisk's queue is empty. Sent once for each REPORT_QUEUE_DRAINED."""

    NAME = "QUEUE_DRAINED"


@dataclass(frozen=True, kw_only=True)
class MediaBufferingCompleted(Event):
    """Asterisk has played the audio between START_MEDIA_BUFFERING and STOP_MEDIA_BUFFERING."""

    NAME = "MEDIA_BUFFERING_COMPLETED"
    correlation_id: str = ""


@dataclass(frozen=True, kw_only=True)
class MediaMarkProcessed(Event):
    """Asterisk has played the audio sent before this MARK_MEDIA. FLUSH_MEDIA discards waiting marks."""

    NAME = "MEDIA_MARK_PROCESSED"
    correlation_id: str = ""


@dataclass(frozen=True, kw_only=True)
class ErrorEvent(Event):
    """Asterisk could not execute a command."""

    NAME = "ERROR"
    error_text: str


@dataclass(frozen=True, kw_only=True)
class UnknownEvent(Event):
    """An event that this version does not know; ``text`` is the whole message."""

    NAME = ""
    name: str
    text: str


# Commands, from the application.


@dataclass(frozen=True)
class Command:
    """A command to Asterisk. ``ARGUMENT`` names the JSON field of its only argument."""

    NAME: ClassVar[str]
    ARGUMENT: ClassVar[str] = ""


class Answer(Command):
    """Answer the channel. Needed only if the dialplan dialled it with ``n``."""

    NAME = "ANSWER"


class Hangup(Command):
    NAME = "HANGUP"


class StartMediaBuffering(Command):
    """Allow the following messages to split frames."""

    NAME = "START_MEDIA_BUFFERING"


@dataclass(frozen=True)
class StopMediaBuffering(Command):
    """End START_MEDIA_BUFFERING. Asterisk plays a last partial frame as it is."""

    NAME = "STOP_MEDIA_BUFFERING"
    ARGUMENT = "correlation_id"
    correlation_id: str = ""


@dataclass(frozen=True)
class MarkMedia(Command):
    """Request MEDIA_MARK_PROCESSED once the audio sent so far has been played."""

    NAME = "MARK_MEDIA"
    ARGUMENT = "correlation_id"
    correlation_id: str = ""


class FlushMedia(Command):
    """Discard the audio and marks that wait in Asterisk's queue, as at barge-in."""

    NAME = "FLUSH_MEDIA"


class PauseMedia(Command):
    NAME = "PAUSE_MEDIA"


class ContinueMedia(Command):
    NAME = "CONTINUE_MEDIA"


class GetStatus(Command):
    NAME = "GET_STATUS"


class ReportQueueDrained(Command):
    """Request one QUEUE_DRAINED for when the queue is empty."""

    NAME = "REPORT_QUEUE_DRAINED"


@dataclass(frozen=True)
class SetMediaDirection(Command):
    """Set the audio directions as the application sees them: ``both``, ``in``, ``out``. JSON only."""

    NAME = "SET_MEDIA_DIRECTION"
    ARGUMENT = "direction"
    direction: str = "both"


@dataclass(frozen=True)
class UnknownCommand(Command):
    """A command that this version does not know; ``text`` is the whole message."""

    NAME = ""
    text: str


EVENTS: dict[str, type[Event]] = {
    event.NAME: event
    for event in (
        MediaStart, Status, DtmfEnd, MediaXoff, MediaXon, QueueDrained,
        MediaBufferingCompleted, MediaMarkProcessed, ErrorEvent,
    )
}  # fmt: skip
COMMANDS: dict[str, type[Command]] = {
    command.NAME: command
    for command in (
        Answer, Hangup, StartMediaBuffering, StopMediaBuffering, MarkMedia, FlushMedia, PauseMedia, ContinueMedia,
        GetStatus, ReportQueueDrained, SetMediaDirection,
    )
}  # fmt: skip
