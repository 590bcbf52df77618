"""The values that plug points exchange."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rapida_twisted.context import CallContext

__all__ = ["Adopted", "EntryKind", "JournalEntry", "Notice", "PlayEnd", "PlayOutcome", "Playable", "Swept"]

T = TypeVar("T")

Playable = bytes | str | Path | Iterable[bytes] | AsyncIterable[bytes]
"""What a call can play: samples (s16le mono), a sound file's path, or the samples in parts as they are made.

Samples may also be a numpy array of int16, or of float32 from -1 to 1."""


class PlayEnd(Enum):
    """How audio that was played ended."""

    PLAYED = "played"
    """The caller heard all of it."""
    FLUSHED = "flushed"
    """It was cut short: by a flush, by stop(), or by the end of the call."""


@dataclass(frozen=True, slots=True)
class PlayOutcome:
    """What became of audio that was played."""

    end: PlayEnd
    heard_ms: float
    """How much of it the caller heard (ms): over AudioSocket exact to a frame of 20 ms, over WebSocket to 40 ms."""

    @property
    def played(self) -> bool:
        """Whether the caller heard all of it."""
        return self.end is PlayEnd.PLAYED


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A change of an outbound call's status, kept until it is delivered."""

    number: int
    """Grows with each notice of a store; never used twice."""
    context_id: str
    made_at: float
    """When the change was (UNIX s)."""
    record: Mapping[str, Any]
    """The call's record just after the change, as :func:`~rapida_twisted.context.record_of` makes it."""


class EntryKind(StrEnum):
    """What an entry of a call's journal tells."""

    TURN = "turn"
    """A turn of the conversation, and how long its steps took."""
    TRANSCRIPT = "transcript"
    """What was said, by the caller or by the assistant."""
    TOOL = "tool"
    """A tool that the assistant called, and its result."""
    LOG = "log"
    """A log line of this call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalEntry:
    """One entry of a call's journal."""

    context_id: str
    number: int
    """1 for a journal's first entry, then one more for each."""
    kind: EntryKind
    at: float
    """When it happened (UNIX s)."""
    text: str


class Adopted(NamedTuple):
    """What a process took over from others."""

    calls: list[CallContext]
    """Outbound calls that it follows from now on, the oldest first."""
    notices: int
    """How many notices it has to deliver from now on, beside its own."""


class Swept(NamedTuple):
    """What a sweep of a store changed."""

    expired: int
    """Calls whose media never came."""
    lost: int
    """Calls whose process is gone."""
