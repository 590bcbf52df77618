"""The fast path of WebSockets against Autobahn's own: same messages, same answers, same closing."""

from __future__ import annotations

import random
from typing import Any

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.protocols.quick_websocket import QuickWebSocket
from tests.protocols.websockets import MemoryTransport, handshake, on_clock, open_socket, unframed
from tests.support.strategies import cut_up
from tests.support.websocket_strategies import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    frame_streams,
    raw_ws_frame,
)

LIMIT_BYTES = 400
"""Of a message and of a frame, in the tests with streams of frames."""


class _App:
    """What both kinds of protocol do with a message: keep it, and one of a few things more."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[Any, ...]] = []
        self.habit = "listen"

    def message(self, payload: bytes, is_binary: bool) -> None:
        """A message came."""
        protocol: Any = self
        self.heard.append(("binary" if is_binary else "text", payload))
        if self.habit == "hang up" and len(payload) % 4 == 3:
            protocol.sendClose(1000, "enough")
        elif self.habit == "abort" and len(payload) % 4 == 3:
            protocol.dropConnection(abort=True)
        elif self.habit == "echo" and is_binary:
            self.say(payload)
        elif self.habit == "echo" and protocol.state == protocol.STATE_OPEN:
            protocol.sendMessage(payload)

    def say(self, payload: bytes) -> None:
        """Send a binary message."""
        raise NotImplementedError

    def onPing(self, payload: bytes) -> None:  # noqa: N802
        """Keep it."""
        self.heard.append(("ping", payload))
        super().onPing(payload)  # type: ignore[misc]

    def onPong(self, payload: bytes) -> None:  # noqa: N802
        """Keep it."""
        self.heard.append(("pong", payload))
        super().onPong(payload)  # type: ignore[misc]

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N803
        """Keep it."""
        self.heard.append(("close", wasClean, code, reason))


class _Quick(_App, QuickWebSocket):
    """The short way."""

    def binary_received(self, payload: bytes) -> None:
        self.message(payload, True)

    def text_received(self, payload: bytes) -> None:
        self.message(payload, False)

    def say(self, payload: bytes) -> None:
        self.send_binary(payload)


class _Stock(_App):
    """Autobahn's own way."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        """A message came."""
        self.message(payload, isBinary)

    def say(self, payload: bytes) -> None:
        protocol: Any = self
        if protocol.state == protocol.STATE_OPEN:
            protocol.sendMessage(payload, isBinary=True)


class QuickServer(_Quick, WebSocketServerProtocol):
    """The short way, as a server."""

    def onConnect(self, request: Any) -> str:
        """Agree."""
        return "media"


class QuickClient(_Quick, WebSocketClientProtocol):
    """The short way, as a client."""


class StockServer(_Stock, WebSocketServerProtocol):
    """Autobahn's, as a server."""

    def onConnect(self, request: Any) -> str:
        """Agree."""
        return "media"


class StockClient(_Stock, WebSocketClientProtocol):
    """Autobahn's, as a client."""


def factory_for(protocol_class: type, clock: Any, **options: Any) -> Any:
    """A factory of its role, with these options."""
    factory: Any
    if issubclass(protocol_class, WebSocketServerProtocol):
        factory = WebSocketServerFactory(protocols=["media"], reactor=clock)
    else:
        factory = WebSocketClientFactory("ws://127.0.0.1/", protocols=["media"], reactor=clock)
    factory.setProtocolOptions(**{"failByDrop": False, "closeHandshakeTimeout": 2, **options})
    return factory


