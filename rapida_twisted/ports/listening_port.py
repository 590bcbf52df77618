"""One listening port, from a Twisted endpoint string; loads a replaced TLS certificate without closing."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from rapida_twisted.errors import StartError
from rapida_twisted.ports.connection_limiter import ConnectionLimiter
from rapida_twisted.ports.endpoints import is_proxied, outcome_of, parse_endpoint
from rapida_twisted.ports.limited_accept import LimitingReactor
from rapida_twisted.ports.proxy_protocol import PeerCheckFactory
from rapida_twisted.ports.turn_budget import TurnBudget

__all__ = ["ListeningPort"]


class ListeningPort:
    """One port.

    :param name: of the port, for logs and errors.
    :param description: a Twisted endpoint string.
    :param factory: makes the protocols.
    :param limiter: of the connections; None: no limits.
    :param inherited: a listening socket that several processes share, used in place of a new one.
    :param advice: what to do if the port can't be opened, for errors.
    :param budget: the time for its connections in each turn of the reactor; None: no limit.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        description: str,
        factory: Any,
        reactor: Any,
        limiter: ConnectionLimiter | None = None,
        inherited: socket.socket | None = None,
        advice: str = "",
        budget: TurnBudget | None = None,
    ) -> None:
        self.name = name
        self.description = description
        self.limiter = limiter or ConnectionLimiter(name, proxied=is_proxied(description))
        self._factory = PeerCheckFactory(factory, self.limiter) if self.limiter.proxied else factory
        self._advice = advice
        self._port: IListeningPort | None = None
        self._reactor = LimitingReactor(reactor, self.limiter, inherited, budget)
        self._certificate = _certificate_times(description)

    def open(self) -> None:
        """Listen.

        :raises StartError: the port cannot be opened; the text is one sentence.
        """
        port = outcome_of(self._listen(), f"{self.name} can't listen", self._advice)
        assert port is not None
        self._port = port

    def port_number(self, unknown: int = 0) -> int:
        """The port's number; ``unknown`` for a UNIX socket, or before :meth:`open`."""
        return int(getattr(self._port.getHost(), "port", unknown)) if self._port is not None else unknown

    def close(self) -> Deferred[Any]:
        """Stop listening; connections stay open."""
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening if port is not None else lambda: None)

    def renew_certificate(self) -> None:
        """Load a certificate that was replaced on the disk, for new connections."""
        times = _certificate_times(self.description)
        if self._port is None or times == self._certificate or not times:
            return
        self._certificate = times
        try:
            outcome_of(self._listen(), "it can't be used")
        except StartError as error:
            self._log.error("{port}: the certificate was replaced, but {error}", port=self.name, error=str(error))
        else:
            self._log.info("{port}: loaded the renewed certificate", port=self.name)

    def _listen(self) -> Deferred[IListeningPort]:
        endpoint = parse_endpoint(self.name, self.description, self._reactor)
        listening: Deferred[IListeningPort] = endpoint.listen(self._factory)
        return listening


def _certificate_times(description: str) -> dict[str, float]:
    """The modification times of the files of an ``ssl:`` endpoint; empty if one is missing."""
    if not description.startswith("ssl:"):
        return {}
    names = re.findall(r":(?:privateKey|certKey|extraCertChain)=((?:\\.|[^:\\])+)", description) or ["server.pem"]
    paths = [Path(re.sub(r"\\(.)", r"\1", name)) for name in names]
    try:
        return {str(path): path.stat().st_mtime for path in paths}
    except OSError:
        return {}
