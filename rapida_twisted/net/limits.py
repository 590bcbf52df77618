"""What limits are made of: counts of what was refused, rates, and networks. Pure: no socket and no clock of its own."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

__all__ = [
    "Address",
    "BridgeStates",
    "Network",
    "Refused",
    "SharedCounter",
    "TokenBucket",
    "address_of",
    "group_of",
    "kind_of",
]

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

Refused: TypeAlias = Counter[str]
"""How often what was refused, by names such as ``audiosocket.too_many``: where, and why."""

_GROUP_BITS = 64
"""Whoever has one IPv6 address has all of its /64."""
_ID_BYTES = 36
"""A UUID's canonical form."""


class SharedCounter:
    """The count of something that several processes limit together. This base class is for one process alone."""

    __slots__ = ()

    def publish(self, count: int) -> None:
        """Set this process's count."""

    @property
    def others(self) -> int:
        """The sum of the other processes' counts."""
        return 0

    @property
    def surplus(self) -> int:
        """How many more calls this worker has than the least-loaded worker that accepts calls."""
        return 0


class BridgeStates:
    """Whether Asterisk's bridge has the media of each of the newest 256 calls in Stasis, in memory that other processes
    may see. One process writes it.

    :param memory: ``SIZE`` bytes, all zero at first; this process's own if not given.
    """

    __slots__ = ("_memory", "_next")

    SIZE = 256 * (1 + _ID_BYTES)

    def __init__(self, memory: memoryview | None = None) -> None:
        self._memory = memoryview(bytearray(self.SIZE)) if memory is None else memory
        self._next = 0

    def add(self, context_id: str) -> None:
        """A call whose media is about to connect, and not bridged. The oldest call makes room."""
        place, self._next = self._next, (self._next + 1 + _ID_BYTES) % self.SIZE
        self._memory[place : place + 1 + _ID_BYTES] = b"\0" + _bytes_of(context_id)

    def set_bridged(self, context_id: str) -> None:
        """The bridge has this call's media."""
        place = self._place(context_id)
        if place is not None:
            self._memory[place] = 1

    def get(self, context_id: str) -> bool | None:
        """Whether the bridge has this call's media; None for a call that is not here."""
        place = self._place(context_id)
        return None if place is None else bool(self._memory[place])

    def _place(self, context_id: str) -> int | None:
        wanted, memory = _bytes_of(context_id), self._memory
        places = range(0, self.SIZE, 1 + _ID_BYTES)
        return next((place for place in places if memory[place + 1 : place + 1 + _ID_BYTES] == wanted), None)


class TokenBucket:
    """Allows so many a second, and after a pause as many at once as one second has.

    :param rate: how many a second.
    :param now_s: the time, of any clock that is asked later, too.
    """

    __slots__ = ("_rate", "_seen_s", "_tokens")

    def __init__(self, rate: float, now_s: float) -> None:
        self._rate = rate
        self._tokens = max(1.0, rate)
        self._seen_s = now_s

    def take(self, now_s: float) -> bool:
        """Whether one more is allowed now; then it is taken."""
        passed_s = max(0.0, now_s - self._seen_s)
        self._seen_s = now_s
        self._tokens = min(max(1.0, self._rate), self._tokens + passed_s * self._rate)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def address_of(host: str) -> Address | None:
    """The address that a text is, an IPv4 one also where it is written as IPv6; None for what is none."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def group_of(address: Address) -> int:
    """Who counts as one: an IPv4 address, or all of an IPv6 /64."""
    if isinstance(address, IPv4Address):
        return int(address)
    # Above all that an IPv4 address may be.
    return (1 << 64) | int(address) >> _GROUP_BITS


def kind_of(address: Address | None) -> str:
    """Where an address is, coarsely: ``loopback``, ``private``, ``public``, or ``local`` for none at all."""
    if address is None:
        return "local"
    if address.is_loopback:
        return "loopback"
    return "private" if address.is_private else "public"


def _bytes_of(context_id: str) -> bytes:
    return context_id.encode().ljust(_ID_BYTES, b"\0")[:_ID_BYTES]