class QuickTestCase(SynchronousTestCase):
    """Both kinds of protocol, in both roles, in memory and on fake time."""

    def setUp(self) -> None:
        self.clock = on_clock(self)

    def open(self, protocol_class: Any, habit: str = "listen", **options: Any) -> tuple[Any, MemoryTransport]:
        """An open WebSocket."""
        protocol = protocol_class()
        protocol.habit = habit
        return protocol, open_socket(protocol, factory_for(protocol_class, self.clock, **options))

    def run_through(self, protocol_class: Any, chunks: list[bytes], habit: str, **options: Any) -> dict[str, Any]:
        """Feed one protocol with this, let its timers run out, and give all that it did."""
        protocol, transport = self.open(protocol_class, habit, **options)
        for chunk in chunks:
            try:
                protocol.dataReceived(chunk)
            except Exception as error:
                # The reactor would cut the connection.
                protocol.heard.append(("raised", type(error)))
                transport.aborted = True
            if transport.settle():
                break
        said = transport.value()
        for _ in range(6):
            self.clock.advance(1)
            transport.settle()
        if not transport.lost:
            transport.abortConnection()
            transport.settle()
        self.clock.advance(5)
        left = self.clock.getDelayedCalls()
        for call in left:
            call.cancel()
        return {
            "heard": protocol.heard,
            "said": said,
            "said in the end": transport.value(),
            "closing": (protocol.localCloseCode, protocol.remoteCloseCode, protocol.wasClean, protocol.failedByMe),
            "why": protocol.wasNotCleanReason,
            "aborted": transport.aborted,
            "left": left,
        }


HABITS = st.sampled_from(("listen", "echo", "echo", "hang up", "abort"))


