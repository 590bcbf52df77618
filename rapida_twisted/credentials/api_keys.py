"""API keys: who may use the HTTP face."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import unquote_to_bytes

from twisted.web.server import Request

from rapida_twisted.credentials.key_ring import ALL_SCOPES, KeyRing, Scope
from rapida_twisted.credentials.masking import keep_out_of_logs

__all__ = ["FULL_GRANT", "KEY_NAME", "ApiKeys", "Grant", "Scope", "holds_key", "is_key_name", "key_of", "mask_key"]

KEY_NAME = b"x-api-key"
"""The name of the query parameter and of the header that carry a key."""

_KEY_ANYWHERE = re.compile(rb"((?:x|%78)(?:[-_]|%2d|%5f)api(?:[-_]|%2d|%5f)key(?:=|%3d))[^&;?#\s]*", re.IGNORECASE)


@dataclass(frozen=True)
class Grant:
    """What the holder of a key may do."""

    key_name: str
    """The key's name in the key file; empty for the server's own key and those of the environment."""
    scopes: frozenset[Scope]
    max_calls: int = 0
    """Calls that may be waiting or up at once for this key; 0: no limit of its own."""


FULL_GRANT = Grant("", ALL_SCOPES)


class ApiKeys:
    """The keys that are accepted. Shows none of them.

    :param keys: those that may do everything.
    :param ring: further ones, with scopes.
    :raises ValueError: there is none of the former.
    """

    def __init__(self, keys: Iterable[str], ring: KeyRing | None = None) -> None:
        self._digests = tuple({_digest(key) for key in keys if key})
        self._ring = ring
        if not self._digests:
            raise ValueError("there must be an API key")

    def __repr__(self) -> str:
        return f"<ApiKeys: {len(self._digests)}>"

    def accepts(self, candidate: str) -> bool:
        """Whether this is one of the keys, whatever it may do."""
        return self.grant_of(candidate) is not None

    def grant_of(self, candidate: str) -> Grant | None:
        """What this key may do; None for one that is not known. How long it takes tells nothing of the keys."""
        digest = _digest(candidate)
        accepted = False
        for known in self._digests:
            accepted |= hmac.compare_digest(known, digest)
        if accepted:
            return FULL_GRANT
        entry = self._ring.find(candidate) if self._ring is not None else None
        if entry is None:
            return None
        # The ring knows hashes alone: until somebody comes with the key, nobody here knows it.
        keep_out_of_logs(candidate)
        return Grant(entry.name, entry.scopes, entry.max_calls)


def key_of(request: Request) -> str:
    """The key that a request carries, or an empty text.

    The first of: the ``x-api-key`` of the query, the header of that name, ``Authorization: Bearer``, and the password
    of ``Authorization: Basic`` (which is how a WebSocket client of Asterisk's configuration carries it).
    """
    for candidate in (_in_query(request), request.getHeader(KEY_NAME), _bearer(request)):
        if candidate:
            return _text(candidate)
    return _text(request.getPassword() or b"")


def is_key_name(name: bytes) -> bool:
    """Whether a parameter of this name may hold a key, also one that is misspelt, and so must not be shown."""
    return name.strip().lower().replace(b"_", b"-") == KEY_NAME


def mask_key(uri: bytes) -> bytes:
    """The URI with the keys in it replaced by ``***``, also where a slip of the pen has put them beside the query."""
    path, question, query = uri.partition(b"?")
    masked = path + question + b"&".join(_mask_parameter(parameter) for parameter in query.split(b"&"))
    return _KEY_ANYWHERE.sub(rb"\1***", masked)


def holds_key(text: str) -> bool:
    """Whether a key stands in the middle of a text, where a separator was mistyped (``;`` or ``&amp;`` for ``&``)."""
    return _KEY_ANYWHERE.search(text.encode("utf-8", "replace")) is not None


def _mask_parameter(parameter: bytes) -> bytes:
    name, equals, _ = parameter.partition(b"=")
    return name + b"=***" if equals and is_key_name(unquote_to_bytes(name.replace(b"+", b" "))) else parameter


def _in_query(request: Request) -> bytes:
    """The key among the parameters, which are parted by ``&`` alone, as everywhere in this interface."""
    for parameter in request.uri.partition(b"?")[2].split(b"&"):
        name, _, value = parameter.partition(b"=")
        if unquote_to_bytes(name) == KEY_NAME:
            return unquote_to_bytes(value.replace(b"+", b" "))
    return b""


def _bearer(request: Request) -> bytes:
    scheme, _, token = (request.getHeader(b"authorization") or b"").strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _text(candidate: bytes | str) -> str:
    return candidate if isinstance(candidate, str) else candidate.decode("utf-8", "surrogateescape")


def _digest(key: str) -> bytes:
    # Digests have one length, so that comparing them does not tell the length of a key.
    return sha256(key.encode("utf-8", "surrogatepass")).digest()
