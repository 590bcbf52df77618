"""The far end over a WebSocket: on real sockets, with and without TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import deferLater

from benchmarks.harness.authority import Authority
from rapida_twisted.audio.formats import ULAW
from rapida_twisted.bridge.far_end_websocket import connect_websocket
from rapida_twisted.net.tls import tls_options
from rapida_twisted.protocols.control_budget import BURST
from rapida_twisted.wire.chan_websocket import ControlForm
from tests.bridge.far_ends import KEY, Chat, FarEndTestCase, Peer, Peers, context
from tests.protocols.websockets import CALL, until

FRAME = b"\x11" * 160
OTHER = b"\x22" * 160


class Bot(WebSocketServerProtocol):
    """A program that speaks chan_websocket, by hand."""

    subprotocol: str | None = "media"
    deny: tuple[int, str] | None = None
    lost = False

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.audio: list[bytes] = []
        self.path = ""
        self.closes: list[tuple[bool, int | None]] = []

    def onConnect(self, request: ConnectionRequest) -> str | None:
        """Let it in, or not."""
        self.path = f"{request.path}?{self.http_request_uri.partition('?')[2]}"
        if self.deny:
            raise ConnectionDeny(*self.deny)
        return self.subprotocol

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        """Keep it."""
        if isBinary:
            self.audio.append(payload)
        else:
            self.texts.append(payload.decode())

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N803
        """Keep it."""
        self.closes.append((wasClean, code))

    def connectionLost(self, reason: Any = None) -> None:
        """Note it."""
        self.lost = True
        super().connectionLost(reason)

    def say(self, text: str) -> None:
        """A command."""
        self.sendMessage(text.encode())

    def play(self, *frames: bytes) -> None:
        """Audio, a message for each."""
        for frame in frames:
            self.sendMessage(frame, isBinary=True)


class Bots(WebSocketServerFactory):
    """Keeps the bots that it makes."""

    noisy = False

    def __init__(self, make: type[Bot] = Bot) -> None:
        super().__init__(protocols=["media"], reactor=reactor)
        self._make = make
        self.made: list[Any] = []

    def buildProtocol(self, addr: Any) -> Bot:
        """One more."""
        bot = self._make()
        bot.factory = self
        self.made.append(bot)
        return bot


class WebSocketFarEndTestCase(FarEndTestCase):
    """A user at a program."""

    form = ControlForm.PLAIN

    stalled_s = 20.0

    def connecting(self, port: int, timeout_s: float = 3.0, scheme: str = "ws", tls: Any = None) -> Any:
        """Begin to connect."""
        return connect_websocket(
            f"{scheme}://127.0.0.1:{port}/v1/talk/asterisk/ctx/{CALL}?x-api-key={KEY}",
            user=self.user, format=ULAW, form=self.form, context=context(variables={"ACCOUNT": "7"}),
            headers={}, tls_options=tls, reactor=reactor, timeout_s=timeout_s, stalled_s=self.stalled_s,
        )  # fmt: skip

    async def connect(self, make: type[Bot] = Bot, tls: Any = None, **words: Any) -> Any:
        """Connect to such a program."""
        bots = Bots(make)
        far_end: Any = await self.connecting(self.listen(bots, tls), **words)
        self.addCleanup(far_end.abort)
        (self.bot,) = bots.made
        return far_end

    async def told(self) -> list[str]:
        """The user's events, once there are any."""
        await until(lambda: self.user.told, 8)
        return self.user.told


