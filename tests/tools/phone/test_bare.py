"""Calls to programs that have no registration."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from rapida_twisted.context import CallContext
from rapida_twisted.protocols.chan_websocket_app import MediaServerFactory
from tests.tools.echo_server import ASSISTANT_ID, EchoServer
from tests.tools.phone.test_main import OptionsTestCase, PhoneTestCase

CALL = "5e4bd5f6-3f84-4f1c-8a80-6a7a5b1e9d10"


class Program(EchoServer):
    """An echo that takes any UUID, and remembers it."""

    def claim(self, context_id: str, transport: str, peer: str) -> Deferred[CallContext]:
        self.claimed = context_id
        return succeed(CallContext(context_id=context_id, assistant_id=ASSISTANT_ID, created_at=0, expires_at=0))


class BareTests(PhoneTestCase):
    """There is no HTTP server, no API key and no record."""

    def setUp(self) -> None:
        super().setUp()
        del os.environ["RAPIDA_API_KEY"]
        os.environ["STATE_DIR"] = "/nonexistent"
        self.patch(self.server, "claim", Program.claim.__get__(self.server))

    async def test_audiosocket(self) -> None:
        """The program gets the UUID that is named, or a random one."""
        for words in (("--bare-uuid", CALL), ("--bare-uuid",)):
            report = await self.call(*words, "--http", "http://127.0.0.1:9", "--duration", "0.4", "--tolerate", "50")
            self.assertEqual((report.problem, report.record), ("", None))
            self.assertEqual(self.server.claimed, report.context_id)
            self.assertEqual(report.context_id == CALL, CALL in words)
            self.assertEqual(UUID(report.context_id).version, 4)
        self.assertEqual(self.server.requests, [])

    async def test_websocket(self) -> None:
        """Over WebSocket the query has the UUID and the numbers, beside what was in it."""
        seen: list[Any] = []
        factory = MediaServerFactory(self.server, reactor, seen.append)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"ws://127.0.0.1:{port.getHost().port}/ctx?token=1"
        report = await self.call(
            "--bare-uuid", CALL, "--websocket", url, "--from", "+49 30", "--to", "7", "--codec", "slin",
            "--duration", "0.4",
        )  # fmt: skip
        await deferLater(reactor, 0.05)
        self.assertEqual(self.server.claimed, CALL)
        (request,) = seen
        wanted = {"token": ["1"], "contextId": [CALL], "from": ["+49 30"], "to": ["7"]}
        self.assertEqual(request.params, wanted)
        self.assertNotIn("x-api-key", request.headers)
        self.assertEqual((report.problem, report.context_id), ("", CALL))

    async def test_closed_without_hangup(self) -> None:
        """A program that just closes looks like one that was killed."""
        reactor.callLater(0.4, lambda: self.server.calls[0]._channel.transport.loseConnection())
        report = await self.call("--bare-uuid")
        self.assertEqual(report.problem, "the connection was lost: the server closed it without a hangup frame")


class RefusalTests(OptionsTestCase):
    def test_combinations(self) -> None:
        """Options that do not go together are refused."""
        self.assertIn("--bare-uuid", self.refusal("--websocket", "ws://127.0.0.1:1/"))
        self.assertIn("--websocket", self.refusal("--bare-uuid", "--transport", "websocket"))
        self.assertIn("--calls", self.refusal("--bare-uuid", CALL, "--calls", "2"))
        self.assertIn("--bare-uuid", self.refusal("--bare-uuid", "7"))
        self.assertIn("--websocket", self.refusal("--bare-uuid", "--websocket", "http://127.0.0.1:1/"))
        self.assertIn("--tolerate", self.refusal("--tolerate", "101"))
        self.assertNotIn("secret", self.refusal("--key", "secret"))
