"""Where calls come in: the ports, each with its door."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from rapida_twisted.errors import StartError
from rapida_twisted.ports.connection_limiter import ConnectionLimiter, ConnectionLimits
from rapida_twisted.ports.listening_port import Listener, adopt_unix, is_proxied, tcp_endpoint
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.server.role import ARI, OPEN, ProcessRole
from rapida_twisted.settings import Settings

__all__ = ["AUDIOSOCKET", "HTTP", "HTTPS", "ServerPorts", "endpoints"]

HTTP = "HTTP"
HTTPS = "HTTPS"
AUDIOSOCKET = "AudioSocket"


def endpoints(settings: Settings) -> dict[str, str]:
    """What listens where, as Twisted endpoint strings."""
    found = {
        HTTP: settings.http_endpoint or tcp_endpoint(settings.http_host, settings.http_port),
        AUDIOSOCKET: settings.audiosocket_endpoint
        or tcp_endpoint(settings.audiosocket_host, settings.audiosocket_port),
    }
    return found | ({HTTPS: settings.https_endpoint} if settings.https_endpoint else {})


class ServerPorts:
    """The ports of a process.

    :param rejections: told of those whom a door does not let in.
    :param role: of which server the process is; it may have sockets that listen already.
    """

    _log = Logger()

    def __init__(self, settings: Settings, rejections: RejectionLog, role: ProcessRole, reactor: Any) -> None:
        self._settings = settings
        self._rejections = rejections
        self._role = role
        self._reactor = reactor
        self._listeners: dict[str, Listener] = {}
        self._ari_port: IListeningPort | None = None

    def open(self, site: Any, audiosocket: Any) -> None:
        """Listen.

        :param site: the factory of HTTP's connections.
        :param audiosocket: that of AudioSocket's.
        :raises StartError: that can't be; the text is one sentence, and nothing stays open.
        """
        if ARI in self._role.sockets:
            self._ari_port = adopt_unix(self._role.sockets[ARI], site, self._reactor)
        if not self._role.media:
            return
        for what, description in endpoints(self._settings).items():
            factory = audiosocket if what == AUDIOSOCKET else site
            self._listeners[what] = self._listener(what, description, factory)
        try:
            for listener in self._listeners.values():
                listener.open()
        except StartError:
            self.close()
            raise
        self._role.tally(OPEN).tell(1)
        self._compare_limits()

    def _listener(self, what: str, description: str, factory: Any) -> Listener:
        door = self._limiter(what, description)
        return Listener(what, description, factory, self._reactor, door, self._role.sockets.get(what))

    def _limiter(self, what: str, description: str) -> ConnectionLimiter:
        settings = self._settings
        rules = ConnectionLimits(
            networks=settings.audiosocket_allow if what == AUDIOSOCKET else (),
            proxies=settings.proxy_allow,
            connections=settings.connections,
            of_address=settings.connections_of_address,
            rate=settings.connections_rate,
            address_rate=settings.connections_address_rate,
        )
        return ConnectionLimiter(
            what, rules, self._rejections, proxied=is_proxied(description), tally=self._role.tally(what)
        )

    def _compare_limits(self) -> None:
        """One Asterisk may bring all the calls there may be, if there may be as many connections."""
        settings, most = self._settings, min(self._settings.connections, self._settings.connections_of_address)
        if settings.max_calls > most:
            self._log.warn(
                "MAX_CALLS is {calls}, but CONNECTIONS__MAX and CONNECTIONS__OF_ADDRESS let one address make {most}"
                " connections",
                calls=settings.max_calls, most=most,
            )  # fmt: skip

    def port_of(self, what: str) -> int:
        """The port that is listened on, once opened, or that another process listens on; of a socket without one what
        the settings say, or 0."""
        if what in self._role.ports:
            return self._role.ports[what]
        unknown = {HTTP: self._settings.http_port, AUDIOSOCKET: self._settings.audiosocket_port}.get(what, 0)
        listener = self._listeners.get(what)
        return listener.port_number(unknown) if listener is not None else unknown

    def renew_certificates(self) -> None:
        """Take up certificates that were replaced on the disk. Called now and then."""
        for listener in self._listeners.values():
            listener.renew_certificate()

    def close(self) -> Deferred[Any]:
        """Listen no more; connections stay. Called again, it does nothing."""
        self._role.tally(OPEN).tell(0)
        closing = [listener.close() for listener in self._listeners.values()]
        port, self._ari_port = self._ari_port, None
        if port is not None:
            port.stopListening()
        return gatherResults(closing)
