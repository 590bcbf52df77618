"""Accepts connections: only within the port's limits, a few per reactor turn, and evenly across worker processes."""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, ILoggingContext, IOpenSSLContextFactory
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.net.private_names import adopt_port
from rapida_twisted.ports.connection_limiter import ConnectionLimiter
from rapida_twisted.ports.endpoints import BACKLOG
from rapida_twisted.ports.proxy_protocol import PeerCheck, ProxyHeaderGuardFactory
from rapida_twisted.ports.turn_budget import TurnBudget

__all__ = ["ACCEPTS_PER_TURN", "LimitingReactor", "count_apart", "prove"]

ACCEPTS_PER_TURN = 5
"""Twisted raises its own number during a storm of connections, which made the frames of calls 60 ms late; with 5 they
were 2 ms late."""
FORWARD_SECRET = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"
"""The ciphers of TLS 1.2. Twisted's own have some with which a stolen key decrypts the past."""
YIELD_S = 0.02
"""How long (s) a worker with more connections leaves new ones to the others."""


class _FairPort(tcp.Port):
    numberAccepts = property(lambda self: ACCEPTS_PER_TURN, lambda self, count: None)  # noqa: N815
    transport: Any
    limiter: ConnectionLimiter
    budget: TurnBudget | None = None
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


class CountedConnection(tcp.Server):
    """Reports its end to the limiter, whatever protocol it has by then."""

    server: _FairPort
    _is_apart = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.server.limiter.opened(self)

    def proved(self) -> None:
        """See :meth:`ConnectionLimiter.proved`."""
        self.server.limiter.proved(self)

    def count_apart(self) -> None:
        """See :meth:`ConnectionLimiter.count_apart`. Idempotent."""
        if not self._is_apart and self.connected:
            self._is_apart = True
            self.server.limiter.count_apart(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        peer = self.getPeer()
        super().connectionLost(reason)
        self.server.limiter.closed(peer, self, apart=self._is_apart)


class BudgetedConnection(CountedConnection):
    """Reads within the budget for HTTP, TLS included, until it is a call's."""

    _log = Logger()
    _is_waiting = False
    _is_paused = False

    def doRead(self) -> Any:  # noqa: N802
        budget = self.server.budget
        assert budget is not None
        if not budget.begin():
            self._is_waiting = True
            self.stopReading()
            budget.later(self._read_later)
            return None
        try:
            return super().doRead()
        finally:
            budget.end()

    def pauseProducing(self) -> None:
        self._is_paused = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._is_paused = False
        if not self._is_waiting:
            super().resumeProducing()

    def count_apart(self) -> None:
        """Read when there is something to read, as other connections do."""
        super().count_apart()
        self.doRead = super().doRead  # type: ignore[method-assign]

    def _read_later(self) -> None:
        self._is_waiting = False
        if not self.connected or self.disconnecting or self._is_paused:
            return
        self.startReading()
        try:
            end = super().doRead()
        except Exception:
            # As the reactor does with a protocol that raises.
            failure = Failure()
            self._log.failure("a protocol failed in dataReceived: its connection is closed", failure)
            self.connectionLost(failure)
            return
        if end is not None and self.connected:
            (self.readConnectionLost if isinstance(end, ConnectionDone) else self.connectionLost)(Failure(end))


def base_of(transport: Any) -> CountedConnection | None:
    """The TCP connection below TLS and the PROXY protocol; None where connections are not counted."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport if isinstance(transport, CountedConnection) else None


def prove(transport: Any) -> None:
    """The connection brought a request with a valid key."""
    connection = base_of(transport)
    if connection is not None:
        connection.proved()


def count_apart(transport: Any) -> None:
    """The connection became a call's: a port's limits hold for it no more."""
    wrapper = transport
    while isinstance(wrapper, ProtocolWrapper):
        if isinstance(wrapper, PeerCheck):
            wrapper.count_apart()
        wrapper = wrapper.transport
    connection = base_of(transport)
    if connection is not None:
        connection.count_apart()


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
    :param budget: the time for its connections in each turn; None: no limit.
    """

    def __init__(
        self,
        reactor: Any,
        limiter: ConnectionLimiter,
        inherited: socket.socket | None,
        budget: TurnBudget | None = None,
    ) -> None:
        self._budget = budget
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
        port.limiter, port.budget = self._limiter, self._budget
        port.transport = CountedConnection if self._budget is None else BudgetedConnection
        port.startListening()
        return port
