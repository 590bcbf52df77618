"""AudioSocket, the application's side: audio in both directions, digits, and every end of a call."""

from __future__ import annotations

from twisted.internet.error import ConnectionLost

from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.context import EndReason
from rapida_twisted.errors import (
    LocalProtocolError,
)
from rapida_twisted.protocols.audiosocket_app import (
    CLOSE_TIMEOUT_S,
    LOST_FRAMES,
    STALLED_FRAMES,
)
from tests.protocols.audiosocket_cases import HANGUP, IDENTIFY, PEER_TEXT, CallTestCase
from tests.protocols.fakes import warnings_of
from tests.support.strategies import raw_frame


class HearingTests(CallTestCase):
    """What the peer sends."""

    def test_audio_and_digits(self) -> None:
        """Packets and digits reach the call as they came, of whatever length, however they were cut."""
        stream = raw_frame(0x10, b"ab" * 160) + raw_frame(0x03, b"#") + raw_frame(0x10, b"cd" * 240)
        self.feed(stream[:100], stream[100:330], stream[330:])
        self.assertEqual(self.reception.sink.events, [b"ab" * 160, "#", b"cd" * 240])

    def test_another_rate(self) -> None:
        """A peer that sends slin16 gets slin16; the call is notified before it gets any audio."""
        self.feed(raw_frame(0x12, b"ab" * 320), raw_frame(0x12, b"cd" * 320))
        self.assertEqual(self.reception.sink.events, [16_000, b"ab" * 320, b"cd" * 320])
        self.assertEqual(self.protocol.format, AudioFormat("slin", 16_000))
        self.protocol.send_audio(bytes(640))
        self.assertEqual(self.transport.value(), b"\x12\x02\x80" + bytes(640))

    def test_another_rate_with_the_same_length(self) -> None:
        """The kind follows the rate also when the frames stay as long as they were."""
        self.protocol.send_audio(bytes(320))
        self.feed(raw_frame(0x12, b"ab"))
        self.protocol.send_audio(bytes(320))
        self.assertEqual(self.transport.value(), b"\x10\x01\x40" + bytes(320) + b"\x12\x01\x40" + bytes(320))

    def test_unknown_kinds(self) -> None:
        """Frames of unknown kinds are counted, logged once, and the call goes on."""
        self.feed(raw_frame(0x02, b"??"), raw_frame(0x02, b""), raw_frame(0x7F, bytes(65_535)), raw_frame(0x03, b"1"))
        self.assertEqual((self.protocol.unknown_frames, self.reception.sink.events), (3, ["1"]))
        (line,) = warnings_of(self.log)
        self.assertIn(f"{PEER_TEXT} sent a frame of kind 0x02 with 2 bytes: ", line)

    def test_error_frame(self) -> None:
        """An error that is not about hanging up is logged, and the call goes on."""
        self.feed(b"\xff\x00\x01\x04", raw_frame(0x03, b"1"))
        self.assertEqual((self.reception.sink.events, self.reception.sink.ended), (["1"], []))
        (line,) = warnings_of(self.log)
        self.assertIn(f"{PEER_TEXT} reports error", line)
        self.assertIn("MEMORY", line)

    def test_error_frame_that_hangs_up(self) -> None:
        """The hangup bit of an error frame ends the call."""
        self.feed(b"\xff\x00\x01\x01" + raw_frame(0x03, b"1"))
        ((reason, detail),) = self.reception.sink.ended
        self.assertIs(reason, EndReason.CALLER_HANGUP)
        self.assertIn("HANGUP", detail)
        self.assertEqual((self.transport.disconnecting, self.reception.sink.events), (True, []))

    def test_odd_audio(self) -> None:
        """Audio of an odd length costs that frame alone."""
        self.feed(raw_frame(0x10, b"ab") + raw_frame(0x10, b"odd") + raw_frame(0x10, b"cd"))
        self.assertEqual(self.reception.sink.events, [b"ab", b"cd"])
        self.assertEqual((self.protocol.unknown_frames, self.reception.sink.ended), (1, []))

    def test_garbage(self) -> None:
        """What breaks the protocol ends the call with that reason: a hangup frame, one log line, a close."""
        self.feed(raw_frame(0x10, b"ab") + raw_frame(0x03, b"12") + raw_frame(0x03, b"1"))
        message = "a DTMF frame of 2 bytes came; a digit has one"
        self.assertEqual(self.reception.sink.events, [b"ab"])
        self.assertEqual(self.reception.sink.ended, [(EndReason.PROTOCOL_ERROR, message)])
        self.assertEqual(self.transport.value(), HANGUP)
        self.assertEqual(warnings_of(self.log), [f"AudioSocket {PEER_TEXT} broke the protocol: {message}"])
        self.feed(raw_frame(0x03, b"1"))
        self.clock.advance(CLOSE_TIMEOUT_S)
        self.assertTrue(self.transport.disconnected)
        self.lose()
        self.assertEqual(len(self.reception.sink.ended), 1)
        self.assert_nothing_scheduled()


