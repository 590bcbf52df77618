"""Outgoing HTTP, on a clock and with connections of the test's own."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from service_identity.hazmat import DNSMismatch
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectingCancelledError, ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import BrowserLikePolicyForHTTPS, RequestNotSent, ResponseNeverReceived

from rapida_twisted.net.connection_errors import causes_of, tls_problem, was_cancelled
from rapida_twisted.net.http_client import Client, NothingSent, make_client

STEP_S = 2.0


class Connection:
    """Made by the pool; its answer is the test's."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        # As Twisted's tells that it was cancelled.
        self.answer: Deferred[Any] = Deferred(
            lambda answer: answer.errback(ResponseNeverReceived([Failure(CancelledError())]))
        )

    def request(self, request: Any) -> Deferred[Any]:
        """Sent."""
        self.requests.append(request)
        return self.answer


class Pool:
    """A pool whose connections come up when the test says so."""

    persistent = True

    def __init__(self) -> None:
        # As Twisted's endpoints tell that they were cancelled.
        self.connecting: Deferred[Connection] = Deferred(
            lambda connecting: connecting.errback(ConnectingCancelledError("somewhere"))
        )

    def getConnection(self, key: Any, endpoint: Any) -> Deferred[Connection]:  # noqa: N802
        """A new one."""
        return self.connecting


class BoundedTests(SynchronousTestCase):
    """One request by a client that is bounded."""

    def setUp(self) -> None:
        """It is connecting."""
        self.clock = Clock()
        self.pool = Pool()
        self.connection = Connection()
        client = Client(self.clock, BrowserLikePolicyForHTTPS(), self.pool).bounded(STEP_S)
        self.asking = client.get("http://server.example/", allow_redirects=False, unbuffered=True)

    def connect(self) -> None:
        """It is connected."""
        self.pool.connecting.callback(self.connection)

    def nothing_sent(self) -> list[BaseException]:
        """It failed before anything was sent; gives why. No timer is left."""
        error = self.failureResultOf(self.asking, NothingSent).value
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return causes_of(error)

    def test_slow_to_connect(self) -> None:
        """A connection that is not made in time was asked nothing."""
        self.clock.advance(STEP_S - 0.25)
        self.assertNoResult(self.asking)
        self.clock.advance(0.25)
        (cause,) = self.nothing_sent()
        self.assertIsInstance(cause, DeferredTimeout)

    def test_refused(self) -> None:
        """One that is refused neither; the reason is known."""
        self.pool.connecting.errback(ConnectionRefusedError())
        (cause,) = self.nothing_sent()
        self.assertIsInstance(cause, ConnectionRefusedError)

    def test_steps(self) -> None:
        """Each step has its own time."""
        self.clock.advance(STEP_S - 0.25)
        self.connect()
        self.assertEqual(len(self.connection.requests), 1)
        self.clock.advance(STEP_S - 0.25)
        self.assertNoResult(self.asking)
        self.clock.advance(0.25)
        self.failureResultOf(self.asking, DeferredTimeout)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answered(self) -> None:
        """Whoever answers in time leaves no timer behind."""
        self.connect()
        self.connection.answer.errback(ResponseNeverReceived([Failure(ConnectionLost())]))
        self.failureResultOf(self.asking, ResponseNeverReceived)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_sent(self) -> None:
        """A kept connection that turns out to be lost before it was written to was asked nothing."""
        self.connection.answer.errback(RequestNotSent())
        self.connect()
        (cause,) = self.nothing_sent()
        self.assertIsInstance(cause, RequestNotSent)

    def test_cancelled(self) -> None:
        """Whoever cancels it is told so, at each step."""
        for connect in (False, True):
            self.setUp()
            if connect:
                self.connect()
            self.asking.cancel()
            self.assertTrue(was_cancelled(self.failureResultOf(self.asking).value))
            self.assertEqual(self.clock.getDelayedCalls(), [])


class MakeClientTests(SynchronousTestCase):
    """What can be chosen."""

    def test_defaults(self) -> None:
        """Connections are kept for less than Asterisk keeps them, and GETs sent again."""
        _, pool = make_client(MemoryReactorClock())
        self.assertEqual((pool.retryAutomatically, pool.cachedConnectionTimeout), (True, 10.0))

    def test_chosen(self) -> None:
        """Both can be told."""
        _, pool = make_client(MemoryReactorClock(), "", retries=False, idle_s=30.0)
        self.assertEqual((pool.retryAutomatically, pool.cachedConnectionTimeout), (False, 30.0))


class TlsProblemTests(SynchronousTestCase):
    """What is said of TLS that failed."""

    def test_words(self) -> None:
        """Each kind has its own."""
        untrusted = SSL.Error([("SSL routines", "", "certificate verify failed")])
        self.assertIn("is not trusted", tls_problem(untrusted))
        self.assertIn("for another name", tls_problem(VerificationError([DNSMismatch(mismatched_id=None)])))
        self.assertIn("(wrong version number)", tls_problem(SSL.Error([("SSL routines", "", "wrong version number")])))
        for odd in (SSL.Error([]), SSL.Error(), SSL.SysCallError(-1, "Unexpected EOF"), SSL.ZeroReturnError()):
            self.assertIn("no reason given", tls_problem(odd))

    def test_others(self) -> None:
        """Whatever else went wrong is not for TLS."""
        for error in (None, ConnectionLost(), ConnectionRefusedError(), ValueError("TLS")):
            self.assertEqual(tls_problem(error), "")
