"""The door of a port: how many connections there may be, how fast they may come, and from where."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from rapida_twisted.net.limits import Address, Network, SharedCounter, TokenBucket, address_of, group_of
from rapida_twisted.ports.rejection_log import RejectionLog

__all__ = ["ConnectionLimiter", "ConnectionLimits"]

MANY = 1_000_000_000
KNOWN_ADDRESSES = 4096
"""Of so many addresses the rate is watched; of more, that of those seen last."""


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Who is let in. By default everybody."""

    networks: Sequence[Network] = ()
    """Networks whose addresses may come; none: all may."""
    proxies: Sequence[Network] = ()
    """Networks from which a PROXY header is believed; none: from all. Of use for doors behind a proxy alone."""
    connections: int = MANY
    """Connections at once."""
    of_address: int = MANY
    """Connections at once of one address (IPv6: of one /64)."""
    rate: float = MANY
    """New connections a second."""
    address_rate: float = MANY
    """New connections a second from one address."""


class ConnectionLimiter:
    """Counts who is in, and refuses who may not come in.

    A connection comes in by :meth:`enter` and :meth:`identify`, and goes by :meth:`forget` and :meth:`leave`. Where the
    peer is known from the start, ``enter`` and ``leave`` do the others' work, too. Behind a proxy the peer is known as
    soon as its header is read.

    :param name: of the port, for the log; in lower case for the counts.
    :param seconds: a clock that never goes back.
    :param counter: shares the count of connections with the other processes that the limit holds for.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        rules: ConnectionLimits = ConnectionLimits(),
        rejections: RejectionLog | None = None,
        seconds: Callable[[], float] = time.monotonic,
        *,
        proxied: bool = False,
        counter: SharedCounter | None = None,
    ) -> None:
        self.name = name
        self.proxied = proxied
        """Whether the peers are those that a PROXY header names."""
        self.inside = 0
        """Connections now."""
        self._rules = rules
        self._counter = counter if counter is not None else SharedCounter()
        self._rejections = rejections if rejections is not None else RejectionLog()
        self._seconds = seconds
        self._bucket = TokenBucket(rules.rate, seconds())
        self._buckets: OrderedDict[int, TokenBucket] = OrderedDict()
        self._of_address: dict[int, int] = {}

    def enter(self, peer: Any) -> bool:
        """Somebody connects: whether they are let in. Then :meth:`leave` must follow."""
        if self.inside + self._counter.others >= self._rules.connections:
            return self.refuse("too_many", peer, f"{self._rules.connections} connections are open, which is the limit")
        if not self._bucket.take(self._seconds()):
            return self.refuse("too_fast", peer, f"more than {self._rules.rate:g} new connections a second")
        if self.proxied:
            if not _among(address_of(_host(peer)), self._rules.proxies):
                return self.refuse("no_proxy", peer, "no proxy that may send PROXY headers is at this address")
        elif not self.identify(peer):
            return False
        self.inside += 1
        self._counter.publish(self.inside)
        return True

    @property
    def is_ahead(self) -> bool:
        """Whether more are inside than at another process's door to the same port."""
        return self._counter.surplus > 0

    def leave(self, peer: Any) -> None:
        """A connection that was let in is gone."""
        self.inside -= 1
        self._counter.publish(self.inside)
        if not self.proxied:
            self.forget(peer)

    def identify(self, peer: Any) -> bool:
        """Who somebody is, is known: whether they may stay. Then :meth:`forget` must follow."""
        address = address_of(_host(peer))
        if self.proxied and address is None and _host(peer):
            return self.refuse("bad_proxy_header", peer, "its PROXY header has no address")
        if not _among(address, self._rules.networks):
            return self.refuse("not_allowed", peer, "this address may not connect")
        if address is None:
            return True
        group, rules = group_of(address), self._rules
        count = self._of_address.get(group, 0)
        if count >= rules.of_address:
            return self.refuse("too_many_of_address", peer, f"{count} connections of this address are open already")
        if not self._bucket_of(group).take(self._seconds()):
            reason = f"more than {rules.address_rate:g} new connections a second from this address"
            return self.refuse("too_fast_of_address", peer, reason)
        self._of_address[group] = count + 1
        return True

    def forget(self, peer: Any) -> None:
        """A connection that was identified is gone."""
        address = address_of(_host(peer))
        if address is None:
            return
        group = group_of(address)
        left = self._of_address.get(group, 0) - 1
        if left > 0:
            self._of_address[group] = left
        else:
            self._of_address.pop(group, None)

    def refuse(self, why: str, peer: Any, reason: str) -> bool:
        """Somebody is not let in, or sent away: count it, tell it; always False."""
        self._rejections.add(
            f"{self.name.lower()}.{why}", peer, self._log, "{name}: {peer} refused: {reason}",
            name=self.name, peer=_text(peer), reason=reason,
        )  # fmt: skip
        return False

    def _bucket_of(self, group: int) -> TokenBucket:
        bucket = self._buckets.get(group)
        if bucket is None:
            bucket = self._buckets[group] = TokenBucket(self._rules.address_rate, self._seconds())
            if len(self._buckets) > KNOWN_ADDRESSES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(group)
        return bucket


def _among(address: Address | None, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of the networks. Who comes over a UNIX socket has passed the file's own door."""
    return not networks or address is None or any(address in network for network in networks)


def _host(peer: Any) -> str:
    return str(getattr(peer, "host", ""))


def _text(peer: Any) -> str:
    host = _host(peer)
    # What a header says is a stranger's text, until it was seen to be an address.
    return host if address_of(host) is not None else ascii(host)[:80] if host else "a local process"
