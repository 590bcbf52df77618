"""What ARI's events say of an outbound call. Pure.

A call that is placed through ARI is dialled by Asterisk's own ``dial.c``: its channel is the ``peer`` of ``Dial``
events whose ``dialstatus`` is empty at the beginning, then RINGING, PROGRESS, ANSWER, or BUSY, CONGESTION, NOANSWER and
so on (``main/stasis_channels.c``). Later ``Dial`` events may have it as their ``caller``: those are of a transfer.

Why a call was not answered is told by the cause of its channel's end; dialling calls a 404 and a 603 NOANSWER, too, and
says nothing when the time is over. Of a Local channel it is the other way round: there the cause may be 0. A trunk that
does not answer at all ends with the same cause as a phone that rings in vain, but never rang.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rapida_twisted.context import CallProgress, CallStatus, EndReason

__all__ = ["EVENTS", "ChannelNews", "end_of", "news_of", "status_of_state"]

EVENTS = ("Dial", "ChannelStateChange", "ChannelDestroyed")
"""The types of the events that are looked at."""

_DIALLING = {
    "": CallStatus.INITIATED,
    "PROCEEDING": CallStatus.INITIATED,
    "RINGING": CallStatus.RINGING,
    "PROGRESS": CallStatus.RINGING,
    "ANSWER": CallStatus.ANSWERED,
}
_STATES = {"Ringing": CallStatus.RINGING, "Ring": CallStatus.RINGING, "Up": CallStatus.ANSWERED}

_BY_CAUSE = {
    1: EndReason.UNAVAILABLE,  # unallocated number
    2: EndReason.UNAVAILABLE,  # no route to transit network
    3: EndReason.UNAVAILABLE,  # no route to destination
    17: EndReason.BUSY,  # user busy
    18: EndReason.NO_ANSWER,  # no user responding
    19: EndReason.NO_ANSWER,  # user alerting, no answer
    20: EndReason.UNAVAILABLE,  # subscriber absent
    21: EndReason.REJECTED,  # call rejected
    22: EndReason.UNAVAILABLE,  # number changed
    27: EndReason.UNAVAILABLE,  # destination out of order
    28: EndReason.UNAVAILABLE,  # invalid number format
    29: EndReason.REJECTED,  # facility rejected
    34: EndReason.CONGESTION,  # no circuit
    38: EndReason.CONGESTION,  # network out of order
    41: EndReason.CONGESTION,  # temporary failure
    42: EndReason.CONGESTION,  # switching equipment congestion
    44: EndReason.CONGESTION,  # requested channel not available
    50: EndReason.REJECTED,  # facility not subscribed
    52: EndReason.REJECTED,  # outgoing calls barred
    54: EndReason.REJECTED,  # incoming calls barred
}
"""Asterisk's causes (``include/asterisk/causes.h``, Q.850)."""
_BY_DIAL_STATUS = {
    "RINGING": EndReason.NO_ANSWER,
    "PROGRESS": EndReason.NO_ANSWER,
    "NOANSWER": EndReason.NO_ANSWER,
    "BUSY": EndReason.BUSY,
    "CONGESTION": EndReason.CONGESTION,
}


@dataclass(frozen=True, kw_only=True)
class ChannelNews:
    """What one event says of one channel."""

    channel_id: str
    status: CallStatus | None = None
    """How far the call is; None where the event does not tell."""
    dial_status: str = ""
    destroyed: bool = False
    cause: int | None = None
    cause_text: str = ""


def news_of(event: Mapping[str, Any]) -> ChannelNews | None:
    """What an event says of a channel that we may have placed; None for all other events."""
    kind = event.get("type")
    about = event.get("peer" if kind == "Dial" else "channel")
    if kind not in EVENTS or not isinstance(about, dict) or not isinstance(about.get("id"), str):
        return None
    channel_id = about["id"]
    if kind == "Dial":
        dial_status = _text(event.get("dialstatus"))
        return ChannelNews(channel_id=channel_id, status=_DIALLING.get(dial_status), dial_status=dial_status)
    if kind == "ChannelStateChange":
        return ChannelNews(channel_id=channel_id, status=status_of_state(_text(about.get("state"))))
    cause = event.get("cause")
    return ChannelNews(
        channel_id=channel_id,
        destroyed=True,
        cause=cause if isinstance(cause, int) and not isinstance(cause, bool) else None,
        cause_text=_text(event.get("cause_txt")),
    )


def status_of_state(state: str) -> CallStatus:
    """How far a call is whose channel is in this state."""
    return _STATES.get(state, CallStatus.INITIATED)


def end_of(
    *, reached: CallStatus, cancelled: bool, dial_status: str, cause: int | None, cause_text: str, at: float
) -> CallProgress:
    """The end of a call whose channel is destroyed.

    :param reached: how far it was.
    :param cancelled: whether we took it back before anybody had answered.
    :param dial_status: the last that dialling came to.
    :param at: UNIX seconds.
    """
    if reached is CallStatus.ANSWERED:
        status, reason = CallStatus.COMPLETED, EndReason.NO_MEDIA
    elif cancelled:
        status, reason = CallStatus.CANCELLED, EndReason.CANCELLED
    else:
        status, reason = CallStatus.FAILED, _why_not_answered(reached, dial_status, cause)
    return CallProgress(
        status=status, at=at, dial_status=dial_status, cause=cause, cause_text=cause_text, reason=reason
    )


def _why_not_answered(reached: CallStatus, dial_status: str, cause: int | None) -> EndReason:
    rang = reached is CallStatus.RINGING
    by_cause = _BY_CAUSE.get(cause or 0)
    if by_cause is EndReason.NO_ANSWER and not rang:
        return EndReason.UNAVAILABLE
    otherwise = EndReason.NO_ANSWER if rang else EndReason.UNAVAILABLE
    return by_cause or _BY_DIAL_STATUS.get(dial_status, otherwise)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
