"""The vocabulary of chan_websocket: what Asterisk and an application say to one another. No I/O, no clock.

Asterisk (``channels/chan_websocket.c``) says events to the application, the application says commands to Asterisk, each
as one WebSocket text message; :mod:`rapida_twisted.wire.chan_websocket_text` turns them into text and back. Audio goes
beside them as binary messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar

__all__ = [
    "COMMANDS",
    "EVENTS",
    "MAX_COMMAND_BYTES",
    "QUEUE_MAX_FRAMES",
    "XOFF_LEVEL_FRAMES",
    "XON_LEVEL_FRAMES",
    "Answer",
    "Command",
    "ContinueMedia",
    "ControlForm",
    "DtmfEnd",
    "ErrorEvent",
    "Event",
    "FlushMedia",
    "GetStatus",
    "Hangup",
    "MarkMedia",
    "MediaBufferingCompleted",
    "MediaMarkProcessed",
    "MediaStart",
    "MediaXoff",
    "MediaXon",
    "PauseMedia",
    "QueueDrained",
    "ReportQueueDrained",
    "SetMediaDirection",
    "StartMediaBuffering",
    "Status",
    "StopMediaBuffering",
    "UnknownCommand",
    "UnknownEvent",
    "nothing",
]

MAX_COMMAND_BYTES = 128
"""Asterisk ignores a longer one (MAX_TEXT_MESSAGE_LEN)."""
QUEUE_MAX_FRAMES = 1000
"""Asterisk drops a message that comes when so many frames wait (QUEUE_LENGTH_MAX)."""
XOFF_LEVEL_FRAMES = 900
"""MEDIA_XOFF is said when so many frames wait."""
XON_LEVEL_FRAMES = 800
"""MEDIA_XON is said when fewer wait again."""


def nothing() -> Mapping[str, Any]:
    """No fields."""
    return MappingProxyType({})


class ControlForm(StrEnum):
    """How a channel writes its control messages: ``f(plain-text)``, the default, or ``f(json)``."""

    PLAIN = "plain-text"
    JSON = "json"


# Events: what Asterisk says. ``extra`` keeps the fields that this version does not know.


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that Asterisk said. ``channel_id`` is empty where the form does not tell it."""

    NAME: ClassVar[str]
    channel_id: str = ""
    extra: Mapping[str, Any] = field(default_factory=nothing)


@dataclass(frozen=True, kw_only=True)
class MediaStart(Event):
    """The first event: what the channel is, and what its audio is."""

    NAME = "MEDIA_START"
    format: str
    """Asterisk's name of the codec: ``ulaw``, ``slin16`` ..."""
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
    """The answer to GET_STATUS. Lengths and levels are frames."""

    NAME = "STATUS"
    queue_length: int
    xon_level: int = XON_LEVEL_FRAMES
    xoff_level: int = XOFF_LEVEL_FRAMES
    queue_full: bool = False
    bulk_media: bool = False
    media_paused: bool = False


@dataclass(frozen=True, kw_only=True)
class DtmfEnd(Event):
    """The caller pressed a key."""

    NAME = "DTMF_END"
    digit: str


class MediaXoff(Event):
    """The queue is nearly full: send no more audio."""

    NAME = "MEDIA_XOFF"


class MediaXon(Event):
    """The queue has room again."""

    NAME = "MEDIA_XON"


class QueueDrained(Event):
    """The queue ran empty, as REPORT_QUEUE_DRAINED asked to be told, once."""

    NAME = "QUEUE_DRAINED"


@dataclass(frozen=True, kw_only=True)
class MediaBufferingCompleted(Event):
    """What was sent between START_MEDIA_BUFFERING and this STOP_MEDIA_BUFFERING was played."""

    NAME = "MEDIA_BUFFERING_COMPLETED"
    correlation_id: str = ""


@dataclass(frozen=True, kw_only=True)
class MediaMarkProcessed(Event):
    """What was sent before this MARK_MEDIA was played. A flushed mark never comes."""

    NAME = "MEDIA_MARK_PROCESSED"
    correlation_id: str = ""


@dataclass(frozen=True, kw_only=True)
class ErrorEvent(Event):
    """Asterisk could not do what a command asked."""

    NAME = "ERROR"
    error_text: str


@dataclass(frozen=True, kw_only=True)
class UnknownEvent(Event):
    """An event that this version does not know; ``text`` is all of it."""

    NAME = ""
    name: str
    text: str


# Commands: what the application says.


@dataclass(frozen=True)
class Command:
    """Something that the application asks of Asterisk. ``ARGUMENT`` names the JSON field of its one argument."""

    NAME: ClassVar[str]
    ARGUMENT: ClassVar[str] = ""


class Answer(Command):
    """Answer the channel (needed only when it was dialled with ``n``)."""

    NAME = "ANSWER"


class Hangup(Command):
    """Hang the channel up."""

    NAME = "HANGUP"


class StartMediaBuffering(Command):
    """From now on messages may be cut anywhere, not only between frames."""

    NAME = "START_MEDIA_BUFFERING"


@dataclass(frozen=True)
class StopMediaBuffering(Command):
    """The end of what START_MEDIA_BUFFERING began; a last partial frame is played as it is."""

    NAME = "STOP_MEDIA_BUFFERING"
    ARGUMENT = "correlation_id"
    correlation_id: str = ""


@dataclass(frozen=True)
class MarkMedia(Command):
    """Say MEDIA_MARK_PROCESSED when what was sent so far was played."""

    NAME = "MARK_MEDIA"
    ARGUMENT = "correlation_id"
    correlation_id: str = ""


class FlushMedia(Command):
    """Drop all that waits to be played, the marks with it."""

    NAME = "FLUSH_MEDIA"


class PauseMedia(Command):
    """Play nothing until CONTINUE_MEDIA."""

    NAME = "PAUSE_MEDIA"


class ContinueMedia(Command):
    """Play on."""

    NAME = "CONTINUE_MEDIA"


class GetStatus(Command):
    """Say STATUS."""

    NAME = "GET_STATUS"


class ReportQueueDrained(Command):
    """Say QUEUE_DRAINED, once, when nothing waits any more."""

    NAME = "REPORT_QUEUE_DRAINED"


@dataclass(frozen=True)
class SetMediaDirection(Command):
    """Which ways audio goes, as the application sees it: ``both``, ``in``, ``out``. JSON only."""

    NAME = "SET_MEDIA_DIRECTION"
    ARGUMENT = "direction"
    direction: str = "both"


@dataclass(frozen=True)
class UnknownCommand(Command):
    """A command that this version does not know; ``text`` is all of it."""

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
