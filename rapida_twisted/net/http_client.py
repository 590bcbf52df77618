"""What all that this program asks of other HTTP servers has in common: its connections, and whom it trusts.

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
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool, RequestNotSent
from twisted.web.iweb import IResponse
from zope.interface import implementer

from rapida_twisted.net.private_names import HTTP11ClientProtocol, make_connection_pool
from rapida_twisted.net.tls import read_ca

__all__ = ["Client", "NothingSent", "make_client"]

CONNECT_TIMEOUT_S = 5.0
IDLE_S = 10.0
"""Less than Asterisk's ``session_keep_alive`` (15 s): a POST on a connection that closes just then would be lost, and
nothing sends it again, since nobody knows whether it was carried out."""


class NothingSent(Exception):
    """A request ended before anything of it was sent, for what is in ``reasons``. It may be made again."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(type(reason.value).__name__)
        self.reasons = [reason]


def make_client(
    reactor: Any, ca_file: str = "", retries: bool = True, idle_s: float = IDLE_S
) -> tuple[Client, HTTPConnectionPool]:
    """A client of HTTP servers, which keeps no cookies, and its connections.

    These are to be closed at the end, by ``closeCachedConnections()``.

    :param ca_file: the authorities to trust in the place of the public ones.
    :param retries: whether a GET that got no answer on a kept connection is sent again. Not where a GET does
        something: the server may have done it.
    :param idle_s: how long a connection that nobody needs is kept (s).
    :raises ValueError: there are none in that file; the text is one sentence.
    """
    pool = make_connection_pool(reactor, _Protocol)
    pool.cachedConnectionTimeout = idle_s  # type: ignore[assignment]
    pool.retryAutomatically = retries
    policy = BrowserLikePolicyForHTTPS(read_ca(Path(ca_file))) if ca_file else BrowserLikePolicyForHTTPS()
    return Client(reactor, policy, pool), pool


class Client(HTTPClient):
    """What :func:`make_client` makes."""

    def __init__(self, reactor: Any, policy: BrowserLikePolicyForHTTPS, pool: Any) -> None:
        agent = Agent(reactor, policy, connectTimeout=CONNECT_TIMEOUT_S, pool=pool)
        super().__init__(agent, IndexableCookieJar(DefaultCookiePolicy(allowed_domains=[])))
        self._made_of = reactor, policy, pool

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        closing: Deferred[None] = self._made_of[2].closeCachedConnections()
        return closing

    def bounded(self, step_s: float) -> Client:
        """The same client, on the same connections, whose requests are bounded step by step.

        They fail with :class:`NothingSent` if they are not connected, TLS included, within so many seconds, or at all;
        with :class:`twisted.internet.defer.TimeoutError` if the answer's head is not there so many seconds later. The
        answer's body is the caller's affair.
        """
        reactor, policy, pool = self._made_of
        return Client(reactor, policy, _BoundedPool(pool, step_s, reactor))


@implementer(IHandshakeListener)
class _Protocol(HTTP11ClientProtocol):
    """Tells when it can be written to. Twisted takes a connection over TLS for made before its handshake begins, so
    that a request would be in its buffers when that fails, or takes too long."""

    _waiting: Deferred[_Protocol] | None = None
    _is_ready = False

    def ready(self) -> Deferred[_Protocol]:
        """Fires when it is; fails if it is lost before. To be asked for once, when connected."""
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
    """An endpoint that has connected when the TLS handshake is over, too."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(lambda protocol: protocol.ready())


class _BoundedPool:
    """A pool, as far as an Agent knows it, for :meth:`Client.bounded`."""

    def __init__(self, pool: Any, step_s: float, reactor: Any) -> None:
        self.persistent = pool.persistent
        self._pool = pool
        self._step_s = step_s
        self._reactor = reactor

    def getConnection(self, key: Any, endpoint: Any) -> Deferred[_BoundedConnection]:  # noqa: N802
        """Connect, or take a connection that was kept."""
        connecting = self._pool.getConnection(key, _ReadyEndpoint(endpoint))
        return _within(self._step_s, self._reactor, connecting).addCallbacks(
            lambda connection: _BoundedConnection(connection, self._step_s, self._reactor), _nothing_sent
        )


class _BoundedConnection:
    """A connection, as far as an Agent knows it."""

    def __init__(self, connection: Any, step_s: float, reactor: Any) -> None:
        self._connection = connection
        self._step_s = step_s
        self._reactor = reactor

    def request(self, request: Any) -> Deferred[IResponse]:
        """Send a request, and wait for the answer's head."""
        answering = _within(self._step_s, self._reactor, self._connection.request(request))
        return answering.addErrback(
            lambda failure: _nothing_sent(failure) if failure.check(RequestNotSent) else failure
        )


def _within(seconds: float, reactor: Any, waiting: Deferred[Any]) -> Deferred[Any]:
    """Twisted's addTimeout(), for what tells in ways of its own that it was cancelled."""

    def expired(_: Any, __: float) -> None:
        raise DeferredTimeout

    return waiting.addTimeout(seconds, reactor, expired)


def _nothing_sent(failure: Failure) -> Failure:
    return Failure(NothingSent(failure))
