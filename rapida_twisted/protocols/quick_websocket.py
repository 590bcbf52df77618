"""Autobahn's WebSocket with a fast path for audio messages, and its limits and pings.

Nearly all traffic of a call is complete, unfragmented binary messages, each in one read. Autobahn spends most of a
message's cost on log arguments, per-frame objects and a Deferred for each message; this class reads and writes such
messages directly. Everything else goes to Autobahn from its first byte: text, control frames, fragments, frames split
across reads, invalid frames.

The tests compare this class with Autobahn's own.
"""

from __future__ import annotations

from random import getrandbits
from typing import TYPE_CHECKING, Any

import txaio
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from rapida_twisted.errors import RemoteProtocolError
from rapida_twisted.net.private_names import AutobahnInternals
from rapida_twisted.protocols.control_budget import CRUMB_BYTES, PING_COST, PROBLEM, ControlBudget
from rapida_twisted.protocols.frame_writer import FrameWriter, make_frame_writer, tune_socket

__all__ = ["MAX_CONTROL_BYTES", "MAX_MESSAGE_BYTES", "PING_S", "POLICY_VIOLATION", "QuickWebSocket", "tune_factory"]

if TYPE_CHECKING:
    from autobahn.twisted.websocket import WebSocketAdapterProtocol as _Autobahn
else:
    _Autobahn = object

MAX_CONTROL_BYTES = 65_536
"""The connection is aborted when more texts and pongs than this wait for a peer that does not read."""
MAX_MESSAGE_BYTES = 65_536
"""More than any packet of a caller and any control message."""
PING_S = 10.0
"""The interval of pings and the time limit of their answers: a dead peer is noticed within 20 s."""

POLICY_VIOLATION = 1008
"""The close code (RFC 6455, 7.4.1) for a peer that breaks a rule of ours."""
_BINARY = 0x82
"""FIN, no reserved bits, opcode binary."""


class _TooMany(RemoteProtocolError):
    """The peer sent too many messages that carry no audio."""


