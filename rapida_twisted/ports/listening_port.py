"""Ports: opened from endpoint strings, loudly when they can't be, and with certificates that can be renewed."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, ILoggingContext, IOpenSSLContextFactory
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.errors import StartError
from rapida_twisted.ports.connection_limiter import ConnectionLimiter
from rapida_twisted.ports.proxy_protocol import peer_check, proxy_header_guard

__all__ = ["BACKLOG", "Listener", "adopt_unix", "bind", "is_proxied", "outcome_of", "tcp_endpoint"]

BACKLOG = 1024
ACCEPTS_A_TURN = 5
COURTESY_S = 0.02
"""How long who has more connections than another process leaves new ones to that."""


class Listener:
    """One port.

    :param what: what listens, for error texts.
    :param description: a Twisted endpoint string.
    :param factory: makes the protocols.
    :param door: who is let in; None: everybody.
    :param inherited: a socket that listens already, which several processes share, in the place of a new one.
    """

    _log = Logger()

    def __init__(
        self,
        what: str,
        description: str,
        factory: Any,
        reactor: Any,
        door: ConnectionLimiter | None = None,
        inherited: socket.socket | None = None,
    ) -> None:
        self.what = what
        self.description = description
        self.door = door or ConnectionLimiter(what, proxied=is_proxied(description))
        self._factory = peer_check(factory, self.door) if self.door.proxied else factory
        self._reactor = reactor
        self._port: IListeningPort | None = None
        self._ports = _Ports(reactor, self.door, inherited)
        self._certificate = _certificate_times(description)

    def open(self) -> None:
        """Listen.

        :raises StartError: that can't be; the text is one sentence.
        """
        port = outcome_of(self._listen(), f"{self.what} can't listen")
        assert port is not None
        self._port = port

    def port_number(self, unknown: int = 0) -> int:
        """The port that is listened on; of a socket without one, ``unknown``."""
        return int(getattr(self._port.getHost(), "port", unknown)) if self._port is not None else unknown

    def close(self) -> Deferred[Any]:
        """Listen no more; connections stay."""
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening if port is not None else lambda: None)

    def renew_certificate(self) -> None:
        """Take up a certificate that was replaced on the disk, for the connections to come."""
        times = _certificate_times(self.description)
        if self._port is None or times == self._certificate or not times:
            return
        self._certificate = times
        try:
            outcome_of(self._listen(), "it can't be used")
        except StartError as error:
            self._log.error("{what}: the certificate was replaced, but {error}", what=self.what, error=str(error))
        else:
            self._log.info("{what}: the certificate was renewed", what=self.what)

    def _listen(self) -> Deferred[IListeningPort]:
        return _endpoint(self.what, self.description, self._ports).listen(self._factory)


class _SteadyPort(tcp.Port):
    """Accepts a few connections a turn. Twisted accepts ever more of them the more come, and the calls that are up wait
    meanwhile: a storm of connections made frames 60 ms late, and 2 ms with this."""

    numberAccepts = property(lambda self: ACCEPTS_A_TURN, lambda self, count: None)  # noqa: N815
    door: ConnectionLimiter
    _waiting: IDelayedCall | None = None

    def doRead(self) -> None:  # noqa: N802
        """Somebody connects. Where several processes accept from one socket, the kernel wakes all of them, and the same
        one tends to be first: it waits while it has more than its share, but takes whom nobody else took."""
        if self.door.is_ahead:
            self.stopReading()
            self._waiting = cast(Any, self.reactor).callLater(COURTESY_S, self._waited)
        else:
            super().doRead()

    def _waited(self) -> None:
        self._waiting = None
        self.startReading()
        super().doRead()

    def connectionLost(self, reason: Failure) -> None:
        """Nobody is accepted any more."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        super().connectionLost(reason)


class _Guest(tcp.Server):
    """A connection, which the door hears of when it is gone, whatever protocol it had in the end."""

    server: _SteadyPort

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        peer = self.getPeer()
        super().connectionLost(reason)
        self.server.door.leave(peer)


_SteadyPort.transport = _Guest


@implementer(ILoggingContext)
class _Guarded(Factory):
    """Makes protocols for those alone whom the door lets in; the others are closed at once."""

    noisy = False

    def __init__(self, factory: Any, door: ConnectionLimiter) -> None:
        self._factory = factory
        self._limiter = door

    def logPrefix(self) -> str:  # noqa: N802
        """As of the factory itself."""
        factory = self._factory
        return str(factory.logPrefix()) if ILoggingContext.providedBy(factory) else type(factory).__name__

    def doStart(self) -> None:  # noqa: N802
        self._factory.doStart()

    def doStop(self) -> None:  # noqa: N802
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if not self._limiter.enter(addr):
            return None
        try:
            protocol = self._factory.buildProtocol(addr)
        except BaseException:
            self._limiter.leave(addr)
            raise
        if protocol is None:
            self._limiter.leave(addr)
        return protocol


