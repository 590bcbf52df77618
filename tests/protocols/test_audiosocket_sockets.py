"""The AudioSocket protocols of both roles on real loopback sockets, over every kind of endpoint."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.protocols.policies import ProtocolWrapper
from twisted.trial.unittest import TestCase

from rapida_twisted.context import EndReason
from rapida_twisted.protocols import audiosocket_app as audiosocket
from rapida_twisted.protocols.audiosocket_app import STALLED_FRAMES, AudioSocketFactory
from rapida_twisted.protocols.audiosocket_asterisk import AsteriskProtocol
from rapida_twisted.protocols.frame_writer import READ_BYTES, UNACKNOWLEDGED_S
from tests.media.fakes import KeptLog
from tests.protocols.fakes import EchoSink, FakeReception, FakeSink, warnings_of, write_certificate
from tests.support.strategies import raw_frame

LONGEST_S = 4.0
HANGUP = b"\x00\x00\x00"
PROXY_LINE = b"PROXY TCP4 198.51.100.7 192.0.2.1 40312 4573\r\n"
FRAME = bytes(range(160)) * 2
BUFFERED_BYTES = 65_536 + 20 * 400
"""Twisted's own write buffer, and the frames that a test sends in one turn of the reactor."""


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds, for as long as a test may take."""
    give_up = time.monotonic() + LONGEST_S
    while not holds():
        if time.monotonic() > give_up:
            raise AssertionError("it never came to be")
        await deferLater(reactor, 0.002)


class Phone(AsteriskProtocol):
    """A client that records its events."""

    def __init__(self, preface: bytes = b"") -> None:
        super().__init__(uuid4())
        self.heard = b""
        self.hangups = 0
        self.problems: list[str] = []
        self._preface = preface

    def connectionMade(self) -> None:
        """First what stands before AudioSocket on this line, if anything."""
        if self._preface:
            self.transport.getHandle().send(self._preface)
        super().connectionMade()

    def audio_received(self, samples: bytes, rate_hz: int) -> None:
        """Keep it."""
        self.heard += samples

    def hangup_received(self) -> None:
        """Count it."""
        self.hangups += 1

    def call_ended(self, problem: str) -> None:
        """Keep it."""
        self.problems.append(problem)


class Raw(Protocol):
    """A connection that says what the test wants, and keeps what comes."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: object = None) -> None:
        """Note it."""
        self.lost = True


class KeptFactory(AudioSocketFactory):
    """A factory that keeps the protocols it made."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.made: list[Any] = []

    def buildProtocol(self, addr: Any) -> Protocol:
        """One more."""
        self.made.append(super().buildProtocol(addr))
        return self.made[-1]  # type: ignore[no-any-return]


class Endpoint:
    """A way to listen, and the way to get there."""

    def __init__(self, test: TestCase) -> None:
        self.test = test

    preface = b""
    most_queued_bytes = len(FRAME) + 3
    """What may wait in this process for a peer that does not read."""

    def description(self) -> str:
        """What is listened on."""
        return "tcp:0:interface=127.0.0.1:backlog=512"

    def client(self, port: Any) -> IStreamClientEndpoint:
        """How to get there."""
        return TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)


class UnixEndpoint(Endpoint):
    """A UNIX socket, at a path that is short enough for one."""

    def description(self) -> str:
        directory = tempfile.mkdtemp()
        self.test.addCleanup(shutil.rmtree, directory)
        self.path = str(Path(directory) / "s")
        return f"unix:{self.path}"

    def client(self, port: Any) -> IStreamClientEndpoint:
        return UNIXClientEndpoint(reactor, self.path)


class TlsEndpoint(Endpoint):
    """TLS with a certificate of our own, which the client verifies."""

    most_queued_bytes = BUFFERED_BYTES

    def description(self) -> str:
        self.pem = write_certificate(self.test)
        return f"ssl:0:interface=127.0.0.1:privateKey={self.pem}:certKey={self.pem}"

    def client(self, port: Any) -> IStreamClientEndpoint:
        trusted = Certificate.loadPEM(self.pem.read_bytes())
        return wrapClientTLS(optionsForClientTLS("127.0.0.1", trusted), super().client(port))


class ProxyEndpoint(Endpoint):
    """Behind a proxy that sends the peer's address."""

    preface = PROXY_LINE
    most_queued_bytes = BUFFERED_BYTES

    def description(self) -> str:
        return "haproxy:tcp:0:interface=127.0.0.1"


