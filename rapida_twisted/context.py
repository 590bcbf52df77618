"""The call context: the record that joins a call's registration to its media, and the legal changes of its status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any

__all__ = [
    "CallContext", "CallParameters", "CallProgress", "CallStatus", "ContextStatus", "Direction", "EndReason",
    "iso_utc", "record_of",
]  # fmt: skip


class ContextStatus(StrEnum):
    """pending -> claimed -> completed | failed, and pending -> expired | failed. Nothing else."""

    PENDING = "pending"
    CLAIMED = "claimed"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"


class Direction(StrEnum):
    """Which side placed the call: the caller (inbound) or this server (outbound)."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class CallStatus(StrEnum):
    """The progress of an outbound call, in this order; it ends with one of the last three."""

    NEW = "new"
    """Registered, and not passed to Asterisk yet."""
    INITIATED = "initiated"
    RINGING = "ringing"
    ANSWERED = "answered"
    COMPLETED = "completed"
    """It was answered and is over."""
    FAILED = "failed"
    """It was not answered, or could not be placed."""
    CANCELLED = "cancelled"
    """It was cancelled before it was answered."""

    @property
    def over(self) -> bool:
        """Whether this status is an end."""
        return self in (CallStatus.COMPLETED, CallStatus.FAILED, CallStatus.CANCELLED)

    def comes_after(self, other: CallStatus) -> bool:
        """Whether a call may change from the other status to this one. Asterisk's events may be late or come twice."""
        return not other.over and _ORDER.index(self) > _ORDER.index(other)


_ORDER = tuple(CallStatus)


class EndReason(StrEnum):
    """Why a call ended. ``failed`` says whether the record counts as failed or as completed."""

    CALLER_HANGUP = "caller_hangup"
    ASSISTANT_HANGUP = "assistant_hangup"
    OPERATOR_HANGUP = "operator_hangup"
    TRANSFERRED = "transferred"
    SHUTDOWN = "shutdown"
    ASSISTANT_FAILED = "assistant_failed"
    PROTOCOL_ERROR = "protocol_error"
    PEER_STALLED = "peer_stalled"
    CONNECTION_LOST = "connection_lost"
    UPSTREAM_FAILED = "upstream_failed"
    """The server that it was bridged to failed, and there was no fallback."""
    SERVER_LOST = "server_lost"
    """The server process that had the call is gone, or has not renewed its lease."""
    # Of outbound calls that never had media
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    CONGESTION = "congestion"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    """The called party can't be reached: unknown, not registered, no route."""
    NOT_PLACED = "not_placed"
    """Asterisk refused the call, or could not be reached."""
    CANCELLED = "cancelled"
    NO_MEDIA = "no_media"
    """It was answered, but its media never connected."""
    ASTERISK_GONE = "asterisk_gone"
    """Asterisk stopped or restarted, which ended the call."""

    @property
    def failed(self) -> bool:
        """Whether something went wrong (the status is then failed, else completed)."""
        return self not in _SUCCESSES


