"""The AudioSocket protocols of both roles, on fake transports and fake time."""

from __future__ import annotations

from uuid import UUID

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport, StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.test import iosim
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rapida_twisted.audio.formats import SLIN, AudioFormat
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import (
    ContextClaimed,
    ContextExpired,
    Draining,
    LocalProtocolError,
    StoreUnavailable,
    TooManyCalls,
    UnknownContext,
)
from rapida_twisted.interfaces import IMediaChannel
from rapida_twisted.protocols.audiosocket_app import (
    CLOSE_TIMEOUT_S,
    LOST_FRAMES,
    STALLED_FRAMES,
    UUID_TIMEOUT_S,
    AsteriskProtocol,
    AudioSocketFactory,
    AudioSocketProtocol,
)
from rapida_twisted.wire.audiosocket import ErrorBits
from tests.media.fakes import KeptLog
from tests.protocols.fakes import EchoSink, FakeReception, warnings_of
from tests.strategies import raw_frame

CALL = UUID("6b0e2a52-8f4c-4a53-9c3e-3d3b6d7c0f11")
IDENTIFY = raw_frame(0x01, CALL.bytes)
HANGUP = b"\x00\x00\x00"
PEER = IPv4Address("TCP", "192.0.2.7", 40312)
PEER_TEXT = "192.0.2.7:40312"


class ServerTestCase(SynchronousTestCase):
    """One connection to the server's protocol."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = KeptLog(self)
        self.reception = FakeReception()
        self.connect()

    def connect(self, transport: StringTransport | None = None) -> None:
        """Open another connection, which is the one in use from then on."""
        self.settled = 0
        self.transport = transport or StringTransportWithDisconnection(peerAddress=PEER)
        self.protocol = AudioSocketProtocol(self.reception, self.clock, settled=self.settle)
        self.transport.protocol = self.protocol  # type: ignore[attr-defined]
        self.protocol.makeConnection(self.transport)

    def settle(self, protocol: AudioSocketProtocol) -> None:
        """Count it."""
        self.settled += 1

    def feed(self, *chunks: bytes) -> None:
        """The peer sends."""
        for chunk in chunks:
            self.protocol.dataReceived(chunk)

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone."""
        self.transport.connected = False
        self.protocol.connectionLost(Failure(error or ConnectionDone()))

    def assert_nothing_scheduled(self) -> None:
        """No timer is left behind."""
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WaitingTests(ServerTestCase):
    """Before the peer has said which call it is."""

    def test_channel(self) -> None:
        """The protocol is a media channel that speaks slin and does not time the playing."""
        self.assertTrue(verifyObject(IMediaChannel, self.protocol))
        self.assertEqual((self.protocol.format, self.protocol.paced), (SLIN, False))
        self.assertEqual(self.protocol.transport_name, "audiosocket")

    def test_deadline(self) -> None:
        """A peer that says nothing for 5 s is cut off, with one log line that says from where."""
        self.clock.advance(UUID_TIMEOUT_S - 0.01)
        self.assertTrue(self.transport.connected)
        self.clock.advance(0.01)
        self.assertTrue(self.transport.disconnected)
        self.assertEqual(warnings_of(self.log), [f"AudioSocket {PEER_TEXT} sent no UUID frame within 5 s: closed"])
        self.assertEqual((self.settled, self.transport.value()), (1, b""))
        self.assert_nothing_scheduled()

    def test_half_a_frame_gains_no_time(self) -> None:
        """A peer that sends its UUID frame a byte a second is cut off just the same."""
        for byte in IDENTIFY[:4]:
            self.clock.advance(1)
            self.feed(bytes((byte,)))
        self.clock.advance(1)
        self.assertTrue(self.transport.disconnected)
        self.assertEqual(self.reception.claims, [])

    def test_in_time(self) -> None:
        """With the UUID frame the deadline is gone."""
        self.feed(IDENTIFY[:10], IDENTIFY[10:])
        self.assert_nothing_scheduled()
        self.assertEqual(self.reception.claims, [(str(CALL), "audiosocket", PEER_TEXT)])
        self.assertEqual(self.protocol.peer, PEER_TEXT)

    def test_peer_gives_up(self) -> None:
        """A peer that hangs up, or reports an error, before its UUID is let go."""
        for data in (HANGUP, b"\xff\x00\x01\x04"):
            self.connect()
            self.feed(data)
            self.assertFalse(self.transport.connected)
            self.assertEqual((self.settled, self.reception.claims, self.transport.value()), (1, [], b""))
        self.assertEqual(warnings_of(self.log), [])

    def test_gone(self) -> None:
        """A connection that closes before its UUID leaves nothing behind, not even a log line."""
        for error in (ConnectionDone(), ConnectionLost()):
            self.connect()
            self.lose(error)
            self.assertEqual(self.settled, 1)
        self.lose()
        self.assertEqual(self.settled, 1)
        self.assertEqual(self.log.events, [])

    def test_garbage(self) -> None:
        """Garbage instead of a UUID: one log line with the error, a hangup frame, and a close within its time."""
        self.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n")
        self.assertEqual(self.transport.value(), HANGUP)
        self.assertEqual(
            warnings_of(self.log),
            [f"AudioSocket {PEER_TEXT} broke the protocol: a frame of kind 0x47 came before the UUID frame"],
        )
        self.clock.advance(CLOSE_TIMEOUT_S)
        self.assertTrue(self.transport.disconnected)
        self.assertEqual((self.settled, self.reception.claims), (1, []))
        self.assert_nothing_scheduled()


