"""The call context: the record that joins a call's registration to its media, and the legal changes of its status.

It stands here, beside the interfaces, and not in ``contexts/``, because everybody names it: the stores that keep it,
the web that makes it, the call that carries it, the assistant that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

__all__ = ["CallContext", "ContextStatus", "Direction", "EndReason"]


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

    @property
    def failed(self) -> bool:
        """Whether something went wrong (the status is then failed, else completed)."""
        return self in _FAILURES


_FAILURES = frozenset(
    {EndReason.ASSISTANT_FAILED, EndReason.PROTOCOL_ERROR, EndReason.PEER_STALLED, EndReason.CONNECTION_LOST}
)


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
    next_dial: str = ""
    """What the dialplan is to dial when the media is over: where a transfer leads. Empty: nothing, hang up."""

    def claimed(self, *, transport: str, peer: str, now: float) -> CallContext:
        """This context in the hands of one media connection."""
        self._must_be(ContextStatus.PENDING)
        return replace(self, status=ContextStatus.CLAIMED, transport=transport, peer=peer, claimed_at=now)

    def ended(self, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float) -> CallContext:
        """This context when its call is over."""
        self._must_be(ContextStatus.CLAIMED)
        return replace(
            self,
            status=ContextStatus.FAILED if reason.failed else ContextStatus.COMPLETED,
            reason=reason.value,
            audio_in_s=audio_in_s,
            audio_out_s=audio_out_s,
            ended_at=now,
        )

    def moved_on(self, *, next_dial: str) -> CallContext:
        """This context when its call is to be transferred."""
        self._must_be(ContextStatus.CLAIMED)
        return replace(self, next_dial=next_dial)

    def expired(self, *, now: float) -> CallContext:
        """This context when its media did not come in time."""
        self._must_be(ContextStatus.PENDING)
        return replace(self, status=ContextStatus.EXPIRED, reason="expired", ended_at=now)

    def _must_be(self, status: ContextStatus) -> None:
        if self.status is not status:
            raise ValueError(f"context {self.context_id} is {self.status.value}, not {status.value}")
