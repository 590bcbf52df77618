"""The PROXY protocol: rejects connections without its header, and applies the limits to the address in it.

Twisted parses the header, between two wrappers of ours::

    socket -> ProxyHeaderGuard -> Twisted's HAProxyWrappingFactory -> PeerCheck -> the server's protocol

:class:`PeerCheck` gets the first byte after the header, when the peer's address is known.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from rapida_twisted.ports.connection_limiter import ConnectionLimiter

__all__ = ["PeerCheckFactory", "ProxyHeaderGuardFactory"]

_UNKNOWN = b"PROXY UNKNOWN\r\n"
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
"""Begins a header of version 2; then version and command, the address family, and the length follow."""
_V2_PROXY, _V2_NO_IP = 1, (0, 3)


class PeerCheck(ProtocolWrapper):
    """Applies the limits to the peer's address before the server gets a byte."""

    factory: PeerCheckFactory
    wrappedProtocol: Any  # noqa: N815
    header_read = False
    _is_accepted = False
    _counted: IAddress | None = None
    """The address that the limiter counts."""

    def dataReceived(self, data: bytes) -> None:
        if not self.header_read:
            self.header_read = True
            peer = self.getPeer()
            if not self.factory.limiter.accept_address(peer):
                self.abortConnection()
                return
            self._counted, self._is_accepted = peer, True
        if self._is_accepted:
            self.wrappedProtocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._uncount()
        super().connectionLost(reason)

    def count_apart(self) -> None:
        """Count the address no more: the connection became a call's. Idempotent."""
        self._uncount()

    def _uncount(self) -> None:
        peer, self._counted = self._counted, None
        if peer is not None:
            self.factory.limiter.address_closed(peer)


class ProxyHeaderGuard(ProtocolWrapper):
    """Closes connections without a valid PROXY header; for some of them Twisted's parser raises ValueError."""

    factory: ProxyHeaderGuardFactory
    _peer_check: PeerCheck | None = None
    _seen = False
    """Whether the header's beginning came. Twisted's parser wants it in one piece."""
    _rejected = False

    def makeConnection(self, transport: Any) -> None:  # noqa: N802
        behind: Any = self.wrappedProtocol
        while not isinstance(behind, PeerCheck):
            behind = behind.wrappedProtocol
        self._peer_check = behind
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        peer_check = self._peer_check
        if peer_check is None or peer_check.header_read:
            super().dataReceived(data)
            return
        first, self._seen = not self._seen, True
        if first and _has_no_ip(data):
            self._reject("bad_proxy_header", "its PROXY header has no IP address")
            self.abortConnection()
            return
        if data.startswith(_UNKNOWN):
            # A proxy's own connection, such as a health check. Twisted's parser requires a blank after UNKNOWN.
            data = _UNKNOWN[:-2] + b" " + data[len(_UNKNOWN) - 2 :]
        try:
            super().dataReceived(data)
        except ValueError:
            if peer_check.header_read:
                raise
            self._reject()
            self.abortConnection()

    def loseConnection(self) -> None:  # noqa: N802
        """Without a header so far, Twisted calls this for an invalid one, or the server after its timeout."""
        if self._peer_check is not None and not self._peer_check.header_read:
            self._reject()
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._peer_check = None

    def _reject(self, cause: str = "no_proxy_header", reason: str = "it sent no PROXY header") -> None:
        if not self._rejected:
            self._rejected = True
            self.factory.limiter.reject(cause, self.getPeer(), reason)


def _has_no_ip(header: bytes) -> bool:
    """True for a header of version 2 that carries a connection without an IP address (UNIX, or unspecified).

    Without an address it would pass the networks of ``AUDIOSOCKET__ALLOW``. A proxy's own connections (``LOCAL``) have
    the proxy's address.
    """
    if len(header) < 14 or not header.startswith(_V2):
        return False
    return header[12] & 0x0F == _V2_PROXY and header[13] >> 4 in _V2_NO_IP


class _LimitingFactory(WrappingFactory[Any]):
    noisy = False

    def __init__(self, factory: Any, limiter: ConnectionLimiter) -> None:
        super().__init__(factory)
        self.limiter = limiter


class PeerCheckFactory(_LimitingFactory):
    """Wraps a server's factory, for an endpoint ``haproxy:...``."""

    protocol = PeerCheck


class ProxyHeaderGuardFactory(_LimitingFactory):
    """Wraps the factory that such an endpoint passes to its port."""

    protocol = ProxyHeaderGuard
