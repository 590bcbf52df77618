"""What the stores that keep contexts outside this process have in common."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from rapida_twisted.context import CallContext, CallStatus, ContextStatus, Direction

__all__ = ["context_of", "storable"]


def context_of(values: dict[str, Any]) -> CallContext:
    """A context, of its fields as texts, numbers and a plain mapping."""
    values["direction"] = Direction(values.get("direction", Direction.INBOUND))
    values["status"] = ContextStatus(values["status"])
    values["call_status"] = CallStatus(values["call_status"]) if values.get("call_status") else None
    values["variables"] = MappingProxyType(values["variables"])
    return CallContext(**values)


def storable(text: str) -> bool:
    """Whether a store can keep this text: half a surrogate pair has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