class SameAsStockTests(QuickTestCase):
    """Any frames, cut anywhere: the short way and stock Autobahn do the same."""

    def compare(self, quick: Any, stock: Any, chunks: list[bytes], habit: str, **options: Any) -> None:
        """Both ways, with the same."""
        options = {"maxFramePayloadSize": LIMIT_BYTES, "maxMessagePayloadSize": LIMIT_BYTES, **options}
        self.assertEqual(
            self.run_through(quick, chunks, habit, **options), self.run_through(stock, chunks, habit, **options)
        )

    @settings(max_examples=400)
    @given(st.data(), HABITS, st.booleans())
    def test_servers(self, data: st.DataObject, habit: str, by_drop: bool) -> None:
        """As servers."""
        chunks = data.draw(frame_streams(masked=True).flatmap(cut_up))
        self.compare(QuickServer, StockServer, chunks, habit, failByDrop=by_drop)

    @settings(max_examples=400)
    @given(st.data(), HABITS, st.booleans())
    def test_clients(self, data: st.DataObject, habit: str, by_drop: bool) -> None:
        """As clients, whose masks are drawn alike."""
        chunks = data.draw(frame_streams(masked=False).flatmap(cut_up))
        self.compare(QuickClient, StockClient, chunks, habit, failByDrop=by_drop)

    @settings(max_examples=200)
    @given(st.data(), st.booleans())
    @example(None, True)
    def test_cuts_do_not_matter(self, data: st.DataObject | None, server: bool) -> None:
        """The short way byte by byte, in one piece and in any pieces: the same messages, answers and close code.

        What Autobahn does once it has failed a connection (close at once, or wait for the peer) depends on the pieces.
        """
        quick: Any = QuickServer if server else QuickClient
        stream = data.draw(frame_streams(masked=server)) if data else sample_of_everything(server)
        chunks = data.draw(cut_up(stream)) if data else [stream]
        options = {"maxFramePayloadSize": LIMIT_BYTES, "maxMessagePayloadSize": LIMIT_BYTES}
        single = [stream[at : at + 1] for at in range(len(stream))]
        results = []
        for pieces in ([stream], single, chunks):
            result = self.run_through(quick, pieces, "listen", **options)
            heard = [event for event in result["heard"] if event[0] in ("binary", "text")]
            results.append((heard, result["said"], result["closing"][0]))
        self.assertEqual(results[1:], [results[0]] * 2)

    @given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.booleans())
    def test_garbage(self, chunks: list[bytes], server: bool) -> None:
        """Bytes that are no frames at all: the same again."""
        if server:
            self.compare(QuickServer, StockServer, chunks, "listen")
        else:
            self.compare(QuickClient, StockClient, chunks, "listen")

    def test_each_rule(self) -> None:
        """One example of each rule, with the close code that it has in RFC 6455."""
        long_text = "ü".encode() * 100
        for name, frames, code in (
            ("not masked", raw_ws_frame(BINARY, b"ab"), 1002),
            ("reserved bit", raw_ws_frame(BINARY, b"ab", mask=MASK, reserved=1), 1002),
            ("compressed", raw_ws_frame(BINARY, b"ab", mask=MASK, reserved=4), 1002),
            ("reserved opcode", raw_ws_frame(0x3, b"ab", mask=MASK), 1002),
            ("reserved control opcode", raw_ws_frame(0xB, b"ab", mask=MASK), 1002),
            ("fragmented ping", raw_ws_frame(PING, b"ab", mask=MASK, fin=False), 1002),
            ("long ping", raw_ws_frame(PING, b"a" * 126, mask=MASK), 1002),
            ("16 bits for 5", raw_ws_frame(BINARY, b"abcde", mask=MASK, length_bytes=2), 1002),
            ("16 bits for 125", raw_ws_frame(BINARY, b"a" * 125, mask=MASK, length_bytes=2), 1002),
            ("64 bits for 5", raw_ws_frame(BINARY, b"abcde", mask=MASK, length_bytes=8), 1002),
            ("continuation of nothing", raw_ws_frame(CONTINUATION, b"ab", mask=MASK), 1002),
            (
                "message in a message",
                raw_ws_frame(BINARY, b"ab", mask=MASK, fin=False) + raw_ws_frame(BINARY, b"cd", mask=MASK),
                1002,
            ),
            ("bad close code", raw_ws_frame(CLOSE, b"\x03\xe7", mask=MASK), 1002),
            ("half a close code", raw_ws_frame(CLOSE, b"\x03", mask=MASK), 1002),
            ("bad close reason", raw_ws_frame(CLOSE, b"\x03\xe8\xff", mask=MASK), 1007),
            ("bad UTF-8", raw_ws_frame(TEXT, b"ab\xff", mask=MASK), 1007),
            ("UTF-8 cut off", raw_ws_frame(TEXT, long_text[:-1], mask=MASK), 1007),
            ("over-long message", raw_ws_frame(BINARY, b"a" * (LIMIT_BYTES + 1), mask=MASK), 1009),
            ("over-long by its header", raw_ws_frame(BINARY, b"", mask=MASK, length=1 << 62), 1009),
            (
                "over-long in fragments",
                raw_ws_frame(BINARY, b"a" * LIMIT_BYTES, mask=MASK, fin=False)
                + raw_ws_frame(CONTINUATION, b"a", mask=MASK),
                1009,
            ),
            ("orderly close", raw_ws_frame(CLOSE, b"\x03\xe9bye", mask=MASK), 1000),
        ):
            options = {"maxFramePayloadSize": LIMIT_BYTES, "maxMessagePayloadSize": LIMIT_BYTES}
            quick = self.run_through(QuickServer, [frames], "listen", **options)
            stock = self.run_through(StockServer, [frames], "listen", **options)
            self.assertEqual(quick, stock, name)
            self.assertEqual(quick["closing"][0], code, name)
            self.assertEqual(unframed(quick["said"])[-1][1][:2], code.to_bytes(2, "big"), name)

    def test_limits(self) -> None:
        """Messages up to the limit are taken, one byte more is 1009: for frames, for messages, and with no limit."""
        for options, longest in (
            ({"maxFramePayloadSize": 100, "maxMessagePayloadSize": 0}, 100),
            ({"maxFramePayloadSize": 0, "maxMessagePayloadSize": 200}, 200),
            ({"maxFramePayloadSize": 65_536, "maxMessagePayloadSize": 65_536}, 65_536),
        ):
            for size in (longest - 1, longest, longest + 1):
                stream = [raw_ws_frame(BINARY, b"x" * size, mask=MASK)]
                quick = self.run_through(QuickServer, stream, "listen", **options)
                self.assertEqual(quick, self.run_through(StockServer, stream, "listen", **options))
                self.assertEqual(quick["closing"][0], None if size <= longest else 1009)
        stream = [raw_ws_frame(BINARY, b"x" * 200_000, mask=MASK)]
        self.assertEqual(self.run_through(QuickServer, stream, "listen")["heard"][0], ("binary", b"x" * 200_000))

    def test_frames_behind_the_handshake(self) -> None:
        """Frames that come in one read with the end of the handshake are not lost."""
        for protocol_class in (QuickServer, StockServer):
            protocol = protocol_class()
            transport = MemoryTransport()
            transport.protocol = protocol
            protocol.factory = factory_for(protocol_class, self.clock)
            protocol.makeConnection(transport)
            request = handshake()
            frames = raw_ws_frame(BINARY, b"ab", mask=MASK) + raw_ws_frame(TEXT, b"cd", mask=MASK)
            protocol.dataReceived(request + frames[:-1])
            protocol.dataReceived(frames[-1:] + raw_ws_frame(BINARY, b"ef", mask=MASK))
            self.assertEqual(protocol.heard, [("binary", b"ab"), ("text", b"cd"), ("binary", b"ef")])
            transport.abortConnection()
            transport.settle()
        self.clock.advance(10)

    def test_cut_in_a_header(self) -> None:
        """A read that begins within a header is not taken for a frame, however much it looks like one."""
        frame = raw_ws_frame(BINARY, b"ab", mask=b"\x80\x01\x02\x03") + raw_ws_frame(BINARY, b"cd", mask=MASK)
        self.assertEqual(frame[1:3], b"\x82\x80")
        protocol, transport = self.open(QuickServer)
        protocol.dataReceived(frame[:1])
        protocol.dataReceived(frame[1:])
        self.assertEqual(protocol.heard, [("binary", b"ab"), ("binary", b"cd")])
        transport.abortConnection()
        transport.settle()

    def test_two_in_one_read(self) -> None:
        """When the first of two messages in one read aborts, the second is not heard; when it only closes, it is."""
        first, second = (raw_ws_frame(BINARY, payload, mask=MASK) for payload in (b"abc", b"d"))
        for habit, heard in (("abort", [b"abc"]), ("hang up", [b"abc", b"d"])):
            results = [
                self.run_through(protocol_class, [first + second], habit)
                for protocol_class in (QuickServer, StockServer)
            ]
            self.assertEqual(results[0], results[1])
            self.assertEqual([event[1] for event in results[0]["heard"] if event[0] == "binary"], heard)

    def test_no_timer_left(self) -> None:
        """A connection that is lost while its close is waited for leaves no timer behind."""
        for protocol_class in (QuickServer, QuickClient):
            protocol, transport = self.open(protocol_class, autoPingInterval=10, autoPingTimeout=10)
            protocol.sendClose(1000)
            transport.lose(ConnectionLost())
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pings_put_off(self) -> None:
        """Binary traffic puts off the pings' deadline, by either way alike; silence lets it run out."""
        options: dict[str, Any] = {
            "autoPingInterval": 10, "autoPingTimeout": 10, "autoPingRestartOnAnyTraffic": True,
        }  # fmt: skip
        for server, protocols in ((True, (QuickServer, StockServer)), (False, (QuickClient, StockClient))):
            frame = raw_ws_frame(BINARY, b"ab", mask=MASK if server else None)
            ages = []
            for protocol_class in protocols:
                protocol, transport = self.open(protocol_class, **options)
                begun_s = self.clock.seconds()
                while not transport.settle():
                    if self.clock.seconds() - begun_s < 60:
                        protocol.dataReceived(frame)
                    self.clock.advance(0.5)
                ages.append(self.clock.seconds() - begun_s)
                self.assertEqual(protocol.heard[-1][:3], ("close", False, 1006))
            self.assertEqual(ages[0], ages[1])
            self.assertTrue(70 <= ages[0] <= 81, ages)


