"""API keys, and what the holder of each may do."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256

from rapida_twisted.credentials.failed_keys import FailedKeys
from rapida_twisted.credentials.grant import FULL_GRANT, Grant, Scope
from rapida_twisted.credentials.key_ring import KeyRing
from rapida_twisted.credentials.masking import keep_out_of_logs

__all__ = ["FULL_GRANT", "ApiKeys", "Grant", "Scope"]


class ApiKeys:
    """The keys that are accepted; its repr shows none of them.

    :param keys: keys with all scopes.
    :param ring: further keys, with scopes of their own.
    :raises ValueError: ``keys`` has none.
    """

    def __init__(self, keys: Iterable[str], ring: KeyRing | None = None) -> None:
        self._digests = tuple({_digest(key) for key in keys if key})
        self._ring = ring
        self.failed = FailedKeys()
        if not self._digests:
            raise ValueError("there must be an API key")

    def __repr__(self) -> str:
        return f"<ApiKeys: {len(self._digests)}>"

    def accepts(self, candidate: str) -> bool:
        """Whether the key is known, whatever its scopes."""
        return self.grant_of(candidate) is not None

    def grant_of(self, candidate: str) -> Grant | None:
        """What the key grants, or None if it is unknown. Takes constant time."""
        digest = _digest(candidate)
        accepted = False
        for known in self._digests:
            accepted |= hmac.compare_digest(known, digest)
        if accepted:
            return FULL_GRANT
        entry = self._ring.find(candidate) if self._ring is not None else None
        if entry is None:
            return None
        # The ring has only hashes: this process knows a key once a client has sent it.
        keep_out_of_logs(candidate)
        return Grant(entry.name, entry.scopes, entry.max_calls, entry.assistants)


def _digest(key: str) -> bytes:
    # Digests have one length, so that comparing them does not tell the length of a key.
    return sha256(key.encode("utf-8", "surrogatepass")).digest()
