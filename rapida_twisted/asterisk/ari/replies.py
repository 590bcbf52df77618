"""Converts ARI's responses to values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

__all__ = ["AriChannel", "AriInfo", "ari_time", "channel_from", "info_from", "modules_from"]


@dataclass(frozen=True, kw_only=True)
class AriChannel:
    """A channel in a response or an event."""

    id: str
    name: str
    """Such as ``PJSIP/trunk-00000006``."""
    state: str
    """Down, Rsrved, OffHook, Dialing, Ring, Ringing, Up, Busy, ..."""
    caller: str = ""
    """The caller's number."""
    connected: str = ""
    """The other party's number."""
    context: str = ""
    extension: str = ""
    priority: int = 0
    application: str = ""
    """The dialplan application that the channel runs now, such as ``AudioSocket``."""
    application_data: str = ""
    """The application's arguments, as the dialplan writes them."""
    created: datetime | None = None
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The variables that ``channelvars`` in ari.conf lists."""


@dataclass(frozen=True, kw_only=True)
class AriInfo:
    """An Asterisk's version and times; None for a time that it does not report."""

    version: str
    system_time: datetime | None = None
    """Asterisk's clock when it responded, exact to milliseconds plus the response's way."""
    started: datetime | None = None


def channel_from(entry: Any) -> AriChannel:
    """A channel from its JSON.

    :raises LookupError, TypeError, AttributeError: it is no channel.
    """
    identity, name, state = entry["id"], entry["name"], entry["state"]
    if not (isinstance(identity, str) and isinstance(name, str) and isinstance(state, str)):
        raise TypeError("a channel's id, name and state must be text")
    place = entry.get("dialplan") or {}
    return AriChannel(
        id=identity,
        name=name,
        state=state,
        caller=_text((entry.get("caller") or {}).get("number")),
        connected=_text((entry.get("connected") or {}).get("number")),
        context=_text(place.get("context")),
        extension=_text(place.get("exten")),
        priority=place["priority"] if isinstance(place.get("priority"), int) else 0,
        application=_text(place.get("app_name")),
        application_data=_text(place.get("app_data")),
        created=ari_time(entry.get("creationtime")),
        variables=MappingProxyType({key: _text(value) for key, value in (entry.get("channelvars") or {}).items()}),
    )


def modules_from(entries: Any) -> dict[str, str]:
    """Each module's status by its name without ``.so``, from ``/asterisk/modules``."""
    return {entry["name"].removesuffix(".so"): _text(entry.get("status")) for entry in entries}


def info_from(entry: Any, ping: Any = None) -> AriInfo:
    """From the responses of ``/asterisk/info`` and ``/asterisk/ping`` (None if it does not exist)."""
    version = entry["system"]["version"]
    if not isinstance(version, str):
        raise TypeError("a version must be text")
    return AriInfo(
        version=version,
        system_time=ari_time((ping or {}).get("timestamp")),
        started=ari_time((entry.get("status") or {}).get("startup_time")),
    )


def ari_time(text: Any) -> datetime | None:
    """A time in ARI's format (``2025-01-31T12:00:00.000+0000``); None for anything else."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
