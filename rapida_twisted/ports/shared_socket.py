"""Listening sockets that several worker processes accept from: the supervisor binds them, workers adopt them."""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from rapida_twisted.net.private_names import adopt_port
from rapida_twisted.ports.endpoints import BACKLOG, outcome_of, parse_endpoint

__all__ = ["adopt_unix", "bind"]


def bind(name: str, description: str, advice: str = "") -> socket.socket:
    """Bind a listening socket as a Twisted endpoint would, without accepting from it.

    :param name: of the port, for errors.
    :param advice: what to do if it can't be bound, for errors.
    :raises StartError: the endpoint cannot listen, or is not TCP; the text is one sentence.
    """
    binder, unused = SocketBinder(), Factory()
    unused.noisy = False
    outcome_of(parse_endpoint(name, description, binder).listen(unused), f"{name} can't listen", advice)
    assert binder.bound is not None
    return binder.bound


def adopt_unix(listening: socket.socket, factory: Any, reactor: Any) -> IListeningPort:
    """Accept from a UNIX socket that another process listens on, too. Closes the given socket object."""
    with listening:
        port = adopt_port(_SharedUnixPort, reactor, listening.fileno(), factory)
    port.startListening()
    return cast(IListeningPort, port)


class _SharedUnixPort(unix.Port):
    """Keeps its file when it closes, for the other process."""

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)


class SocketBinder:
    """Stands in for the reactor of an endpoint: binds the socket and reads nothing from it."""

    bound: socket.socket | None = None

    # Called by ports

    def addReader(self, reader: Any) -> None:  # noqa: N802
        """Accept nothing."""

    # Called by endpoints

    def listenTCP(self, port: int, factory: Any, backlog: int = BACKLOG, interface: str = "") -> IListeningPort:  # noqa: N802
        opening = tcp.Port(port, factory, backlog, interface, self)
        opening.startListening()
        self.bound = opening.socket
        return cast(IListeningPort, opening)

    def listenSSL(self, port: int, factory: Any, *, contextFactory: Any, **options: Any) -> IListeningPort:  # noqa: N802, N803
        contextFactory.getContext()  # Raises for a certificate that can't be used.
        return self.listenTCP(port, factory, **options)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:  # noqa: N802, N803
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            self.listenUNIX()
        self.bound = socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        return cast(IListeningPort, self)

    def listenUNIX(self, *args: Any, **kwargs: Any) -> None:  # noqa: N802
        raise ValueError("several workers can share TCP ports only")
