"""Receives an Asterisk's events (ARI over WebSocket), over a connection that is renewed when it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

import attrs
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
from rapida_twisted.net.untrusted_text import escaped, json_object

__all__ = ["AriEvents", "retry_pause_s"]

SUBPROTOCOL = "ari"
MAX_MESSAGE_BYTES = 1_048_576
PING_S = 10.0
"""A dead peer is noticed within a ping's interval and its timeout, 20 s together."""
HANDSHAKE_S = 10.0
CONNECT_S = 10.0
CLOSE_S = 2.0
retry_pause_s = backoff(0.5, 30.0)
REPLACED_ATTEMPTS = 5
"""The loss of the application to another client counts as this many failed attempts."""


@attrs.define(eq=False, slots=False, repr=False)
class AriEvents(Service):
    """Receives the events of a Stasis application, and of everything that the application has subscribed to.

    :param app: the name of the Stasis application. It exists in Asterisk while this is connected. A later client with
        the same name takes the application away, so each server needs a name of its own.
    :param on_event: called with each event in order, a dict whose ``type`` is text.
    :param on_connected: called each time that events start; True: after a gap in which events were lost, so look up the
        channels' states.
    :param tls_options: verifies an ``https`` Asterisk; by default its name, against the public authorities.
    :param endpoint: connect there instead of the URL's address.
    :param pause: the pause (s) after a number of failed attempts, counted from 0.
    """

    _log = Logger()

    credential: AriCredential
    app: str
    _on_event: Callable[[dict[str, Any]], None] = attrs.field(kw_only=True)
    _reactor: Any = attrs.field(kw_only=True)
    _on_connected: Callable[[bool], None] = attrs.field(default=lambda again: None, kw_only=True)
    _tls_options: IOpenSSLClientConnectionCreator | None = attrs.field(default=None, kw_only=True)
    _endpoint: IStreamClientEndpoint | None = attrs.field(default=None, kw_only=True)
    _pause: Callable[[int], float] = attrs.field(default=retry_pause_s, kw_only=True)
    connected = False
    problem = ""
    """Why it is not connected, in one sentence; empty before the end of the first attempt."""
    malformed_count = 0
    _failed_attempts = 0
    _was_connected = _stopping = False
    _protocol: _EventsProtocol | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        endpoint = self._endpoint or _endpoint_of(self.credential, self._tls_options, self._reactor)
        self._client = ClientService(
            _WatchedEndpoint(f"ARI events of {self.credential.name}", endpoint, self._connect_failed),
            _EventsFactory(self, _url_of(self.credential, self.app), self._reactor),
            retryPolicy=self._next_pause,
            clock=self._reactor,
        )

    def __repr__(self) -> str:
        return f"<AriEvents {self.app} {self.credential.name}>"

    def startService(self) -> None:
        super().startService()
        self._stopping = False
        self._client.startService()

    def stopService(self) -> Deferred[None]:
        """Close the connection, with a WebSocket close up to 2 s; fires when it is closed and no more event comes."""
        super().stopService()
        self._stopping = True
        protocol, overdue = self._protocol, None
        if protocol is not None:
            protocol.close_politely()
            overdue = self._reactor.callLater(CLOSE_S, protocol.abort)

        def tidy(result: Any) -> Deferred[None]:
            if overdue is not None and overdue.active():
                overdue.cancel()
            if isinstance(result, Failure):
                self._log.failure("ARI events of {credential}: stopping", result, credential=self.credential.name)
            # ClientService fires before it has finished, and must not be started or stopped from there.
            return deferLater(self._reactor, 0)

        return maybeDeferred(self._client.stopService).addBoth(tidy)

    def _next_pause(self, attempt: int) -> float:
        # ClientService resets its count with each TCP connection: pauses would never grow while handshakes fail.
        self._failed_attempts += 1
        return self._pause(self._failed_attempts - 1)

    def _connect_failed(self, failure: Failure) -> None:
        if not self._stopping:
            self._log_problem(str(failure.value) or type(failure.value).__name__)

    # From the protocol

    def handshake_started(self, protocol: _EventsProtocol) -> None:
        self._protocol = protocol

    def opened(self) -> None:
        """The handshake is done."""
        again, self._was_connected = self._was_connected, True
        self.connected, self.problem, self._failed_attempts = True, "", 0
        self._log.info("ARI events of {credential}: connected as {app}", credential=self.credential.name, app=self.app)
        self._guarded(self._on_connected, again)

    def closed(self, why: str) -> None:
        """The connection is closed, or its handshake failed."""
        self._protocol, self.connected = None, False
        if not self._stopping:
            self._log_problem(why)

    def received(self, payload: bytes) -> None:
        if self._stopping:
            return
        event = json_object(payload)
        if event is None or not isinstance(event.get("type"), str):
            self.malformed_count += 1
            if self.malformed_count == 1:
                self._log.warn(
                    "ARI events of {credential}: skipped a message that is no event: {beginning}",
                    credential=self.credential.name, beginning=escaped(payload[:100]),
                )  # fmt: skip
            return
        self._guarded(self._on_event, event)
        if event["type"] == "ApplicationReplaced":
            self._replaced()

    def _replaced(self) -> None:
        """Another client took the application. Asterisk leaves this connection open, but sends no events on it."""
        self.connected = False
        # Two clients must not take the application from each other every second.
        self._failed_attempts = REPLACED_ATTEMPTS
        if self._protocol is not None:
            self._protocol.close_politely(f"another client connected as {self.app}, and gets the events now")

    def _log_problem(self, why: str) -> None:
        """Log each problem once: an Asterisk may be down for a night."""
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
        self._events.handshake_started(self)
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
        # Autobahn does not cancel this timer, which would fire on a closed connection.
        overdue = getattr(self, "closeHandshakeTimeoutCall", None)
        if overdue is not None:
            overdue.cancel()
        self._events.closed(self._why or "the connection was closed")

    def close_politely(self, why: str = "") -> None:
        """Close an open WebSocket.

        :param why: the problem to report.
        """
        self._why = why
        if self.state == self.STATE_OPEN:
            self.sendClose(1000)

    def abort(self) -> None:
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
    """Reports why a connection failed, which ClientService does not."""

    def __init__(self, name: str, endpoint: IStreamClientEndpoint, failed: Callable[[Failure], None]) -> None:
        self._name = name
        self._endpoint = endpoint
        self._failed = failed

    def __repr__(self) -> str:
        """For ClientService's log lines."""
        return self._name

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        def report(failure: Failure) -> Failure:
            self._failed(failure)
            return failure

        return self._endpoint.connect(protocolFactory).addErrback(report)


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