@implementer(IOpenSSLContextFactory)
class _Ports:
    """Stands between an endpoint and the reactor: ports are steady, and a certificate can be exchanged."""

    def __init__(self, reactor: Any, door: ConnectionLimiter, inherited: socket.socket | None) -> None:
        self._reactor = reactor
        self._limiter = door
        self._inherited = inherited
        self._current: Any = None
        self._port: IListeningPort | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = BACKLOG, interface: str = "") -> IListeningPort:  # noqa: N802
        """What the endpoint calls."""
        guarded = self._guarded(factory)
        if self._inherited is None:
            return self._started(_SteadyPort(port, guarded, backlog, interface, self._reactor))
        with self._inherited as listening:
            return self._started(self._adopted(listening.fileno(), listening.family, guarded))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:  # noqa: N802, N803
        """What an endpoint ``systemd:`` calls."""
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            port: IListeningPort = self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory)
            return port
        return self._started(self._adopted(fileDescriptor, addressFamily, self._guarded(factory)))

    def _adopted(self, file: int, family: int, factory: _Guarded) -> _SteadyPort:
        adopted: _SteadyPort = _SteadyPort._fromListeningDescriptor(self._reactor, file, family, factory)
        return adopted

    def _guarded(self, factory: Any) -> _Guarded:
        return _Guarded(proxy_header_guard(factory, self._limiter) if self._limiter.proxied else factory, self._limiter)

    def _started(self, listening: _SteadyPort) -> IListeningPort:
        listening.door = self._limiter
        listening.startListening()
        return listening

    def listenSSL(  # noqa: N802
        self,
        port: int,
        factory: Any,
        contextFactory: Any,  # noqa: N803
        backlog: int = BACKLOG,
        interface: str = "",
    ) -> IListeningPort:
        """What the endpoint calls: to listen the first time, to bring another certificate later."""
        contextFactory.getContext()
        self._current = contextFactory
        if self._port is None:
            self._port = self.listenTCP(port, TLSMemoryBIOFactory(cast(Any, self), False, factory), backlog, interface)
        return self._port

    def getContext(self) -> Any:  # noqa: N802
        """What the port calls for each connection."""
        return self._current.getContext()


def outcome_of(started: Deferred[Any], what: str) -> Any:
    """The result of something that is done at once, or None when it takes its time.

    :raises StartError: it failed.
    """
    results: list[Any] = []
    started.addBoth(results.append)
    if not results:
        return None
    if isinstance(results[0], Failure):
        raise StartError(f"{what}: {results[0].getErrorMessage()}")
    return results[0]


def is_proxied(description: str) -> bool:
    """Whether an endpoint reads a PROXY header from each connection, which tells who is behind it."""
    return description.startswith("haproxy:")


def bind(what: str, description: str) -> socket.socket:
    """A socket that listens as a Twisted endpoint says, for other processes to accept from.

    :param what: what listens, for error texts.
    :raises StartError: that can't be, or the endpoint is not of TCP; the text is one sentence.
    """
    binder = SocketBinder()
    outcome_of(_endpoint(what, description, binder).listen(_Nobody()), f"{what} can't listen")
    assert binder.bound is not None
    return binder.bound


def _endpoint(what: str, description: str, reactor: Any) -> Any:
    try:
        return serverFromString(reactor, description)
    except Exception as error:
        raise StartError(f"{what}: the endpoint {description!r} can't be used: {error}") from None


class _Nobody(Factory):
    noisy = False


class SocketBinder:
    """Stands in the place of a reactor: what an endpoint would listen on is only bound."""

    def __init__(self) -> None:
        self.bound: socket.socket | None = None

    def addReader(self, reader: Any) -> None:  # noqa: N802
        """What a port calls: nobody is let in here."""

    def listenTCP(self, port: int, factory: Any, backlog: int = BACKLOG, interface: str = "") -> IListeningPort:  # noqa: N802
        """What an endpoint calls."""
        opening = tcp.Port(port, factory, backlog, interface, self)
        opening.startListening()
        self.bound = opening.socket
        return cast(IListeningPort, opening)

    def listenSSL(  # noqa: N802
        self,
        port: int,
        factory: Any,
        contextFactory: Any,  # noqa: N803
        backlog: int = BACKLOG,
        interface: str = "",
    ) -> IListeningPort:
        """What an endpoint calls; a certificate that can't be used is told now."""
        contextFactory.getContext()
        return self.listenTCP(port, factory, backlog, interface)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:  # noqa: N802, N803
        """What an endpoint ``systemd:`` calls."""
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            self.listenUNIX()
        self.bound = socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        return cast(IListeningPort, self)

    def listenUNIX(self, *_: Any, **words: Any) -> None:  # noqa: N802
        """What an endpoint calls, in vain."""
        raise ValueError("several workers can share TCP ports only")


def adopt_unix(listening: socket.socket, factory: Any, reactor: Any) -> IListeningPort:
    """Accept from a UNIX socket that another process listens on, too. The socket given is closed."""
    with listening:
        port: _SharedUnixPort = _SharedUnixPort._fromListeningDescriptor(reactor, listening.fileno(), factory)
    port.startListening()
    return cast(IListeningPort, port)


class _SharedUnixPort(unix.Port):
    """Leaves its file where it is when it is closed, for the other process."""

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)


def tcp_endpoint(host: str, port: int) -> str:
    """A Twisted endpoint string for a host and a port."""
    kind = "tcp6" if ":" in host else "tcp"
    return f"{kind}:{port}:interface={quoteStringArgument(host)}:backlog={BACKLOG}"


def _certificate_times(description: str) -> dict[str, float]:
    """When the files of an ``ssl:`` endpoint were last written."""
    if not description.startswith("ssl:"):
        return {}
    names = re.findall(r":(?:privateKey|certKey|extraCertChain)=((?:\\.|[^:\\])+)", description) or ["server.pem"]
    times = {}
    for name in names:
        path = Path(re.sub(r"\\(.)", r"\1", name))
        try:
            times[str(path)] = path.stat().st_mtime
        except OSError:
            return {}
    return times