class QuickWebSocket(AutobahnInternals, _Autobahn):
    """Mix in before Autobahn's Twisted server or client protocol.

    ``binary_received`` gets every binary message, from the fast path and from Autobahn's ``onMessage``.
    """

    log = txaio.make_logger(level="critical")  # type: ignore[attr-defined]
    """Autobahn's own, which writes a line for each handshake that fails, with what the peer sent."""
    transport: Any
    factory: Any
    state: int
    writer: FrameWriter
    crumb_bytes = CRUMB_BYTES
    """Shorter messages of audio are counted as control messages; at most 126."""
    _budget: ControlBudget
    _control_bytes = 0
    _is_cut_off = False
    """Whether what the peer sends is discarded, until the connection is closed."""

    def binary_received(self, payload: bytes) -> None:
        """A complete binary message."""
        raise NotImplementedError

    def text_received(self, payload: bytes) -> None:
        """A complete text message; its bytes are valid UTF-8."""
        raise NotImplementedError

    def cut_off(self, problem: str) -> None:
        """The peer broke a rule of ours: the connection is closing, and nothing more is read."""

    def send_binary(self, *payloads: bytes) -> bool:
        """Send binary messages, or drop all of them if the peer reads too slowly; True if they were sent."""
        if self.state != WebSocketProtocol.STATE_OPEN:
            return False
        if len(payloads) == 1:
            sent = self.writer.send(self._binary_message(payloads[0]))
        else:
            sent = self.writer.send(*map(self._binary_message, payloads))
        if sent:
            self._control_bytes = 0
        return sent

    def _binary_message(self, payload: bytes) -> bytes:
        """The frame on the wire (RFC 6455, 5.2)."""
        size = len(payload)
        masked = 0 if self.factory.isServer else 0x80
        if size < 126:
            header = bytes((_BINARY, masked | size))
        elif size <= 0xFFFF:
            header = bytes((_BINARY, masked | 126, size >> 8, size & 0xFF))
        else:
            header = bytes((_BINARY, masked | 127)) + size.to_bytes(8, "big")
        if not masked:
            return header + payload
        mask = getrandbits(32).to_bytes(4, "big")
        return header + mask + _xor(payload, mask)

    # From Twisted and Autobahn

    def connectionMade(self) -> None:
        # Under a Site the HTTP channel is still the transport's producer.
        self.transport.unregisterProducer()
        tune_socket(self.transport)
        self.writer = make_frame_writer(self.transport, records=True)
        self._budget = ControlBudget(self.factory.reactor.seconds)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.cancel_close_timeout()
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        is_open = self.state == WebSocketProtocol.STATE_OPEN
        try:
            rest = self._read_quickly(data) if is_open and self.is_between_messages() else data
        except _TooMany:
            self._cut_off()
            return
        if rest:
            self.parse(rest)

    def parse(self, data: bytes) -> None:
        if not self._is_cut_off:
            super().parse(data)

    def consumeData(self) -> None:  # noqa: N802
        """Autobahn parses what it has, here and at the end of the handshake."""
        try:
            super().consumeData()
        except _TooMany:
            self._cut_off()

    def _count(self, size: int = 0, cost: int = 1) -> None:
        """Count a message that is no ordinary audio.

        :raises _TooMany: the peer has sent too many. It stops Autobahn in the middle of what it has read.
        """
        if not self._budget.take(size, cost):
            raise _TooMany

    def _cut_off(self) -> None:
        self._is_cut_off = True
        self.fail(POLICY_VIOLATION, PROBLEM)
        self.cut_off(PROBLEM)

    def onMessageFrameBegin(self, length: int) -> None:  # noqa: N802
        # A text is counted when it is complete.
        if length < CRUMB_BYTES and self.current_opcode != WebSocketProtocol.MESSAGE_TYPE_TEXT:
            self._count(cost=PING_COST)
        super().onMessageFrameBegin(length)

    def onPing(self, payload: bytes) -> None:  # noqa: N802
        self._count(cost=PING_COST)
        super().onPing(payload)

    def onPong(self, payload: bytes) -> None:  # noqa: N802
        self._count(cost=PING_COST)
        super().onPong(payload)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:  # noqa: N802
        # All writes use the writer: a direct send would land in the middle of a queued frame.
        self.writer.send_control(data)
        if not self.writer.full:
            self._control_bytes = 0
            return
        # A peer that sends pings and does not read the pongs loses its connection before it fills our memory.
        self._control_bytes += len(data)
        if self._control_bytes > MAX_CONTROL_BYTES:
            self.writer.abort()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        if isBinary:
            self.binary_received(payload)
        else:
            self._count(len(payload))
            self.text_received(payload)

    # The fast path

    def _read_quickly(self, data: bytes) -> bytes:
        """Deliver the complete binary messages at the beginning; return the rest, for Autobahn."""
        protocol: Any = self
        masked = 0x80 if self.factory.isServer else 0
        limit = min(protocol.maxFramePayloadSize or 0xFFFF, protocol.maxMessagePayloadSize or 0xFFFF, 0xFFFF)
        size, at = len(data), 0
        while size - at >= 2 and data[at] == _BINARY and data[at + 1] & 0x80 == masked:
            length, begin = data[at + 1] & 0x7F, at + 2
            if length == 126 and size - at >= 4:
                length, begin = data[at + 2] << 8 | data[at + 3], at + 4
                if length < 126:
                    break
            elif length >= 126:
                break
            elif length < self.crumb_bytes:
                self._count()
            end = begin + length + (4 if masked else 0)
            if end > size or length > limit:
                break
            payload = _xor(data[begin + 4 : end], data[begin : begin + 4]) if masked else data[begin:end]
            at = end
            self.restart_ping()
            self.binary_received(payload)
            if self.state != WebSocketProtocol.STATE_OPEN:
                break
        return data[at:] if at else data


def tune_factory(factory: Any) -> None:
    """Set Autobahn's size limits and pings, and have it send close codes instead of dropping connections."""
    factory.setProtocolOptions(
        maxFramePayloadSize=MAX_MESSAGE_BYTES,
        maxMessagePayloadSize=MAX_MESSAGE_BYTES,
        autoPingInterval=PING_S,
        autoPingTimeout=PING_S,
        autoPingRestartOnAnyTraffic=True,
        failByDrop=False,
        closeHandshakeTimeout=2,
        tcpNoDelay=True,
    )


def _xor(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask a payload (RFC 6455, 5.3): one XOR of two large numbers."""
    size = len(payload)
    keys = mask * (size // 4) + mask[: size % 4]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")
