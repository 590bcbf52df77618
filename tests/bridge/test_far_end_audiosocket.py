"""The far end over AudioSocket: on real sockets, and its queue on fake time."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio.drift import WINDOW
from rapida_twisted.audio.formats import SLIN
from rapida_twisted.bridge import far_end
from rapida_twisted.bridge.far_end_audiosocket import AudioSocketFarEnd, connect_audiosocket
from rapida_twisted.errors import UpstreamFailed
from rapida_twisted.interfaces import IFarEnd
from rapida_twisted.protocols.control_budget import BURST
from rapida_twisted.wire.audiosocket import HANGUP_BYTES
from tests.bridge.far_ends import FarEndTestCase, KeptUser, Peer, Peers
from tests.protocols.websockets import CALL, MemoryTransport, until

CALL_ID = UUID(CALL)
SAID_UUID = b"\x01\x00\x10" + CALL_ID.bytes
FRAME = b"\1\2" * 160
OTHER = b"\3\4" * 160


def framed(payload: bytes, kind: int = 0x10) -> bytes:
    """An AudioSocket frame."""
    return struct.pack(">BH", kind, len(payload)) + payload


class SocketsTests(FarEndTestCase):
    """A server that is played by hand."""

    async def connect(self, peers: Peers) -> Any:
        """Connect to one of these, which has heard the UUID then."""
        port = self.listen(peers)
        far_end: Any = await connect_audiosocket(
            "127.0.0.1", port, CALL_ID, user=self.user, reactor=reactor, timeout_s=2, stalled_s=20
        )
        self.addCleanup(far_end.abort)
        await until(lambda: peers.made and (peers.made[0].received or not peers.made[0].reads))
        self.peer = peers.made[0]
        return far_end

    async def told(self) -> list[str]:
        """The user's events, once there are any."""
        await until(lambda: self.user.told)
        return self.user.told

    async def test_both_ways(self) -> None:
        """The UUID goes first; audio and keys go as they come, and what the server says is cut into frames of 20 ms."""
        far_end: IFarEnd = await self.connect(Peers(Peer))
        self.assertTrue(far_end.send_audio(FRAME * 2))
        far_end.send_digit("7")
        expected = SAID_UUID + framed(FRAME * 2) + framed(b"7", 0x03)
        await until(lambda: len(self.peer.received) >= len(expected))
        self.assertEqual(self.peer.received, expected)

        self.peer.transport.write(framed(FRAME + OTHER[:160]) + framed(OTHER[160:]))
        await until(lambda: far_end.queued_ms == 40)
        self.assertEqual([far_end.take(), far_end.take(), far_end.take()], [FRAME, OTHER, None])
        self.assertEqual((far_end.dropped_ms, far_end.shifted, far_end.queued_ms), (0, 0, 0))

    async def test_hangup_of_the_server(self) -> None:
        """A hangup frame: the user gets the hangup once, and the connection is closed."""
        await self.connect(Peers(Peer))
        self.peer.transport.write(framed(FRAME) + HANGUP_BYTES)
        self.assertEqual(await self.told(), ["hung up"])
        await until(lambda: self.peer.lost)
        self.assertEqual(self.user.told, ["hung up"])

    async def test_server_closes(self) -> None:
        """A server that closes after it had said something hung up."""
        await self.connect(Peers(Peer))
        self.peer.transport.write(framed(FRAME))
        self.peer.transport.loseConnection()
        self.assertEqual(await self.told(), ["hung up"])

    async def test_closes_at_once(self) -> None:
        """One that closes before does not want this call."""
        await self.connect(Peers(Peer))
        self.peer.transport.loseConnection()
        self.assertEqual(await self.told(), ["refused"])
        self.assertTrue(self.user.failures[0].of_call)

    async def test_reset(self) -> None:
        """A connection that is cut is lost, and the failure names the server."""
        await self.connect(Peers(Peer))
        self.peer.transport.write(framed(FRAME))
        self.peer.transport.abortConnection()
        self.assertEqual(await self.told(), ["lost"])
        self.assertIn("127.0.0.1:", str(self.user.failures[0]))

    async def test_garbage(self) -> None:
        """What Asterisk does not take from a server ends the connection, as it does there."""
        await self.connect(Peers(Peer))
        self.peer.transport.write(framed(FRAME) + framed(b"1", 0x03))
        self.assertEqual(await self.told(), ["malformed"])
        await until(lambda: self.peer.lost)

    async def test_changes_of_the_rate(self) -> None:
        """A server that changes its rate with each frame has broken the protocol: each change makes converters."""
        await self.connect(Peers(Peer))
        self.peer.transport.write((framed(FRAME) + framed(FRAME * 2, 0x12)) * BURST)
        self.assertEqual(await self.told(), ["malformed"])

    async def test_error_frame(self) -> None:
        """The error "hangup" is one; any other is a failure that names it."""
        await self.connect(Peers(Peer))
        self.peer.transport.write(framed(b"\x01", 0xFF))
        self.assertEqual(await self.told(), ["hung up"])

    async def test_other_error_frame(self) -> None:
        """See above."""
        await self.connect(Peers(Peer))
        self.peer.transport.write(framed(b"\x04", 0xFF))
        self.assertEqual(await self.told(), ["lost"])

    async def test_our_hangup(self) -> None:
        """We hang up by closing, as Asterisk does, and get no event; audio after it is dropped."""
        far_end = await self.connect(Peers(Peer))
        far_end.hang_up()
        await until(lambda: self.peer.lost)
        self.assertEqual(self.peer.received, SAID_UUID)
        self.assertFalse(far_end.send_audio(FRAME))
        self.assertIsNone(far_end.take())
        self.assertEqual(self.user.told, [])

    async def test_hangup_on_both_sides(self) -> None:
        """An event that was due when we hung up does not come."""
        far_end = await self.connect(Peers(Peer))
        far_end.hung_up()
        far_end.hang_up()
        await until(lambda: self.peer.lost)
        self.assertEqual(self.user.told, [])

    async def test_stops_reading(self) -> None:
        """What a server does not read is dropped, with bounded memory; after 5 s of that it is given up."""
        time_s = 0.0
        far_end = await self.connect(Peers(lambda: Peer(reads=False)))
        far_end._now = lambda: time_s
        sent = 0
        while far_end.send_audio(bytes(64_000)):
            sent += 1
            self.assertLess(sent, 1000)
        self.assertLess(sum(map(len, far_end.connection.transport._tempDataBuffer)), 100_000)
        time_s = 20.1
        self.assertFalse(far_end.send_audio(FRAME))
        self.assertEqual(await self.told(), ["stalled"])
        far_end.send_audio(FRAME)
        self.assertEqual(self.user.told, ["stalled"])

    async def test_nobody_listens(self) -> None:
        """A refused connection is unreachable."""
        port: Any = reactor.listenTCP(0, Peers(Peer), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        failure = await self.failure(
            connect_audiosocket("127.0.0.1", number, CALL_ID, user=self.user, reactor=reactor, timeout_s=2, stalled_s=9)
        )
        self.assertEqual(failure.word, "unreachable")

    async def test_unknown_host(self) -> None:
        """So is an unknown host name."""
        with self.assertRaises(Exception) as caught:
            await connect_audiosocket(
                "nobody.invalid", 9092, CALL_ID, user=self.user, reactor=reactor, timeout_s=5, stalled_s=9
            )
        self.assertIn(getattr(caught.exception, "word", ""), ("unreachable", "timeout"))
        self.assertIn("nobody.invalid:9092", str(caught.exception))


class ConnectingTests(SynchronousTestCase):
    """Connections that never come up, on fake time."""

    def test_time_and_cancelling(self) -> None:
        """A connection that takes too long fails, and a cancelled one ends."""
        stopped: list[int] = []

        class Endpoint:
            def __init__(self, *args: Any, **words: Any) -> None:
                pass

            def connect(self, factory: Any) -> Deferred[Any]:
                def cancel(connecting: Deferred[Any]) -> None:
                    stopped.append(1)
                    connecting.errback(ConnectingCancelledError(None))

                return Deferred(cancel)

        self.patch(far_end, "HostnameEndpoint", Endpoint)
        for cancelled in (False, True):
            clock = Clock()
            connecting = Deferred.fromCoroutine(
                connect_audiosocket("127.0.0.1", 1, CALL_ID, user=KeptUser(), reactor=clock, timeout_s=2, stalled_s=20)
            )
            if cancelled:
                connecting.cancel()
                self.failureResultOf(connecting, CancelledError)
            else:
                clock.advance(2.1)
                failure: Any = self.failureResultOf(connecting, UpstreamFailed).value
                self.assertEqual(failure.word, "timeout")
            self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(stopped, [1, 1])


class QueueTests(SynchronousTestCase):
    """What waits to be taken, on fake time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.user = KeptUser()
        self.far_end = AudioSocketFarEnd(CALL_ID, self.user, "far.example:9092", 20, self.clock, self.clock.seconds)
        transport = MemoryTransport()
        transport.protocol = self.far_end.connection
        self.far_end.connection.makeConnection(transport)
        self.transport = transport

    def say(self, *payloads: bytes, kind: int = 0x10) -> None:
        """The server says something."""
        for payload in payloads:
            self.far_end.connection.dataReceived(framed(payload, kind))

    def test_sixty_ms(self) -> None:
        """At most 60 ms wait: the oldest are dropped and counted."""
        frames = [bytes([number]) * 320 for number in range(10)]
        self.say(*frames)
        self.assertEqual(self.far_end.queued_ms, 60)
        self.assertEqual(self.far_end.dropped_ms, 140)
        self.assertEqual([self.far_end.take() for _ in range(4)], [*frames[-3:], None])

    def test_long_packets(self) -> None:
        """A packet of 100 ms is not cut: as much may wait then."""
        packet = b"".join(bytes([number]) * 320 for number in range(5))
        self.say(packet)
        self.assertEqual(b"".join(self.far_end.take() or b"" for _ in range(5)), packet)
        self.assertEqual(self.far_end.dropped_ms, 0)
        self.say(packet, packet[:320])
        self.assertEqual(self.far_end.dropped_ms, 20)

    def test_another_rate(self) -> None:
        """Audio at 16 kHz becomes the connection's 8 kHz."""
        self.say(*[b"\0\1" * 320] * 3, kind=0x12)
        taken = [self.far_end.take() for _ in range(2)]
        self.assertEqual({len(frame or b"") for frame in taken}, {SLIN.frame_bytes})

    def test_silent_server(self) -> None:
        """A server may be silent for as long as it likes: bots send audio while they speak only."""
        for _ in range(3):
            self.clock.advance(3600)
            self.assertIsNone(self.far_end.take())
        self.say(FRAME)
        self.assertEqual(self.far_end.take(), FRAME)
        self.assertEqual((self.user.told, self.transport.aborted), ([], False))

    def test_clocks(self) -> None:
        """Silent frames are left out and repeated for the sake of the server's clock, and counted."""
        silence = SLIN.silent_frame
        self.say(silence, silence)

        def run() -> None:
            for _ in range(WINDOW):
                self.clock.advance(0.02)
                self.say(silence)
                self.far_end.take()

        run()
        run()
        self.assertEqual((self.far_end.queued_ms, self.far_end.shifted), (40, 0))
        run()
        self.assertEqual((self.far_end.queued_ms, self.far_end.shifted), (20, 1))
        self.far_end.take()
        run()
        run()
        self.assertEqual((self.far_end.queued_ms, self.far_end.shifted), (20, 2))

    def test_flood(self) -> None:
        """A server that sends as fast as it can costs no memory."""
        for _ in range(1000):
            self.say(*[FRAME] * 10)
        self.assertEqual(self.far_end.queued_ms, 60)
        self.assertLessEqual(len(self.far_end._guard._arrivals), 3)
