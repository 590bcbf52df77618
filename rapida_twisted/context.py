"""The call context: the record that joins a call's registration to its media, and the legal changes of its status.

It stands here, beside the interfaces, and not in ``contexts/``, because everybody names it: the stores that keep it,
the web that makes it, the call that carries it, the assistant that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any

__all__ = [
    "CallContext",
    "CallParameters",
    "CallProgress",
    "CallStatus",
    "ContextStatus",
    "Direction",
    "EndReason",
    "record_of",
]


class ContextStatus(StrEnum):
    """pending -> claimed -> completed | failed, and pending -> expired | failed. Nothing else."""

    PENDING = "pending"
    CLAIMED = "claimed"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"


class Direction(StrEnum):
    """Who placed the call: the caller (inbound) or we (outbound)."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class CallStatus(StrEnum):
    """How an outbound call goes, in this order; the last three are its ends, and it has one of them."""

    NEW = "new"
    """Registered, and not given to Asterisk yet."""
    INITIATED = "initiated"
    RINGING = "ringing"
    ANSWERED = "answered"
    COMPLETED = "completed"
    """It was answered, and is over."""
    FAILED = "failed"
    """It was not answered, or could not be placed."""
    CANCELLED = "cancelled"
    """It was taken back before anybody answered."""

    @property
    def over(self) -> bool:
        """Whether nothing comes after it."""
        return self in (CallStatus.COMPLETED, CallStatus.FAILED, CallStatus.CANCELLED)

    def comes_after(self, other: CallStatus) -> bool:
        """Whether a call may go from the other to this one. News from an Asterisk may be late, or come twice."""
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
    """The server that it was carried on to failed, and nobody was there to take over."""
    SERVER_LOST = "server_lost"
    """The server process that had the call is gone, or has not been heard of for as long as its lease lasts."""
    # Of outbound calls that never had media
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    CONGESTION = "congestion"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    """Whoever was called can't be reached: not there, not registered, no route."""
    NOT_PLACED = "not_placed"
    """Asterisk did not take the call, or could not be asked."""
    CANCELLED = "cancelled"
    NO_MEDIA = "no_media"
    """It was answered, but its media never came."""
    ASTERISK_GONE = "asterisk_gone"
    """Asterisk ended or was started anew, and took the call with it."""

    @property
    def failed(self) -> bool:
        """Whether something went wrong (the status is then failed, else completed)."""
        return self not in _SUCCESSES


_SUCCESSES = frozenset(
    {
        EndReason.CALLER_HANGUP,
        EndReason.ASSISTANT_HANGUP,
        EndReason.OPERATOR_HANGUP,
        EndReason.TRANSFERRED,
        EndReason.SHUTDOWN,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CallProgress:
    """News of an outbound call."""

    status: CallStatus
    at: float
    """When it became so (UNIX s)."""
    dial_status: str = ""
    """What Asterisk's dialling came to, such as ``BUSY``; empty where not told."""
    cause: int | None = None
    """At its end: Asterisk's cause code (Q.850), where told."""
    cause_text: str = ""
    """Asterisk's words for the cause, or its answer when it did not take the call."""
    reason: EndReason | None = None
    """At its end: what a call that had no media ended for."""


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
    """The dialled number; empty where not told."""
    channel_id: str = ""
    """Asterisk's own id of the channel, where told."""
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Whatever else the registration said."""
    transport: str = ""
    """``"audiosocket"`` or ``"websocket"``; empty until claimed."""
    peer: str = ""
    """The address that the media came from; empty until claimed."""
    claimed_at: float | None = None
    ended_at: float | None = None
    reason: str = ""
    """An :class:`EndReason`'s value, once ended."""
    audio_in_s: float = 0.0
    """Seconds of audio heard from the caller."""
    audio_out_s: float = 0.0
    """Seconds of audio said to the caller (silence kept on the line not counted)."""
    detail: str = ""
    """What is known of its end beyond the reason, and of what went wrong before; empty where nothing is."""
    upstream_id: str = ""
    """The contextId that another server gave it, which it is carried on to."""
    key_name: str = ""
    """The name of the API key that registered it; empty for a key without a name."""
    next_dial: str = ""
    """What the dialplan is to dial when the media is over: where a transfer leads. Empty: nothing, hang up."""
    credential: str = ""
    """The name of the vault's credential by which an outbound call is placed."""
    call_status: CallStatus | None = None
    """How an outbound call goes, from its registration to the end of its channel; ``None`` for an inbound one.

    The ``status`` tells of its media: that is over, and a transferred call goes on.
    """
    answered_at: float | None = None
    hung_up_at: float | None = None
    """When an outbound call's channel ended."""
    dial_status: str = ""
    """What Asterisk's dialling came to, such as ``ANSWER`` or ``BUSY``."""
    cause: int | None = None
    """Asterisk's cause code (Q.850) of an outbound call's end."""
    cause_text: str = ""
    owner: str = ""
    """Which server process has, or had, the call's media; empty until claimed."""
    follower: str = ""
    """Which server process follows an outbound call to its end."""

    @property
    def in_hand(self) -> bool:
        """Whether the process that has the call's media may still tell of it: also when it was thought to be lost."""
        lost = self.status is ContextStatus.FAILED and self.reason == EndReason.SERVER_LOST
        return lost or self.status is ContextStatus.CLAIMED

    def claimed(self, *, transport: str, peer: str, now: float, owner: str = "") -> CallContext:
        """This context in the hands of one media connection."""
        self._must_be(ContextStatus.PENDING)
        return replace(self, status=ContextStatus.CLAIMED, transport=transport, peer=peer, claimed_at=now, owner=owner)

    def ended(
        self, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> CallContext:
        """This context when its call is over. It may be told late, of a call that was thought to be lost."""
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
        """This context with news of its outbound call; itself where they are none.

        A call that is over before its media came takes its context with it.
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
        """Whether this very end is in it already: somebody tells it again, not having heard that it arrived."""
        return self.reason == reason.value and self.ended_at == now

    def _must_be_in_hand(self) -> None:
        if not self.in_hand:
            raise ValueError(f"context {self.context_id} is {self.status.value}, not claimed")

    def _must_be(self, status: ContextStatus) -> None:
        if self.status is not status:
            raise ValueError(f"context {self.context_id} is {self.status.value}, not {status.value}")


@dataclass(frozen=True)
class CallParameters:
    """What a registration says of its call."""

    caller: str
    """Empty for an anonymous call."""
    called: str
    channel_id: str
    variables: Mapping[str, str]
    """Every parameter that has no meaning of its own."""


def record_of(context: CallContext) -> dict[str, Any]:
    """A context as JSON shows it: all its fields, and the times also in ISO 8601 (UTC)."""
    record: dict[str, Any] = {}
    for known in fields(context):
        value = getattr(context, known.name)
        record[known.name] = value.value if isinstance(value, Enum) else value
    record["variables"] = dict(context.variables)
    for name in ("created", "claimed", "ended", "answered", "hung_up"):
        record[name] = _iso(record[f"{name}_at"])
    return record


def _iso(unix_s: float | None) -> str | None:
    if unix_s is None:
        return None
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