class ClaimTests(ServerTestCase):
    """The UUID is there, and its call is looked for."""

    def setUp(self) -> None:
        super().setUp()
        self.waiting: list[tuple[Deferred[CallContext], CallContext]] = []
        self.reception.answer = self.answer_later

    def answer_later(self, context: CallContext) -> Deferred[CallContext]:
        """A claim that takes its time."""
        claim: Deferred[CallContext] = Deferred()
        self.waiting.append((claim, context))
        return claim

    def grant(self) -> None:
        """The claim succeeds."""
        claim, context = self.waiting.pop()
        claim.callback(context)

    def refuse(self, error: Exception) -> None:
        """The claim fails."""
        self.waiting.pop()[0].errback(error)

    def test_at_once(self) -> None:
        """A claim that is granted at once takes nothing from what came in the same read."""
        del self.reception.answer
        self.reception.answer = FakeReception().answer
        self.feed(IDENTIFY + raw_frame(0x10, b"abcd") + raw_frame(0x03, b"5"))
        self.assertEqual(self.reception.sink.events, [b"abcd", "5"])
        self.assertEqual((self.settled, self.transport.producerState), (1, "producing"))

    def test_later(self) -> None:
        """Until the claim is granted nothing is read; what came with the UUID is kept, in its order."""
        self.feed(IDENTIFY + raw_frame(0x10, b"abcd") + raw_frame(0x03, b"5") + raw_frame(0x02, b"?"))
        self.assertEqual((self.transport.producerState, self.settled, self.reception.sinks), ("paused", 1, []))
        self.grant()
        self.assertEqual((self.transport.producerState, self.settled), ("producing", 1))
        self.assertEqual(self.reception.sink.events, [b"abcd", "5"])
        self.assertEqual(self.protocol.unknown_frames, 1)
        self.assertIs(self.reception.sink.channel, self.protocol)
        self.assertEqual(self.reception.sink.context.context_id, str(CALL))
        self.feed(raw_frame(0x10, b"efgh"))
        self.assertEqual(self.reception.sink.heard, b"abcdefgh")
        self.assertEqual(self.reception.abandoned, [])

    def test_early_audio_of_another_rate(self) -> None:
        """Audio kept for the call tells it the rate first."""
        self.feed(IDENTIFY + raw_frame(0x12, b"abcd"))
        self.grant()
        self.assertEqual(self.reception.sink.events, [16_000, b"abcd"])

    def test_call_that_ends_over_early_audio(self) -> None:
        """A call that hangs up at the first kept frame is not given the second."""
        self.feed(IDENTIFY + raw_frame(0x10, b"abcd") + raw_frame(0x10, b"efgh"))
        self.reception._make_sink = lambda context, channel: self.hanging_up(context, channel)
        self.grant()
        self.assertEqual(self.reception.sink.events, [b"abcd"])

    def hanging_up(self, context: CallContext, channel: IMediaChannel) -> EchoSink:
        """A call that hangs up when it hears something."""
        sink = EchoSink(context, channel)
        sink.on_audio = lambda payload: channel.hang_up()
        return sink

    def assert_refused(self, error: Exception, *words: str) -> None:
        """The connection gets a hangup frame, one log line with these words, and is closed within its time."""
        self.refuse(error)
        self.assertEqual((self.transport.value(), self.transport.connected), (HANGUP, True))
        self.assertEqual(self.transport.producerState, "producing")
        (line,) = warnings_of(self.log)
        for word in (PEER_TEXT, *words):
            self.assertIn(word, line)
        self.clock.advance(CLOSE_TIMEOUT_S - 0.01)
        self.assertTrue(self.transport.connected)
        self.clock.advance(0.01)
        self.assertTrue(self.transport.disconnected)
        self.assertEqual((self.settled, self.reception.sinks, self.reception.abandoned), (1, [], []))
        self.assert_nothing_scheduled()

    def test_unknown(self) -> None:
        """An unknown contextId: hangup frame, then close, and a log line that says so and from where."""
        self.feed(IDENTIFY)
        self.assert_refused(UnknownContext(str(CALL)), f"context {CALL} is unknown")

    def test_expired(self) -> None:
        """The same for an expired one."""
        self.feed(IDENTIFY)
        self.assert_refused(ContextExpired(str(CALL)), f"context {CALL} is expired")

    def test_already_claimed(self) -> None:
        """The same for one that another connection has."""
        self.feed(IDENTIFY)
        self.assert_refused(ContextClaimed(str(CALL), "since 3 s"), f"context {CALL} is already claimed: since 3 s")

    def test_other_refusals(self) -> None:
        """The same when the server drains, is full, or has no store."""
        for error in (Draining("draining"), TooManyCalls("1000 calls are up"), StoreUnavailable("disk full")):
            self.log.events.clear()
            self.transport.loseConnection()
            self.connect()
            self.feed(IDENTIFY)
            self.assert_refused(error, str(error))

    def test_refused_at_once(self) -> None:
        """A refusal in the very same turn; what came with the UUID is not looked at."""
        self.reception.answer = lambda context: fail(UnknownContext(context.context_id))
        self.feed(IDENTIFY + raw_frame(0x10, b"abcd"), raw_frame(0x10, b"odd"))
        self.assertEqual(self.transport.value(), HANGUP)
        self.assertEqual(len(warnings_of(self.log)), 1)
        self.lose()
        self.assert_nothing_scheduled()

    def test_refused_peer_closes(self) -> None:
        """A refused peer that closes by itself, as Asterisk does, leaves no timer behind."""
        self.feed(IDENTIFY)
        self.refuse(UnknownContext(str(CALL)))
        self.lose()
        self.assert_nothing_scheduled()
        self.assertFalse(self.transport.disconnected)

    def test_claim_breaks(self) -> None:
        """An error nobody foresaw: its traceback is logged, and the caller gets the hangup frame all the same."""
        self.feed(IDENTIFY)
        self.refuse(ZeroDivisionError("oops"))
        self.assertEqual(self.transport.value(), HANGUP)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn(PEER_TEXT, str(self.log.failures[0]))
        self.clock.advance(CLOSE_TIMEOUT_S)
        self.assertTrue(self.transport.disconnected)

    def test_start_breaks(self) -> None:
        """The same when the call can't be started."""

        def broken(channel: IMediaChannel) -> None:
            raise ZeroDivisionError("oops")

        self.reception.on_start = broken
        self.feed(IDENTIFY)
        self.grant()
        self.assertEqual((self.transport.value(), self.transport.producerState), (HANGUP, "producing"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.lose()
        self.assert_nothing_scheduled()

    def test_ended_as_it_starts(self) -> None:
        """A call that ends in its very start (no assistant) hangs up, and what was kept for it is not delivered."""
        self.reception.on_start = lambda channel: channel.hang_up()
        self.feed(IDENTIFY + raw_frame(0x10, b"abcd"))
        self.grant()
        self.assertEqual((self.transport.value(), self.reception.sink.events), (HANGUP, []))
        self.feed(raw_frame(0x10, b"efgh"))
        self.assertEqual(self.reception.sink.events, [])

    def assert_abandoned(self, reason: EndReason, detail: str) -> None:
        """The claim that is granted now is given up for this reason, and no call is started."""
        self.grant()
        ((context, *said),) = self.reception.abandoned
        self.assertEqual(context.context_id, str(CALL))
        self.assertEqual((said, self.reception.sinks), ([reason, detail], []))
        self.assert_nothing_scheduled()

    def test_caller_hangs_up_meanwhile(self) -> None:
        """A connection that closes while its call is claimed: the call is over before it began."""
        self.feed(IDENTIFY)
        self.lose()
        self.assertEqual(self.settled, 1)
        self.assert_abandoned(EndReason.CALLER_HANGUP, "its connection closed while it was claimed")

    def test_hangup_frame_meanwhile(self) -> None:
        """The same for a hangup frame that came with the UUID."""
        self.feed(IDENTIFY + raw_frame(0x10, b"abcd") + HANGUP + raw_frame(0x10, b"efgh"))
        self.assertFalse(self.transport.connected)
        self.assert_abandoned(EndReason.CALLER_HANGUP, "its connection closed while it was claimed")

    def test_connection_breaks_meanwhile(self) -> None:
        """A connection that breaks meanwhile is told apart from a caller who hung up."""
        self.feed(IDENTIFY)
        self.lose(OSError("no route"))
        self.assert_abandoned(EndReason.CONNECTION_LOST, "no route")

    def test_garbage_meanwhile(self) -> None:
        """Garbage behind the UUID: the peer's close is waited for, and the call is recorded as what it was."""
        self.feed(IDENTIFY + raw_frame(0x03, b"x"))
        self.assertEqual((self.transport.value(), self.transport.producerState), (HANGUP, "producing"))
        self.lose()
        self.assert_abandoned(EndReason.PROTOCOL_ERROR, "DTMF digit b'x' came; known are 0123456789ABCD*#")
        self.assertEqual(len(warnings_of(self.log)), 1)

    def test_refused_after_it_closed(self) -> None:
        """A refusal for a connection that is gone is logged, and nothing is sent."""
        self.feed(IDENTIFY)
        self.lose()
        self.refuse(UnknownContext(str(CALL)))
        self.assertEqual((len(warnings_of(self.log)), self.transport.value()), (1, b""))
        self.assert_nothing_scheduled()


class CallTestCase(ServerTestCase):
    """A connection with its call up."""

    def setUp(self) -> None:
        super().setUp()
        self.feed(IDENTIFY)

    def connect(self, transport: StringTransport | None = None) -> None:
        """With a transport that keeps open until told that it is gone."""
        super().connect(transport or StringTransport(peerAddress=PEER))


class HearingTests(CallTestCase):
    """What the peer sends."""

    def test_audio_and_digits(self) -> None:
        """Packets and digits reach the call as they came, of whatever length, however they were cut."""
        stream = raw_frame(0x10, b"ab" * 160) + raw_frame(0x03, b"#") + raw_frame(0x10, b"cd" * 240)
        self.feed(stream[:100], stream[100:330], stream[330:])
        self.assertEqual(self.reception.sink.events, [b"ab" * 160, "#", b"cd" * 240])

    def test_another_rate(self) -> None:
        """A peer that speaks slin16 is answered in slin16; the call is told before it hears any."""
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
        self.assertIn(f"{PEER_TEXT} sent a frame of unknown kind 0x02 (2 bytes)", line)

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

    def test_garbage(self) -> None:
        """What breaks the protocol ends the call with that reason: a hangup frame, one log line, a close."""
        self.feed(raw_frame(0x10, b"ab") + raw_frame(0x10, b"odd") + raw_frame(0x03, b"1"))
        message = "an audio frame of 3 bytes came; 16-bit samples need an even number"
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
    """Who ends the call, and how the connection closes."""

    def test_caller_hangs_up(self) -> None:
        """Asterisk closes when the caller hangs up: no error, told once."""
        self.lose()
        self.assertEqual(self.reception.sink.ended, [(EndReason.CALLER_HANGUP, "")])
        self.assertEqual(warnings_of(self.log), [])
        self.assert_nothing_scheduled()

    def test_connection_breaks(self) -> None:
        """A connection that breaks is told as such, with the words of the system."""
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
        """Behind the hangup frame no audio is sent, whoever tries."""
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


class FactoryTests(SynchronousTestCase):
    """The connections of one port."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = KeptLog(self)
        self.reception = FakeReception()
        self.factory = AudioSocketFactory(self.reception, self.clock, uuid_timeout_s=1.0, max_waiting=3)

    def connect(self) -> tuple[StringTransportWithDisconnection, AudioSocketProtocol]:
        """One more connection."""
        transport = StringTransportWithDisconnection(peerAddress=PEER)
        protocol = self.factory.buildProtocol(PEER)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport, protocol  # type: ignore[return-value]

    def test_limit_of_the_silent(self) -> None:
        """Beyond the limit of connections that say nothing, the oldest of them makes room."""
        transports = [self.connect()[0] for _ in range(3)]
        self.assertEqual(self.factory.waiting, 3)
        newest, _ = self.connect()
        self.assertTrue(transports[0].disconnected)
        self.assertTrue(all(transport.connected for transport in (*transports[1:], newest)))
        self.assertEqual((self.factory.waiting, self.factory.refused), (3, 1))
        self.assertEqual(
            warnings_of(self.log),
            ["AudioSocket: 3 connections have not said which call they are, so the oldest is closed (1 closed so far)"],
        )

    def test_flood_does_not_fill_the_log(self) -> None:
        """Of a hundred rejections seven are logged."""
        for _ in range(103):
            self.connect()
        self.assertEqual((self.factory.refused, len(warnings_of(self.log))), (100, 1))

    def test_place_is_given_back(self) -> None:
        """A connection gives its place back once: when its call is up, when it is gone, when its time is over."""
        _, first = self.connect()
        self.connect()
        self.connect()
        first.dataReceived(IDENTIFY)
        self.assertEqual(self.factory.waiting, 2)
        first.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.factory.waiting, 2)
        self.clock.advance(1.0)
        self.assertEqual(self.factory.waiting, 0)
        self.connect()
        self.assertEqual((self.factory.waiting, self.factory.refused), (1, 0))

    def test_claim_takes_no_place(self) -> None:
        """A connection that has said which call it is can't be pushed out, however long its claim takes."""
        self.reception.answer = lambda context: Deferred()
        transport, protocol = self.connect()
        protocol.dataReceived(IDENTIFY)
        for _ in range(10):
            self.connect()
        self.assertTrue(transport.connected)
        transport.loseConnection()
        self.assertEqual(self.factory.waiting, 3)

    def test_deadline_of_the_factory(self) -> None:
        """The factory's own time for the UUID frame is kept."""
        transport, _ = self.connect()
        self.clock.advance(0.99)
        self.assertTrue(transport.connected)
        self.clock.advance(0.01)
        self.assertTrue(transport.disconnected)


class Phone(AsteriskProtocol):
    """A client that writes down what it is told."""

    def __init__(self, call: UUID = CALL) -> None:
        super().__init__(call)
        self.events: list[object] = []

    def call_started(self) -> None:
        """Keep it."""
        self.events.append("started")

    def audio_received(self, samples: bytes, rate_hz: int) -> None:
        """Keep it."""
        self.events.append((samples, rate_hz))

    def hangup_received(self) -> None:
        """Keep it."""
        self.events.append("hangup")

    def error_received(self, code: ErrorBits) -> None:
        """Keep it."""
        self.events.append(code)

    def call_ended(self, problem: str) -> None:
        """Keep it."""
        self.events.append(("ended", problem))


class AsteriskProtocolTests(SynchronousTestCase):
    """The client's side."""

    def setUp(self) -> None:
        self.phone = Phone()
        self.transport = StringTransportWithDisconnection()
        self.transport.protocol = self.phone
        self.phone.makeConnection(self.transport)

    def test_begins_with_the_uuid(self) -> None:
        """The UUID is sent before the call is said to have started."""
        self.assertEqual((self.transport.value(), self.phone.events), (IDENTIFY, ["started"]))

    def test_sends(self) -> None:
        """Audio of any rate, and digits."""
        self.transport.clear()
        self.assertTrue(self.phone.send_audio(b"ab" * 160))
        self.phone.send_digit("*")
        self.assertTrue(self.phone.send_audio(b"ab", 16_000))
        self.assertEqual(
            self.transport.value(), raw_frame(0x10, b"ab" * 160) + raw_frame(0x03, b"*") + raw_frame(0x12, b"ab")
        )

    def test_hears(self) -> None:
        """Audio, errors, and nothing of kinds that it does not know."""
        stream = raw_frame(0x12, b"abcd") + raw_frame(0x02, b"??") + b"\xff\x00\x01\x02" + raw_frame(0x10, b"ef")
        self.phone.dataReceived(stream[:5])
        self.phone.dataReceived(stream[5:])
        self.assertEqual(self.phone.events, ["started", (b"abcd", 16_000), ErrorBits.FRAME_FORWARDING, (b"ef", 8000)])

    def test_server_hangs_up(self) -> None:
        """At the server's hangup frame it closes, and what comes behind is not heard."""
        self.phone.dataReceived(HANGUP + raw_frame(0x10, b"ab"))
        self.assertFalse(self.transport.connected)
        self.assertEqual(set(map(str, self.phone.events)), {"started", "hangup", "('ended', '')"})
        self.assertEqual(len(self.phone.events), 3)

    def test_server_closes(self) -> None:
        """The server's close is an orderly end."""
        self.phone.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.phone.events, ["started", ("ended", "")])

    def test_connection_breaks(self) -> None:
        """A broken connection is a problem, in the words of the system."""
        self.phone.connectionLost(Failure(ConnectionLost("reset")))
        ((_, problem),) = self.phone.events[1:]
        self.assertIn("reset", problem)

    def test_server_breaks_the_protocol(self) -> None:
        """What would make Asterisk hang up ends the call with the codec's words."""
        self.phone.dataReceived(raw_frame(0x10, b"ab") + raw_frame(0x03, b"1"))
        self.assertTrue(self.transport.disconnected)
        message = "a server sent a frame of kind 0x03; Asterisk hangs up on it"
        self.assertEqual(self.phone.events, ["started", (b"ab", 8000), ("ended", message)])

    def test_hangs_up(self) -> None:
        """Hanging up closes, without a frame, and once."""
        self.transport.clear()
        self.phone.hang_up()
        self.phone.hang_up()
        self.assertEqual((self.transport.value(), self.phone.events), (b"", ["started", ("ended", "")]))

    def test_without_a_connection(self) -> None:
        """Before and after the connection, audio is not sent and nothing is raised."""
        self.phone.connectionLost(Failure(ConnectionDone()))
        self.transport.clear()
        for phone in (Phone(), self.phone):
            self.assertFalse(phone.send_audio(bytes(320)))
            phone.send_digit("1")
            phone.hang_up()
        self.assertEqual(self.transport.value(), b"")

    def test_hangs_up_while_it_listens(self) -> None:
        """A phone that hangs up over a frame is not given the next, though it was read already."""
        heard: list[bytes] = []

        def hear(samples: bytes, rate_hz: int) -> None:
            heard.append(samples)
            self.phone.hang_up()

        self.phone.audio_received = hear  # type: ignore[method-assign]
        self.phone.dataReceived(raw_frame(0x10, b"ab") + raw_frame(0x10, b"cd"))
        self.assertEqual(heard, [b"ab"])

    def test_server_that_does_not_read(self) -> None:
        """Audio for a server that is behind is dropped; a digit waits; hanging up does not wait for it."""
        self.transport.clear()
        self.transport.producer.pauseProducing()
        self.assertFalse(self.phone.send_audio(bytes(320)))
        self.phone.send_digit("1")
        self.assertEqual(self.transport.value(), raw_frame(0x03, b"1"))
        self.phone.hang_up()
        self.assertTrue(self.transport.disconnected)


class BothTests(SynchronousTestCase):
    """Both protocols, joined in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reception = FakeReception(EchoSink)
        self.phone = Phone()
        self.server = AudioSocketProtocol(self.reception, self.clock)
        self.pump = iosim.connect(
            self.server,
            iosim.FakeTransport(self.server, isServer=True),
            self.phone,
            iosim.FakeTransport(self.phone, isServer=False),
        )

    def test_echo(self) -> None:
        """What the phone says comes back from a call that echoes, at the phone's own rate."""
        self.phone.send_audio(b"ab" * 160)
        self.phone.send_audio(b"cd" * 480, 16_000)
        self.phone.send_digit("7")
        self.pump.flush()
        self.assertEqual(self.phone.events, ["started", (b"ab" * 160, 8000), (b"cd" * 480, 16_000)])
        self.assertEqual(self.reception.sink.events[-1], "7")

    def test_server_hangs_up(self) -> None:
        """The phone closes upon the hangup frame, so nobody has to be cut off."""
        self.reception.sink.channel.hang_up()
        self.pump.flush()
        self.assertEqual(self.phone.events, ["started", "hangup", ("ended", "")])
        self.assertEqual((self.reception.sink.ended, self.clock.getDelayedCalls()), ([], []))

    def test_phone_hangs_up(self) -> None:
        """The call hears that its caller hung up."""
        self.phone.hang_up()
        self.pump.flush()
        self.assertEqual(self.reception.sink.ended, [(EndReason.CALLER_HANGUP, "")])
        self.assertEqual(self.phone.events, ["started", ("ended", "")])
