"""Behind the PROXY protocol: Twisted reads the header, and these two stand before and behind it.

:class:`Vestibule` is next to the socket: it sees what is no header. :class:`Porter` is next to the server: it gets the
first byte behind the header, and so is the first to know who is there.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from rapida_twisted.ports.connection_limiter import Door

__all__ = ["porter", "vestibule"]

_UNKNOWN = b"PROXY UNKNOWN\r\n"


class Porter(ProtocolWrapper):
    """Asks the door when it is known who is there, before the server gets a byte of theirs."""

    factory: _Porters
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


class _Porters(WrappingFactory[Porter]):
    protocol = Porter
    noisy = False

    def __init__(self, factory: Any, door: Door) -> None:
        super().__init__(factory)
        self.door = door


class Vestibule(ProtocolWrapper):
    """Closes on whoever sends no PROXY header. What Twisted makes of a broken one may be an exception."""

    factory: _Vestibules
    _porter: Porter | None = None
    _told = False

    def makeConnection(self, transport: Any) -> None:  # noqa: N802
        behind: Any = self.wrappedProtocol
        while not isinstance(behind, Porter):
            behind = behind.wrappedProtocol
        self._porter = behind
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        porter = self._porter
        if porter is None or porter.known:
            super().dataReceived(data)
            return
        if data.startswith(_UNKNOWN):
            # How a proxy speaks for itself. Twisted's parser wants a blank behind the word.
            data = _UNKNOWN[:-2] + b" " + data[len(_UNKNOWN) - 2 :]
        try:
            super().dataReceived(data)
        except ValueError:
            if porter.known:
                raise
            self._no_header()
            self.abortConnection()

    def loseConnection(self) -> None:  # noqa: N802
        """Called from behind; without a header, by Twisted, which found none, or by a server out of patience."""
        if self._porter is not None and not self._porter.known:
            self._no_header()
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._porter = None

    def _no_header(self) -> None:
        if not self._told:
            self._told = True
            self.factory.door.refuse("no_proxy_header", self.getPeer(), "it sent no PROXY header")


class _Vestibules(WrappingFactory[Vestibule]):
    protocol = Vestibule
    noisy = False

    def __init__(self, factory: Any, door: Door) -> None:
        super().__init__(factory)
        self.door = door


def porter(factory: Any, door: Door) -> Any:
    """The factory of a server, to be given to an endpoint ``haproxy:...``."""
    return _Porters(factory, door)


def vestibule(factory: Any, door: Door) -> Any:
    """What such an endpoint gives to a port to listen with, to be given to the port."""
    return _Vestibules(factory, door)
