"""Reading an answer's body."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from rapida_twisted.net.bounded_body import read_body

__all__ = ["ReadBodyTests"]

LIMIT = 10


class Response:
    """As much of an IResponse as is asked for."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.transport = StringTransport()

    def deliverBody(self, protocol: Any) -> None:  # noqa: N802
        """Keep whoever reads it."""
        self.protocol = protocol
        protocol.makeConnection(self.transport)

    @property
    def closed(self) -> bool:
        """Whether the connection was closed at once."""
        return self.transport.producerState == "stopped"


class ReadBodyTests(SynchronousTestCase):
    """Complete, too long, cut off, and not wanted any more."""

    def setUp(self) -> None:
        self.response: Any = Response()

    def read(self, *chunks: bytes, reason: Exception | None = None) -> Deferred[bytes]:
        """Start reading; these chunks come, and perhaps the end."""
        reading = read_body(self.response, LIMIT)
        for chunk in chunks:
            self.response.protocol.dataReceived(chunk)
        if reason is not None:
            self.response.protocol.connectionLost(Failure(reason))
        return reading

    def test_complete(self) -> None:
        """The body, whether its length was announced or not, and no longer than the limit."""
        for reason in (ResponseDone(), PotentialDataLoss()):
            for chunks in ((b"",), (b"one", b"two"), (b"0123456789",)):
                self.assertEqual(self.successResultOf(self.read(*chunks, reason=reason)), b"".join(chunks))
        self.assertFalse(self.response.closed)

    def test_none(self) -> None:
        """An answer without a body is not waited for."""
        self.response.length = 0
        self.assertEqual(self.successResultOf(read_body(self.response, LIMIT)), b"")

    def test_too_long(self) -> None:
        """Of one that is too long a byte more than the limit is there, and the connection is closed."""
        for chunks in ((b"0123456789a",), (b"x" * 1000,), (b"0123456789", b"a", b"more")):
            self.response = Response()
            body = self.successResultOf(self.read(*chunks, reason=ConnectionLost()))
            self.assertEqual(body, b"".join(chunks)[: LIMIT + 1])
            self.assertTrue(self.response.closed)

    def test_cut_off(self) -> None:
        """The connection is lost before the end."""
        self.failureResultOf(self.read(b"half", reason=ConnectionLost()), ConnectionLost)

    def test_cancelled(self) -> None:
        """Nobody wants it any more: the connection is closed, and what still comes is ignored."""
        reading = self.read(b"half")
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assertTrue(self.response.closed)
        self.response.protocol.dataReceived(b"more")
        self.response.protocol.connectionLost(Failure(ConnectionLost()))
