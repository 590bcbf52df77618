"""Derives an outbound call's progress from ARI's events. Pure.

Asterisk's own ``dial.c`` dials a call that ARI places: the call's channel is the ``peer`` of ``Dial`` events whose
``dialstatus`` is empty at first, then RINGING, PROGRESS, ANSWER, or BUSY, CONGESTION, NOANSWER and so on
(``main/stasis_channels.c``). Later ``Dial`` events may have it as their ``caller``: those belong to a transfer.

The cause of its channel's end shows why a call was not answered: a 404 and a 603 have the dial status NOANSWER, and a
timeout has none. With a Local channel the dial status shows it, and the cause may be 0. A trunk that does not
answer at all ends with the same cause as a phone that rings in vain, but never rang.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rapida_twisted.context import CallStatus, EndReason

__all__ = ["EVENTS", "ChannelUpdate", "end_of", "status_of_state", "update_from"]

EVENTS = ("Dial", "ChannelStateChange", "ChannelDestroyed")
"""The event types that matter here."""

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
class ChannelUpdate:
    """One event's report on one channel."""

    channel_id: str
    status: CallStatus | None = None
    """The call's status; None if the event does not report it."""
    dial_status: str = ""
    destroyed: bool = False
    cause: int | None = None
    cause_text: str = ""


def update_from(event: Mapping[str, Any]) -> ChannelUpdate | None:
    """An event's report on a channel that may be an outbound call's; None for all other events."""
    kind = event.get("type")
    channel = event.get("peer" if kind == "Dial" else "channel")
    if kind not in EVENTS or not isinstance(channel, dict) or not isinstance(channel.get("id"), str):
        return None
    channel_id = channel["id"]
    if kind == "Dial":
        dial_status = _text(event.get("dialstatus"))
        return ChannelUpdate(channel_id=channel_id, status=_DIALLING.get(dial_status), dial_status=dial_status)
    if kind == "ChannelStateChange":
        return ChannelUpdate(channel_id=channel_id, status=status_of_state(_text(channel.get("state"))))
    cause = event.get("cause")
    return ChannelUpdate(
        channel_id=channel_id,
        destroyed=True,
        cause=cause if isinstance(cause, int) and not isinstance(cause, bool) else None,
        cause_text=_text(event.get("cause_txt")),
    )


def status_of_state(state: str) -> CallStatus:
    """The call status for a channel's state."""
    return _STATES.get(state, CallStatus.INITIATED)


def end_of(*, status: CallStatus, cancelled: bool, dial_status: str, cause: int | None) -> tuple[CallStatus, EndReason]:
    """The last status of a call whose channel is destroyed, and the reason.

    :param status: the call's status before.
    :param cancelled: whether it was cancelled before its answer.
    :param dial_status: the last dial status.
    """
    if status is CallStatus.ANSWERED:
        return CallStatus.COMPLETED, EndReason.NO_MEDIA
    if cancelled:
        return CallStatus.CANCELLED, EndReason.CANCELLED
    return CallStatus.FAILED, _why_not_answered(status, dial_status, cause)


def _why_not_answered(status: CallStatus, dial_status: str, cause: int | None) -> EndReason:
    rang = status is CallStatus.RINGING
    by_cause = _BY_CAUSE.get(cause or 0)
    if by_cause is EndReason.NO_ANSWER and not rang:
        return EndReason.UNAVAILABLE
    otherwise = EndReason.NO_ANSWER if rang else EndReason.UNAVAILABLE
    return by_cause or _BY_DIAL_STATUS.get(dial_status, otherwise)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
