"""AudioSocket, the application's side: the UUID frame, its time limit, and the claim of the call."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rapida_twisted.audio.formats import SLIN
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
from rapida_twisted.protocols.audiosocket_app import (
    CLOSE_TIMEOUT_S,
    UUID_TIMEOUT_S,
    AudioSocketFactory,
    AudioSocketProtocol,
)
from tests.media.fakes import KeptLog
from tests.protocols.audiosocket_cases import CALL, HANGUP, IDENTIFY, PEER, PEER_TEXT, ServerTestCase
from tests.protocols.fakes import EchoSink, FakeReception, warnings_of
from tests.support.strategies import raw_frame


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
        """The connection gets a hangup frame, one log line with this text, and is closed within its time."""
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
        """An unexpected error: its traceback is logged, and the caller still gets the hangup frame."""
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
        self.assert_abandoned(EndReason.CALLER_HANGUP, "the connection closed while the call was claimed")

    def test_hangup_frame_meanwhile(self) -> None:
        """The same for a hangup frame that came with the UUID."""
        self.feed(IDENTIFY + raw_frame(0x10, b"abcd") + HANGUP + raw_frame(0x10, b"efgh"))
        self.assertFalse(self.transport.connected)
        self.assert_abandoned(EndReason.CALLER_HANGUP, "the connection closed while the call was claimed")

    def test_connection_breaks_meanwhile(self) -> None:
        """A connection that breaks meanwhile differs from a caller who hung up."""
        self.feed(IDENTIFY)
        self.lose(OSError("no route"))
        self.assert_abandoned(EndReason.CONNECTION_LOST, "no route")

    def test_garbage_meanwhile(self) -> None:
        """Garbage behind the UUID: the peer's close is waited for, and the call is recorded as what it was."""
        self.feed(IDENTIFY + raw_frame(0x03, b"x"))
        self.assertEqual((self.transport.value(), self.transport.producerState), (HANGUP, "producing"))
        self.lose()
        self.assert_abandoned(EndReason.PROTOCOL_ERROR, "DTMF digit b'x' came; valid are 0123456789ABCD*#")
        self.assertEqual(len(warnings_of(self.log)), 1)

    def test_refused_after_it_closed(self) -> None:
        """A refusal for a connection that is gone is logged, and nothing is sent."""
        self.feed(IDENTIFY)
        self.lose()
        self.refuse(UnknownContext(str(CALL)))
        self.assertEqual((len(warnings_of(self.log)), self.transport.value()), (1, b""))
        self.assert_nothing_scheduled()


class FactoryTests(SynchronousTestCase):
    """The connections of one port."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = KeptLog(self)
        self.reception = FakeReception()
        self.factory = AudioSocketFactory(self.reception, self.clock, uuid_timeout_s=1.0, max_unidentified=3)

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
        self.assertEqual(self.factory.unidentified, 3)
        newest, _ = self.connect()
        self.assertTrue(transports[0].disconnected)
        self.assertTrue(all(transport.connected for transport in (*transports[1:], newest)))
        self.assertEqual((self.factory.unidentified, self.factory.refused), (3, 1))
        self.assertEqual(
            warnings_of(self.log),
            ["AudioSocket: 3 connections have not sent their UUID: closed the oldest (1 closed so far)"],
        )

    def test_flood_does_not_fill_the_log(self) -> None:
        """Of a hundred rejections three are logged."""
        for _ in range(103):
            self.connect()
        self.assertEqual((self.factory.refused, len(warnings_of(self.log))), (100, 3))

    def test_place_is_given_back(self) -> None:
        """A connection gives its place back once: when its call is up, when it is gone, when its time is over."""
        _, first = self.connect()
        self.connect()
        self.connect()
        first.dataReceived(IDENTIFY)
        self.assertEqual(self.factory.unidentified, 2)
        first.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.factory.unidentified, 2)
        self.clock.advance(1.0)
        self.assertEqual(self.factory.unidentified, 0)
        self.connect()
        self.assertEqual((self.factory.unidentified, self.factory.refused), (1, 0))

    def test_claim_takes_no_place(self) -> None:
        """A connection that has said which call it is can't be pushed out, however long its claim takes."""
        self.reception.answer = lambda context: Deferred()
        transport, protocol = self.connect()
        protocol.dataReceived(IDENTIFY)
        for _ in range(10):
            self.connect()
        self.assertTrue(transport.connected)
        transport.loseConnection()
        self.assertEqual(self.factory.unidentified, 3)

    def test_deadline_of_the_factory(self) -> None:
        """The factory's own time for the UUID frame is kept."""
        transport, _ = self.connect()
        self.clock.advance(0.99)
        self.assertTrue(transport.connected)
        self.clock.advance(0.01)
        self.assertTrue(transport.disconnected)
