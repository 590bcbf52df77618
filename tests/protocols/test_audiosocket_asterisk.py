"""AudioSocket, Asterisk's side, alone and against the application's side."""

from __future__ import annotations

from uuid import UUID

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.test import iosim
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import EndReason
from rapida_twisted.protocols.audiosocket_app import (
    AudioSocketProtocol,
)
from rapida_twisted.protocols.audiosocket_asterisk import AsteriskProtocol
from rapida_twisted.protocols.control_budget import BURST, PROBLEM
from rapida_twisted.wire.audiosocket import ErrorBits
from tests.protocols.audiosocket_cases import CALL, HANGUP, IDENTIFY
from tests.protocols.fakes import EchoSink, FakeReception
from tests.support.strategies import raw_frame


class Phone(AsteriskProtocol):
    """A client that records its events."""

    def __init__(self, call: UUID = CALL) -> None:
        super().__init__(call)
        self.events: list[object] = []

    def call_started(self) -> None:
        """Keep it."""
        self.events.append("started")

    def audio_received(self, samples: bytes, rate_hz: int) -> None:
        """Keep it."""
        self.events.append((samples, rate_hz))

    def hangup_received(self) -> None:
        """Keep it."""
        self.events.append("hangup")

    def error_received(self, code: ErrorBits) -> None:
        """Keep it."""
        self.events.append(code)

    def call_ended(self, problem: str) -> None:
        """Keep it."""
        self.events.append(("ended", problem))


class AsteriskProtocolTests(SynchronousTestCase):
    """The client's side."""

    def setUp(self) -> None:
        self.phone = Phone()
        self.transport = StringTransportWithDisconnection()
        self.transport.protocol = self.phone
        self.phone.makeConnection(self.transport)

    def test_begins_with_the_uuid(self) -> None:
        """The UUID is sent before the call is said to have started."""
        self.assertEqual((self.transport.value(), self.phone.events), (IDENTIFY, ["started"]))

    def test_sends(self) -> None:
        """Audio of any rate, and digits."""
        self.transport.clear()
        self.assertTrue(self.phone.send_audio(b"ab" * 160))
        self.phone.send_digit("*")
        self.assertTrue(self.phone.send_audio(b"ab", 16_000))
        self.assertEqual(
            self.transport.value(), raw_frame(0x10, b"ab" * 160) + raw_frame(0x03, b"*") + raw_frame(0x12, b"ab")
        )

    def test_frames_without_end(self) -> None:
        """A server that sends errors, or crumbs of audio, without end loses its connection."""
        for frame in (b"\xff\x00\x01\x02", raw_frame(0x10, b"ab"), raw_frame(0x02, b"")):
            with self.subTest(frame=frame):
                self.setUp()
                self.phone.dataReceived(frame * (BURST + 50))
                self.assertEqual(self.phone.events[-1], ("ended", PROBLEM))

    def test_hears(self) -> None:
        """Audio, errors, and nothing of kinds that it does not know."""
        stream = raw_frame(0x12, b"abcd") + raw_frame(0x02, b"??") + b"\xff\x00\x01\x02" + raw_frame(0x10, b"ef")
        self.phone.dataReceived(stream[:5])
        self.phone.dataReceived(stream[5:])
        self.assertEqual(self.phone.events, ["started", (b"abcd", 16_000), ErrorBits.FRAME_FORWARDING, (b"ef", 8000)])

    def test_server_hangs_up(self) -> None:
        """At the server's hangup frame it closes, and what comes behind is not heard."""
        self.phone.dataReceived(HANGUP + raw_frame(0x10, b"ab"))
        self.assertFalse(self.transport.connected)
        self.assertEqual(set(map(str, self.phone.events)), {"started", "hangup", "('ended', '')"})
        self.assertEqual(len(self.phone.events), 3)

    def test_server_closes(self) -> None:
        """The server's close is an orderly end."""
        self.phone.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.phone.events, ["started", ("ended", "")])

    def test_connection_breaks(self) -> None:
        """A broken connection is a problem, with the system's error text."""
        self.phone.connectionLost(Failure(ConnectionLost("reset")))
        ((_, problem),) = self.phone.events[1:]
        self.assertIn("reset", problem)

    def test_server_breaks_the_protocol(self) -> None:
        """A frame at which Asterisk would hang up ends the call with the codec's error text."""
        self.phone.dataReceived(raw_frame(0x10, b"ab") + raw_frame(0x03, b"1"))
        self.assertTrue(self.transport.disconnected)
        message = "a server sent a frame of kind 0x03; Asterisk hangs up on it"
        self.assertEqual(self.phone.events, ["started", (b"ab", 8000), ("ended", message)])

    def test_hangs_up(self) -> None:
        """Hanging up closes, without a frame, and once."""
        self.transport.clear()
        self.phone.hang_up()
        self.phone.hang_up()
        self.assertEqual((self.transport.value(), self.phone.events), (b"", ["started", ("ended", "")]))

    def test_without_a_connection(self) -> None:
        """Before and after the connection, audio is not sent and nothing is raised."""
        self.phone.connectionLost(Failure(ConnectionDone()))
        self.transport.clear()
        for phone in (Phone(), self.phone):
            self.assertFalse(phone.send_audio(bytes(320)))
            phone.send_digit("1")
            phone.hang_up()
        self.assertEqual(self.transport.value(), b"")

    def test_hangs_up_while_it_listens(self) -> None:
        """A phone that hangs up over a frame is not given the next, though it was read already."""
        heard: list[bytes] = []

        def hear(samples: bytes, rate_hz: int) -> None:
            heard.append(samples)
            self.phone.hang_up()

        self.phone.audio_received = hear  # type: ignore[method-assign]
        self.phone.dataReceived(raw_frame(0x10, b"ab") + raw_frame(0x10, b"cd"))
        self.assertEqual(heard, [b"ab"])

    def test_server_that_does_not_read(self) -> None:
        """Audio for a server that is behind is dropped; a digit waits; hanging up does not wait for it."""
        self.transport.clear()
        self.transport.producer.pauseProducing()
        self.assertFalse(self.phone.send_audio(bytes(320)))
        self.phone.send_digit("1")
        self.assertEqual(self.transport.value(), raw_frame(0x03, b"1"))
        self.phone.hang_up()
        self.assertTrue(self.transport.disconnected)


