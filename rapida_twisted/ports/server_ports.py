"""The listening ports of a process, each with its limits."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IListeningPort

from rapida_twisted.errors import StartError
from rapida_twisted.net.shared_counter import SharedCounter
from rapida_twisted.ports.connection_limiter import ConnectionLimiter, ConnectionLimits
from rapida_twisted.ports.endpoints import is_proxied
from rapida_twisted.ports.listening_port import ListeningPort
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.ports.shared_socket import adopt_unix

__all__ = ["ADMIN", "AUDIOSOCKET", "HTTP", "HTTPS", "PortSpec", "ServerPorts"]

HTTP = "HTTP"
HTTPS = "HTTPS"
AUDIOSOCKET = "AudioSocket"
ADMIN = "Admin"
"""The port for operators."""


@dataclass(frozen=True)
class PortSpec:
    """One port to listen on."""

    endpoint: str
    """A Twisted endpoint string."""
    limits: ConnectionLimits
    fallback_port: int = 0
    """The number to report for an endpoint without one, such as a UNIX socket."""
    advice: str = ""
    """What to do if the port can't be opened."""


@attrs.define(eq=False, repr=False, slots=False)
class ServerPorts:
    """Opens and closes the ports of a process.

    :param specs: what to listen on, by name.
    :param rejections: counts and logs rejected connections.
    :param sockets: listening sockets that other processes accept from too, by the same names.
    :param elsewhere: port numbers on which other processes listen, by name.
    :param counter: makes the counter that processes with the same port share, by name.
    :param accepting: holds 1 while this process accepts connections.
    """

    _specs: Mapping[str, PortSpec]
    _rejections: RejectionLog
    _reactor: Any
    _sockets: Mapping[str, socket.socket] = attrs.field(kw_only=True)
    _elsewhere: Mapping[str, int] = attrs.field(kw_only=True)
    _counter: Callable[[str], SharedCounter] = attrs.field(kw_only=True)
    _accepting: SharedCounter = attrs.field(kw_only=True)
    _ports: dict[str, ListeningPort] = attrs.field(factory=dict, init=False)
    _unix_port: IListeningPort | None = attrs.field(default=None, init=False)

    def open(self, factories: Mapping[str, Any]) -> None:
        """Listen.

        :param factories: make the protocols of each port, by the ports' names.
        :raises StartError: a port can't be opened; the text is one sentence, and none stays open.
        """
        for name, spec in self._specs.items():
            limiter = ConnectionLimiter(
                name, spec.limits, self._rejections, proxied=is_proxied(spec.endpoint), counter=self._counter(name)
            )
            sock = self._sockets.get(name)
            self._ports[name] = ListeningPort(
                name, spec.endpoint, factories[name], self._reactor, limiter, sock, spec.advice,
                getattr(factories[name], "budget", None),
            )  # fmt: skip
        try:
            for port in self._ports.values():
                port.open()
        except StartError:
            self.close()
            raise
        self._accepting.publish(bool(self._specs))

    def serve_unix(self, listening: socket.socket, site: Any) -> None:
        """Serve HTTP on a UNIX socket that listens already, for other processes of this server."""
        self._unix_port = adopt_unix(listening, site, self._reactor)

    def port_of(self, name: str) -> int:
        """The number of an open port, here or in another process; 0 if unknown."""
        if name in self._elsewhere:
            return self._elsewhere[name]
        fallback = self._specs[name].fallback_port if name in self._specs else 0
        port = self._ports.get(name)
        return port.port_number(fallback) if port is not None else fallback

    def renew_certificates(self) -> None:
        """Load certificates that were replaced on the disk. Called periodically."""
        for port in self._ports.values():
            port.renew_certificate()

    def close(self) -> Deferred[Any]:
        """Stop listening; connections stay open. Idempotent."""
        self._accepting.publish(0)
        closing = [port.close() for port in self._ports.values()]
        unix_port, self._unix_port = self._unix_port, None
        if unix_port is not None:
            unix_port.stopListening()
        return gatherResults(closing)
