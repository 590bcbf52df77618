"""The client's address that a reverse proxy reports: ``Forwarded`` (RFC 7239) and ``X-Forwarded-For``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from twisted.web.http_headers import Headers

from rapida_twisted.net.addresses import Address, Network, address_of

__all__ = ["client_of"]

_FOR = re.compile(r'(?:^|[;,])\s*for="?(\[[0-9A-Fa-f:.]+\]|[^\s;,":]+)', re.IGNORECASE)
MOST_HOPS = 10


def client_of(peer: str, headers: Headers, proxies: Sequence[Network]) -> Address | None:
    """The client's address if the peer is one of our proxies and reports one, else None.

    Each proxy adds the address that it saw at the end. So the client is the last one that is no proxy of ours: what
    stands before it may be the client's own invention.
    """
    if not _is_proxy(address_of(peer), proxies):
        return None
    for address in list(_reported(headers))[: -MOST_HOPS - 1 : -1]:
        if address is None:
            return None
        if not _is_proxy(address, proxies):
            return address
    return None


def _is_proxy(address: Address | None, proxies: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in proxies)


def _reported(headers: Headers) -> Iterable[Address | None]:
    """The addresses in the order of the way; None for one that is none. ``Forwarded`` counts before the other."""
    lines = headers.getRawHeaders("forwarded")
    if lines is not None:
        return (address_of(found.strip("[]")) for found in _FOR.findall(",".join(lines)))
    lines = headers.getRawHeaders("x-forwarded-for") or ()
    return (address_of(part.strip().strip("[]")) for part in ",".join(lines).split(",") if part.strip())
