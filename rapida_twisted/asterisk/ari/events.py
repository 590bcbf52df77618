"""An Asterisk's events (ARI over WebSocket): told one by one as they come, over a connection that is made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.ari.http import ari_base, authorization
from rapida_twisted.net.addresses import host_port_of
from rapida_twisted.net.backoff import backoff

__all__ = ["AriEvents", "retry_pause_s"]

SUBPROTOCOL = "ari"
MAX_MESSAGE_BYTES = 1_048_576
PING_S = 10.0
"""A peer that is gone is noticed within a ping's interval and its timeout, 20 s together."""
HANDSHAKE_S = 10.0
CONNECT_S = 10.0
CLOSE_S = 2.0
retry_pause_s = backoff(0.5, 30.0)
REPLACED_ATTEMPTS = 5
"""As many failed attempts the loss of our place counts for."""


class AriEvents(Service):
    """Listens to an Asterisk's events while it runs: those of its application, and of what that has subscribed to.

    :param app: the name of the Stasis application. It exists in Asterisk while this is connected, and whoever connects
        under the same name later takes its place: let each server have its own.
    :param on_event: called with each event, a dict with a text as its ``type``, in the order in which they came.
    :param on_connected: called each time that events begin to come; with True when there was a gap before, in which
        events were lost: then ask for the channels' states.
    :param tls_options: how an ``https`` Asterisk is verified; by default against the public authorities, by its name.
    :param endpoint: connect there and not where the URL leads.
    :param pause: the pause (s) after a number of failed attempts, counted from 0.
    """

    _log = Logger()

    def __init__(
        self,
        credential: AriCredential,
        app: str,
        *,
        on_event: Callable[[dict[str, Any]], None],
        reactor: Any,
        on_connected: Callable[[bool], None] = lambda again: None,
        tls_options: IOpenSSLClientConnectionCreator | None = None,
        endpoint: IStreamClientEndpoint | None = None,
        pause: Callable[[int], float] = retry_pause_s,
    ) -> None:
        self.credential = credential
        self.app = app
        self.connected = False
        """Whether events come now."""
        self.problem = ""
        """Why not, in one sentence; empty while connected and before the first attempt has ended."""
        self.malformed_count = 0
        self._on_event = on_event
        self._on_connected = on_connected
        self._reactor = reactor
        self._pause = pause
        self._failed_attempts = 0
        self._was_connected = False
        self._stopping = False
        self._protocol: _EventsProtocol | None = None
        self._client = ClientService(
            _WatchedEndpoint(endpoint or _endpoint_of(credential, tls_options, reactor), self._connect_failed),
            _EventsFactory(self, _url_of(credential, app), reactor),
            retryPolicy=self._next_pause,
            clock=reactor,
        )

    def __repr__(self) -> str:
        return f"<AriEvents {self.app} {self.credential.name}>"

    def startService(self) -> None:
        super().startService()
        self._stopping = False
        self._client.startService()

    def stopService(self) -> Deferred[None]:
        """Close the connection, politely for 2 s at most; fires when it is closed and nothing comes any more."""
        super().stopService()
        self._stopping = True
        protocol, overdue = self._protocol, None
        if protocol is not None:
            protocol.take_leave()
            overdue = self._reactor.callLater(CLOSE_S, protocol.abort)

        def tidy(result: Any) -> Deferred[None]:
            if overdue is not None and overdue.active():
                overdue.cancel()
            if isinstance(result, Failure):
                self._log.failure("ARI events of {credential}: stopping", result, credential=self.credential.name)
            # ClientService fires while it is still at it, and could not be started or stopped from there.
            return deferLater(self._reactor, 0)

        return maybeDeferred(self._client.stopService).addBoth(tidy)

    def _next_pause(self, attempt: int) -> float:
        # ClientService begins to count anew with each TCP connection: pauses would never grow while handshakes fail.
        self._failed_attempts += 1
        return self._pause(self._failed_attempts - 1)

    def _connect_failed(self, failure: Failure) -> None:
        if not self._stopping:
            self._tell_problem(str(failure.value) or type(failure.value).__name__)

    # What the protocol tells

    def begun(self, protocol: _EventsProtocol) -> None:
        """A connection is there; its handshake begins."""
        self._protocol = protocol

    def opened(self) -> None:
        """The handshake is done."""
        again, self._was_connected = self._was_connected, True
        self.connected, self.problem, self._failed_attempts = True, "", 0
        self._log.info("ARI events of {credential}: connected as {app}", credential=self.credential.name, app=self.app)
        self._guarded(self._on_connected, again)

    def closed(self, why: str) -> None:
        """The connection is over, or its handshake failed."""
        self._protocol, self.connected = None, False
        if not self._stopping:
            self._tell_problem(why)

    def received(self, payload: bytes) -> None:
        """A message came."""
        if self._stopping:
            return
        try:
            event = json.loads(payload)
            known = isinstance(event, dict) and isinstance(event.get("type"), str)
        except (ValueError, RecursionError):
            known = False
        if not known:
            self.malformed_count += 1
            if self.malformed_count == 1:
                self._log.warn(
                    "ARI events of {credential}: what came is no event, and was skipped: {beginning}",
                    credential=self.credential.name, beginning=repr(payload[:100]),
                )  # fmt: skip
            return
        self._guarded(self._on_event, event)
        if event["type"] == "ApplicationReplaced":
            self._replaced()

    def _replaced(self) -> None:
        """Asterisk leaves the connection open, but no event ever comes on it again."""
        self.connected = False
        # Two that take the place from each other shall not do it every second.
        self._failed_attempts = REPLACED_ATTEMPTS
        if self._protocol is not None:
            self._protocol.take_leave(f"another client connected as {self.app}, and took the place of this one")

    def _tell_problem(self, why: str) -> None:
        """Once each, or an Asterisk that is down for a night fills the log."""
        if why != self.problem:
            self._log.warn("ARI events of {credential}: {why}; trying again", credential=self.credential.name, why=why)
        self.problem = why

    def _guarded(self, call: Callable[[Any], None], argument: Any) -> None:
        try:
            call(argument)
        except Exception:
            self._log.failure("ARI events of {credential}: a callback failed", credential=self.credential.name)