class SocketsTestCase(TestCase):
    """A server on one kind of endpoint. Each test leaves nothing open."""

    timeout = 20
    endpoint_class: type[Endpoint] = Endpoint
    make_sink: type[FakeSink] = EchoSink

    def setUp(self) -> None:
        self.log = KeptLog(self)
        self.reception = FakeReception(self.make_sink)
        self.endpoint = self.endpoint_class(self)

    async def listen(self, **limits: Any) -> None:
        """Serve, with these limits."""
        self.factory = KeptFactory(self.reception, reactor, **limits)
        port = await serverFromString(reactor, self.endpoint.description()).listen(self.factory)
        self.client = self.endpoint.client(port)
        self.addCleanup(lambda: Deferred.fromCoroutine(until(self.all_gone)))
        self.addCleanup(port.stopListening)
        self.port = port

    def all_gone(self) -> bool:
        """Whether no connection of the server's is left; those that are, are cut."""
        for protocol in filter(is_open, self.factory.made):
            protocol.transport.abortConnection()
        return self.factory.unidentified == 0 and not any(map(is_open, self.factory.made))

    async def connect(self, protocol: Any) -> Any:
        """One more connection, which is closed when the test ends."""
        connected = await connectProtocol(self.client, protocol)
        self.addCleanup(lambda: is_open(connected) and connected.transport.abortConnection())
        return connected

    async def raw(self, data: bytes = b"") -> Raw:
        """A connection by hand that sends this."""
        connection = await self.connect(Raw())
        connection.transport.write(self.endpoint.preface + data)
        return connection  # type: ignore[no-any-return]

    async def call(self) -> tuple[Phone, FakeSink]:
        """A phone with its call up."""
        calls = len(self.reception.sinks)
        phone = await self.connect(Phone(self.endpoint.preface))
        await until(lambda: len(self.reception.sinks) > calls)
        return phone, self.reception.sinks[-1]


def bottom(transport: Any) -> Any:
    """The transport that holds the socket."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def is_open(protocol: Any) -> bool:
    """Whether a protocol's socket is still open."""
    return bool(bottom(protocol.transport).connected)


def identify() -> bytes:
    """The UUID frame of some call."""
    return raw_frame(0x01, uuid4().bytes)


class BothRolesMixin:
    """Both protocols against each other, over whatever endpoint."""

    async def test_server_hangs_up(self: Any) -> None:
        """Audio and a digit go there, audio comes back, and the server's hangup ends it in order on both sides."""
        await self.listen()
        phone, sink = await self.call()
        for _ in range(10):
            self.assertTrue(phone.send_audio(FRAME))
        phone.send_digit("5")
        await until(lambda: phone.heard == FRAME * 10)
        await until(lambda: "5" in sink.events)
        self.assertEqual((sink.heard, sink.context.context_id), (FRAME * 10, str(phone.call)))
        sink.channel.hang_up()
        await until(lambda: phone.problems)
        self.assertEqual((phone.hangups, phone.problems), (1, [""]))
        await until(lambda: not is_open(sink.channel))
        self.assertEqual((sink.ended, warnings_of(self.log)), ([], []))

    async def test_phone_hangs_up(self: Any) -> None:
        """The phone's close is a caller's hangup; the next call comes through."""
        await self.listen()
        phone, sink = await self.call()
        phone.send_audio(FRAME)
        await until(lambda: phone.heard)
        phone.hang_up()
        await until(lambda: sink.ended and phone.problems)
        self.assertEqual((sink.ended, phone.problems), ([(EndReason.CALLER_HANGUP, "")], [""]))
        next_phone, _ = await self.call()
        self.assertEqual(next_phone.problems, [])
        self.assertEqual((self.factory.unidentified, warnings_of(self.log)), (0, []))

    async def test_claim_that_takes_its_time(self: Any) -> None:
        """While the call is claimed nothing is lost of what the phone says."""
        claims: list[Callable[[], None]] = []

        def answer(context: Any) -> Deferred[Any]:
            claim: Deferred[Any] = Deferred()
            claims.append(lambda: claim.callback(context))
            return claim

        self.reception.answer = answer
        await self.listen()
        phone = await self.connect(Phone(self.endpoint.preface))
        for _ in range(20):
            phone.send_audio(FRAME)
        await until(lambda: claims)
        await deferLater(reactor, 0.01)
        claims.pop()()
        await until(lambda: phone.heard == FRAME * 20)

    async def test_peer_that_does_not_read(self: Any) -> None:
        """What waits for a peer that does not read is bounded, here and in the kernel; then the peer is given up."""
        self.reception._make_sink = FakeSink
        await self.listen()
        phone, sink = await self.call()
        phone.transport.pauseProducing()
        waiting = bottom(sink.channel.transport)
        most = 0
        for _ in range(200):
            for _ in range(20):
                sink.channel.send_audio(FRAME)
            most = max(most, len(waiting.dataBuffer) + waiting._tempDataLen)
            if sink.ended:
                break
            await deferLater(reactor, 0)
        expected = (EndReason.PEER_STALLED, f"{STALLED_FRAMES} frames in a row could not be sent")
        self.assertEqual(sink.ended, [expected])
        self.assertLessEqual(most, self.endpoint.most_queued_bytes)
        await until(lambda: not is_open(sink.channel))

    async def test_one_too_many(self: Any) -> None:
        """Beyond the limit of silent connections the oldest is closed at once, and nothing is left of it."""
        await self.listen(max_unidentified=1)
        first = await self.raw()
        await until(lambda: self.factory.unidentified == 1)
        await self.raw()
        await until(lambda: first.lost)
        self.assertEqual((self.factory.unidentified, self.factory.refused), (1, 1))
        await until(lambda: not is_open(self.factory.made[0]))

    async def test_garbage(self: Any) -> None:
        """Garbage gets a hangup frame, and is closed when its sender goes."""
        await self.listen()
        garbage = await self.raw(b"GET / HTTP/1.1\r\n\r\n" * 100)
        await until(lambda: garbage.received == HANGUP)
        garbage.transport.loseConnection()
        await until(lambda: self.factory.unidentified == 0)
        (line,) = warnings_of(self.log)
        self.assertIn("broke the protocol: a frame of kind 0x47 came before the UUID frame", line)


