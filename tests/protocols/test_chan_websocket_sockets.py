"""chan_websocket on real loopback sockets: TCP and TLS, alone and under a Site, in both roles."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, serverFromString, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.protocols.policies import ProtocolWrapper
from twisted.trial.unittest import TestCase

from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.protocols import chan_websocket_app as websocket
from rapida_twisted.protocols.chan_websocket_app import MediaClientFactory, MediaServerFactory
from rapida_twisted.protocols.chan_websocket_asterisk import AsteriskClientFactory, AsteriskServerFactory
from rapida_twisted.server.registrar import Registrar
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.web.next_hop import ContextPages
from rapida_twisted.web.site import RapidaSite, make_root
from rapida_twisted.web.websocket import handshake_gate, websocket_page
from rapida_twisted.wire.chan_websocket import ControlForm, MarkMedia
from tests.media.fakes import KeptLog
from tests.protocols.fakes import FakeReception, write_certificate
from tests.protocols.websockets import (
    CALL,
    PATH,
    EchoSink,
    KeptChannel,
    KeptClient,
    KeptServer,
    PausedSink,
    handshake,
    until,
)

KEY = "rpd-good"


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


class SocketsTestCase(TestCase):
    """Servers on loopback sockets. Each test leaves nothing open."""

    timeout = 20
    make_sink: type[PausedSink] = EchoSink
    secure = False

    def setUp(self) -> None:
        self.log = KeptLog(self)
        self.reception = FakeReception(self.make_sink)
        self.protocols: list[Any] = []

    async def listen(self, factory: Any) -> IStreamClientEndpoint:
        """Serve, and give the way there."""
        description = "tcp:0:interface=127.0.0.1"
        if self.secure:
            pem = write_certificate(self)
            description = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
        port: Any = await serverFromString(reactor, description).listen(factory)
        self.addCleanup(lambda: Deferred.fromCoroutine(until(self.all_gone)))
        self.addCleanup(port.stopListening)
        client: IStreamClientEndpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        if self.secure:
            trusted = Certificate.loadPEM(pem.read_bytes())
            client = wrapClientTLS(optionsForClientTLS("127.0.0.1", trusted), client)
        return client

    def all_gone(self) -> bool:
        """Whether no connection is left; those that are, are cut."""
        for protocol in self.protocols:
            if is_open(protocol):
                protocol.transport.abortConnection()
        return not any(map(is_open, self.protocols))

    def keep(self, factory: Any) -> Any:
        """Keep the protocols that a factory makes."""
        build = factory.buildProtocol

        def build_and_keep(address: Any) -> Any:
            self.protocols.append(build(address))
            return self.protocols[-1]

        factory.buildProtocol = build_and_keep
        return factory

    def media_factory(self) -> MediaServerFactory:
        """The application's server, which wants a key."""
        factory = MediaServerFactory(self.reception, reactor, handshake_gate(ApiKeys([KEY])))
        return self.keep(factory)

    def site(self) -> RapidaSite:
        """The whole HTTP face with WebSockets in it, and requests that may take 1 s."""
        store, keys = MemoryStore(), ApiKeys([KEY])
        registrar = Registrar(
            store, lambda assistant_id: True, now=lambda: 0.0, context_ttl_s=300.0, max_pending=10,
            draining=lambda: False,
        )  # fmt: skip
        root = make_root(
            store=store, keys=keys, registrar=registrar, hang_up=lambda context_id: False, draining=lambda: False,
            extra={b"talk/asterisk/ctx": ContextPages(store, keys, websocket_page(self.media_factory()))},
        )  # fmt: skip
        return RapidaSite(root, reactor, timeout_s=1)

    async def dial(self, client: IStreamClientEndpoint, channel: KeptClient, path: str = PATH) -> PausedSink:
        """Asterisk dials the application; the call that comes up."""
        calls = len(self.reception.sinks)
        factory = AsteriskClientFactory(f"ws://127.0.0.1{path}", channel, reactor, {"x-api-key": KEY})
        await client.connect(self.keep(factory))
        await until(lambda: len(self.reception.sinks) > calls)
        sink = self.reception.sinks[-1]
        assert isinstance(sink, PausedSink)
        return sink

    async def converse(self, asterisk: KeptChannel, sink: PausedSink) -> None:
        """A call: audio there and back, a digit, a mark."""
        frames = [bytes((number,)) * 160 for number in range(100)]
        for frame in frames:
            assert asterisk.send_audio(frame)
        asterisk.send_digit("5")
        await until(lambda: "5" in sink.events and asterisk.queue.frames == len(frames))
        self.assertEqual(sink.events, [*frames, "5"])
        reached: list[bool] = []
        sink.channel.mark(lambda: reached.append(True))
        await until(lambda: any(isinstance(told, MarkMedia) for told in asterisk.told))
        self.assertEqual([asterisk.tick() for _ in frames], frames)
        self.assertEqual((asterisk.tick(), reached), (None, []))
        await until(lambda: reached)

    async def app_hangs_up(self, asterisk: KeptChannel, sink: PausedSink) -> None:
        """The application ends it."""
        sink.channel.hang_up()
        await until(lambda: asterisk.lost and not any(map(is_open, self.protocols)))
        self.assertEqual((asterisk.problems, "hangup" in asterisk.told, sink.ended), ([""], True, []))

    async def caller_hangs_up(self, asterisk: KeptChannel, sink: PausedSink) -> None:
        """Asterisk ends it."""
        asterisk.hang_up()
        await until(lambda: asterisk.lost and not any(map(is_open, self.protocols)))
        self.assertEqual((asterisk.problems, sink.ended), ([""], [(EndReason.CALLER_HANGUP, "")]))

    async def ask(self, client: IStreamClientEndpoint, request: bytes) -> tuple[int, bytes]:
        """Send a request by hand: the status and the body."""
        connection: Any = Raw()
        self.protocols.append(connection)
        await connectProtocol(client, connection)
        connection.transport.write(request)
        await until(lambda: connection.lost)
        head, _, body = connection.received.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body


