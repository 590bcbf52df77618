"""What ARI's answers hold, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

__all__ = ["AriChannel", "AriInfo", "ari_time", "channel_from", "info_from", "modules_from"]


@dataclass(frozen=True, kw_only=True)
class AriChannel:
    """A channel as Asterisk told of it, in an answer or an event."""

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
    """What the channel runs now, such as ``AudioSocket``."""
    application_data: str = ""
    """Its arguments, as the dialplan writes them."""
    created: datetime | None = None
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Those that Asterisk shows by itself (``channelvars`` in ari.conf)."""


@dataclass(frozen=True, kw_only=True)
class AriInfo:
    """An Asterisk's version and times; a time that it does not tell is None."""

    version: str
    system_time: datetime | None = None
    """Its clock when it answered; good to some milliseconds and the way of the answer."""
    started: datetime | None = None


def channel_from(entry: Any) -> AriChannel:
    """A channel from its JSON.

    :raises LookupError, TypeError, AttributeError: that is no channel.
    """
    identity, name, state = entry["id"], entry["name"], entry["state"]
    if not (isinstance(identity, str) and isinstance(name, str) and isinstance(state, str)):
        raise TypeError("a channel's id, name and state are text")
    place = entry.get("dialplan") or {}
    return AriChannel(
        id=identity,
        name=name,
        state=state,
        caller=_word((entry.get("caller") or {}).get("number")),
        connected=_word((entry.get("connected") or {}).get("number")),
        context=_word(place.get("context")),
        extension=_word(place.get("exten")),
        priority=place["priority"] if isinstance(place.get("priority"), int) else 0,
        application=_word(place.get("app_name")),
        application_data=_word(place.get("app_data")),
        created=ari_time(entry.get("creationtime")),
        variables=MappingProxyType({key: _word(value) for key, value in (entry.get("channelvars") or {}).items()}),
    )


def modules_from(entries: Any) -> dict[str, str]:
    """Each module's status by its name without ``.so``, from ``/asterisk/modules``."""
    return {entry["name"].removesuffix(".so"): _word(entry.get("status")) for entry in entries}


def info_from(entry: Any, ping: Any = None) -> AriInfo:
    """From the answers of ``/asterisk/info`` and ``/asterisk/ping`` (None where that does not exist)."""
    version = entry["system"]["version"]
    if not isinstance(version, str):
        raise TypeError("a version is text")
    return AriInfo(
        version=version,
        system_time=ari_time((ping or {}).get("timestamp")),
        started=ari_time((entry.get("status") or {}).get("startup_time")),
    )


def ari_time(text: Any) -> datetime | None:
    """A time as ARI writes it (``2025-01-31T12:00:00.000+0000``); None if it is none."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""