class EndTests(CallTestCase):
    """Either side ends the call, and the connection closes."""

    def test_caller_hangs_up(self) -> None:
        """Asterisk closes when the caller hangs up: no error, reported once."""
        self.lose()
        self.assertEqual(self.reception.sink.ended, [(EndReason.CALLER_HANGUP, "")])
        self.assertEqual(warnings_of(self.log), [])
        self.assert_nothing_scheduled()

    def test_connection_breaks(self) -> None:
        """A broken connection is reported as such, with the system's error text."""
        self.lose(OSError("no route"))
        self.assertEqual(self.reception.sink.ended, [(EndReason.CONNECTION_LOST, "no route")])

    def test_reset(self) -> None:
        """A reset is how a hang-up looks with a frame of ours unread; when nothing was taken for 1 s it is a break."""
        self.transport.producer.pauseProducing()
        for _ in range(LOST_FRAMES - 1):
            self.protocol.send_audio(bytes(320))
        self.lose(ConnectionLost())
        self.assertEqual(self.reception.sink.ended, [(EndReason.CALLER_HANGUP, "")])

        self.connect()
        self.feed(IDENTIFY)
        self.transport.producer.pauseProducing()
        for _ in range(LOST_FRAMES):
            self.protocol.send_audio(bytes(320))
        self.lose(ConnectionLost())
        ((reason, _),) = self.reception.sinks[-1].ended
        self.assertIs(reason, EndReason.CONNECTION_LOST)

    def test_hangup_frame(self) -> None:
        """A client's hangup frame ends the call; we close, and cut off what does not go."""
        self.feed(HANGUP + raw_frame(0x10, b"abcd"), raw_frame(0x10, b"efgh"))
        self.assertEqual(self.reception.sink.ended, [(EndReason.CALLER_HANGUP, "")])
        self.assertEqual((self.transport.disconnecting, self.transport.disconnected), (True, False))
        self.assertIsNone(self.transport.producer)
        self.assertEqual((self.reception.sink.events, self.transport.value()), ([], b""))
        self.clock.advance(CLOSE_TIMEOUT_S)
        self.assertTrue(self.transport.disconnected)
        self.lose()
        self.assertEqual(len(self.reception.sink.ended), 1)
        self.assert_nothing_scheduled()

    def test_call_hangs_up(self) -> None:
        """The call's hangup sends the frame and leaves the closing to Asterisk; the call hears of nothing more."""
        self.protocol.send_audio(bytes(320))
        self.protocol.hang_up()
        self.protocol.hang_up()
        self.assertEqual(self.transport.value(), b"\x10\x01\x40" + bytes(320) + HANGUP)
        self.assertFalse(self.transport.disconnecting)
        self.feed(raw_frame(0x10, b"abcd"), b"garbage, by now")
        self.lose()
        self.assertEqual((self.reception.sink.events, self.reception.sink.ended), ([], []))
        self.assert_nothing_scheduled()

    def test_peer_lingers(self) -> None:
        """A peer that does not close within 2 s of the hangup frame is cut off."""
        self.protocol.hang_up()
        self.clock.advance(CLOSE_TIMEOUT_S - 0.01)
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(0.01)
        self.assertTrue(self.transport.disconnected)

    def test_nothing_after_the_hangup(self) -> None:
        """No audio is sent after the hangup frame."""
        self.protocol.hang_up()
        self.protocol.send_audio(bytes(320))
        self.assertEqual(self.transport.value(), HANGUP)

    def test_audio_for_nobody(self) -> None:
        """Audio for a connection that is gone, or cut off, is dropped without an error."""
        self.protocol.abort()
        self.protocol.send_audio(bytes(320))
        self.lose()
        self.protocol.send_audio(bytes(320))
        self.assertEqual((self.transport.value(), self.reception.sink.ended), (b"", []))

    def test_call_hangs_up_what_is_gone(self) -> None:
        """A call that answers the end of its media with a hangup does no harm."""
        self.reception.sink.on_ended = self.protocol.hang_up
        self.lose()
        self.assertEqual((self.transport.value(), len(self.reception.sink.ended)), (b"", 1))
        self.assert_nothing_scheduled()

    def test_abort(self) -> None:
        """The call can cut the line."""
        self.protocol.abort()
        self.assertTrue(self.transport.disconnected)
        self.lose()
        self.assertEqual(self.reception.sink.ended, [])
        self.assert_nothing_scheduled()

    def test_hangs_up_while_it_listens(self) -> None:
        """A call that hangs up over a packet is not given the next, though it was read already."""
        self.reception.sink.on_audio = lambda payload: self.protocol.hang_up()
        self.feed(raw_frame(0x10, b"abcd") + raw_frame(0x10, b"efgh"))
        self.assertEqual((self.reception.sink.events, self.transport.value()), ([b"abcd"], HANGUP))


