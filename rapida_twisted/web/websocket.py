"""``/v1/talk/asterisk/ctx``: upgrades an authenticated request to a media WebSocket."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from autobahn.twisted.resource import WebSocketResource

from rapida_twisted.credentials.api_keys import ApiKeys, Scope
from rapida_twisted.web.request_key import KEY_NAME

__all__ = ["Handshake", "assistants_gate", "handshake_gate", "websocket_page"]


class Handshake(Protocol):
    """A handshake's request, such as Autobahn's ConnectionRequest."""

    headers: Mapping[str, str]
    """By lower-case name."""
    params: Mapping[str, Sequence[str]]
    """The query's parameters."""


def handshake_gate(keys: ApiKeys) -> Callable[[Handshake], tuple[int, str] | None]:
    """Makes the check of a handshake's key, which returns a refusal's status and reason, or None.

    The key may be in the query, the ``x-api-key`` header, a bearer token, or the password of HTTP basic auth (which
    ``username`` and ``password`` of websocket_client.conf send).
    """

    def check(handshake: Handshake) -> tuple[int, str] | None:
        key = _key_of(handshake)
        grant = keys.grant_of(key)
        if grant is None:
            return 401, "this API key is not known" if key else "an API key is needed"
        if Scope.REGISTER not in grant.scopes:
            return 403, f"this API key has no scope {Scope.REGISTER.value}"
        return None

    return check


def assistants_gate(keys: ApiKeys) -> Callable[[Handshake], Collection[str]]:
    """Makes the function that returns the ids of the assistants that a handshake's key is bound to; empty: all."""

    def assistants_of(handshake: Handshake) -> Collection[str]:
        grant = keys.grant_of(_key_of(handshake))
        return grant.assistants if grant is not None else ()

    return assistants_of


def websocket_page(factory: Any) -> WebSocketResource:
    """The resource that hands a connection to a WebSocket server factory."""
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
    except ValueError:  # not ASCII, not base64, or not UTF-8
        return ""
