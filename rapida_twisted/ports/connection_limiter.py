"""The limits of a port: connections, in total and per address; their rates; and the networks allowed."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import attrs
from twisted.logger import Logger

from rapida_twisted.net.addresses import Address, Network, address_of, group_of
from rapida_twisted.net.shared_counter import SharedCounter
from rapida_twisted.net.token_bucket import TokenBucket
from rapida_twisted.ports.newcomers import Newcomers
from rapida_twisted.ports.rejection_log import RejectionLog

__all__ = ["ConnectionLimiter", "ConnectionLimits"]

UNLIMITED = 1_000_000_000
KNOWN_ADDRESSES = 4096
"""Rates are kept for the N most recently seen addresses."""


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """The limits of one port. The defaults accept every connection."""

    networks: Sequence[Network] = ()
    """Networks that may connect; empty: all."""
    proxies: Sequence[Network] = ()
    """Networks that may send a PROXY header; empty: all. For ports behind a proxy only."""
    connections: int = UNLIMITED
    """Open connections."""
    per_address: int = UNLIMITED
    """Open connections of one address (IPv6: of one /64)."""
    rate: float = UNLIMITED
    """New connections per second."""
    address_rate: float = UNLIMITED
    """New connections per second from one address."""
    reserved: int = 0
    """How many of the connections are kept free for :attr:`reserved_for`."""
    reserved_for: Sequence[Network] = ()
    """Networks that these places are for. The rate of all connections does not hold for them either. Behind a proxy
    nothing is reserved: a connection is accepted before its address is known."""
    makes_room: bool = False
    """At a limit the oldest newcomer is closed, in place of the new connection. For HTTP, where a connection stays a
    newcomer until :meth:`ConnectionLimiter.proved`."""


@attrs.define(eq=False, repr=False, slots=False)
class ConnectionLimiter:
    """Counts the connections of a port, and rejects those beyond its limits.

    A connection passes :meth:`accept` and :meth:`accept_address`, and ends with :meth:`address_closed` and
    :meth:`closed`. Without a proxy, ``accept`` and ``closed`` include the other two. Behind a proxy, the peer's address
    is known when its PROXY header has been read.

    :param name: of the port, for the log; in lower case for the counts.
    :param seconds: a monotonic clock.
    :param proxied: the connections begin with a PROXY header.
    :param counter: shares the count of connections with the other processes that the limit holds for.
    """

    _log = Logger()
    name: str
    _limits: ConnectionLimits = ConnectionLimits()
    _rejections: RejectionLog = attrs.field(factory=RejectionLog)
    _seconds: Callable[[], float] = time.monotonic
    proxied: bool = attrs.field(default=False, kw_only=True)
    _counter: SharedCounter = attrs.field(factory=SharedCounter, kw_only=True)
    connections: int = attrs.field(default=0, init=False)
    """Open connections of this process."""
    apart: int = attrs.field(default=0, init=False)
    """Open connections that do not count any more, such as upgraded WebSockets: calls have limits of their own."""
    _newcomers: Newcomers = attrs.field(factory=Newcomers, init=False)
    _buckets: OrderedDict[int, TokenBucket] = attrs.field(factory=OrderedDict, init=False)
    _per_address: dict[int, int] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._bucket = TokenBucket(self._limits.rate, self._seconds())

    def accept(self, peer: Any) -> bool:
        """Count a new connection; False rejects it. If True, call :meth:`closed` when it closes."""
        limits = self._limits
        is_preferred = bool(limits.reserved_for) and not self.proxied and _is_in(peer, limits.reserved_for)
        most = limits.connections if is_preferred else limits.connections - limits.reserved
        if self.connections + self._counter.others >= most and not self._make_room("too_many", None):
            return self.reject("too_many", peer, f"{most} connections are open, which is the limit")
        if not self._bucket.take(self._seconds()) and not is_preferred:
            return self.reject("too_fast", peer, f"more than {limits.rate:g} new connections per second")
        if self.proxied:
            if not _among(address_of(_host(peer)), self._limits.proxies):
                return self.reject("no_proxy", peer, "this address may not send PROXY headers")
        elif not self.accept_address(peer):
            return False
        self._count(1)
        return True

    def opened(self, connection: Any) -> None:
        """An accepted connection has a transport: it is a newcomer."""
        if self._limits.makes_room:
            address = None if self.proxied else address_of(_host(connection.getPeer()))
            self._newcomers.add(connection, None if address is None else group_of(address))

    def proved(self, connection: Any) -> None:
        """The connection brought a request with a valid key, and will not make room for others."""
        self._newcomers.discard(connection)

    def count_apart(self, connection: Any) -> None:
        """Count a connection no more: it became a call's. Once for each, and before :meth:`closed`."""
        self.proved(connection)
        self.apart += 1
        self._count(-1)
        if not self.proxied:
            self.address_closed(connection.getPeer())

    @property
    def has_surplus(self) -> bool:
        """True if another process that serves this port has fewer connections."""
        return self._counter.surplus > 0

    def closed(self, peer: Any, connection: Any = None, *, apart: bool = False) -> None:
        """An accepted connection closed.

        :param connection: its transport, if it ever had one.
        :param apart: whether it was not counted any more.
        """
        self._newcomers.discard(connection)
        if apart:
            self.apart -= 1
            return
        self._count(-1)
        if not self.proxied:
            self.address_closed(peer)

    def accept_address(self, peer: Any) -> bool:
        """Count a connection by its peer's address; False rejects it. If True, call :meth:`address_closed` later."""
        address = address_of(_host(peer))
        if self.proxied and address is None and _host(peer):
            return self.reject("bad_proxy_header", peer, "its PROXY header has no address")
        if not _among(address, self._limits.networks):
            return self.reject("not_allowed", peer, "this address may not connect")
        if address is None:
            return True
        group, limits = group_of(address), self._limits
        count = self._per_address.get(group, 0)
        if count >= limits.per_address and not self._make_room("too_many_of_address", group):
            return self.reject("too_many_of_address", peer, f"{count} connections of this address are open already")
        if not self._bucket_of(group).take(self._seconds()):
            reason = f"more than {limits.address_rate:g} new connections per second from this address"
            return self.reject("too_fast_of_address", peer, reason)
        self._per_address[group] = count + 1
        return True

    def address_closed(self, peer: Any) -> None:
        """A connection that :meth:`accept_address` accepted closed."""
        address = address_of(_host(peer))
        if address is None:
            return
        group = group_of(address)
        left = self._per_address.get(group, 0) - 1
        if left > 0:
            self._per_address[group] = left
        else:
            self._per_address.pop(group, None)

    def reject(self, cause: str, peer: Any, reason: str) -> bool:
        """Count and log a rejected connection; always False."""
        self._rejections.add(
            f"{self.name.lower()}.{cause}", peer, self._log, "{name}: {peer} rejected: {reason}",
            name=self.name, peer=_text(peer), reason=reason,
        )  # fmt: skip
        return False

    def _make_room(self, cause: str, group: int | None) -> bool:
        """Close the oldest newcomer, of this group of addresses unless that is None; False if there is none."""
        oldest = self._newcomers.take_oldest(group)
        if oldest is None:
            return False
        reason = "it had sent no request with a valid key, and made room for another connection"
        self.reject(cause, oldest.getPeer(), reason)
        oldest.abortConnection()
        return True

    def _count(self, more: int) -> None:
        self.connections += more
        self._counter.publish(self.connections)

    def _bucket_of(self, group: int) -> TokenBucket:
        bucket = self._buckets.get(group)
        if bucket is None:
            bucket = self._buckets[group] = TokenBucket(self._limits.address_rate, self._seconds())
            if len(self._buckets) > KNOWN_ADDRESSES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(group)
        return bucket


def _among(address: Address | None, networks: Sequence[Network]) -> bool:
    """True for an address in one of the networks, and for a UNIX socket: the file's permissions guard that."""
    return not networks or address is None or any(address in network for network in networks)


def _is_in(peer: Any, networks: Sequence[Network]) -> bool:
    address = address_of(_host(peer))
    return address is not None and any(address in network for network in networks)


def _host(peer: Any) -> str:
    return str(getattr(peer, "host", ""))


def _text(peer: Any) -> str:
    host = _host(peer)
    # A PROXY header may hold any text in place of an address.
    return host if address_of(host) is not None else ascii(host)[:80] if host else "a local process"