class SendingTests(QuickTestCase):
    """What the short way sends."""

    SIZES = (0, 1, 125, 126, 320, 65_535, 65_536)

    def test_read_back(self) -> None:
        """A stock peer reads every size of message, from a server and from a client."""
        for sender_class, reader_class in ((QuickServer, StockClient), (QuickClient, StockServer)):
            sender, out = self.open(sender_class)
            reader, _ = self.open(reader_class)
            sent = [random.randbytes(size) for size in self.SIZES]
            for payload in sent:
                self.assertTrue(sender.send_binary(payload))
            reader.dataReceived(out.value())
            self.assertEqual(reader.heard, [("binary", payload) for payload in sent])

    def test_same_bytes(self) -> None:
        """The bytes are those that stock Autobahn sends, masks drawn alike."""
        for quick_class, stock_class in ((QuickServer, StockServer), (QuickClient, StockClient)):
            said = []
            for protocol_class in (quick_class, stock_class):
                protocol, transport = self.open(protocol_class)
                for size in self.SIZES:
                    protocol.say(b"\x5a" * size)
                said.append(transport.value())
            self.assertEqual(said[0], said[1])

    def test_masks(self) -> None:
        """A client masks, each message with another mask; a server does not."""
        client, out = self.open(QuickClient)
        for _ in range(20):
            client.send_binary(b"\0" * 8)
        frames = [out.value()[at : at + 14] for at in range(0, 20 * 14, 14)]
        self.assertEqual(len({frame[2:6] for frame in frames}), 20)
        self.assertTrue(all(frame[6:] == frame[2:6] * 2 for frame in frames))
        server, out = self.open(QuickServer)
        server.send_binary(b"abc")
        self.assertEqual(out.value(), b"\x82\x03abc")

    @given(st.binary(max_size=70), st.booleans())
    def test_any_payload(self, payload: bytes, server: bool) -> None:
        """Any payload whatever comes through the short way both ways."""
        sender, out = self.open(QuickServer if server else QuickClient)
        reader, _ = self.open(QuickClient if server else QuickServer)
        sender.send_binary(payload)
        reader.dataReceived(out.value())
        self.assertEqual(reader.heard, [("binary", payload)])

    def test_not_open(self) -> None:
        """Before the handshake and after the close nothing is sent, and sending returns False."""
        for protocol_class in (QuickServer, QuickClient):
            protocol = protocol_class()
            transport = MemoryTransport()
            transport.protocol = protocol
            protocol.factory = factory_for(protocol_class, self.clock)
            protocol.makeConnection(transport)
            before = transport.value()
            self.assertFalse(protocol.send_binary(b"ab"))
            self.assertEqual(transport.value(), before)
            transport.abortConnection()
            transport.settle()
            self.assertFalse(protocol.send_binary(b"ab"))

            protocol, transport = self.open(protocol_class)
            protocol.sendClose(1000)
            transport.clear()
            self.assertFalse(protocol.send_binary(b"ab"))
            self.assertEqual(transport.value(), b"")

    def test_back_pressure(self) -> None:
        """While the transport is full audio is dropped and counted; texts, pongs and the close are not."""
        server, out = self.open(QuickServer)
        out.producer.pauseProducing()
        self.assertEqual([server.send_binary(b"lost") for _ in range(3)], [False] * 3)
        server.sendMessage(b"FLUSH_MEDIA")
        server.dataReceived(raw_ws_frame(PING, b"there?", mask=MASK))
        self.assertEqual((server.writer.dropped, server.writer.dropped_in_row), (3, 3))
        out.producer.resumeProducing()
        self.assertTrue(server.send_binary(b"heard"))
        self.assertEqual((server.writer.dropped, server.writer.dropped_in_row), (3, 0))
        out.producer.pauseProducing()
        server.sendClose(1000)
        self.assertEqual(
            unframed(out.value()),
            [(TEXT, b"FLUSH_MEDIA"), (PONG, b"there?"), (BINARY, b"heard"), (CLOSE, b"\x03\xe8")],
        )

    @given(st.lists(st.sampled_from(("audio", "text", "ping")), max_size=20))
    def test_order(self, kinds: list[str]) -> None:
        """Audio, texts and answers to pings leave in the order in which they were sent, and are read in it."""
        server, out = self.open(QuickServer)
        expected = []
        for number, kind in enumerate(kinds):
            payload = str(number).encode()
            if kind == "audio":
                server.send_binary(payload)
            elif kind == "text":
                server.sendMessage(payload)
            else:
                server.dataReceived(raw_ws_frame(PING, payload, mask=MASK))
            expected.append(({"audio": "binary", "ping": "pong"}.get(kind, kind), payload))
        reader, _ = self.open(StockClient)
        reader.dataReceived(out.value())
        self.assertEqual(reader.heard, expected)


def sample_of_everything(masked: bool) -> bytes:
    """Frames of every kind, a bad one at the end."""
    mask = MASK if masked else None
    return b"".join(
        (
            raw_ws_frame(BINARY, bytes(320), mask=mask),
            raw_ws_frame(TEXT, "grüß".encode(), mask=mask),
            raw_ws_frame(BINARY, b"", mask=mask),
            raw_ws_frame(BINARY, b"ab", mask=mask, fin=False),
            raw_ws_frame(PING, b"p", mask=mask),
            raw_ws_frame(CONTINUATION, b"cd", mask=mask),
            raw_ws_frame(BINARY, b"ef", mask=mask),
            raw_ws_frame(TEXT, b"\xc3", mask=mask),
            raw_ws_frame(BINARY, b"unheard", mask=mask),
        )
    )
