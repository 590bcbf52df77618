"""Hosts, ports and IP addresses: read, written for people, and grouped by who has them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, TypeAlias
from urllib.parse import urlsplit

__all__ = [
    "Address", "Network", "address_of", "address_text", "bracketed", "group_of", "host_and_port", "host_of",
    "host_port_of", "kind_of", "parse_host_port", "same_network",
]  # fmt: skip

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_GROUP_BITS = 64
"""Whoever has one IPv6 address has all of its /64."""
_HOST_PORT = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>\d{1,5}))?"
)
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def parse_host_port(text: str, default_port: int = 0) -> tuple[str, int]:
    """Read ``host:port``, where an IPv6 address stands in brackets.

    :param default_port: of a text without a port; 0: it must have one.
    :raises ValueError: it is something else.
    """
    match = _HOST_PORT.fullmatch(text)
    port = int(match["port"] or default_port) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise ValueError("it is no HOST:PORT")
    return match["v6"] or match["name"], port


def host_port_of(url: str) -> tuple[str, int]:
    """The host and the port of a URL; of one without a port, that of HTTP or WebSocket.

    :raises ValueError: it has no host, or no port that can be.
    """
    parts = urlsplit(url)
    port = _PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    if not parts.hostname or not port:
        raise ValueError("it has no host and port")
    return parts.hostname, port


def host_and_port(host: str, port: int) -> str:
    """``host:port``, with an IPv6 address in brackets."""
    return f"{bracketed(host)}:{port}"


def bracketed(host: str) -> str:
    """A host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def host_of(text: str) -> str:
    """The host of a peer as :func:`address_text` writes it; empty for a UNIX socket."""
    try:
        return parse_host_port(text, default_port=1)[0]
    except ValueError:
        return ""


def same_network(one: str, other: str) -> bool:
    """Whether two IP addresses are of one network: IPv4 /24, IPv6 /64. True if one of them is no IP address."""
    first, second = address_of(one), address_of(other)
    if first is None or second is None:
        return True
    bits = 8 if first.version == 4 else _GROUP_BITS
    return first.version == second.version and int(first) >> bits == int(second) >> bits


def address_text(address: Any) -> str:
    """An address of Twisted as text: ``192.0.2.1:40312``, ``[2001:db8::1]:40312``, ``unix:/run/x``."""
    # Here, so that settings and command lines load without Twisted.
    from twisted.internet import address as twisted_address

    if isinstance(address, twisted_address.IPv4Address | twisted_address.IPv6Address):
        return host_and_port(address.host, address.port)
    if isinstance(address, twisted_address.UNIXAddress):
        name = address.name
        return "unix:" + (name.decode("utf-8", "replace") if isinstance(name, bytes) else name or "")
    return str(address)


def address_of(host: str) -> Address | None:
    """The IP address in a text, or None. An IPv4 address may be written as an IPv6 one."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def group_of(address: Address) -> int:
    """A number for all addresses that one client is taken to have: an IPv4 address, or an IPv6 /64."""
    if isinstance(address, IPv4Address):
        return int(address)
    # Above all that an IPv4 address may be.
    return (1 << 64) | int(address) >> _GROUP_BITS


def kind_of(address: Address | None) -> str:
    """``loopback``, ``private``, ``public``, or ``local`` for None (a UNIX socket)."""
    if address is None:
        return "local"
    if address.is_loopback:
        return "loopback"
    return "private" if address.is_private else "public"