class ServerTests(SocketsTestCase):
    """Asterisk connects to the application's own port."""

    async def test_call(self) -> None:
        """A call in each form, ended by each side."""
        client = await self.listen(self.media_factory())
        for form, end in ((ControlForm.PLAIN, self.app_hangs_up), (ControlForm.JSON, self.caller_hangs_up)):
            asterisk = KeptClient(form=form)
            sink = await self.dial(client, asterisk)
            await self.converse(asterisk, sink)
            await end(asterisk, sink)

    async def test_many(self) -> None:
        """Calls at the same time do not hear one another."""
        client = await self.listen(self.media_factory())
        calls = []
        for _ in range(10):
            asterisk = KeptClient()
            calls.append((asterisk, await self.dial(client, asterisk)))
        await gatherResults([Deferred.fromCoroutine(self.converse(*call)) for call in calls])
        for asterisk, _ in calls:
            asterisk.hang_up()
        await until(lambda: not any(map(is_open, self.protocols)))
        self.assertEqual([sink.ended for _, sink in calls], [[(EndReason.CALLER_HANGUP, "")]] * 10)

    async def test_cut_off(self) -> None:
        """Both ends get notice of a broken connection."""
        client = await self.listen(self.media_factory())
        asterisk = KeptClient()
        sink = await self.dial(client, asterisk)
        asterisk.transport.abortConnection()
        await until(lambda: sink.ended and asterisk.lost)
        self.assertEqual([end for end, _ in sink.ended], [EndReason.CONNECTION_LOST])
        self.assertEqual(len(asterisk.problems), 1)

    async def test_refused(self) -> None:
        """A handshake without a key is answered with 401 and no body, and closed."""
        client = await self.listen(self.media_factory())
        self.assertEqual(await self.ask(client, handshake(PATH)), (401, b""))
        self.assertEqual(self.reception.claims, [])


class TlsServerTests(ServerTests):
    """The same over TLS, with a certificate that is checked."""

    secure = True


class ClientTests(SocketsTestCase):
    """The application connects to a channel that waits in Asterisk."""

    async def test_call(self) -> None:
        """A call in each form, ended by each side."""
        for form, end in ((ControlForm.PLAIN, self.app_hangs_up), (ControlForm.JSON, self.caller_hangs_up)):
            asterisk = KeptServer(form=form)
            client = await self.listen(self.keep(AsteriskServerFactory(asterisk, reactor)))
            context = CallContext(context_id=CALL, assistant_id="1", created_at=0.0, expires_at=300.0)
            factory = MediaClientFactory("ws://127.0.0.1/media/1", self.reception, reactor, context)
            self.reception.sinks.clear()
            await client.connect(self.keep(factory))
            await until(lambda: self.reception.sinks)
            sink = self.reception.sink
            assert isinstance(sink, PausedSink)
            await self.converse(asterisk, sink)
            await end(asterisk, sink)


class TlsClientTests(ClientTests):
    """The same over TLS."""

    secure = True


