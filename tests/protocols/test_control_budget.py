"""Peers that send messages without end that carry no audio: the call ends, as one that broke the protocol."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import EndReason
from rapida_twisted.protocols.control_budget import BURST, CRUMB_BYTES, PER_SECOND, PROBLEM, ControlBudget
from rapida_twisted.wire.chan_websocket import ErrorEvent
from tests.protocols.audiosocket_cases import HANGUP, CallTestCase
from tests.protocols.chan_websocket_cases import MediaTestCase
from tests.protocols.fakes import warnings_of
from tests.protocols.websockets import PATH, handshake
from tests.support.strategies import raw_frame
from tests.support.websocket_strategies import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, raw_ws_frame

MANY = BURST + 50
AUDIO = raw_frame(0x10, bytes(320))


class ControlBudgetTests(SynchronousTestCase):
    """The budget alone."""

    def test_rate_and_burst(self) -> None:
        """After the burst, as many as the rate allows."""
        clock = Clock()
        budget = ControlBudget(clock.seconds)
        self.assertEqual(sum(budget.take() for _ in range(MANY)), BURST)
        clock.advance(0.5)
        self.assertEqual(sum(budget.take() for _ in range(MANY)), PER_SECOND // 2)

    def test_size(self) -> None:
        """Long messages use it up sooner."""
        budget = ControlBudget(Clock().seconds)
        self.assertEqual(sum(budget.take(65_535) for _ in range(MANY)), BURST // 256)


class AudioSocketTests(CallTestCase):
    """What a peer can send over AudioSocket."""

    def assert_ended(self, problem: str = PROBLEM) -> None:
        """The call ended once, and its connection takes nothing more."""
        sink = self.reception.sink
        self.assertEqual(sink.ended, [(EndReason.PROTOCOL_ERROR, problem)])
        self.assertEqual(self.transport.value(), HANGUP)
        known = len(sink.events)
        self.feed(AUDIO)
        self.assertEqual(len(sink.events), known)

    def test_frames_without_end(self) -> None:
        """Digits, errors, unknown kinds, and audio in crumbs: each ends the call, in one read or in many."""
        for frame in (
            raw_frame(0x03, b"1"), raw_frame(0xFF, b"\4"), raw_frame(0x02, b""), raw_frame(0x10, b""),
            raw_frame(0x10, bytes(CRUMB_BYTES - 2)), raw_frame(0x10, b"odd"),
        ):  # fmt: skip
            for chunks in ([frame * MANY], [frame] * MANY):
                with self.subTest(frame=frame, reads=len(chunks)):
                    self.reception.sinks.clear()
                    self.setUp()
                    self.feed(*chunks)
                    self.assert_ended()

    def test_before_the_call(self) -> None:
        """The same in the same read as the UUID."""
        self.reception.sinks.clear()
        self.connect()
        self.feed(raw_frame(0x01, bytes(16)) + raw_frame(0x03, b"1") * MANY)
        self.assert_ended()

    def test_ordinary_calls(self) -> None:
        """Audio is not counted, nor are digits at the speed of fingers."""
        for _ in range(60):
            self.feed(*[AUDIO] * 50, *[raw_frame(0x03, b"1")] * 10)
            self.clock.advance(1)
        self.assertEqual((len(self.reception.sink.events), self.reception.sink.ended), (3600, []))

    def test_crumbs_at_high_rates(self) -> None:
        """At a high rate, longer frames are crumbs, too: less than 4 ms."""
        self.feed(*[raw_frame(0x12, bytes(128))] * MANY)
        self.assertEqual(self.reception.sink.ended, [])
        self.feed(*[raw_frame(0x12, bytes(126))] * MANY)
        self.assert_ended()

    def test_rates(self) -> None:
        """The rate may change once: each change makes converters."""
        self.feed(AUDIO, raw_frame(0x12, bytes(640)), raw_frame(0x12, bytes(640)), AUDIO)
        self.assertEqual(self.reception.sink.events, [bytes(320), 16_000, bytes(640), bytes(640)])
        self.assert_ended("the sample rate changed a second time")

    def test_error_frames_in_the_log(self) -> None:
        """Error frames write one line."""
        self.feed(raw_frame(0xFF, b"\4") * 50)
        self.assertEqual((len(warnings_of(self.log)), self.protocol.error_frames), (1, 50))


class WebSocketTests(MediaTestCase):
    """What a peer can send over a WebSocket."""

    def setUp(self) -> None:
        super().setUp()
        self.start()

    def assert_ended(self) -> None:
        """The call ended at once and once, and nothing more is read; the connection closes with 1008."""
        self.assertEqual(self.sink.ended, [(EndReason.PROTOCOL_ERROR, PROBLEM)])
        self.assertIn((CLOSE, (1008).to_bytes(2, "big") + PROBLEM.encode()), self.frames())
        known = len(self.sink.events)
        self.feed(BINARY, bytes(160))
        self.feed(PING, b"")
        self.assertEqual((len(self.sink.events), self.frames()), (known, []))
        self.lose()
        self.assert_nothing_scheduled()
        self.assertEqual(self.factory.rejections.counts["websocket.garbage"], 1)

    def test_messages_without_end(self) -> None:
        """Pings, pongs, events, fragments and audio in crumbs: each ends the call, in one read or in many."""
        first = raw_ws_frame(BINARY, b"", mask=MASK, fin=False)
        for opcode, payload, before in (
            (PING, b"", b""), (PONG, b"", b""), (TEXT, b"MEDIA_XON", b""), (TEXT, b"ERROR error_text:no", b""),
            (TEXT, b"DTMF_END digit:1", b""), (BINARY, b"", b""), (BINARY, b"a" * 63, b""),
            (CONTINUATION, b"", first), (CONTINUATION, b"a" * 63, first),
        ):  # fmt: skip
            frame = raw_ws_frame(opcode, payload, mask=MASK, fin=opcode != CONTINUATION)
            for chunks in ([before + frame * MANY], [before, *[frame] * MANY]):
                with self.subTest(opcode=opcode, payload=payload, reads=len(chunks)):
                    self.setUp()
                    for chunk in chunks:
                        self.protocol.dataReceived(chunk)
                    self.assert_ended()

    def test_long_texts(self) -> None:
        """A few long texts are as bad as many short ones."""
        for _ in range(4):
            self.text("x" * 60_000)
        self.assert_ended()

    def test_before_the_call(self) -> None:
        """The same before MEDIA_START, also in the read of the handshake."""
        pings = raw_ws_frame(PING, b"", mask=MASK) * MANY
        for chunks in ([handshake(PATH) + pings], [handshake(PATH), pings]):
            self.reception.abandoned.clear()
            self.connect()
            for chunk in chunks:
                self.protocol.dataReceived(chunk)
            ((_, reason, detail),) = self.reception.abandoned
            self.assertEqual((reason, detail), (EndReason.PROTOCOL_ERROR, PROBLEM))

    def test_ordinary_calls(self) -> None:
        """Audio is not counted, nor are marks and pings as programs send them."""
        for _ in range(20):
            for _ in range(50):
                self.feed(BINARY, bytes(160))
                self.text("MEDIA_MARK_PROCESSED 1", "DTMF_END digit:1")
            self.feed(PING, b"")
            self.clock.advance(1)
        self.assertEqual((len(self.sink.events), self.sink.ended), (2000, []))

    def test_errors_in_the_log(self) -> None:
        """ERROR events write one line, of a bounded length and without control characters."""
        for _ in range(50):
            self.event(ErrorEvent(error_text="\x1b[2J" + "x" * 1000))
        (line,) = warnings_of(self.log)
        self.assertTrue(len(line) < 350 and "\x1b" not in line, line)