class UpTests(WebSocketFarEndTestCase):
    """A call that is up."""

    async def test_both_ways(self) -> None:
        """MEDIA_START goes first, as Asterisk's; audio as it comes; what the program plays is taken frame by frame."""
        far_end = await self.connect()
        self.assertEqual(self.bot.path, f"/v1/talk/asterisk/ctx/{CALL}?x-api-key={KEY}")
        self.assertTrue(far_end.send_audio(FRAME))
        far_end.send_digit("5")
        await until(lambda: len(self.bot.texts) == 2 and self.bot.audio)
        start, digit = self.bot.texts
        words = start.split()
        self.assertEqual(words[0], "MEDIA_START")
        self.assertTrue({f"channel_id:{CALL}", "format:ulaw", "optimal_frame_size:160", "ptime:20"} <= set(words))
        self.assertTrue(digit.startswith("DTMF_END ") and "digit:5" in digit.split(), digit)
        self.assertEqual(self.bot.audio, [FRAME])

        self.bot.play(FRAME + OTHER, FRAME)
        self.bot.say("MARK_MEDIA here")
        await until(lambda: far_end.queued_ms == 60)
        self.assertEqual([far_end.take() for _ in range(3)], [FRAME, OTHER, FRAME])
        await deferLater(reactor, 0.05)
        self.assertEqual(len(self.bot.texts), 2)
        self.assertIsNone(far_end.take())
        await until(lambda: len(self.bot.texts) == 3)
        self.assertIn("here", self.bot.texts[2])
        self.assertEqual((far_end.dropped_ms, far_end.shifted), (0, 0))

    async def test_sent_far_ahead(self) -> None:
        """Half a minute that is sent at once waits, with Asterisk's flow control; nothing of it is lost."""
        far_end = await self.connect()
        frames = [number.to_bytes(2, "big") * 80 for number in range(950)]
        self.bot.play(*frames)
        await until(lambda: far_end.queued_ms == 19_000)
        await until(lambda: any("MEDIA_XOFF" in text for text in self.bot.texts))
        self.assertEqual([far_end.take() for _ in range(951)], [*frames, None])
        await until(lambda: any("MEDIA_XON" in text for text in self.bot.texts))
        self.assertEqual((far_end.dropped_ms, far_end.shifted), (0, 0))

    async def test_flush(self) -> None:
        """FLUSH_MEDIA drops the queued audio, and the user gets the event."""
        far_end = await self.connect()
        self.bot.play(FRAME * 10)
        self.bot.say("FLUSH_MEDIA")
        self.bot.play(OTHER)
        await until(lambda: far_end.queued_ms == 20)
        self.assertEqual(self.user.told, ["flushed"])
        self.assertEqual([far_end.take(), far_end.take()], [OTHER, None])

    async def test_hangup_command(self) -> None:
        """HANGUP: the user gets the event once, also where it is the first message."""
        await self.connect()
        self.bot.say("HANGUP")
        self.assertEqual(await self.told(), ["hung up"])
        await until(lambda: self.bot.lost)
        self.assertEqual(self.user.told, ["hung up"])

    async def test_closes(self) -> None:
        """A program that closes in order after it had said something hung up."""
        await self.connect()
        self.bot.play(FRAME)
        self.bot.sendClose(1000)
        self.assertEqual(await self.told(), ["hung up"])
        self.assertEqual(self.user.detail, "")

    async def test_closes_with_a_reason(self) -> None:
        """The reason that it gives is kept."""
        await self.connect()
        self.bot.play(FRAME)
        self.bot.sendClose(1000, "out of\nhours")
        self.assertEqual(await self.told(), ["hung up"])
        self.assertRegex(self.user.detail, r"^the upstream 127.0.0.1:\d+ closed the call with 1000 out of\?hours$")

    async def test_closes_at_once(self) -> None:
        """One that closes at once did not want this call."""

        class Closing(Bot):
            def onOpen(self) -> None:
                self.sendClose(1000)

        await self.connect(Closing)
        self.assertEqual(await self.told(), ["refused"])
        self.assertTrue(self.user.failures[0].of_call)

    async def test_closes_later(self) -> None:
        """One that never said a word, and closes after a while, hung up."""
        far_end = await self.connect()
        far_end._opened_s -= 3
        self.bot.sendClose(1000)
        self.assertEqual(await self.told(), ["hung up"])

    async def test_closes_with_an_error(self) -> None:
        """A close with an error's code is no hang-up."""
        await self.connect()
        self.bot.play(FRAME)
        self.bot.sendClose(3000, "out of memory")
        self.assertEqual(await self.told(), ["lost"])
        self.assertIn("closed the call with 3000 out of memory", str(self.user.failures[0]))

    async def test_cut(self) -> None:
        """A connection that is cut is lost."""
        await self.connect()
        self.bot.play(FRAME)
        await deferLater(reactor, 0.05)
        self.bot.transport.abortConnection()
        self.assertEqual(await self.told(), ["lost"])

    async def test_garbage(self) -> None:
        """Frames that break the rules end the connection."""
        for garbage in (b"\xff\xff\xff\xff", b"\x83\x00", b"\x81\x02\xff\xff", b"\x82\x7f" + b"\0\0\0\0\7\0\0\0"):
            await self.connect()
            self.bot.transport.write(garbage)
            self.assertEqual(await self.told(), ["malformed"], garbage)
            await until(lambda: self.bot.lost)
            self.user.told.clear()

    async def test_our_hangup(self) -> None:
        """We hang up with a close, as Asterisk does, and get no event of it."""
        far_end = await self.connect()
        far_end.hang_up()
        await until(lambda: self.bot.lost)
        self.assertEqual(self.bot.closes, [(True, 1000)])
        self.assertFalse(far_end.send_audio(FRAME))
        far_end.send_digit("1")
        self.assertIsNone(far_end.take())
        self.assertEqual(self.user.told, [])

    async def test_abort(self) -> None:
        """Nor of an abort."""
        far_end = await self.connect()
        far_end.abort()
        await until(lambda: self.bot.lost)
        self.assertEqual(self.user.told, [])

    async def test_stops_reading(self) -> None:
        """What a program does not read is dropped, with bounded memory; after the time limit it is given up."""
        time_s = 0.0
        far_end = await self.connect()
        far_end._now = lambda: time_s
        self.bot.transport.pauseProducing()
        sent = 0
        while far_end.send_audio(bytes(60_000)):
            sent += 1
            self.assertLess(sent, 1000)
        time_s = self.stalled_s + 0.1
        self.assertFalse(far_end.send_audio(FRAME))
        self.assertEqual(await self.told(), ["stalled"])

    async def test_goes_silent(self) -> None:
        """A program that is gone without a word is noticed by its missing pongs."""
        self.stalled_s = 0.2
        await self.connect()
        self.bot.transport.pauseProducing()
        self.assertEqual(await self.told(), ["stalled"])
        self.assertIn("answered no ping for 0.2 s", str(self.user.failures[0]))

    async def test_stands_still(self) -> None:
        """A program that stands still for less than the time limit keeps its call."""
        self.stalled_s = 5.0
        far_end = await self.connect()
        self.bot.transport.pauseProducing()
        for _ in range(35):
            far_end.send_audio(FRAME)
            await deferLater(reactor, 0.06)
        self.bot.transport.resumeProducing()
        self.bot.play(FRAME)
        await until(lambda: far_end.take() == FRAME)
        await until(lambda: len(self.bot.audio) == 35)
        self.assertEqual(self.user.told, [])

    async def test_flood_of_commands(self) -> None:
        """A program that asks for its status without reading the answers costs its connection, not our memory."""
        await self.connect()
        self.bot.transport.pauseProducing()
        for _ in range(40):
            for _ in range(1000):
                if not self.bot.lost:
                    self.bot.say("GET_STATUS")
            await deferLater(reactor, 0)
        self.assertEqual(await self.told(), ["malformed"])


    async def test_marks_between_audio(self) -> None:
        """A program that sends marks and audio in turn without end has broken the protocol."""
        await self.connect()
        for _ in range(BURST + 50):
            self.bot.say("MARK_MEDIA x")
            self.bot.play(FRAME)
        self.assertEqual(await self.told(), ["malformed"])