class SiteTests(SocketsTestCase):
    """WebSockets on the HTTP port."""

    async def setup_site(self) -> IStreamClientEndpoint:
        """A Site with all that the server has."""
        return await self.listen(self.site())

    async def test_call(self) -> None:
        """A call with each shape of the address, ended by each side."""
        client = await self.setup_site()
        for path, end in (
            (PATH, self.app_hangs_up),
            (f"/v1/talk/asterisk/ctx?contextId={CALL}", self.caller_hangs_up),
        ):
            asterisk = KeptClient()
            sink = await self.dial(client, asterisk, path)
            await self.converse(asterisk, sink)
            await end(asterisk, sink)
        self.assertEqual([claim[0] for claim in self.reception.claims], [CALL, CALL])

    async def test_longer_than_a_request(self) -> None:
        """A call that is silent for 3 s outlives the second that a request may take; pages beside it still come."""
        client = await self.setup_site()
        asterisk = KeptClient()
        sink = await self.dial(client, asterisk)
        for _ in range(3):
            await deferLater(reactor, 0.5)
            status, body = await self.ask(client, page("/healthz"))
            self.assertEqual((status, bool(body)), (200, True))
            await deferLater(reactor, 0.5)
        self.assertEqual((sink.ended, asterisk.problems), ([], []))
        await self.converse(asterisk, sink)
        await self.caller_hangs_up(asterisk, sink)

    async def test_page_beside_it(self) -> None:
        """While a call is up, calls are registered on the same port."""
        client = await self.setup_site()
        asterisk = KeptClient()
        sink = await self.dial(client, asterisk)
        status, body = await self.ask(client, page(f"/v1/talk/asterisk/call/1?x-api-key={KEY}"))
        self.assertEqual((status, len(body)), (200, 36))
        await self.app_hangs_up(asterisk, sink)

    async def test_refused(self) -> None:
        """Handshakes are refused with their status and no body: 401, 400, 426, 404."""
        client = await self.setup_site()
        basic = {"Authorization": "Basic " + b64encode(f"rapida:{KEY}".encode()).decode()}
        for request, status in (
            (handshake(PATH), 401),
            (handshake(PATH + "?x-api-key=wrong"), 401),
            (handshake(PATH, headers=basic, subprotocol=None), 400),
            (handshake("/v1/talk/asterisk/ctx", headers=basic), 400),
            (handshake(PATH, headers=basic, upgrade=False), 426),
            (handshake(PATH + "/more", headers=basic | {"Connection": "Upgrade, close"}), 404),
        ):
            self.assertEqual((await self.ask(client, request)), (status, b""), request)
        self.assertEqual(self.reception.claims, [])


class TlsSiteTests(SiteTests):
    """The same over TLS: wss and https on one port."""

    secure = True


class SlowTests(SocketsTestCase):
    """Asterisk does not read."""

    make_sink = PausedSink

    async def test_given_up(self) -> None:
        """The call pauses when the sockets are full, and is given up when nothing is taken; memory stays bounded."""
        self.patch(websocket, "STALLED_S", 0.3)
        client = await self.listen(self.media_factory())
        asterisk = KeptClient()
        sink = await self.dial(client, asterisk)
        asterisk.transport.pauseProducing()
        app: Any = sink.channel
        messages, most_waiting = 0, 0
        while not sink.ended:
            app.send_audio(bytes(16_000))
            messages += 1
            most_waiting = max(most_waiting, waiting_bytes(app.transport))
            await deferLater(reactor, 0.001)
        self.assertEqual((sink.ended[0][0], sink.pauses[0], sink.pauses[-1]), (EndReason.PEER_STALLED, True, True))
        self.assertTrue(0 < app.writer.dropped < messages)
        self.assertTrue(most_waiting < 200_000, most_waiting)
        asterisk.transport.abortConnection()
        await until(lambda: not any(map(is_open, self.protocols)))
        self.assertEqual(len(sink.ended), 1)

    async def test_late_reader(self) -> None:
        """When Asterisk reads again every command is there, and the audio that was sent, whole and in its order."""
        client = await self.listen(self.media_factory())
        asterisk = KeptClient()
        sink = await self.dial(client, asterisk)
        heard: list[bytes] = []
        self.patch(asterisk.queue, "audio", heard.append)
        asterisk.transport.pauseProducing()
        app: Any = sink.channel
        sent: list[bytes] = []
        marks = 0
        while len(sink.pauses) < 1 or marks % 100:
            frame = len(sent).to_bytes(4, "big") * 4000
            dropped = app.writer.dropped
            app.send_audio(frame)
            if app.writer.dropped == dropped:
                sent.append(frame)
            app.mark(lambda: None)
            marks += 1
        asterisk.transport.resumeProducing()
        await until(lambda: len(asterisk.told) > marks and sink.pauses[-1] is False)
        app.send_audio(b"last" * 40)
        await until(lambda: heard and heard[-1] == b"last" * 40)
        self.assertTrue(app.writer.dropped > 0)
        self.assertEqual(heard[:-1], sent)
        names = [told.correlation_id for told in asterisk.told if isinstance(told, MarkMedia)]
        self.assertEqual(names, [str(number + 1) for number in range(marks)])
        await self.caller_hangs_up(asterisk, sink)


class TlsSlowTests(SlowTests):
    """The same over TLS, where Twisted's own buffer is used."""

    secure = True


def is_open(protocol: Any) -> bool:
    """Whether a protocol's connection is not closed yet."""
    transport = protocol.transport
    return transport is not None and bool(transport.connected)


def waiting_bytes(transport: Any) -> int:
    """What waits in this process to be sent."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return sum(map(len, transport._tempDataBuffer)) + len(transport.dataBuffer) - transport.offset


def page(path: str) -> bytes:
    """A request for a page, after which the connection is closed."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
