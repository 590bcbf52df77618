"""For the tests of both far ends: a user that records its events, and scripted servers."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha1
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from rapida_twisted.context import CallContext
from rapida_twisted.errors import UpstreamFailed
from rapida_twisted.interfaces import IFarEndUser
from tests.media.fakes import KeptLog
from tests.protocols.websockets import CALL, until

KEY = "rpd-secret-0815"


@implementer(IFarEndUser)
class KeptUser:
    """Records its events."""

    def __init__(self) -> None:
        self.told: list[str] = []
        """``"flushed"``, ``"hung up"``, or the word of a failure."""
        self.failures: list[UpstreamFailed] = []
        self.detail = ""

    def far_end_flushed(self) -> None:
        """Keep it."""
        self.told.append("flushed")

    def far_end_hung_up(self, detail: str) -> None:
        """Keep it."""
        self.told.append("hung up")
        self.detail = detail

    def far_end_failed(self, failure: UpstreamFailed) -> None:
        """Keep it."""
        self.told.append(failure.word)
        self.failures.append(failure)


class Peer(Protocol):
    """A server's connection by hand."""

    def __init__(self, greeting: bytes = b"", reads: bool = True) -> None:
        self.greeting = greeting
        self.reads = reads
        self.received = b""
        self.lost = False

    def connectionMade(self) -> None:
        """Say what it says first."""
        if not self.reads:
            self.transport.pauseProducing()
        self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note it."""
        self.lost = True


class Chat(Peer):
    """Answers a handshake with the subprotocol chat, as Autobahn's own server would not."""

    def dataReceived(self, data: bytes) -> None:
        """Answer."""
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", data)
        if key is not None:
            digest = sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: " + b64encode(digest) + b"\r\n\r\n"
            )


class Peers(Factory):
    """Makes the given protocols, and keeps them."""

    noisy = False

    def __init__(self, make: Any) -> None:
        self._make = make
        self.made: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        """One more."""
        protocol = self._make()
        protocol.factory = self
        self.made.append(protocol)
        return protocol


class FarEndTestCase(TestCase):
    """A user of far ends at servers on loopback. Each test leaves nothing open, and no key in the log."""

    timeout = 20

    def setUp(self) -> None:
        """Nothing is open yet."""
        self.log = KeptLog(self)
        self.user = KeptUser()
        self.time_s: float | None = None
        self.addCleanup(self.assert_no_key)

    def assert_no_key(self) -> None:
        """The key is in no line of the log, and in no failure."""
        for event in self.log.events:
            self.assertNotIn(KEY, f"{formatEvent(event)} {event.get('log_format')} {event.get('log_failure')}")
        for failure in self.user.failures:
            self.assertNotIn(KEY, f"{failure} {failure!r}")

    def listen(self, factory: Any, tls: Any = None) -> int:
        """Serve on loopback; gives the port."""
        from_reactor: Any = reactor
        if tls is None:
            port = from_reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            port = from_reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
        self.addCleanup(lambda: Deferred.fromCoroutine(self.all_gone(factory)))
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def all_gone(self, factory: Any) -> None:
        """Cut what is left."""
        for protocol in getattr(factory, "made", []):
            if protocol.transport is not None and not getattr(protocol, "lost", False):
                protocol.transport.abortConnection()
        await until(lambda: all(getattr(protocol, "lost", True) for protocol in getattr(factory, "made", [])))

    async def failure(self, connecting: Any) -> UpstreamFailed:
        """The failure of a connection that does not come up; the user gets no event."""
        with self.assertRaises(UpstreamFailed) as caught:
            await connecting
        self.assertEqual(self.user.told, [])
        failure = caught.exception
        self.assertIsNone(failure.__cause__)
        self.assertTrue(failure.__suppress_context__ or failure.__context__ is None)
        self.assertNotIn(KEY, f"{failure} {failure!r}")
        self.assertIn("127.0.0.1:", str(failure))
        return failure


def context(**words: Any) -> CallContext:
    """A call's."""
    known: dict[str, Any] = {
        "context_id": CALL, "assistant_id": "123", "created_at": 0.0, "expires_at": 300.0,
        "caller": "+4930", "called": "100",
    }  # fmt: skip
    return CallContext(**{**known, **words})
