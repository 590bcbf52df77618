"""chan_websocket over Autobahn, the application's side and Asterisk's, in memory and on fake time."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from autobahn.websocket.types import ConnectionRequest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rapida_twisted.audio.formats import ALAW, SLIN_RATES_HZ, ULAW, AudioFormat
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import (
    ContextClaimed,
    ContextExpired,
    Draining,
    StoreUnavailable,
    TooManyCalls,
    UnknownContext,
)
from rapida_twisted.interfaces import IMediaChannel
from rapida_twisted.protocols.chan_websocket_app import (
    MAX_MESSAGE_BYTES,
    MAX_SENT_BYTES,
    PING_S,
    STALLED_S,
    START_TIMEOUT_S,
    MediaClientFactory,
    MediaServerFactory,
)
from rapida_twisted.protocols.quick_websocket import MAX_CONTROL_BYTES
from rapida_twisted.wire.chan_websocket import (
    Command,
    ControlForm,
    DtmfEnd,
    ErrorEvent,
    Event,
    FlushMedia,
    MarkMedia,
    MediaMarkProcessed,
    MediaXoff,
    MediaXon,
)
from rapida_twisted.wire.chan_websocket_text import decode_command, encode_event
from tests.media.fakes import KeptLog
from tests.protocols.fakes import FakeReception, FakeSink, warnings_of
from tests.protocols.websockets import (
    CALL,
    PATH,
    PEER_TEXT,
    MemoryTransport,
    PausedSink,
    agreement,
    claimed,
    connect,
    handshake,
    on_clock,
    unframed,
)
from tests.websocket_strategies import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, raw_ws_frame

START = (
    "MEDIA_START connection_id:rapida channel:WebSocket/rapida/0x7fbce000af40 channel_id:1795402101.4 format:ulaw"
    " optimal_frame_size:160 ptime:20"
)
JSON_START = (
    '{"event":"MEDIA_START","connection_id":"rapida","channel":"WebSocket/rapida/0x1","channel_id":"1.27",'
    '"format":"slin16","optimal_frame_size":640,"ptime":20,'
    '"channel_variables":{"DIALEDPEERNUMBER":"rapida","tenant":"from the channel"}}'
)
NORMAL = (1000).to_bytes(2, "big")


class MediaTestCase(SynchronousTestCase):
    """One connection to the application's server."""

    path = PATH
    transport: MemoryTransport = None  # type: ignore[assignment]

    def setUp(self) -> None:
        self.clock = on_clock(self)
        self.log = KeptLog(self)
        self.reception = FakeReception(PausedSink)
        self.door = lambda request: None
        self.connect()

    def connect(self) -> None:
        """Open another connection, which is the one in use from then on. One that was not used is closed."""
        if self.transport is not None and not self.transport.lost:
            self.lose()
        self.factory = MediaServerFactory(self.reception, self.clock, lambda request: self.door(request))
        self.protocol = self.factory.buildProtocol(None)
        self.transport = connect(self.protocol, self.factory)

    def ask(self, path: str | None = None, **more: Any) -> str:
        """Send a handshake; the first line of the answer."""
        self.protocol.dataReceived(handshake(self.path if path is None else path, **more))
        return self.transport.value().decode().partition("\r\n")[0]

    def start(self, start: str = START) -> PausedSink:
        """Take it to where the call is up; the call."""
        self.assertEqual(self.ask(), "HTTP/1.1 101 Switching Protocols")
        self.text(start)
        self.transport.clear()
        return self.sink

    @property
    def sink(self) -> PausedSink:
        """The one call that was started."""
        sink = self.reception.sink
        assert isinstance(sink, PausedSink)
        return sink

    def feed(self, opcode: int, payload: bytes = b"", **more: Any) -> None:
        """Asterisk sends a frame."""
        self.protocol.dataReceived(raw_ws_frame(opcode, payload, mask=MASK, **more))

    def text(self, *texts: str) -> None:
        """Asterisk sends text messages."""
        for text in texts:
            self.feed(TEXT, text.encode())

    def event(self, event: Event, form: ControlForm = ControlForm.PLAIN) -> None:
        """Asterisk says something."""
        self.text(encode_event(event, form))

    def frames(self) -> list[tuple[int, bytes]]:
        """What was sent since it was asked last, as opcodes and payloads."""
        return unframed(self.transport.taken())

    def commands(self, form: ControlForm = ControlForm.PLAIN) -> list[Command]:
        """The commands that were sent, and no audio was."""
        frames = self.frames()
        self.assertEqual({opcode for opcode, _ in frames} - {TEXT, CLOSE}, set())
        return [decode_command(payload.decode(), form) for opcode, payload in frames if opcode == TEXT]

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone."""
        self.transport.lose(error or ConnectionDone())

    def assert_nothing_scheduled(self) -> None:
        """No timer is left behind: neither ours nor Autobahn's."""
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def assert_refused(self, status: int, reason: str) -> None:
        """The handshake was answered with this, and the connection is closed."""
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        self.assertEqual((head.split(b"\r\n")[0].decode(), body), (f"HTTP/1.1 {status} {reason}", b""))
        self.assertTrue(self.transport.settle())
        self.assertEqual((self.reception.sinks, self.reception.abandoned), ([], []))
        self.assert_nothing_scheduled()


