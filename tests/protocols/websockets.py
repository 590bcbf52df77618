"""WebSockets for tests: handshakes, transports in memory, Autobahn on fake time, recording sinks."""

from __future__ import annotations

import random
import time
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from typing import Any

import txaio
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import CallContext
from rapida_twisted.interfaces import IMediaChannel
from rapida_twisted.protocols.chan_websocket_asterisk import (
    AsteriskChannel,
    AsteriskClientProtocol,
    AsteriskServerProtocol,
)
from rapida_twisted.wire.chan_websocket import Command, Event
from tests.protocols.fakes import FakeSink

PEER = IPv4Address("TCP", "192.0.2.7", 40312)
PEER_TEXT = "192.0.2.7:40312"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
CALL = "6b0e2a52-8f4c-4a53-9c3e-3d3b6d7c0f11"
PATH = f"/v1/talk/asterisk/ctx/{CALL}"
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class MemoryTransport(StringTransport):
    """A TCP transport in memory, which is closed as a real one is: later, by :meth:`settle`."""

    producer: Any = None

    def __init__(self) -> None:
        super().__init__(peerAddress=PEER)
        self.aborted = False
        self.writes: list[bytes] = []
        self.protocol: Any = None
        self.lost = False

    def write(self, data: bytes) -> None:
        """Keep it; nothing is written any more once the connection is gone."""
        if not self.lost and not self.aborted and not self.disconnecting:
            self.writes.append(data)
            super().write(data)

    def unregisterProducer(self) -> None:  # noqa: N802
        """As a real transport, which does not mind if there is none."""
        self.producer = None

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802
        """Nothing to set here."""

    def abortConnection(self) -> None:  # noqa: N802
        """Close at once."""
        self.aborted = True

    def settle(self) -> bool:
        """A turn of the reactor: what was closed is gone now. Whether it is gone."""
        if not self.lost and self.aborted:
            self.lose(ConnectionAborted())
        elif not self.lost and self.disconnecting:
            self.lose(ConnectionDone())
        return self.lost

    def lose(self, error: Exception) -> None:
        """The connection is gone."""
        self.lost = True
        self.protocol.connectionLost(Failure(error))

    def taken(self) -> bytes:
        """The bytes written since the last call."""
        data = self.value()
        self.clear()
        return data


def on_clock(test: SynchronousTestCase) -> Clock:
    """Fake time, for Autobahn's own timers too, which do not use the factory's reactor."""
    clock = Clock()
    test.patch(txaio.config, "loop", clock)
    return clock


def connect(protocol: Any, factory: Any) -> MemoryTransport:
    """Connect a protocol to a transport in memory."""
    protocol.factory = factory
    transport = MemoryTransport()
    transport.protocol = protocol
    protocol.makeConnection(transport)
    return transport