_SUCCESSES = frozenset(
    (
        EndReason.CALLER_HANGUP, EndReason.ASSISTANT_HANGUP, EndReason.OPERATOR_HANGUP, EndReason.TRANSFERRED,
        EndReason.SHUTDOWN,
    )
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class CallProgress:
    """Progress of an outbound call, as Asterisk reported it."""

    status: CallStatus
    at: float
    """When the status changed (UNIX s)."""
    dial_status: str = ""
    """The result of Asterisk's dialling, such as ``BUSY``; empty if unknown."""
    cause: int | None = None
    """At its end: Asterisk's cause code (Q.850), if known."""
    cause_text: str = ""
    """Asterisk's text for the cause, or its reply if it refused the call."""
    reason: EndReason | None = None
    """At its end: why a call without media ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallContext:
    """One call, as registered and as it went. Times are UNIX seconds (wall clock), ``None`` where not reached."""

    context_id: str
    """A random UUID in its canonical form (36 characters, lower case)."""
    assistant_id: str
    """The id that was dialled: the path's last part at registration."""
    created_at: float
    expires_at: float
    """When a pending context stops being claimable."""
    direction: Direction = Direction.INBOUND
    status: ContextStatus = ContextStatus.PENDING
    caller: str = ""
    """The caller's number; empty for an anonymous call."""
    called: str = ""
    """The dialled number; empty if unknown."""
    channel_id: str = ""
    """Asterisk's id of the channel; empty if unknown."""
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """All other parameters of the registration."""
    transport: str = ""
    """``"audiosocket"`` or ``"websocket"``; empty until claimed."""
    peer: str = ""
    """The address of the media's peer; empty until claimed."""
    claimed_at: float | None = None
    ended_at: float | None = None
    reason: str = ""
    """An :class:`EndReason`'s value, once ended."""
    audio_in_s: float = 0.0
    """Seconds of audio heard from the caller."""
    audio_out_s: float = 0.0
    """Seconds of audio sent to the caller, without the silence between."""
    detail: str = ""
    """More about its end than the reason, and what went wrong before; may be empty."""
    upstream_id: str = ""
    """The contextId at the server that the call is bridged to."""
    key_name: str = ""
    """The name of the API key that registered it; empty for a key without a name."""
    registered_from: str = ""
    """The IP address that registered it; empty if unknown, and for calls that this server or Stasis registered."""
    next_dial: str = ""
    """What the dialplan dials when the media is over: the target of a transfer. Empty: it hangs up."""
    credential: str = ""
    """The name of the vault's credential by which an outbound call is placed."""
    call_status: CallStatus | None = None
    """The progress of an outbound call, from its registration to the end of its channel; ``None`` for an inbound one.

    ``status`` covers the media alone: after a transfer the media is over, and the call goes on.
    """
    answered_at: float | None = None
    hung_up_at: float | None = None
    """When an outbound call's channel ended."""
    dial_status: str = ""
    """The result of Asterisk's dialling, such as ``ANSWER`` or ``BUSY``."""
    cause: int | None = None
    """Asterisk's cause code (Q.850) of an outbound call's end."""
    cause_text: str = ""
    owner: str = ""
    """The server process that has or had the call's media; empty until claimed."""
    follower: str = ""
    """The server process that follows an outbound call to its end."""

    @property
    def in_hand(self) -> bool:
        """Whether the process that has the call's media may still change it: also after it was taken for lost."""
        lost = self.status is ContextStatus.FAILED and self.reason == EndReason.SERVER_LOST
        return lost or self.status is ContextStatus.CLAIMED

    def claimed(self, *, transport: str, peer: str, now: float, owner: str = "") -> CallContext:
        """This context, claimed by one media connection."""
        self._must_be(ContextStatus.PENDING)
        return replace(self, status=ContextStatus.CLAIMED, transport=transport, peer=peer, claimed_at=now, owner=owner)

    def ended(
        self, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> CallContext:
        """This context when its call is over, also if the call was taken for lost before."""
        self._must_be_in_hand()
        return replace(
            self,
            status=ContextStatus.FAILED if reason.failed else ContextStatus.COMPLETED,
            reason=reason.value,
            audio_in_s=audio_in_s,
            audio_out_s=audio_out_s,
            ended_at=now,
            detail=detail,
        )

    def moved_on(self, *, next_dial: str) -> CallContext:
        """This context when its call is to be transferred."""
        self._must_be_in_hand()
        return replace(self, next_dial=next_dial)

    def lost(self, *, now: float) -> CallContext:
        """This context when the process that had its media is gone."""
        self._must_be(ContextStatus.CLAIMED)
        return replace(self, status=ContextStatus.FAILED, reason=EndReason.SERVER_LOST.value, ended_at=now)

    def expired(self, *, now: float) -> CallContext:
        """This context when its media did not come in time."""
        self._must_be(ContextStatus.PENDING)
        return replace(self, status=ContextStatus.EXPIRED, reason="expired", ended_at=now)

    def followed(self, progress: CallProgress) -> CallContext:
        """This context with progress of its outbound call; itself if the progress is not new.

        The end of a call whose media never connected ends the context too.
        """
        if self.call_status is None or not progress.status.comes_after(self.call_status):
            return self
        news = replace(self, call_status=progress.status, dial_status=progress.dial_status or self.dial_status)
        if progress.status is CallStatus.ANSWERED:
            return replace(news, answered_at=progress.at)
        if not progress.status.over:
            return news
        news = replace(news, hung_up_at=progress.at, cause=progress.cause, cause_text=progress.cause_text)
        if self.status is not ContextStatus.PENDING:
            return news
        reason = progress.reason or EndReason.NO_MEDIA
        return replace(news, status=ContextStatus.FAILED, reason=reason.value, ended_at=progress.at)

    def has_ended_as(self, reason: EndReason, now: float) -> bool:
        """Whether it has this very end already: a process that got no confirmation repeats it."""
        return self.reason == reason.value and self.ended_at == now

    def _must_be_in_hand(self) -> None:
        if not self.in_hand:
            raise ValueError(f"context {self.context_id} is {self.status.value}, not claimed")

    def _must_be(self, status: ContextStatus) -> None:
        if self.status is not status:
            raise ValueError(f"context {self.context_id} is {self.status.value}, not {status.value}")


@dataclass(frozen=True)
class CallParameters:
    """The parameters of a registration."""

    caller: str
    """Empty for an anonymous call."""
    called: str
    channel_id: str
    variables: Mapping[str, str]
    """Every parameter that has no meaning of its own."""
    registered_from: str = ""
    """The client's IP address; empty if unknown."""


def record_of(context: CallContext) -> dict[str, Any]:
    """A context as JSON shows it: all its fields, and the times also in ISO 8601 (UTC)."""
    record: dict[str, Any] = {}
    for known in fields(context):
        value = getattr(context, known.name)
        record[known.name] = value.value if isinstance(value, Enum) else value
    record["variables"] = dict(context.variables)
    for name in ("created", "claimed", "ended", "answered", "hung_up"):
        at = record[f"{name}_at"]
        record[name] = None if at is None else iso_utc(at)
    return record


def iso_utc(unix_s: float) -> str:
    """A time in ISO 8601 with milliseconds: ``2026-01-31T12:00:00.000Z``."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
