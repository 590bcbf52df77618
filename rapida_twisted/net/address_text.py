"""Addresses as people read them."""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

__all__ = ["address_text", "host_and_port"]


def address_text(address: Any) -> str:
    """An address of Twisted as text: ``192.0.2.1:40312``, ``[2001:db8::1]:40312``, ``unix:/run/x``."""
    if isinstance(address, IPv4Address):
        return host_and_port(address.host, address.port)
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, UNIXAddress):
        name = address.name
        return "unix:" + (name.decode("utf-8", "replace") if isinstance(name, bytes) else name or "")
    return str(address)


def host_and_port(host: str, port: int) -> str:
    """``host:port``, with an IPv6 address in brackets."""
    try:
        if ipaddress.ip_address(host).version == 6:
            return f"[{host}]:{port}"
    except ValueError:
        pass
    return f"{host}:{port}"