class JsonTests(WebSocketFarEndTestCase):
    """The JSON control form."""

    form = ControlForm.JSON

    async def test_variables(self) -> None:
        """MEDIA_START tells the call's variables, and which call it is."""
        await self.connect()
        await until(lambda: self.bot.texts)
        start = json.loads(self.bot.texts[0])
        self.assertEqual(
            start["channel_variables"],
            {"ACCOUNT": "7", "RAPIDA_CONTEXT_ID": CALL, "RAPIDA_FROM": "+4930", "RAPIDA_TO": "100"},
        )
        self.bot.say('{"command": "HANGUP"}')
        self.assertEqual(await self.told(), ["hung up"])


class RefusedTests(WebSocketFarEndTestCase):
    """Connections that don't come up: each says why, and the key is in no text."""

    async def refused(self, make: type[Bot]) -> Any:
        """What such a program's connection fails with."""
        return await self.failure(self.connecting(self.listen(Bots(make))))

    async def answered(self, greeting: bytes, timeout_s: float = 3.0) -> Any:
        """The failure for a server that gives this answer to every request."""
        return await self.failure(self.connecting(self.listen(Peers(lambda: Peer(greeting))), timeout_s))

    async def test_statuses(self) -> None:
        """The failure has the status and its reason; 404 and 409 concern this call only."""
        for status, of_call in ((401, False), (404, True), (409, True), (429, False), (500, False), (503, False)):
            bot = type("Denying", (Bot,), {"deny": (status, "because")})
            failure = await self.refused(bot)
            self.assertEqual((failure.word, failure.status, failure.of_call), ("refused", status, of_call))
            self.assertIn(f"{status} because", str(failure))

    async def test_redirect(self) -> None:
        """A redirect is not followed."""
        failure = await self.answered(b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\n\r\n")
        self.assertEqual((failure.word, failure.status), ("refused", 302))

    async def test_subprotocol(self) -> None:
        """A program that names another subprotocol is refused; one that names none is accepted, as by Asterisk."""
        failure = await self.failure(self.connecting(self.listen(Peers(Chat))))
        self.assertEqual(failure.word, "malformed")
        self.assertIn("does not speak the subprotocol 'media'", str(failure))
        far_end = await self.connect(type("Plain", (Bot,), {"subprotocol": None}))
        self.bot.play(FRAME)
        await until(lambda: far_end.take() == FRAME)

    async def test_no_http(self) -> None:
        """Nor is another protocol."""
        for greeting in (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"\x10\x01\x40" + bytes(400) + b"\r\n\r\n"):
            self.assertEqual((await self.answered(greeting)).word, "malformed", greeting)

    async def test_wrong_key_of_the_handshake(self) -> None:
        """An answer that does not fit the question is malformed."""
        greeting = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: media\r\nSec-WebSocket-Accept: AAAA\r\n\r\n"
        )
        self.assertEqual((await self.answered(greeting)).word, "malformed")

    async def test_endless_head(self) -> None:
        """A head that never ends is given up in time."""
        failure = await self.answered(b"HTTP/1.1 101 Switching\r\nA: " + b"a" * 100_000, timeout_s=0.3)
        self.assertEqual(failure.word, "timeout")

    async def test_hangs(self) -> None:
        """So is a handshake that is never answered; the connection is closed then."""
        peers = Peers(Peer)
        failure = await self.failure(self.connecting(self.listen(peers), 0.2))
        self.assertEqual(failure.word, "timeout")
        await until(lambda: peers.made[0].lost)

    async def test_cancelled(self) -> None:
        """A caller who hangs up meanwhile ends the connection without a failure."""
        peers = Peers(Peer)
        connecting = Deferred.fromCoroutine(self.connecting(self.listen(peers)))
        await until(lambda: peers.made and peers.made[0].received)
        connecting.cancel()
        with self.assertRaises(CancelledError):
            await connecting
        await until(lambda: peers.made[0].lost)
        self.assertEqual(self.user.told, [])

    async def test_closes_in_the_handshake(self) -> None:
        """One that closes without an answer is lost."""

        class Closing(Peer):
            def connectionMade(self) -> None:
                self.transport.loseConnection()

        failure = await self.failure(self.connecting(self.listen(Peers(Closing))))
        self.assertEqual(failure.word, "lost")

    async def test_nobody_listens(self) -> None:
        """A refused connection is unreachable."""
        port: Any = reactor.listenTCP(0, Bots(), interface="127.0.0.1")  # type: ignore[attr-defined]
        number = port.getHost().port
        await port.stopListening()
        self.assertEqual((await self.failure(self.connecting(number))).word, "unreachable")