class _EventsProtocol(WebSocketClientProtocol):
    """One connection."""

    factory: _EventsFactory

    def __init__(self, events: AriEvents) -> None:
        super().__init__()
        self._events = events
        self._why = ""

    def connectionMade(self) -> None:
        self._events.begun(self)
        super().connectionMade()

    def onOpen(self) -> None:
        self._events.opened()

    def onMessage(self, payload: bytes, is_binary: bool) -> None:
        self._events.received(payload)

    def onClose(self, was_clean: bool, code: int | None, reason: str | None) -> None:
        if any(f"[{status}]" in (reason or "") for status in (401, 403)):
            self._why = "ARI refused the user or the password"
        elif reason and not self._why:
            self._why = reason

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        # Autobahn forgets this one, and would fire it at a closed connection.
        overdue = getattr(self, "closeHandshakeTimeoutCall", None)
        if overdue is not None:
            overdue.cancel()
        self._events.closed(self._why or "the connection was closed")

    def take_leave(self, why: str = "") -> None:
        """End the connection; if there is a WebSocket yet, say so on it.

        :param why: what is told of it as a problem.
        """
        self._why = why
        if self.state == self.STATE_OPEN:
            self.sendClose(1000)

    def abort(self) -> None:
        """Drop the connection at once."""
        if self.transport is not None:
            self.transport.abortConnection()


class _EventsFactory(WebSocketClientFactory):
    noisy = False

    def __init__(self, events: AriEvents, url: str, reactor: Any) -> None:
        super().__init__(
            url,
            protocols=[SUBPROTOCOL],
            useragent="",
            headers={"Authorization": authorization(events.credential)},
            reactor=reactor,
        )
        self._events = events
        self.setProtocolOptions(
            maxFramePayloadSize=MAX_MESSAGE_BYTES,
            maxMessagePayloadSize=MAX_MESSAGE_BYTES,
            autoPingInterval=PING_S,
            autoPingTimeout=PING_S,
            autoPingRestartOnAnyTraffic=True,
            openHandshakeTimeout=HANDSHAKE_S,
            closeHandshakeTimeout=CLOSE_S,
            failByDrop=False,
            tcpNoDelay=True,
        )

    def buildProtocol(self, addr: Any) -> _EventsProtocol:
        protocol = _EventsProtocol(self._events)
        protocol.factory = self
        return protocol


@implementer(IStreamClientEndpoint)
class _WatchedEndpoint:
    """Tells why a connection could not be made: ClientService keeps that for itself."""

    def __init__(self, endpoint: IStreamClientEndpoint, failed: Callable[[Failure], None]) -> None:
        self._endpoint = endpoint
        self._failed = failed

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        def tell(failure: Failure) -> Failure:
            self._failed(failure)
            return failure

        return self._endpoint.connect(protocolFactory).addErrback(tell)


def _url_of(credential: AriCredential, app: str) -> str:
    return f"ws{ari_base(credential).removeprefix('http')}/events?{urlencode({'app': app})}"


def _endpoint_of(
    credential: AriCredential, tls_options: IOpenSSLClientConnectionCreator | None, reactor: Any
) -> IStreamClientEndpoint:
    host, port = host_port_of(credential.ari_url)
    endpoint = HostnameEndpoint(reactor, host, port, timeout=CONNECT_S)
    if urlsplit(credential.ari_url).scheme != "https":
        return endpoint
    return wrapClientTLS(tls_options or optionsForClientTLS(host), endpoint)