class HandshakeTests(MediaTestCase):
    """Before the upgrade."""

    def test_channel(self) -> None:
        """The protocol is a media channel whose peer times the playing."""
        self.assertTrue(verifyObject(IMediaChannel, self.protocol))
        self.assertEqual((self.protocol.transport_name, self.protocol.paced), ("websocket", True))

    def test_shapes(self) -> None:
        """The contextId is found in the path and in the query, and the call is claimed before the answer."""
        for path in (
            PATH, PATH + "/", PATH + "?x=1", f"/v1/talk/asterisk/ctx?contextId={CALL}",
            f"/v1/talk/asterisk/ctx/?x=1&contextId={CALL}", f"/ctx?contextId={CALL}&contextId=other", f"/{CALL}",
        ):  # fmt: skip
            self.connect()
            self.assertEqual(self.ask(path), "HTTP/1.1 101 Switching Protocols", path)
            self.assertEqual(self.reception.claims.pop(), (CALL, "websocket", PEER_TEXT))
            self.assertIn(b"\r\nSec-WebSocket-Protocol: media\r\n", self.transport.value())
            self.assertNotIn(b"\r\nServer:", self.transport.value())
            self.lose()

    def test_answer_waits_for_the_claim(self) -> None:
        """Nothing is answered until the store has answered; what came meanwhile is not lost."""
        waiting: Deferred[CallContext] = Deferred()
        self.reception.answer = lambda context: waiting
        self.assertEqual(self.ask(), "")
        self.text(START)
        self.feed(BINARY, b"ab")
        self.assertEqual(self.transport.value(), b"")
        waiting.callback(claimed())
        self.assertIn(b"101 Switching", self.transport.value())
        self.assertEqual(self.sink.heard, b"ab")

    def test_other_subprotocols(self) -> None:
        """Other subprotocols may be offered beside media."""
        self.assertIn("101", self.ask(subprotocol="chat, media"))

    def test_door(self) -> None:
        """The door says who is let in, before anything is claimed; it sees headers and query."""
        seen: list[ConnectionRequest] = []

        def door(request: ConnectionRequest) -> tuple[int, str]:
            seen.append(request)
            return 401, "this API key is not known"

        self.door = door  # type: ignore[assignment]
        self.ask(PATH + "?x-api-key=k1", headers={"X-Api-Key": "k2"})
        self.assert_refused(401, "this API key is not known")
        self.assertEqual((seen[0].params, seen[0].headers["x-api-key"]), ({"x-api-key": ["k1"]}, "k2"))
        self.assertEqual(self.reception.claims, [])
        self.assertEqual(warnings_of(self.log)[0], f"WebSocket {PEER_TEXT} refused: 401 this API key is not known")

    def test_bad_handshakes(self) -> None:
        """No subprotocol, no contextId, no upgrade: refused with a reason and before anything is claimed."""
        for path, more, status, reason in (
            (PATH, {"subprotocol": None}, 400, "the subprotocol must be media"),
            (PATH, {"subprotocol": "chat"}, 400, "the subprotocol must be media"),
            ("/", {}, 400, "no contextId in the path or the query"),
            ("/v1/talk/asterisk/ctx", {}, 400, "no contextId in the path or the query"),
            ("/v1/talk/asterisk/ctx/?contextId=", {}, 400, "no contextId in the path or the query"),
            (PATH, {"upgrade": False}, 426, "HTTP Upgrade header missing"),
        ):
            self.connect()
            self.ask(path, **more)
            self.assert_refused(status, reason)
        self.assertEqual(self.reception.claims, [])

    def test_claims_that_fail(self) -> None:
        """What the store says becomes the status: 404, 409 or 503, with its reason."""
        for error, status in (
            (UnknownContext(CALL), 404),
            (ContextExpired(CALL), 404),
            (ContextClaimed(CALL), 409),
            (Draining("the server is stopping"), 503),
            (TooManyCalls("200 calls are up"), 503),
            (StoreUnavailable("the store is locked"), 503),
        ):
            self.connect()
            self.reception.answer = lambda context, error=error: fail(error)  # type: ignore[misc]
            self.ask()
            self.assert_refused(status, str(error))

    def test_claim_that_breaks(self) -> None:
        """An error that nobody expected is logged with its traceback, and tells the peer nothing of itself."""
        self.reception.answer = lambda context: fail(ZeroDivisionError("secret"))
        self.ask()
        self.assert_refused(500, "the call could not be claimed")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_strange_context_id(self) -> None:
        """A contextId with line ends or beyond ASCII does not get into the status line."""
        self.reception.answer = lambda context: fail(UnknownContext(context.context_id))
        for name in ("a%0d%0aSet-Cookie:%20x", "%C3%BC", "%00"):
            self.connect()
            self.ask(f"/v1/talk/asterisk/ctx?contextId={name}")
            self.assert_refused(404, "refused")

    def test_gone_while_claimed(self) -> None:
        """A peer that goes away while its call is claimed: the call is abandoned, and nothing is left running."""
        waiting: Deferred[CallContext] = Deferred()
        self.reception.answer = lambda context: waiting
        self.ask()
        self.lose()
        waiting.callback(claimed())
        ((context, reason, detail),) = self.reception.abandoned
        self.assertEqual((context.context_id, reason), (CALL, EndReason.CALLER_HANGUP))
        self.assertEqual(detail, "its connection closed while it was claimed")
        self.assertEqual(self.transport.value(), b"")
        self.clock.advance(60)
        self.assert_nothing_scheduled()
        self.assertEqual(self.reception.sinks, [])

    def test_store_too_slow(self) -> None:
        """A claim that takes longer than the handshake may: cut off; the late claim is abandoned, once."""
        waiting: Deferred[CallContext] = Deferred()
        self.reception.answer = lambda context: waiting
        self.ask()
        self.clock.advance(START_TIMEOUT_S)
        self.assertTrue(self.transport.aborted)
        waiting.callback(claimed())
        self.assertEqual(len(self.reception.abandoned), 1)
        self.assertTrue(self.transport.settle())
        self.clock.advance(60)
        self.assert_nothing_scheduled()

    def test_gone_while_refused(self) -> None:
        """A peer that goes away before it is refused costs nothing more."""
        waiting: Deferred[CallContext] = Deferred()
        self.reception.answer = lambda context: waiting
        self.ask()
        self.lose()
        waiting.errback(UnknownContext(CALL))
        self.assertEqual((self.reception.abandoned, self.transport.value()), ([], b""))
        self.assert_nothing_scheduled()

    def test_two_handshakes(self) -> None:
        """A second handshake while the first is looked at claims nothing; the first claim is abandoned."""
        waiting: Deferred[CallContext] = Deferred()
        self.reception.answer = lambda context: waiting
        self.ask()
        self.assertIn(" 400 ", self.ask("/v1/talk/asterisk/ctx/other"))
        self.assertTrue(self.transport.settle())
        waiting.callback(claimed())
        self.assertEqual([claim[0] for claim in self.reception.claims], [CALL])
        self.assertEqual(len(self.reception.abandoned), 1)
        self.assert_nothing_scheduled()

    def test_silent(self) -> None:
        """A connection without a handshake is cut off after 5 s."""
        self.clock.advance(START_TIMEOUT_S)
        self.assertTrue(self.transport.aborted)
        self.assertTrue(self.transport.settle())
        self.assert_nothing_scheduled()