class TlsTests(WebSocketFarEndTestCase):
    """wss: verified, always."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority(Path(self.mktemp()))
        self.authority.certify("127.0.0.1")
        self.server = DefaultOpenSSLContextFactory(str(self.authority.key), str(self.authority.certificate))

    def trust(self, host: str = "127.0.0.1") -> Any:
        """How we verify."""
        return tls_options(host, str(self.authority.authority))

    async def test_up(self) -> None:
        """A program with a certificate of the CA that is named gets the call; audio goes both ways."""
        bots = Bots()
        port = self.listen(bots, self.server)
        far_end = await self.connecting(port, scheme="wss", tls=self.trust())
        self.addCleanup(far_end.abort)
        self.assertTrue(far_end.send_audio(FRAME))
        (bot,) = bots.made
        await until(lambda: bot.audio == [FRAME])
        bot.play(OTHER)
        await until(lambda: far_end.queued_ms == 20)
        self.assertEqual(far_end.take(), OTHER)
        far_end.hang_up()
        await until(lambda: bot.lost)

    async def test_unknown_authority(self) -> None:
        """One of another CA does not, and the text says what can be done."""
        port = self.listen(Bots(), self.server)
        failure = await self.failure(self.connecting(port, scheme="wss", tls=tls_options("127.0.0.1")))
        self.assertEqual(failure.word, "tls")
        self.assertIn("TLS__CA_FILE", str(failure))

    async def test_another_name(self) -> None:
        """Nor does one with a certificate for another name."""
        port = self.listen(Bots(), self.server)
        failure = await self.failure(self.connecting(port, scheme="wss", tls=self.trust("127.0.0.2")))
        self.assertEqual(failure.word, "tls")

    async def test_no_tls_there(self) -> None:
        """Nor does one without TLS."""
        plain = self.listen(Peers(lambda: Peer(b"HTTP/1.1 400 Bad Request\r\n\r\n")))
        failure = await self.failure(self.connecting(plain, scheme="wss", tls=self.trust()))
        self.assertEqual(failure.word, "tls")

    async def test_tls_handshake_hangs(self) -> None:
        """A TLS handshake that is never answered is given up in time."""
        failure = await self.failure(self.connecting(self.listen(Peers(Peer)), 0.2, "wss", self.trust()))
        self.assertEqual(failure.word, "timeout")
