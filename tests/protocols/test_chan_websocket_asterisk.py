"""Asterisk's side of chan_websocket, joined in memory to the application's, either of them the client."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio.formats import ULAW, AudioFormat
from rapida_twisted.context import EndReason
from rapida_twisted.protocols.chan_websocket_app import MediaClientFactory, MediaServerFactory
from rapida_twisted.protocols.chan_websocket_asterisk import AsteriskClientFactory, AsteriskServerFactory
from rapida_twisted.wire.chan_websocket import (
    QUEUE_MAX_FRAMES,
    Answer,
    ControlForm,
    ErrorEvent,
    GetStatus,
    Hangup,
    MediaStart,
    SetMediaDirection,
    Status,
    UnknownCommand,
)
from rapida_twisted.wire.chan_websocket_text import encode_command
from tests.media.fakes import KeptLog
from tests.protocols.fakes import FakeReception
from tests.protocols.websockets import (
    PATH,
    EchoSink,
    Joined,
    KeptChannel,
    KeptClient,
    KeptServer,
    PausedSink,
    agreement,
    claimed,
    connect,
    on_clock,
)


class BothSidesTestCase(SynchronousTestCase):
    """The application and Asterisk in memory, either of them the client."""

    def setUp(self) -> None:
        self.clock = on_clock(self)
        self.log = KeptLog(self)

    def join(self, asterisk: KeptChannel, make_sink: Any = PausedSink) -> FakeReception:
        """Join this channel to an application."""
        reception = FakeReception(make_sink)
        if isinstance(asterisk, KeptClient):
            server_factory = MediaServerFactory(reception, self.clock)
            self.app: Any = server_factory.buildProtocol(None)
            client_factory = AsteriskClientFactory(f"ws://rapida{PATH}", asterisk, self.clock)
            self.joined = Joined(client_factory.buildProtocol(None), client_factory, self.app, server_factory)
        else:
            assert isinstance(asterisk, KeptServer)
            app_factory = MediaClientFactory("ws://asterisk/media/1", reception, self.clock, claimed())
            self.app = app_factory.buildProtocol(None)
            channel_factory = AsteriskServerFactory(asterisk, self.clock)
            self.joined = Joined(self.app, app_factory, channel_factory.buildProtocol(None), channel_factory)
        return reception

    def pairs(self, **more: Any) -> list[KeptChannel]:
        """A channel of each role and form."""
        return [
            kind(more.get("format", ULAW), form, channel_id="7.1", variables=more.get("variables"))
            for kind in (KeptClient, KeptServer)
            for form in ControlForm
        ]


class BothSidesTests(BothSidesTestCase):
    """What one says the other hears."""

    def test_call(self) -> None:
        """A whole call: audio both ways, a digit, a mark, a flush, the application's hang-up."""
        for asterisk in self.pairs():
            sink = self.join(asterisk, EchoSink).sink
            asterisk.send_audio(b"a" * 160)
            asterisk.send_digit("5")
            reached: list[bool] = []
            self.joined.pump()
            self.app.mark(lambda reached=reached: reached.append(True))
            self.joined.pump()
            self.assertEqual((sink.events, reached), ([b"a" * 160, "5"], []))
            self.assertEqual(asterisk.tick(), b"a" * 160)
            self.assertEqual(asterisk.tick(), None)
            self.joined.pump()
            self.assertEqual(reached, [True])
            asterisk.send_audio(b"b" * 160)
            self.joined.pump()
            self.app.flush()
            self.joined.pump()
            self.assertEqual((asterisk.tick(), asterisk.queue.frames), (None, 0))
            self.app.hang_up()
            self.joined.pump()
            self.clock.advance(3)
            self.joined.pump()
            self.assertEqual([told for told in asterisk.told if isinstance(told, str)], ["started", "hangup"])
            self.assertEqual([told for told in asterisk.told if isinstance(told, Hangup)], [Hangup()])
            self.assertEqual((asterisk.problems, sink.ended), ([""], []))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_caller_hangs_up(self) -> None:
        """The application sees Asterisk's hangup as the caller's."""
        for asterisk in self.pairs():
            sink = self.join(asterisk).sink
            asterisk.hang_up()
            self.joined.pump()
            self.clock.advance(3)
            self.joined.pump()
            self.assertEqual((asterisk.problems, sink.ended), ([""], [(EndReason.CALLER_HANGUP, "")]))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_variables(self) -> None:
        """The channel's variables reach the call in JSON."""
        for asterisk in self.pairs(variables={"SIPDOMAIN": "example.org"}, format=AudioFormat("slin", 16000)):
            sink = self.join(asterisk).sink
            expected = {"SIPDOMAIN": "example.org"} if asterisk.form is ControlForm.JSON else {}
            self.assertEqual(dict(sink.context.variables), expected)
            self.assertEqual((str(self.app.format), sink.context.channel_id), ("slin@16000", "7.1"))
            self.assertEqual(self.app.channel, f"WebSocket/rapida/{id(asterisk):#x}")

    def test_a_minute_ahead(self) -> None:
        """60 s of speech sent as fast as flow control lets it: all of it is heard, in order, and none is dropped."""
        for asterisk in self.pairs():
            sink = self.join(asterisk).sink
            assert isinstance(sink, PausedSink)
            frames = [number.to_bytes(4, "big") * 40 for number in range(3000)]
            heard: list[bytes] = []
            waiting, longest = frames[:], 0
            while len(heard) < len(frames):
                while waiting and not (sink.pauses and sink.pauses[-1]):
                    self.app.send_audio(b"".join(waiting[:10]))
                    del waiting[:10]
                    self.joined.pump()
                    longest = max(longest, asterisk.queue.frames)
                frame = asterisk.tick()
                self.joined.pump()
                assert frame is not None, "a gap"
                heard.append(frame)
            self.assertEqual(heard, frames)
            self.assertEqual((asterisk.queue.dropped_messages, asterisk.tick()), (0, None))
            self.assertTrue(900 <= longest <= QUEUE_MAX_FRAMES, longest)
            self.assertEqual(sink.pauses[:4], [True, False, True, False])