class StartTests(MediaTestCase):
    """MEDIA_START, or what comes in its place."""

    def test_start(self) -> None:
        """With MEDIA_START the call starts, and the channel knows what it is; no timer but the pings' is left."""
        sink = self.start()
        self.assertEqual((self.protocol.format, self.protocol.peer), (ULAW, PEER_TEXT))
        self.assertEqual(self.protocol.channel, "WebSocket/rapida/0x7fbce000af40")
        self.assertEqual((sink.context.channel_id, dict(sink.context.variables)), ("1795402101.4", {}))
        self.assertIs(sink.channel, self.protocol)
        self.clock.advance(START_TIMEOUT_S + 1)
        self.assertEqual((self.frames(), sink.ended, self.reception.abandoned), ([], [], []))

    def test_variables(self) -> None:
        """In JSON the channel's variables join those of the registration, which win."""
        variables = MappingProxyType({"tenant": "from the registration"})
        self.reception.answer = lambda context: succeed_with(context, variables)
        sink = self.start(JSON_START)
        self.assertEqual(
            dict(sink.context.variables), {"DIALEDPEERNUMBER": "rapida", "tenant": "from the registration"}
        )
        self.assertEqual((sink.context.channel_id, str(self.protocol.format)), ("1.27", "slin@16000"))

    def test_registered_channel_id(self) -> None:
        """The channel id of the registration wins: it is the caller's channel, not the media's."""
        self.reception.answer = lambda context: succeed_with(context, MappingProxyType({}), channel_id="the caller's")
        self.assertEqual(self.start().context.channel_id, "the caller's")

    def test_every_format(self) -> None:
        """Every codec that is converted here is taken, with its frame of 20 ms."""
        for format in (ULAW, ALAW, *(AudioFormat("slin", hz) for hz in SLIN_RATES_HZ)):
            self.reception.sinks.clear()
            self.connect()
            self.start(f"MEDIA_START format:{format.asterisk_name} optimal_frame_size:{format.frame_bytes}")
            self.assertEqual(self.protocol.format, format)
            self.lose()

    def test_codec_not_taken(self) -> None:
        """A codec that is not converted here, or odd frames: HANGUP, and the call is abandoned with the reason."""
        for start, reason in (
            ("format:opus optimal_frame_size:0", "codec 'opus' is not converted here: dial with c(ulaw), c(alaw), "),
            ("format:g729 optimal_frame_size:20", "codec 'g729' is not converted here: dial with "),
            ("format:ulaw optimal_frame_size:240", "ulaw in frames of 240 bytes is not taken"),
        ):
            self.reception.abandoned.clear()
            self.connect()
            self.ask()
            self.transport.clear()
            self.text("MEDIA_START " + start)
            self.assertEqual(self.frames(), [(TEXT, b"HANGUP"), (CLOSE, NORMAL)])
            ((_, end, detail),) = self.reception.abandoned
            self.assertEqual((end, detail[: len(reason)]), (EndReason.PROTOCOL_ERROR, reason))
            self.assertIn(reason, warnings_of(self.log)[-1])
            self.feed(CLOSE, NORMAL)
            self.assertTrue(self.transport.settle())
            self.assertEqual((self.reception.sinks, len(self.reception.abandoned)), ([], 1))
            self.assert_nothing_scheduled()

    def test_overdue(self) -> None:
        """Without MEDIA_START for 5 s the call is abandoned and the connection closed, with one log line."""
        self.ask()
        self.transport.clear()
        self.text("MEDIA_XON")
        self.clock.advance(START_TIMEOUT_S - 0.01)
        self.assertEqual(self.reception.abandoned, [])
        self.clock.advance(0.01)
        ((_, end, detail),) = self.reception.abandoned
        self.assertEqual((end, detail), (EndReason.PROTOCOL_ERROR, "no MEDIA_START came"))
        self.assertEqual(self.frames(), [(CLOSE, NORMAL)])
        self.assertEqual(warnings_of(self.log), [f"WebSocket {PEER_TEXT} sent no MEDIA_START within 5.0 s: closed"])
        self.text(START)
        self.clock.advance(3)
        self.assertTrue(self.transport.settle())
        self.assertEqual((self.reception.sinks, len(self.reception.abandoned)), ([], 1))
        self.assert_nothing_scheduled()

    def test_closed_before(self) -> None:
        """A connection that closes before MEDIA_START: the call is abandoned."""
        for close, reason in (
            (lambda: self.feed(CLOSE, NORMAL), EndReason.CALLER_HANGUP),
            (lambda: self.lose(ConnectionLost()), EndReason.CONNECTION_LOST),
            (lambda: self.feed(BINARY, b"a", reserved=1), EndReason.PROTOCOL_ERROR),
        ):
            self.reception.abandoned.clear()
            self.connect()
            self.ask()
            close()
            self.clock.advance(3)
            self.assertTrue(self.transport.settle())
            self.assertEqual([end for _, end, _ in self.reception.abandoned], [reason])
            self.assert_nothing_scheduled()

    def test_audio_before(self) -> None:
        """Audio before MEDIA_START is nobody's, and is let go."""
        self.ask()
        self.feed(BINARY, b"ab")
        self.protocol.send_audio(b"cd")
        self.text(START)
        self.assertEqual(self.sink.heard, b"")


