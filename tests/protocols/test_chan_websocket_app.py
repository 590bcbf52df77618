"""chan_websocket, the application's side: audio, marks, flushes, flow control, and every end of a call."""

from __future__ import annotations

import json

from twisted.internet.error import ConnectionDone, ConnectionLost

from rapida_twisted.context import EndReason
from rapida_twisted.protocols import control_budget
from rapida_twisted.protocols.chan_websocket_app import (
    MAX_SENT_BYTES,
    STALLED_S,
    START_TIMEOUT_S,
)
from rapida_twisted.protocols.quick_websocket import MAX_CONTROL_BYTES, MAX_MESSAGE_BYTES, PING_S
from rapida_twisted.wire.chan_websocket import (
    DtmfEnd,
    ErrorEvent,
    FlushMedia,
    MarkMedia,
    MediaMarkProcessed,
    MediaXoff,
    MediaXon,
)
from tests.protocols.chan_websocket_cases import JSON_START, NORMAL, START, MediaTestCase
from tests.protocols.fakes import FakeSink, warnings_of
from tests.protocols.websockets import (
    PEER_TEXT,
    PausedSink,
)
from tests.support.websocket_strategies import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, raw_ws_frame


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

    def test_half_samples(self) -> None:
        """A message that is no whole number of samples costs that message alone, and is counted."""
        sink = self.start(JSON_START)
        for payload in (b"a" * 640, b"b" * 639, b"c" * 640):
            self.feed(BINARY, payload)
        self.assertEqual(sink.events, [b"a" * 640, b"c" * 640])
        self.assertEqual(self.factory.rejections.counts["websocket.half_sample"], 1)

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

    def test_no_marks(self) -> None:
        """A peer without MARK_MEDIA: once the first mark is overdue, audio counts as heard by its length; said once."""
        reached: list[float] = []
        self.start()
        began_s = self.clock.seconds()

        def mark(frames: int) -> None:
            self.protocol.send_audio(b"a" * 160 * frames)
            self.protocol.mark(lambda: reached.append(round(self.clock.seconds() - began_s, 2)))

        mark(10)
        mark(5)
        self.advance(3.19)
        self.assertEqual(reached, [])
        self.advance(0.02)
        self.assertEqual(reached, [3.21, 3.21])
        self.advance(1)
        mark(10)
        self.advance(0.19)
        self.assertEqual(len(reached), 2)
        self.advance(0.01)
        self.assertEqual(reached[2:], [4.41])
        self.assertEqual(["MARK_MEDIA" in warning for warning in warnings_of(self.log)], [True])
        mark(10)
        self.protocol.flush()
        self.advance(1)
        self.assertEqual(len(reached), 3)
        mark(50)
        self.event(MediaMarkProcessed(correlation_id="5"))
        self.assertEqual(len(reached), 4)
        mark(5)
        self.advance(60)
        self.assertEqual(len(reached), 4)

    def advance(self, seconds: float) -> None:
        """Let time pass; the peer answers pings."""
        self.clock.advance(seconds)
        for opcode, payload in self.frames():
            if opcode == PING:
                self.feed(PONG, payload)

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
        self.assertIn(f"WebSocket {PEER_TEXT} sent an unknown event 'hello': ignored; this call", line)
        self.assertEqual((len(self.reception.sinks), sink.ended), (1, []))

    def test_asterisks_errors(self) -> None:
        """What Asterisk complains of is logged once, and counted."""
        self.start()
        self.event(ErrorEvent(error_text="no such thing"))
        self.event(ErrorEvent(error_text="no such thing"))
        (line,) = warnings_of(self.log)
        self.assertIn(f"WebSocket {PEER_TEXT}: Asterisk reports no such thing; this call", line)
        self.assertEqual(self.protocol.errors, 2)

    def test_pings(self) -> None:
        """A ping is answered."""
        self.start()
        self.feed(PING, b"there?")
        self.assertEqual(self.frames(), [(PONG, b"there?")])


class EndTests(MediaTestCase):
    """How calls end."""

    def assert_ended(self, sink: FakeSink, reason: EndReason, detail: str | None = None) -> None:
        """The connection is closed, the call got the reason once, and nothing is left behind."""
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
        """A silent peer gets a ping after 10 s, and is disconnected within 20 s."""
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
        """The call pauses and resumes; audio meanwhile is dropped and counted, commands are not lost."""
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
        self.assertEqual(sink.ended, [(EndReason.PEER_STALLED, "the peer read nothing for 5 s")])
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

    def start_pinged(self) -> PausedSink:
        """A call whose peer may send any number of pings."""
        self.patch(control_budget, "BURST", 100_000)
        self.connect()
        return self.start()

    def test_pings_unread(self) -> None:
        """A peer that sends pings and reads no pongs is disconnected before they fill the memory."""
        sink = self.start_pinged()
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
        """A peer that reads the pongs late stays connected, however many there are."""
        sink = self.start_pinged()
        for send in (lambda: self.protocol.send_audio(b"a" * 160), self.protocol.flush) * 3:
            self.transport.producer.pauseProducing()
            for _ in range(MAX_CONTROL_BYTES // 127 - 1):
                self.feed(PING, b"a" * 125)
            self.transport.producer.resumeProducing()
            send()
        self.assertEqual((sink.ended, self.transport.aborted), ([], False))
