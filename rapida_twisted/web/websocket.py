"""``/v1/talk/asterisk/ctx``: where a WebSocket handshake leaves the HTTP face, and who is let through."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from autobahn.twisted.resource import WebSocketResource

from rapida_twisted.credentials.api_keys import KEY_NAME, ApiKeys, Scope

__all__ = ["Handshake", "handshake_gate", "websocket_page"]


class Handshake(Protocol):
    """What a door looks at: Autobahn's ConnectionRequest is one."""

    headers: Mapping[str, str]
    """By lower-case name."""
    params: Mapping[str, Sequence[str]]
    """The query."""


def handshake_gate(keys: ApiKeys) -> Callable[[Handshake], tuple[int, str] | None]:
    """A door that opens to whoever has a key for the media of calls: in the query, as ``x-api-key`` header, as a bearer
    token, or as the password of HTTP basic auth (what ``username`` and ``password`` of websocket_client.conf send)."""

    def door(handshake: Handshake) -> tuple[int, str] | None:
        key = _key_of(handshake)
        grant = keys.grant_of(key)
        if grant is None:
            return 401, "this API key is not known" if key else "an API key is needed"
        if Scope.REGISTER not in grant.scopes:
            return 403, f"this API key is not for that: it has no scope {Scope.REGISTER.value}"
        return None

    return door


def websocket_page(factory: Any) -> WebSocketResource:
    """The resource that hands a connection over to a WebSocket server factory."""
    return WebSocketResource(factory)


def _key_of(handshake: Handshake) -> str:
    name = KEY_NAME.decode("ascii")
    scheme, _, token = handshake.headers.get("authorization", "").strip().partition(" ")
    candidates = (
        *handshake.params.get(name, ()),
        handshake.headers.get(name, ""),
        token.strip() if scheme.lower() == "bearer" else "",
        _password(token) if scheme.lower() == "basic" else "",
    )
    return next((candidate for candidate in candidates if candidate), "")


def _password(token: str) -> str:
    try:
        return base64.b64decode(token.strip(), validate=True).decode("utf-8").partition(":")[2]
    except ValueError:  # no ASCII, no base64, no UTF-8
        return ""