class CallTests(MediaTestCase):
    """A call that is up."""

    def test_audio(self) -> None:
        """Audio goes both ways as binary messages, whatever their length."""
        sink = self.start()
        for payload in (b"a" * 160, b"b" * 240, b""):
            self.feed(BINARY, payload)
        self.assertEqual(sink.events, [b"a" * 160, b"b" * 240, b""])
        self.protocol.send_audio(b"c" * 160)
        self.protocol.send_audio(b"d" * 1600)
        self.assertEqual(self.frames(), [(BINARY, b"c" * 160), (BINARY, b"d" * 1600)])

    def test_fragments(self) -> None:
        """A message in fragments is one message."""
        sink = self.start()
        self.feed(BINARY, b"ab", fin=False)
        self.feed(CONTINUATION, b"cd")
        self.assertEqual(sink.events, [b"abcd"])

    def test_long_audio(self) -> None:
        """A long run of frames goes as several messages of whole frames, short enough for Asterisk."""
        for format_start, frame_bytes in ((START, 160), (JSON_START, 640)):
            self.reception.sinks.clear()
            self.connect()
            self.start(format_start)
            audio = bytes(range(256)) * 500
            self.protocol.send_audio(audio)
            messages = [payload for opcode, payload in self.frames() if opcode == BINARY]
            self.assertEqual(b"".join(messages), audio)
            self.assertEqual({len(message) % frame_bytes for message in messages}, {0})
            self.assertTrue(max(map(len, messages)) <= MAX_SENT_BYTES)
            self.lose()

    def test_digits(self) -> None:
        """DTMF_END is a digit; what is no digit is not one."""
        sink = self.start()
        for digit in "0123456789ABCD*#":
            self.event(DtmfEnd(digit=digit, channel_id="1"))
        self.assertEqual("".join(map(str, sink.events)), "0123456789ABCD*#")
        self.text('{"event":"DTMF_END","digit":""}', '{"event":"DTMF_END","digit":"12"}', "DTMF_END digit:x")
        self.assertEqual((len(sink.events), len(warnings_of(self.log))), (16, 1))

    def test_marks(self) -> None:
        """A mark calls back once, when Asterisk says that it has played up to there."""
        reached: list[str] = []
        self.start()
        self.protocol.mark(lambda: reached.append("first"))
        self.protocol.mark(lambda: reached.append("second"))
        first, second = self.commands()
        assert isinstance(first, MarkMedia)
        assert isinstance(second, MarkMedia)
        self.assertNotEqual(first, second)
        self.event(MediaMarkProcessed(correlation_id="someone else's"))
        self.assertEqual(reached, [])
        self.event(MediaMarkProcessed(correlation_id=first.correlation_id))
        self.event(MediaMarkProcessed(correlation_id=first.correlation_id))
        self.assertEqual(reached, ["first"])
        self.event(MediaMarkProcessed(correlation_id=second.correlation_id))
        self.assertEqual(reached, ["first", "second"])

    def test_flush(self) -> None:
        """A flush says FLUSH_MEDIA, and what was marked before it is never reached; later marks are."""
        reached: list[str] = []
        self.start()
        self.protocol.mark(lambda: reached.append("before"))
        self.protocol.flush()
        self.protocol.mark(lambda: reached.append("after"))
        before, flush, after = self.commands()
        self.assertEqual(flush, FlushMedia())
        for mark in (before, after):
            assert isinstance(mark, MarkMedia)
            self.event(MediaMarkProcessed(correlation_id=mark.correlation_id))
        self.assertEqual(reached, ["after"])

    def test_xoff(self) -> None:
        """MEDIA_XOFF pauses the call, MEDIA_XON lets it go on; said twice they count once."""
        sink = self.start()
        for event in (MediaXoff(), MediaXoff(), MediaXon(), MediaXon(), MediaXoff()):
            self.event(event)
        self.assertEqual(sink.pauses, [True, False, True])

    def test_json(self) -> None:
        """A channel that speaks JSON is spoken to in JSON."""
        sink = self.start(JSON_START)
        self.text('{"event":"DTMF_END","channel_id":"1.27","digit":"5"}', '{"event":"MEDIA_XOFF","channel_id":"1.27"}')
        self.assertEqual((sink.events, sink.pauses), (["5"], [True]))
        self.protocol.mark(lambda: None)
        self.protocol.flush()
        self.protocol.hang_up()
        texts = [json.loads(payload) for opcode, payload in self.frames() if opcode == TEXT]
        self.assertEqual(
            texts,
            [{"command": "MARK_MEDIA", "correlation_id": "1"}, {"command": "FLUSH_MEDIA"}, {"command": "HANGUP"}],
        )

    def test_puzzles(self) -> None:
        """Texts that are no control messages cost one log line a call, and nothing else."""
        sink = self.start()
        for text in ("hello", "", "{", '{"event":"X"}', "MEDIA_START", START, "DTMF_END", "x" * 5000, "MEDIA_RAIN a:b"):
            self.text(text)
        self.text("DTMF_END digit:7")
        self.assertEqual(sink.events, ["7"])
        (line,) = warnings_of(self.log)
        self.assertIn(f"WebSocket {PEER_TEXT} sent an unknown event 'hello': ignored, as all such", line)
        self.assertEqual((len(self.reception.sinks), sink.ended), (1, []))

    def test_asterisks_errors(self) -> None:
        """What Asterisk complains of is logged each time."""
        self.start()
        self.event(ErrorEvent(error_text="no such thing"))
        self.event(ErrorEvent(error_text="no such thing"))
        self.assertEqual(warnings_of(self.log), [f"WebSocket {PEER_TEXT}: Asterisk says no such thing"] * 2)

    def test_pings(self) -> None:
        """A ping is answered."""
        self.start()
        self.feed(PING, b"there?")
        self.assertEqual(self.frames(), [(PONG, b"there?")])