class BothTests(SynchronousTestCase):
    """Both protocols, joined in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reception = FakeReception(EchoSink)
        self.phone = Phone()
        self.server = AudioSocketProtocol(self.reception, self.clock)
        self.pump = iosim.connect(
            self.server,
            iosim.FakeTransport(self.server, isServer=True),
            self.phone,
            iosim.FakeTransport(self.phone, isServer=False),
        )

    def test_echo(self) -> None:
        """What the phone says comes back from a call that echoes, at the phone's own rate."""
        self.phone.send_audio(b"ab" * 160)
        self.phone.send_audio(b"cd" * 480, 16_000)
        self.phone.send_digit("7")
        self.pump.flush()
        self.assertEqual(self.phone.events, ["started", (b"ab" * 160, 8000), (b"cd" * 480, 16_000)])
        self.assertEqual(self.reception.sink.events[-1], "7")

    def test_server_hangs_up(self) -> None:
        """The phone closes after the hangup frame, so no connection is aborted."""
        self.reception.sink.channel.hang_up()
        self.pump.flush()
        self.assertEqual(self.phone.events, ["started", "hangup", ("ended", "")])
        self.assertEqual((self.reception.sink.ended, self.clock.getDelayedCalls()), ([], []))

    def test_phone_hangs_up(self) -> None:
        """The call hears that its caller hung up."""
        self.phone.hang_up()
        self.pump.flush()
        self.assertEqual(self.reception.sink.ended, [(EndReason.CALLER_HANGUP, "")])
        self.assertEqual(self.phone.events, ["started", ("ended", "")])