class AsteriskTests(BothSidesTestCase):
    """What Asterisk's side does with what an application sends."""

    def open(self, form: ControlForm = ControlForm.PLAIN) -> KeptChannel:
        """A channel that is up."""
        asterisk = KeptClient(form=form, channel_id="7.1")
        self.reception = self.join(asterisk)
        asterisk.events.clear()
        asterisk.told.clear()
        return asterisk

    def send(self, asterisk: KeptChannel, text: str) -> None:
        """The application sends a text message."""
        self.app.sendMessage(text.encode())
        self.joined.pump()

    def test_started(self) -> None:
        """MEDIA_START is the first that it says, with what the channel is."""
        for asterisk in self.pairs():
            self.join(asterisk)
            (start,) = asterisk.events
            assert isinstance(start, MediaStart)
            self.assertEqual((start.format, start.optimal_frame_size, start.ptime), ("ulaw", 160, 20))
            self.assertEqual(asterisk.told, ["started"])

    def test_commands(self) -> None:
        """Each command is reported, and has its effect."""
        asterisk = self.open()
        self.send(asterisk, "ANSWER")
        self.send(asterisk, "GET_STATUS")
        self.assertEqual(asterisk.told, ["answered", Answer(), GetStatus()])
        self.assertEqual(asterisk.events, [Status(channel_id="7.1", queue_length=0)])

    def test_unknown_commands(self) -> None:
        """An unknown command is reported without an answer; one of over 128 bytes is ignored."""
        asterisk = self.open()
        self.send(asterisk, "DANCE")
        self.send(asterisk, "GET_STATUS" + " " * 119)
        self.send(asterisk, "GET_STATUS" + " " * 118)
        self.assertEqual(asterisk.told, [UnknownCommand("DANCE"), GetStatus()])

    def test_bad_json(self) -> None:
        """Text that is no JSON gets Asterisk's own error text, and the call goes on."""
        asterisk = self.open(ControlForm.JSON)
        self.send(asterisk, "GET_STATUS")
        self.assertEqual(asterisk.events, [ErrorEvent(channel_id="7.1", error_text="Unable to parse JSON command")])
        self.assertEqual(asterisk.told, [UnknownCommand("GET_STATUS")])
        self.send(asterisk, '{"command":"GET_STATUS"}')
        self.assertEqual(asterisk.told[1:], [GetStatus()])

    def test_directions(self) -> None:
        """An application that set the direction to 'out' is sent no audio; with 'in' it is."""
        asterisk = self.open(ControlForm.JSON)
        for direction, said, heard in (("out", b"a", b""), ("in", b"b", b"b"), ("both", b"c", b"bc")):
            self.send(asterisk, encode_command(SetMediaDirection(direction), ControlForm.JSON))
            self.assertTrue(asterisk.send_audio(said))
            self.joined.pump()
            self.assertEqual(self.reception.sink.heard, heard)

    def test_subprotocol(self) -> None:
        """An application that chooses another subprotocol is refused: the call never starts."""
        asterisk = KeptClient()
        factory = AsteriskClientFactory(f"ws://rapida{PATH}", asterisk, self.clock)
        transport = connect(factory.buildProtocol(None), factory)
        asterisk.dataReceived(agreement(transport.taken(), subprotocol="chat"))
        self.clock.advance(10)
        self.assertTrue(transport.settle())
        self.assertEqual((asterisk.told, asterisk.events, len(asterisk.problems)), ([], [], 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """A handshake that is refused ends the call, once, with what was said."""
        asterisk = KeptClient()
        factory = AsteriskClientFactory(f"ws://rapida{PATH}", asterisk, self.clock, {"x-api-key": "k"})
        transport = connect(factory.buildProtocol(None), factory)
        self.assertIn(b"\r\nx-api-key: k\r\n", transport.taken())
        asterisk.dataReceived(b"HTTP/1.1 404 unknown\r\n\r\n")
        self.assertTrue(transport.settle())
        (problem,) = asterisk.problems
        self.assertIn("404", problem)
        self.assertEqual((asterisk.told, self.clock.getDelayedCalls()), ([], []))

    def test_lost(self) -> None:
        """A lost connection is a problem, reported once."""
        asterisk = self.open()
        self.joined.client_transport.lose(ConnectionLost())
        (problem,) = asterisk.problems
        self.assertIn("1006", problem)