class SayingTests(CallTestCase):
    """What the call sends."""

    def test_frames(self) -> None:
        """Frames of any even length get their header."""
        for size in (320, 480, 2, 65_534, 320):
            self.transport.clear()
            self.protocol.send_audio(bytes(size))
            self.assertEqual(self.transport.value(), raw_frame(0x10, bytes(size)))

    def test_half_a_sample(self) -> None:
        """Half a sample is an error of this program: Asterisk would hang up on it."""
        self.assertRaises(LocalProtocolError, self.protocol.send_audio, bytes(321))
        self.assertEqual(self.transport.value(), b"")

    def test_flush_and_mark(self) -> None:
        """Nothing waits at the peer: there is nothing to flush, and what was sent is heard."""
        reached: list[int] = []
        self.protocol.flush()
        self.protocol.mark(lambda: reached.append(1))
        self.assertEqual((reached, self.transport.value()), ([1], b""))

    def test_slow_peer(self) -> None:
        """A peer that is behind loses audio, and hears again when it has caught up."""
        self.transport.producer.pauseProducing()
        for _ in range(STALLED_FRAMES - 1):
            self.protocol.send_audio(b"ab" * 160)
        self.assertEqual((self.transport.value(), self.reception.sink.ended), (b"", []))
        self.transport.producer.resumeProducing()
        self.protocol.send_audio(b"cd" * 160)
        self.assertEqual(self.transport.value(), raw_frame(0x10, b"cd" * 160))
        self.transport.producer.pauseProducing()
        for _ in range(STALLED_FRAMES - 1):
            self.protocol.send_audio(b"ab" * 160)
        self.assertEqual(self.reception.sink.ended, [])

    def test_stalled_peer(self) -> None:
        """A peer that took nothing for 5 s is given up: the call ends once with that reason, the line is cut."""
        self.transport.producer.pauseProducing()
        for _ in range(STALLED_FRAMES + 3):
            self.protocol.send_audio(bytes(320))
        expected = (EndReason.PEER_STALLED, "250 frames in a row could not be sent")
        self.assertEqual(self.reception.sink.ended, [expected])
        self.assertTrue(self.transport.disconnected)
        self.assertEqual(self.transport.value(), b"")
        self.lose()
        self.assertEqual(len(self.reception.sink.ended), 1)

    def test_hangup_goes_to_a_slow_peer(self) -> None:
        """The hangup frame is not dropped, whatever waits before it."""
        self.transport.producer.pauseProducing()
        self.protocol.send_audio(bytes(320))
        self.protocol.hang_up()
        self.assertEqual(self.transport.value(), HANGUP)
