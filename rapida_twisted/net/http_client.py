"""The HTTP client for all requests to other servers: connection pool, TLS verification, time limits.

Certificates are always verified: there is no switch.
"""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.iweb import IResponse
from zope.interface import implementer

from rapida_twisted.net.private_names import HTTP11ClientProtocol, RequestNotSent, make_connection_pool
from rapida_twisted.net.tls import read_ca

__all__ = ["Client", "NothingSent", "make_client"]

CONNECT_TIMEOUT_S = 5.0
IDLE_S = 10.0
"""Less than Asterisk's ``session_keep_alive`` (15 s): a POST on a connection that the server just closes would be lost,
and cannot be repeated, since Asterisk may have executed it."""


class NothingSent(Exception):
    """A request failed before anything was sent, because of ``reasons``. It may be repeated."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(type(reason.value).__name__)
        self.reasons = [reason]


def make_client(
    reactor: Any, ca_file: str = "", retries: bool = True, idle_s: float = IDLE_S
) -> tuple[Client, HTTPConnectionPool]:
    """An HTTP client without cookies, and its connection pool, which the caller closes.

    :param ca_file: CAs to trust instead of the public ones.
    :param retries: whether to repeat a GET that got no answer on a kept connection. Not if a GET has an effect.
    :param idle_s: how long an unused connection is kept (s).
    :raises ValueError: the file has no CA; the text is one sentence.
    """
    pool = make_connection_pool(reactor, _Protocol)
    pool.cachedConnectionTimeout = idle_s  # type: ignore[assignment]
    pool.retryAutomatically = retries
    policy = BrowserLikePolicyForHTTPS(read_ca(Path(ca_file))) if ca_file else BrowserLikePolicyForHTTPS()
    return Client(reactor, policy, pool), pool


class Client(HTTPClient):
    """A treq client; see :func:`make_client`."""

    def __init__(self, reactor: Any, policy: BrowserLikePolicyForHTTPS, pool: Any) -> None:
        agent = Agent(reactor, policy, connectTimeout=CONNECT_TIMEOUT_S, pool=pool)
        super().__init__(agent, IndexableCookieJar(DefaultCookiePolicy(allowed_domains=[])))
        self._made_of = reactor, policy, pool

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        closing: Deferred[None] = self._made_of[2].closeCachedConnections()
        return closing

    def bounded(self, step_s: float) -> Client:
        """The same client and pool, with a time limit for each step of a request.

        A request fails with :class:`NothingSent` if there is no connection, TLS included, within ``step_s``; with
        :class:`twisted.internet.defer.TimeoutError` if the answer's head takes longer than ``step_s`` after that. The
        caller limits the body.
        """
        reactor, policy, pool = self._made_of
        return Client(reactor, policy, _BoundedPool(pool, step_s, reactor))


@implementer(IHandshakeListener)
class _Protocol(HTTP11ClientProtocol):
    """Reports when the TLS handshake is over. Twisted reports a connection before it, and would buffer a request while
    the handshake fails or hangs."""

    _waiting: Deferred[_Protocol] | None = None
    _is_ready = False

    def ready(self) -> Deferred[_Protocol]:
        """Fires when data can be sent; fails if the connection is lost before. Called once, when connected."""
        transport: Any = self.transport
        self._waiting = Deferred(lambda _: transport.abortConnection())
        if self._is_ready:
            self._tell(self)
        return self._waiting

    def connectionMade(self) -> None:
        super().connectionMade()
        self._is_ready = not ISSLTransport.providedBy(self.transport)

    def handshakeCompleted(self) -> None:  # noqa: N802
        self._is_ready = True
        self._tell(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._tell(reason)

    def _tell(self, result: _Protocol | Failure) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(result)


@implementer(IStreamClientEndpoint)
class _ReadyEndpoint:
    """An endpoint whose connections have completed their TLS handshake."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(lambda protocol: protocol.ready())


class _BoundedPool:
    """The part of a pool that an Agent uses, for :meth:`Client.bounded`."""

    def __init__(self, pool: Any, step_s: float, reactor: Any) -> None:
        self.persistent = pool.persistent
        self._pool = pool
        self._step_s = step_s
        self._reactor = reactor

    def getConnection(self, key: Any, endpoint: Any) -> Deferred[_BoundedConnection]:  # noqa: N802
        connecting = self._pool.getConnection(key, _ReadyEndpoint(endpoint))
        return _within(self._step_s, self._reactor, connecting).addCallbacks(
            lambda connection: _BoundedConnection(connection, self._step_s, self._reactor), _nothing_sent
        )


class _BoundedConnection:
    """The part of a connection that an Agent uses."""

    def __init__(self, connection: Any, step_s: float, reactor: Any) -> None:
        self._connection = connection
        self._step_s = step_s
        self._reactor = reactor

    def request(self, request: Any) -> Deferred[IResponse]:
        answering = _within(self._step_s, self._reactor, self._connection.request(request))
        return answering.addErrback(_nothing_sent_if_not)


def _within(seconds: float, reactor: Any, waiting: Deferred[Any]) -> Deferred[Any]:
    """Twisted's ``addTimeout()``, for Deferreds that report a cancellation by other errors."""

    def expired(_: Any, __: float) -> None:
        raise DeferredTimeout

    return waiting.addTimeout(seconds, reactor, expired)


def _nothing_sent(failure: Failure) -> Failure:
    return Failure(NothingSent(failure))


def _nothing_sent_if_not(failure: Failure) -> Failure:
    return _nothing_sent(failure) if failure.check(RequestNotSent) else failure
