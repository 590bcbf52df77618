"""Behind the PROXY protocol: Twisted reads the header, and these two stand before and behind it.

:class:`ProxyHeaderGuard` stands next to the socket and rejects what is no header. :class:`PeerCheck` stands next to the
server: it gets the first byte after the header, when the peer's address is known.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from rapida_twisted.ports.connection_limiter import ConnectionLimiter

__all__ = ["peer_check", "proxy_header_guard"]

_UNKNOWN = b"PROXY UNKNOWN\r\n"


class PeerCheck(ProtocolWrapper):
    """Asks the door when it is known who is there, before the server gets a byte of theirs."""

    factory: _PeerCheckFactory
    wrappedProtocol: Any  # noqa: N815
    known = False
    """Whether the header is read."""
    _peer: IAddress | None = None
    """Who was let in."""

    def dataReceived(self, data: bytes) -> None:
        if not self.known:
            self.known = True
            peer = self.getPeer()
            if not self.factory.door.identify(peer):
                self.abortConnection()
                return
            self._peer = peer
        if self._peer is not None:
            self.wrappedProtocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            self.factory.door.forget(peer)
        super().connectionLost(reason)


class _PeerCheckFactory(WrappingFactory[PeerCheck]):
    protocol = PeerCheck
    noisy = False

    def __init__(self, factory: Any, door: ConnectionLimiter) -> None:
        super().__init__(factory)
        self.door = door


class ProxyHeaderGuard(ProtocolWrapper):
    """Closes on whoever sends no PROXY header. What Twisted makes of a broken one may be an exception."""

    factory: _ProxyHeaderGuardFactory
    _peer_check: PeerCheck | None = None
    _told = False

    def makeConnection(self, transport: Any) -> None:  # noqa: N802
        behind: Any = self.wrappedProtocol
        while not isinstance(behind, PeerCheck):
            behind = behind.wrappedProtocol
        self._peer_check = behind
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        peer_check = self._peer_check
        if peer_check is None or peer_check.known:
            super().dataReceived(data)
            return
        if data.startswith(_UNKNOWN):
            # How a proxy speaks for itself. Twisted's parser wants a blank behind the word.
            data = _UNKNOWN[:-2] + b" " + data[len(_UNKNOWN) - 2 :]
        try:
            super().dataReceived(data)
        except ValueError:
            if peer_check.known:
                raise
            self._no_header()
            self.abortConnection()

    def loseConnection(self) -> None:  # noqa: N802
        """Called from behind; without a header, by Twisted, which found none, or by a server out of patience."""
        if self._peer_check is not None and not self._peer_check.known:
            self._no_header()
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._peer_check = None

    def _no_header(self) -> None:
        if not self._told:
            self._told = True
            self.factory.door.refuse("no_proxy_header", self.getPeer(), "it sent no PROXY header")


class _ProxyHeaderGuardFactory(WrappingFactory[ProxyHeaderGuard]):
    protocol = ProxyHeaderGuard
    noisy = False

    def __init__(self, factory: Any, door: ConnectionLimiter) -> None:
        super().__init__(factory)
        self.door = door


def peer_check(factory: Any, door: ConnectionLimiter) -> Any:
    """The factory of a server, to be given to an endpoint ``haproxy:...``."""
    return _PeerCheckFactory(factory, door)


def proxy_header_guard(factory: Any, door: ConnectionLimiter) -> Any:
    """What such an endpoint gives to a port to listen with, to be given to the port."""
    return _ProxyHeaderGuardFactory(factory, door)