class TcpTests(BothRolesMixin, SocketsTestCase):
    """Bare TCP, and what does not depend on the endpoint."""

    async def test_tuning(self) -> None:
        """Small frames leave at once, buffers are small, and a dead peer is noticed."""
        await self.listen()
        _, sink = await self.call()
        assert_tuned(self, sink.channel)
        self.assertEqual(sink.channel.transport.bufferSize, READ_BYTES)
        self.assertEqual(sink.channel.peer.split(":")[0], "127.0.0.1")

    async def test_lingering_peer(self) -> None:
        """A peer that keeps the connection after the hangup frame is cut off within two seconds."""
        self.patch(audiosocket, "CLOSE_TIMEOUT_S", 0.05)
        await self.listen()
        peer = await self.raw(identify())
        await until(lambda: self.reception.sinks)
        self.reception.sink.channel.hang_up()
        await until(lambda: peer.lost)
        self.assertEqual(peer.received, HANGUP)

    async def test_half_a_frame_and_silence(self) -> None:
        """Half a UUID frame and then nothing is closed when its time is over."""
        await self.listen(uuid_timeout_s=0.05)
        for part in (b"", b"\x01", b"\x01\x00\x10", identify()[:-1]):
            peer = await self.raw(part)
            await until(lambda peer=peer: peer.lost)
        self.assertEqual(self.factory.unidentified, 0)
        self.assertEqual(self.factory.rejections.counts["audiosocket.uuid_overdue"], 4)

    async def test_half_a_frame_in_a_call(self) -> None:
        """Half an audio frame and then nothing does not disturb what the server says."""
        await self.listen()
        peer = await self.raw(identify() + raw_frame(0x10, FRAME)[:100])
        await until(lambda: self.reception.sinks)
        self.reception.sink.channel.send_audio(FRAME)
        await until(lambda: peer.received == raw_frame(0x10, FRAME))
        self.assertEqual((self.reception.sink.events, self.reception.sink.ended), ([], []))

    async def test_greatest_frames(self) -> None:
        """A frame of 65,535 bytes is skipped when its kind is unknown, 65,534 bytes of audio are heard as one."""
        await self.listen()
        audio = bytes(range(256)) * 255 + bytes(254)
        stream = identify() + raw_frame(0x02, bytes(65_535)) + raw_frame(0x10, audio) + raw_frame(0x03, b"1")
        peer = await self.raw(stream)
        await until(lambda: self.reception.sinks and "1" in self.reception.sink.events)
        self.assertEqual(self.reception.sink.events, [audio, "1"])
        await until(lambda: peer.received == raw_frame(0x10, audio))

    async def test_greatest_frame_instead_of_a_uuid(self) -> None:
        """A frame that announces 65,535 bytes is refused by its header, and not waited for."""
        for header in (b"\x01\xff\xff", b"\x10\xff\xff", b"\x02\xff\xff"):
            await self.listen()
            peer = await self.raw(header)
            await until(lambda peer=peer: peer.received == HANGUP)
            peer.transport.loseConnection()
            await until(lambda: self.factory.unidentified == 0)
            await self.port.stopListening()

    async def test_silent_crowd(self) -> None:
        """Hundreds of connections that say nothing cost places, not the call in progress, and are gone in time."""
        await self.listen(uuid_timeout_s=0.6, max_unidentified=200)
        phone, sink = await self.call()
        crowd = []
        for _ in range(300):
            silent = socket.socket()
            silent.setblocking(False)
            silent.connect_ex(("127.0.0.1", self.port.getHost().port))
            crowd.append(silent)
            self.addCleanup(silent.close)
        await until(lambda: self.factory.unidentified + self.factory.refused == 300)
        self.assertEqual((self.factory.unidentified, self.factory.refused), (200, 100))
        for _ in range(5):
            phone.send_audio(FRAME)
        await until(lambda: phone.heard == FRAME * 5)
        await until(lambda: self.factory.unidentified == 0)
        self.assertEqual(sink.ended, [])
        phone.send_audio(FRAME)
        await until(lambda: phone.heard == FRAME * 6)
        latecomer, _ = await self.call()
        self.assertEqual(latecomer.problems, [])

    async def test_phone_hangs_up_on_a_server_that_does_not_read(self) -> None:
        """A phone that hangs up on such a server is gone at once, whatever it has queued."""
        await self.listen()
        phone, sink = await self.call()
        sink.channel.transport.pauseProducing()
        while phone.send_audio(FRAME):
            pass
        phone.hang_up()
        await until(lambda: phone.problems)
        sink.channel.transport.resumeProducing()
        await until(lambda: sink.ended)

    async def test_nobody_there(self) -> None:
        """Where no server listens, connecting fails, and no call is reported as ended."""
        await self.listen()
        await self.port.stopListening()
        phone = Phone()
        await self.assertFailure(connectProtocol(self.client, phone), ConnectError)
        self.assertEqual(phone.problems, [])


