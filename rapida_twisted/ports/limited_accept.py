"""Accepts connections: only within the port's limits, a few per reactor turn, and evenly across worker processes."""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, ILoggingContext, IOpenSSLContextFactory
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.net.private_names import adopt_port
from rapida_twisted.ports.connection_limiter import ConnectionLimiter
from rapida_twisted.ports.endpoints import BACKLOG
from rapida_twisted.ports.proxy_protocol import ProxyHeaderGuardFactory

__all__ = ["ACCEPTS_PER_TURN", "LimitingReactor"]

ACCEPTS_PER_TURN = 5
"""Twisted raises its own number during a storm of connections, which made the frames of calls 60 ms late; with 5 they
were 2 ms late."""
FORWARD_SECRET = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"
"""The ciphers of TLS 1.2. Twisted's own have some with which a stolen key decrypts the past."""
YIELD_S = 0.02
"""How long (s) a worker with more connections leaves new ones to the others."""


class _FairPort(tcp.Port):
    numberAccepts = property(lambda self: ACCEPTS_PER_TURN, lambda self, count: None)  # noqa: N815
    limiter: ConnectionLimiter
    _yielding: IDelayedCall | None = None

    def doRead(self) -> None:  # noqa: N802
        """Accept, at once or after YIELD_S.

        The kernel wakes every process that accepts from a shared socket, and the same one tends to be first. While it
        has a surplus it waits, and then accepts the connections that no other process took.
        """
        if self.limiter.has_surplus:
            self.stopReading()
            self._yielding = cast(Any, self.reactor).callLater(YIELD_S, self._accept_rest)
        else:
            super().doRead()

    def _accept_rest(self) -> None:
        self._yielding = None
        self.startReading()
        super().doRead()

    def connectionLost(self, reason: Failure) -> None:
        if self._yielding is not None:
            self._yielding.cancel()
            self._yielding = None
        super().connectionLost(reason)


class _CountedConnection(tcp.Server):
    """Reports its end to the limiter, whatever protocol it has by then."""

    server: _FairPort

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        peer = self.getPeer()
        super().connectionLost(reason)
        self.server.limiter.closed(peer)


_FairPort.transport = _CountedConnection


@implementer(ILoggingContext)
class _LimitedFactory(Factory):
    """Makes protocols for the connections within the limits; Twisted closes the others."""

    noisy = False

    def __init__(self, factory: Any, limiter: ConnectionLimiter) -> None:
        self._factory = factory
        self._limiter = limiter

    def logPrefix(self) -> str:  # noqa: N802
        return self._limiter.name

    def doStart(self) -> None:  # noqa: N802
        self._factory.doStart()

    def doStop(self) -> None:  # noqa: N802
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if not self._limiter.accept(addr):
            return None
        try:
            protocol = self._factory.buildProtocol(addr)
        except BaseException:
            self._limiter.closed(addr)
            raise
        if protocol is None:
            self._limiter.closed(addr)
        return protocol


@implementer(IOpenSSLContextFactory)
class LimitingReactor:
    """Stands in for the reactor of an endpoint: its ports keep the limits, and can exchange their certificate.

    :param inherited: a listening socket that several processes share, used in place of a new one.
    """

    def __init__(self, reactor: Any, limiter: ConnectionLimiter, inherited: socket.socket | None) -> None:
        self._reactor = reactor
        self._limiter = limiter
        self._inherited = inherited
        self._certificate: Any = None
        self._port: IListeningPort | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    # Called by endpoints

    def listenTCP(self, port: int, factory: Any, backlog: int = BACKLOG, interface: str = "") -> IListeningPort:  # noqa: N802
        limited = self._limited(factory)
        if self._inherited is None:
            return self._start(_FairPort(port, limited, backlog, interface, self._reactor))
        with self._inherited as listening:
            return self._start(adopt_port(_FairPort, self._reactor, listening.fileno(), listening.family, limited))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:  # noqa: N802, N803
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            port: IListeningPort = self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory)
            return port
        limited = self._limited(factory)
        return self._start(adopt_port(_FairPort, self._reactor, fileDescriptor, addressFamily, limited))

    def listenSSL(self, port: int, factory: Any, *, contextFactory: Any, **options: Any) -> IListeningPort:  # noqa: N802, N803
        """Listen the first time; later only exchange the certificate."""
        contextFactory.getContext().set_cipher_list(FORWARD_SECRET)
        self._certificate = contextFactory
        if self._port is None:
            self._port = self.listenTCP(port, TLSMemoryBIOFactory(cast(Any, self), False, factory), **options)
        return self._port

    # Called by the port, for each connection

    def getContext(self) -> Any:  # noqa: N802
        return self._certificate.getContext()

    def _limited(self, factory: Any) -> _LimitedFactory:
        if self._limiter.proxied:
            factory.noisy = False  # Twisted's own would log its repr.
            factory = ProxyHeaderGuardFactory(factory, self._limiter)
        return _LimitedFactory(factory, self._limiter)

    def _start(self, port: _FairPort) -> IListeningPort:
        port.limiter = self._limiter
        port.startListening()
        return port