class EndTests(MediaTestCase):
    """How calls end."""

    def assert_ended(self, sink: FakeSink, reason: EndReason, detail: str | None = None) -> None:
        """The connection is gone, the call was told once why, and nothing is left behind."""
        self.assertTrue(self.transport.settle())
        self.assertEqual([end for end, _ in sink.ended], [reason])
        if detail is not None:
            self.assertIn(detail, sink.ended[0][1])
        self.assertEqual(self.reception.abandoned, [])
        self.assert_nothing_scheduled()
        self.protocol.send_audio(b"a" * 160)
        self.protocol.mark(self.fail)
        self.protocol.flush()
        self.protocol.hang_up()
        self.assert_nothing_scheduled()
        self.assertEqual(len(sink.ended), 1)

    def test_caller_hangs_up(self) -> None:
        """Asterisk closes, with 1000, 1001 or no code: the caller hung up. The close is answered."""
        for payload in (NORMAL, (1001).to_bytes(2, "big"), b""):
            self.reception.sinks.clear()
            self.connect()
            sink = self.start()
            self.feed(CLOSE, payload)
            self.assertEqual(self.frames(), [(CLOSE, NORMAL)])
            self.assert_ended(sink, EndReason.CALLER_HANGUP, "")

    def test_closed_with_an_error(self) -> None:
        """A close with the code of an error is no hang-up."""
        sink = self.start()
        self.feed(CLOSE, (1011).to_bytes(2, "big") + b"out of memory")
        self.assert_ended(sink, EndReason.CONNECTION_LOST, "out of memory")

    def test_connection_lost(self) -> None:
        """A connection that goes away without a close is lost."""
        for error in (ConnectionDone(), ConnectionLost()):
            self.reception.sinks.clear()
            self.connect()
            sink = self.start()
            self.lose(error)
            self.assert_ended(sink, EndReason.CONNECTION_LOST)

    def test_we_hang_up(self) -> None:
        """A hang-up of ours is HANGUP and then a close; the call hears nothing any more."""
        sink = self.start()
        self.protocol.send_audio(b"a" * 160)
        self.protocol.hang_up()
        self.assertEqual(self.frames(), [(BINARY, b"a" * 160), (TEXT, b"HANGUP"), (CLOSE, NORMAL)])
        self.feed(BINARY, b"ab")
        self.text("DTMF_END digit:1")
        self.feed(CLOSE, NORMAL)
        self.assertTrue(self.transport.settle())
        self.assertEqual((sink.events, sink.ended, self.reception.abandoned), ([], [], []))
        self.assert_nothing_scheduled()

    def test_hangup_unanswered(self) -> None:
        """A peer that does not answer the close is cut off within 2 s."""
        self.start()
        self.protocol.hang_up()
        self.clock.advance(2)
        self.assertTrue(self.transport.aborted)
        self.assertTrue(self.transport.settle())
        self.assert_nothing_scheduled()

    def test_abort(self) -> None:
        """abort() closes at once."""
        sink = self.start()
        self.protocol.abort()
        self.assertTrue(self.transport.aborted)
        self.assertTrue(self.transport.settle())
        self.assertEqual(sink.ended, [])
        self.assert_nothing_scheduled()

    def test_hangup_at_the_start(self) -> None:
        """A call that is hung up within its own start is closed like any other."""
        self.reception.on_start = lambda channel: channel.hang_up()
        self.ask()
        self.transport.clear()
        self.text(START)
        self.assertEqual(self.frames(), [(TEXT, b"HANGUP"), (CLOSE, NORMAL)])
        self.feed(CLOSE, NORMAL)
        self.assertTrue(self.transport.settle())
        self.assert_nothing_scheduled()

    def test_bad_frames(self) -> None:
        """Oversized messages, bad UTF-8 and reserved bits end the call as a protocol error, whatever is answered."""
        too_long = MAX_MESSAGE_BYTES + 1
        for name, frames, code in (
            ("oversized", [raw_ws_frame(BINARY, b"", mask=MASK, length=too_long)], 1009),
            ("oversized text", [raw_ws_frame(TEXT, b"", mask=MASK, length=too_long)], 1009),
            (
                "fragments without end",
                [raw_ws_frame(BINARY, b"a" * 30_000, mask=MASK, fin=False)]
                + [raw_ws_frame(CONTINUATION, b"a" * 30_000, mask=MASK, fin=False)] * 2,
                1009,
            ),
            ("bad UTF-8", [raw_ws_frame(TEXT, b"MEDIA_XON\xff", mask=MASK)], 1007),
            ("reserved bits", [raw_ws_frame(BINARY, b"ab", mask=MASK, reserved=4)], 1002),
            ("not masked", [raw_ws_frame(BINARY, b"ab")], 1002),
        ):
            for answer in (None, 1000, code):
                self.reception.sinks.clear()
                self.connect()
                sink = self.start()
                self.protocol.dataReceived(b"".join(frames))
                (closing,) = self.frames()
                self.assertEqual((closing[0], closing[1][:2]), (CLOSE, code.to_bytes(2, "big")), name)
                self.assertEqual(sink.heard, b"")
                if answer is not None and name != "oversized" and name != "oversized text":
                    self.feed(CLOSE, answer.to_bytes(2, "big"))
                else:
                    self.clock.advance(2)
                self.assert_ended(sink, EndReason.PROTOCOL_ERROR, closing[1][2:].decode())

    def test_longest_message(self) -> None:
        """A message of 64 KiB is taken."""
        sink = self.start()
        self.feed(BINARY, b"a" * MAX_MESSAGE_BYTES)
        self.assertEqual(len(sink.heard), MAX_MESSAGE_BYTES)

    def test_dead_peer(self) -> None:
        """A peer that is silent is asked after 10 s, and given up within 20 s."""
        sink = self.start()
        self.clock.advance(PING_S)
        ((opcode, _),) = self.frames()
        self.assertEqual(opcode, PING)
        self.clock.advance(PING_S)
        self.assertTrue(self.transport.aborted)
        self.assert_ended(sink, EndReason.CONNECTION_LOST, "ping timeout")

    def test_dead_at_any_time(self) -> None:
        """However long it had spoken before, a peer that falls silent is given up within 20 s."""
        for spoken_s in (0.5, 9.5, 10.5, 15, 33.3):
            self.reception.sinks.clear()
            self.connect()
            self.start()
            for _ in range(int(spoken_s * 10)):
                self.feed(BINARY, b"a" * 160)
                self.clock.advance(0.1)
            silent_s = 0.0
            while not self.transport.aborted:
                self.clock.advance(0.1)
                silent_s += 0.1
            self.assertTrue(silent_s <= 2 * PING_S + 0.15, (spoken_s, silent_s))
            self.assertTrue(self.transport.settle())
            self.assert_nothing_scheduled()

    def test_living_peer(self) -> None:
        """A peer that answers pings, or that only speaks, is kept; a paused one too."""
        sink = self.start()
        for _ in range(120):
            self.clock.advance(1)
            for opcode, payload in self.frames():
                self.assertEqual(opcode, PING)
                self.feed(PONG, payload)
        for _ in range(600):
            self.clock.advance(0.2)
            self.feed(BINARY, b"a" * 160)
        self.assertEqual((sink.ended, self.transport.aborted), ([], False))