def handshake(
    path: str = "/", headers: dict[str, str] | None = None, subprotocol: str | None = "media", upgrade: bool = True
) -> bytes:
    """What a client asks first."""
    lines = {"Host": "127.0.0.1"}
    if upgrade:
        lines |= {"Upgrade": "websocket", "Connection": "Upgrade"}
    lines |= {"Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}
    if subprotocol is not None:
        lines["Sec-WebSocket-Protocol"] = subprotocol
    lines |= headers or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1")


def agreement(request: bytes, subprotocol: str | None = "media") -> bytes:
    """What a server answers to a client's request."""
    (key,) = (line.split(b": ")[1] for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: "))
    accept = b64encode(sha1(key + _MAGIC).digest())
    said = b"" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n".encode()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + said
        + b"Sec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )


def open_socket(protocol: Any, factory: Any) -> MemoryTransport:
    """Connect a protocol and take it through a real handshake; nothing of that is left in the transport."""
    transport = connect(protocol, factory)
    if factory.isServer:
        protocol.dataReceived(handshake())
    else:
        protocol.dataReceived(agreement(transport.value()))
    transport.clear()
    transport.writes.clear()
    assert protocol.state == protocol.STATE_OPEN, transport.value()
    # Masks are drawn from here: the same for whoever sends the same.
    random.seed(1)
    return transport


def unframed(data: bytes) -> list[tuple[int, bytes]]:
    """The frames in a run of bytes that are all complete: opcode and payload, unmasked."""
    frames = []
    while data:
        opcode, length, at = data[0] & 0x0F, data[1] & 0x7F, 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(data[2 : 2 + size], "big"), 2 + size
        mask = b"\0\0\0\0"
        if data[1] & 0x80:
            mask, at = data[at : at + 4], at + 4
        payload = data[at : at + length]
        assert len(payload) == length, "a frame is cut off"
        if mask != b"\0\0\0\0":
            keys = (mask * (length // 4 + 1))[:length]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(length, "big")
        frames.append((opcode, payload))
        data = data[at + length :]
    return frames


def claimed() -> CallContext:
    """A context that is claimed."""
    context = CallContext(context_id=CALL, assistant_id="123", created_at=0.0, expires_at=300.0)
    return context.claimed(transport="websocket", peer=PEER_TEXT, now=1.0)


class PausedSink(FakeSink):
    """A call that writes down when it is to pause, too."""

    def __init__(self, context: CallContext, channel: IMediaChannel) -> None:
        super().__init__(context, channel)
        self.pauses: list[bool] = []

    def sending_paused(self, paused: bool) -> None:
        """Keep it."""
        self.pauses.append(paused)


class EchoSink(PausedSink):
    """A call that gives back what it hears."""

    def audio_received(self, payload: bytes) -> None:
        """Keep it, and send it."""
        super().audio_received(payload)
        self.channel.send_audio(payload)


class KeptChannel(AsteriskChannel):
    """Asterisk's side, recording its events."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.told: list[object] = []
        """``"started"``, ``"answered"``, ``"hangup"`` and the commands that came, in their order."""
        self.problems: list[str] = []
        """How the call ended, once it has."""
        self.events: list[Event] = []
        """What it said."""
        self.lost = False

    def call_started(self) -> None:
        """Keep it."""
        self.told.append("started")

    def answered(self) -> None:
        """Keep it."""
        self.told.append("answered")

    def hangup_received(self) -> None:
        """Keep it."""
        self.told.append("hangup")

    def command_received(self, command: Command) -> None:
        """Keep it."""
        self.told.append(command)

    def call_ended(self, problem: str) -> None:
        """Keep it."""
        self.problems.append(problem)

    def send_event(self, event: Event) -> None:
        """Keep it, and send it."""
        self.events.append(event)
        super().send_event(event)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keep it."""
        self.lost = True
        super().connectionLost(reason)


class KeptClient(KeptChannel, AsteriskClientProtocol):
    """The channel that connects."""


class KeptServer(KeptChannel, AsteriskServerProtocol):
    """The channel that waits."""


class Joined:
    """Two protocols in memory that hear one another."""

    def __init__(self, client: Any, client_factory: Any, server: Any, server_factory: Any) -> None:
        self.server_transport = connect(server, server_factory)
        self.client_transport = connect(client, client_factory)
        self.client, self.server = client, server
        self.pump()

    def pump(self) -> None:
        """Carry bytes until there are none, and let go of what was closed."""
        ends = (
            (self.client_transport, self.server, self.server_transport),
            (self.server_transport, self.client, self.client_transport),
        )
        moved = True
        while moved:
            moved = False
            for out, protocol, transport in ends:
                data = out.taken()
                if data and not transport.lost:
                    moved = True
                    protocol.dataReceived(data)
            for transport, other in (
                (self.client_transport, self.server_transport),
                (self.server_transport, self.client_transport),
            ):
                if not transport.lost and not transport.value() and transport.settle():
                    moved = True
                    if not other.lost:
                        other.lose(ConnectionDone())


async def until(holds: Callable[[], object], longest_s: float = 5.0) -> None:
    """Wait until something holds, for as long as a test may take."""
    give_up = time.monotonic() + longest_s
    while not holds():
        if time.monotonic() > give_up:
            raise AssertionError("it never came to be")
        await deferLater(reactor, 0.002)
