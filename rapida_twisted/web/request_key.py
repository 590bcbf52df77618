"""Where a request carries its API key, and how the key is masked in what is logged."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from twisted.web.server import Request

__all__ = ["KEY_NAME", "holds_key", "is_key_name", "key_of", "mask_key", "parameters_in", "parameters_of"]

KEY_NAME = b"x-api-key"
"""The name of the query parameter and of the header that carry a key."""

_KEY_ANYWHERE = re.compile(rb"((?:x|%78)(?:[-_]|%2d|%5f)api(?:[-_]|%2d|%5f)key(?:=|%3d))[^&;?#\s]*", re.IGNORECASE)


def key_of(request: Request) -> str:
    """The key of a request, or an empty text.

    The first of: the ``x-api-key`` of the query, the header of that name, ``Authorization: Bearer``, and the password
    of ``Authorization: Basic`` (which is how a WebSocket client of Asterisk's configuration carries it).
    """
    for candidate in (_in_query(request), request.getHeader(KEY_NAME), _bearer(request)):
        if candidate:
            return _text(candidate)
    return _text(request.getPassword() or b"")


def is_key_name(name: bytes) -> bool:
    """Whether a parameter of this name, perhaps misspelt, may hold a key and must not be shown."""
    return name.strip().lower().replace(b"_", b"-") == KEY_NAME


def mask_key(uri: bytes) -> bytes:
    """The URI with ``***`` in the place of keys, also of those that a typing error put outside the query."""
    path, question, query = uri.partition(b"?")
    masked = path + question + b"&".join(_mask_parameter(parameter) for parameter in query.split(b"&"))
    return _KEY_ANYWHERE.sub(rb"\1***", masked)


def holds_key(text: str) -> bool:
    """Whether a text contains a key, because a separator was mistyped (``;`` or ``&amp;`` for ``&``)."""
    return _KEY_ANYWHERE.search(text.encode("utf-8", "replace")) is not None


def _mask_parameter(parameter: bytes) -> bytes:
    name, equals, _ = parameter.partition(b"=")
    return name + b"=***" if equals and is_key_name(unquote_to_bytes(name.replace(b"+", b" "))) else parameter


def parameters_in(uri: bytes) -> list[tuple[bytes, bytes]]:
    """The parameters of a URI's query. Only ``&`` separates parameters in this interface."""
    query = uri.partition(b"?")[2].replace(b"+", b" ")
    return [_unquoted(parameter) for parameter in query.split(b"&") if parameter]


def parameters_of(request: Request) -> list[tuple[bytes, bytes]]:
    """The same of a request, parsed once."""
    parsed: list[tuple[bytes, bytes]] | None = getattr(request, "parameters", None)
    return parameters_in(request.uri) if parsed is None else parsed


def _unquoted(parameter: bytes) -> tuple[bytes, bytes]:
    name, _, value = parameter.partition(b"=")
    return unquote_to_bytes(name), unquote_to_bytes(value)


def _in_query(request: Request) -> bytes:
    return next((value for name, value in parameters_of(request) if name == KEY_NAME), b"")


def _bearer(request: Request) -> bytes:
    scheme, _, token = (request.getHeader(b"authorization") or b"").strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _text(candidate: bytes | str) -> str:
    return candidate if isinstance(candidate, str) else candidate.decode("utf-8", "surrogateescape")