class BackPressureTests(MediaTestCase):
    """A peer that does not read."""

    def test_paused(self) -> None:
        """The call is told to pause, and to go on; audio meanwhile is dropped and counted, commands are not lost."""
        sink = self.start()
        self.transport.producer.pauseProducing()
        self.protocol.send_audio(b"a" * 160)
        self.protocol.send_audio(b"b" * 160)
        self.protocol.flush()
        self.assertEqual((sink.pauses, self.protocol.writer.dropped), ([True], 2))
        self.transport.producer.resumeProducing()
        self.protocol.send_audio(b"c" * 160)
        self.assertEqual(sink.pauses, [True, False])
        self.assertEqual(self.frames(), [(TEXT, b"FLUSH_MEDIA"), (BINARY, b"c" * 160)])

    def test_paused_twice(self) -> None:
        """With XOFF and a full connection both must be over before the call goes on."""
        sink = self.start()
        self.event(MediaXoff())
        self.transport.producer.pauseProducing()
        self.protocol.send_audio(b"a" * 160)
        self.event(MediaXon())
        self.assertEqual(sink.pauses, [True])
        self.transport.producer.resumeProducing()
        self.assertEqual(sink.pauses, [True, False])

    def test_given_up(self) -> None:
        """A peer that takes nothing for 5 s is given up, also when the call sends nothing meanwhile."""
        sink = self.start()
        self.transport.producer.pauseProducing()
        self.protocol.send_audio(b"a" * 160)
        self.clock.advance(STALLED_S - 0.01)
        self.feed(BINARY, b"it speaks, though")
        self.assertFalse(self.transport.aborted)
        self.clock.advance(0.01)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(sink.ended, [(EndReason.PEER_STALLED, "it took nothing for 5 s")])
        self.assertTrue(self.transport.settle())
        self.assertEqual(len(sink.ended), 1)
        self.assert_nothing_scheduled()

    def test_slow(self) -> None:
        """A peer that takes what it was sent now and then is kept."""
        sink = self.start()
        for _ in range(10):
            self.transport.producer.pauseProducing()
            self.protocol.send_audio(b"a" * 160)
            self.clock.advance(STALLED_S - 1)
            self.transport.producer.resumeProducing()
            self.feed(BINARY, b"a")
        self.clock.advance(STALLED_S)
        self.assertEqual((sink.ended, self.transport.aborted), ([], False))

    def test_drained_before_the_start(self) -> None:
        """A connection that is full before MEDIA_START keeps its deadline for that."""
        self.ask()
        self.transport.producer.pauseProducing()
        self.transport.producer.resumeProducing()
        self.clock.advance(START_TIMEOUT_S)
        self.assertEqual(len(self.reception.abandoned), 1)

    def test_hung_up_meanwhile(self) -> None:
        """A hang-up into a full connection ends within 2 s."""
        sink = self.start()
        self.transport.producer.pauseProducing()
        self.protocol.send_audio(b"a" * 160)
        self.protocol.hang_up()
        self.clock.advance(2)
        self.assertTrue(self.transport.aborted)
        self.assertTrue(self.transport.settle())
        self.assertEqual(sink.ended, [])
        self.assert_nothing_scheduled()

    def test_pings_unread(self) -> None:
        """Whoever sends pings and does not read the answers is cut off before they fill the memory."""
        sink = self.start()
        self.transport.producer.pauseProducing()
        for _ in range(1000):
            self.feed(PING, b"a" * 125)
            if self.transport.aborted:
                break
        self.assertTrue(self.transport.aborted)
        self.assertTrue(len(self.transport.value()) <= MAX_CONTROL_BYTES + 200)
        self.assertTrue(self.transport.settle())
        self.assertEqual([end for end, _ in sink.ended], [EndReason.CONNECTION_LOST])

    def test_pings_read_late(self) -> None:
        """Whoever reads the answers late, but reads them, is kept, however many they are in all."""
        sink = self.start()
        for send in (lambda: self.protocol.send_audio(b"a" * 160), self.protocol.flush) * 3:
            self.transport.producer.pauseProducing()
            for _ in range(MAX_CONTROL_BYTES // 127 - 1):
                self.feed(PING, b"a" * 125)
            self.transport.producer.resumeProducing()
            send()
        self.assertEqual((sink.ended, self.transport.aborted), ([], False))


class ClientTests(SynchronousTestCase):
    """The application that connects to a channel which waits in Asterisk."""

    def setUp(self) -> None:
        self.clock = on_clock(self)
        self.log = KeptLog(self)
        self.reception = FakeReception(PausedSink)
        self.factory = MediaClientFactory("ws://asterisk:8088/media/abc", self.reception, self.clock, claimed())
        self.protocol = self.factory.buildProtocol(None)
        self.transport = connect(self.protocol, self.factory)

    def agree(self) -> None:
        """Asterisk agrees."""
        self.protocol.dataReceived(agreement(self.transport.taken()))

    def test_request(self) -> None:
        """The handshake asks for the subprotocol media, at the path of the channel."""
        head = self.transport.value().decode()
        self.assertTrue(head.startswith("GET /media/abc HTTP/1.1\r\n"), head)
        self.assertIn("\r\nSec-WebSocket-Protocol: media\r\n", head)
        self.assertNotIn("User-Agent", head)

    def test_call(self) -> None:
        """From MEDIA_START on it is a call like any other; what is sent is masked."""
        self.agree()
        self.protocol.dataReceived(raw_ws_frame(TEXT, START.encode()) + raw_ws_frame(BINARY, b"ab"))
        sink = self.reception.sink
        self.assertEqual((sink.heard, sink.context.context_id, self.reception.claims), (b"ab", CALL, []))
        self.protocol.send_audio(b"a" * 160)
        self.protocol.flush()
        data = self.transport.taken()
        self.assertEqual(data[1] & 0x80, 0x80)
        self.assertEqual(unframed(data), [(BINARY, b"a" * 160), (TEXT, b"FLUSH_MEDIA")])
        self.protocol.dataReceived(raw_ws_frame(CLOSE, NORMAL))
        self.transport.lose(ConnectionDone())
        self.assertEqual(sink.ended, [(EndReason.CALLER_HANGUP, "")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_start(self) -> None:
        """Without MEDIA_START the call is abandoned."""
        self.agree()
        self.clock.advance(START_TIMEOUT_S)
        ((_, end, detail),) = self.reception.abandoned
        self.assertEqual((end, detail), (EndReason.PROTOCOL_ERROR, "no MEDIA_START came"))
        self.clock.advance(10)
        self.assertTrue(self.transport.settle())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """Asterisk knows no such channel, or never answers: the call is abandoned."""
        self.protocol.dataReceived(b"HTTP/1.1 404 Not Found\r\n\r\n")
        self.assertTrue(self.transport.settle())
        ((_, end, detail),) = self.reception.abandoned
        self.assertEqual(end, EndReason.CONNECTION_LOST)
        self.assertIn("404", detail)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_answer(self) -> None:
        """An Asterisk that does not answer is given up after 5 s."""
        self.clock.advance(START_TIMEOUT_S)
        self.assertTrue(self.transport.settle())
        self.assertEqual(len(self.reception.abandoned), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


def succeed_with(context: CallContext, variables: MappingProxyType[str, str], channel_id: str = "") -> Any:
    """A claim that gives a context with these."""
    return succeed(replace(context, variables=variables, channel_id=channel_id))