class UnixTests(BothRolesMixin, SocketsTestCase):
    """A UNIX socket."""

    endpoint_class = UnixEndpoint

    async def test_peer(self) -> None:
        """Its peer has no address of its own."""
        await self.listen()
        _, sink = await self.call()
        self.assertEqual(sink.channel.peer, "unix:")


class TlsTests(BothRolesMixin, SocketsTestCase):
    """TLS."""

    endpoint_class = TlsEndpoint

    async def test_tuning(self) -> None:
        """The socket beneath TLS is tuned as a bare one."""
        await self.listen()
        _, sink = await self.call()
        assert_tuned(self, sink.channel)


class ProxyTests(BothRolesMixin, SocketsTestCase):
    """Behind a proxy."""

    endpoint_class = ProxyEndpoint

    async def test_peer(self) -> None:
        """The peer is the one in the PROXY header; the socket is tuned like a bare one."""
        await self.listen()
        _, sink = await self.call()
        self.assertEqual(sink.channel.peer, "198.51.100.7:40312")
        self.assertEqual(self.reception.claims[0][2], "198.51.100.7:40312")
        assert_tuned(self, sink.channel)

    async def test_without_the_proxys_line(self) -> None:
        """A connection that does not begin with the proxy's line is closed, and nothing is claimed."""
        await self.listen()
        peer = await self.connect(Raw())
        peer.transport.write(identify())
        await until(lambda: peer.lost)
        await until(lambda: self.factory.unidentified == 0)
        self.assertEqual(self.reception.claims, [])


def assert_tuned(test: TestCase, channel: Any) -> None:
    """The socket at the bottom of a channel is as it should be."""
    transport = bottom(channel.transport)
    test.assertEqual((transport.getTcpNoDelay(), transport.getTcpKeepAlive()), (1, 1))
    handle = transport.getHandle()
    test.assertLessEqual(handle.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), 65_536)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        test.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), UNACKNOWLEDGED_S * 1000)
