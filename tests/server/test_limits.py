"""The limits of connections in the whole server, from its settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import TestCase

from rapida_twisted.credentials.key_ring import KeyRing, Scope
from rapida_twisted.ports.server_ports import HTTP
from rapida_twisted.server import lifecycle
from rapida_twisted.server.build import RapidaMedia
from rapida_twisted.settings import Settings
from tests.media.fakes import KeptLog
from tests.ports.test_server_ports import FRAME, Caller, v1, v2
from tests.protocols.fakes import warnings_of
from tests.protocols.test_audiosocket_sockets import until
from tests.protocols.websockets import handshake

KEY = "rpd-of-the-doors"
PROXY = "haproxy:tcp:0:interface=127.0.0.1"


class ServiceTests(TestCase):
    """A server, and connections to it."""

    def start(self, **words: str) -> None:
        """Start a server with these settings, by their names in the environment."""
        common = {
            "STATE_DIR": str(Path(self.mktemp()).absolute()), "STORE__URL": "memory:", "HTTP__PORT": "0",
            "AUDIOSOCKET__PORT": "0", "ADMIN__PORT": "0", "RAPIDA_API_KEY": KEY, "ASSISTANT": "*=echo", "DRAIN_S": "0",
            "PROXY__ALLOW": "127.0.0.1/32",
        }  # fmt: skip
        self.service = RapidaMedia(Settings.from_mapping(common | words), reactor=reactor)
        self.service.startService()
        self.addCleanup(self.service.stopService)
        self.counts = self.service.components.rejections.counts

    async def connect(self, port: int, first: bytes, address: str = "127.0.0.1") -> Caller:
        """Connect from an address, and say something."""
        caller = Caller(first)
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port, bindAddress=(address, 0)), caller)
        self.addCleanup(lambda: None if caller.lost else caller.transport.abortConnection())
        return caller

    async def ask(self, target: str, header: bytes = b"") -> str:
        """The answer to a GET, or nothing where the connection was closed without one."""
        request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-api-key: {KEY}\r\n\r\n".encode()
        caller = await self.connect(self.service.http_port, header + request)
        await until(lambda: caller.lost)
        return caller.received.decode()

    async def register(self, header: bytes = b"") -> UUID:
        """Register a call."""
        answer = await self.ask("/v1/talk/asterisk/call/1?from=100", header)
        self.assertIn(" 200 ", answer)
        return UUID(answer.rpartition("\r\n\r\n")[2])

    def limiter(self, what: str) -> Any:
        """The limiter of a port."""
        return self.service.components.ports._ports[what].limiter

    async def test_same_network(self) -> None:
        """With CLAIM__SAME_NETWORK media of another network is refused, and the call waits on for its own."""
        self.start(CLAIM__SAME_NETWORK="true")
        first = b"\x01\x00\x10" + (await self.register()).bytes + FRAME
        port = self.service.audiosocket_port
        stranger = await self.connect(port, first, "127.0.1.1")
        await until(lambda: stranger.lost or stranger.received == b"\0\0\0")
        self.assertEqual(self.counts["audiosocket.call_unknown"], 1)
        caller = await self.connect(port, first, "127.0.0.9")
        await until(lambda: FRAME in caller.received)

    async def test_recordings_are_deleted(self) -> None:
        """Those that are older than RECORDINGS__KEEP_S are deleted soon after the start."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        old, new = (folder / f"{UUID(int=number)}.wav" for number in (1, 2))
        for path in (old, new):
            path.write_bytes(bytes(44))
        os.utime(old, (1, 1))
        self.start(RECORDINGS__KEEP_S="3600", RECORDINGS__DIR=str(folder))
        await until(lambda: not old.exists())
        self.assertTrue(new.exists())

    async def test_audiosocket_allow(self) -> None:
        """Only an Asterisk in the named network may connect a call; a rejected connection leaves the call waiting."""
        self.start(AUDIOSOCKET__ALLOW="198.51.100.0/24,2001:db8::/32", AUDIOSOCKET__ENDPOINT=PROXY)
        call = await self.register()
        uuid = b"\x01\x00\x10" + call.bytes
        stranger = await self.connect(self.service.audiosocket_port, v1("203.0.113.1") + uuid + FRAME)
        await until(lambda: stranger.lost)
        self.assertEqual((stranger.received, self.counts["audiosocket.not_allowed"]), (b"", 1))
        asterisk = await self.connect(self.service.audiosocket_port, v2("198.51.100.7") + uuid + FRAME)
        await until(lambda: len(asterisk.received) >= len(FRAME))
        self.assertIn("198.51.100.7:40312", await self.ask(f"/v1/calls/{call}"))

    async def test_websocket_behind_a_proxy(self) -> None:
        """A call's WebSocket takes no place of an HTTP connection, nor gives one back at its end."""
        self.start(HTTP__ENDPOINT=PROXY, CONNECTIONS__OF_ADDRESS="1")
        call = await self.register(v1())
        upgrade = handshake(f"/v1/talk/asterisk/ctx/{call}?x-api-key={KEY}")
        media = await self.connect(self.service.http_port, v1() + upgrade)
        await until(lambda: b"\r\n\r\n" in media.received)
        self.assertIn(b" 101 ", media.received)
        self.assertIn(" 200 ", await self.ask("/healthz", v2()))
        await self._ends_apart(media)

    async def test_websocket(self) -> None:
        """The same without a proxy."""
        self.start(CONNECTIONS__OF_ADDRESS="1")
        call = await self.register()
        upgrade = handshake(f"/v1/talk/asterisk/ctx/{call}?x-api-key={KEY}")
        media = await self.connect(self.service.http_port, upgrade)
        await until(lambda: b"\r\n\r\n" in media.received)
        self.assertIn(b" 101 ", media.received)
        self.assertIn(" 200 ", await self.ask("/healthz"))
        await self._ends_apart(media)

    async def _ends_apart(self, media: Any) -> None:
        limiter = self.limiter(HTTP)
        await until(lambda: limiter.connections == 0)
        self.assertEqual(limiter.apart, 1)
        media.transport.abortConnection()
        await until(lambda: limiter.apart == 0)
        self.assertEqual((limiter.connections, limiter._per_address), (0, {}))

    async def test_no_proxy_header(self) -> None:
        """HTTP without the header is closed without an answer."""
        self.start(HTTP__ENDPOINT=PROXY)
        self.assertEqual(await self.ask("/healthz"), "")
        self.assertEqual(self.counts["http.no_proxy_header"], 1)

    async def test_calls_of_a_key(self) -> None:
        """One call too many for its key is refused and counted, with the calls in SQLite, too."""
        self.start(STORE__URL="sqlite:")
        ring = KeyRing(self.service.settings.process.state_dir / "keys.json")
        key = ring.make("office", [Scope.REGISTER], now=0.0, max_calls=1)
        target = f"/v1/talk/asterisk/call/1?from=100&x-api-key={key}"
        self.assertIn(" 200 ", await self.ask(target))
        self.assertIn(" 429 ", await self.ask(target))
        self.assertEqual(self.counts["key.too_many_calls"], 1)

    def test_limits_that_do_not_fit(self) -> None:
        """More calls than connections: the log says that these stand in their way."""
        log = KeptLog(self)
        self.start(MAX_CALLS="3000")
        self.assertEqual(len(warnings_of(log)), 1)
        self.assertIn("MAX_CALLS is 3000", warnings_of(log)[0])
        self.start(MAX_CALLS="2500")
        self.assertEqual(len(warnings_of(log)), 1)

    async def test_idle(self) -> None:
        """A caller who sends no audio loses the call, and the record says why."""
        self.patch(lifecycle, "HOUSEKEEPING_S", 0.05)
        self.start(IDLE_S="0.3")
        call = await self.register()
        asterisk = await self.connect(self.service.audiosocket_port, b"\x01\x00\x10" + call.bytes + FRAME)
        await until(lambda: asterisk.received.endswith(b"\x00\x00\x00") and self.counts["call.idle"])
        record = await self.ask(f"/v1/calls/{call}")
        self.assertIn("peer_stalled", record)
        self.assertIn("the caller sent no audio for 0.3 s", record)

    async def test_settings(self) -> None:
        """Every limit is as its setting says."""
        self.start(
            AUDIOSOCKET__UUID_S="0.1", HTTP__BODY_BYTES="1024", HTTP__REQUEST_S="1", WEBSOCKET__MESSAGE_BYTES="1024",
            CONNECTIONS__MAX="3",
        )  # fmt: skip
        silent = await self.connect(self.service.audiosocket_port, b"")
        await until(lambda: silent.lost)
        self.assertEqual(self.counts["audiosocket.uuid_overdue"], 1)

        post = b"POST /v1/talk/asterisk/call/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\n\r\n"
        long = await self.connect(self.service.http_port, post)
        await until(lambda: long.lost)
        self.assertIn(b" 413 ", long.received)

        call = await self.register()
        upgrade = handshake(f"/v1/talk/asterisk/ctx/{call}?x-api-key={KEY}")
        too_long = b"\x82\xfe\x04\x01\x00\x00\x00\x00" + bytes(1025)
        media = await self.connect(self.service.http_port, upgrade)
        await until(lambda: b"\r\n\r\n" in media.received)
        media.transport.write(too_long)  # type: ignore[union-attr]
        await until(lambda: media.lost)
        self.assertEqual(self.counts["websocket.too_long"], 1)

        half = await self.connect(self.service.http_port, b"GET / HT")
        await until(lambda: half.lost)
        self.assertEqual(self.counts["http.overdue"], 1)

        await until(lambda: self.limiter(HTTP).connections == 0)
        idle = [await self.connect(self.service.http_port, b"") for _ in range(4)]
        await until(lambda: idle[0].lost)
        self.assertEqual(self.counts["http.too_many"], 1)
        self.assertFalse(any(caller.lost for caller in idle[1:]))
