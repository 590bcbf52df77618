"""One connection to the application's AudioSocket protocol, on a fake transport and fake time."""

from __future__ import annotations

from uuid import UUID

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport, StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.protocols.audiosocket_app import (
    AudioSocketProtocol,
)
from tests.media.fakes import KeptLog
from tests.protocols.fakes import FakeReception
from tests.support.strategies import raw_frame

CALL = UUID("6b0e2a52-8f4c-4a53-9c3e-3d3b6d7c0f11")
IDENTIFY = raw_frame(0x01, CALL.bytes)
HANGUP = b"\x00\x00\x00"
PEER = IPv4Address("TCP", "192.0.2.7", 40312)
PEER_TEXT = "192.0.2.7:40312"


class ServerTestCase(SynchronousTestCase):
    """One connection to the server's protocol."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = KeptLog(self)
        self.reception = FakeReception()
        self.connect()

    def connect(self, transport: StringTransport | None = None) -> None:
        """Open another connection, which is the one in use from then on."""
        self.settled = 0
        self.transport = transport or StringTransportWithDisconnection(peerAddress=PEER)
        self.protocol = AudioSocketProtocol(self.reception, self.clock, on_settled=self.settle)
        self.transport.protocol = self.protocol  # type: ignore[attr-defined]
        self.protocol.makeConnection(self.transport)

    def settle(self, protocol: AudioSocketProtocol) -> None:
        """Count it."""
        self.settled += 1

    def feed(self, *chunks: bytes) -> None:
        """The peer sends."""
        for chunk in chunks:
            self.protocol.dataReceived(chunk)

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone."""
        self.transport.connected = False
        self.protocol.connectionLost(Failure(error or ConnectionDone()))

    def assert_nothing_scheduled(self) -> None:
        """No timer is left behind."""
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CallTestCase(ServerTestCase):
    """A connection with its call up."""

    def setUp(self) -> None:
        super().setUp()
        self.feed(IDENTIFY)

    def connect(self, transport: StringTransport | None = None) -> None:
        """With a transport that stays open until the test closes it."""
        super().connect(transport or StringTransport(peerAddress=PEER))
