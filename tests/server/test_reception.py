"""The reception: claiming, starting, and writing down how calls went, on fake time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rapida_twisted.context import CallContext, ContextStatus, EndReason
from rapida_twisted.errors import (
    CallEnded,
    ContextClaimed,
    ContextExpired,
    StoreUnavailable,
    TooManyCalls,
    TransferRefused,
    UnknownContext,
)
from rapida_twisted.interfaces import IAssistant, ICall, IMediaSink, IReception
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.media.call import Call
from rapida_twisted.media.calls import Calls
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.media.pacer import LONGEST_WAIT_FRAMES
from rapida_twisted.net.bridge_states import BridgeStates
from rapida_twisted.server.reception import Reception
from rapida_twisted.server.transfers import TransferRules
from rapida_twisted.store.memory import MemoryStore
from tests.media.fakes import FakeAssistant, FakeChannel, KeptLog, counted, make_context


class UnsteadyStore(MemoryStore):
    """A store in memory that can be made to fail, or to take its time, when it is to write ends."""

    def __init__(self, reactor: Clock) -> None:
        super().__init__()
        self.broken: Exception | None = None
        self.slow = False
        self.tries: list[tuple[float, str]] = []
        """When each end was tried to be written, and whose."""
        self.under_way: list[Callable[[], None]] = []
        self._reactor = reactor

    def finish(
        self, context_id: str, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> Deferred[CallContext]:
        """Write an end now, fail, or wait for :meth:`get_on`."""
        self.tries.append((self._reactor.seconds(), context_id))
        if self.broken is not None:
            return fail(self.broken)
        words: dict[str, Any] = {"reason": reason, "audio_in_s": audio_in_s, "audio_out_s": audio_out_s, "now": now}
        words["detail"] = detail
        if not self.slow:
            return super().finish(context_id, **words)
        done: Deferred[CallContext] = Deferred()

        def finish_now() -> None:
            MemoryStore.finish(self, context_id, **words).addBoth(done.callback)

        self.under_way.append(finish_now)
        return done

    def get_on(self) -> None:
        """Do what is under way."""
        under_way, self.under_way = self.under_way, []
        for work in under_way:
            work()


class ReceptionTestCase(SynchronousTestCase):
    """A reception with room for three calls, a store that can fail, and assistants that do nothing."""

    def setUp(self) -> None:
        """The wall clock shows 1000 at the start."""
        self.reactor = Clock()
        self.store = UnsteadyStore(self.reactor)
        self.calls = Calls(limit=3)
        self.assistants: list[IAssistant] = []
        self.make_assistant: Callable[[CallContext], IAssistant] = lambda context: FakeAssistant()
        self.clock = MediaClock(self.reactor, now=self.reactor.seconds)
        self.bridges = BridgeStates()
        self.reception = Reception(
            self.store, self._make_assistant, self.calls, self.clock, self.reactor, now=self.now,
            bridges=self.bridges,
        )  # fmt: skip
        self.logged = KeptLog(self)

    def now(self) -> float:
        """The wall clock."""
        return 100.0 + self.reactor.seconds()

    def _make_assistant(self, context: CallContext) -> IAssistant:
        self.assistants.append(self.make_assistant(context))
        return self.assistants[-1]

    def registered(self, context_id: str = "a") -> CallContext:
        """A call that is registered; its media may come."""
        context = make_context(context_id)
        self.successResultOf(self.store.add(context, 100))
        return context

    def claimed(self, context_id: str = "a") -> CallContext:
        """A call that is registered and claimed."""
        self.registered(context_id)
        return self.successResultOf(self.reception.claim(context_id, "audiosocket", "192.0.2.1:5"))

    def started(self, context_id: str = "a") -> tuple[IMediaSink, FakeChannel]:
        """A call that is up."""
        channel = FakeChannel()
        return self.reception.start(self.claimed(context_id), channel), channel

    def stored(self, context_id: str = "a") -> CallContext:
        """What the store knows of a call."""
        return self.successResultOf(self.store.get(context_id))


class ClaimTests(ReceptionTestCase):
    """Media connections that come with a contextId."""

    def test_provided(self) -> None:
        """It provides its interface."""
        verifyObject(IReception, self.reception)

    def test_bound(self) -> None:
        """A connection that may take the calls of some assistants alone takes no other one's, which stays there."""
        self.registered("a")
        refused = self.reception.claim("a", "websocket", "192.0.2.1:5", {"456"})
        self.failureResultOf(refused, UnknownContext)
        claimed = self.successResultOf(self.reception.claim("a", "websocket", "192.0.2.1:5", {"456", "123"}))
        self.assertEqual(claimed.status, ContextStatus.CLAIMED)

    def test_same_network(self) -> None:
        """With CLAIM__SAME_NETWORK, media must come from the network that registered the call."""
        self.reception._same_network = True
        for number, (registered, peer, is_taken) in enumerate((
            ("192.0.2.7", "192.0.2.9:40312", True), ("192.0.2.7", "192.0.3.7:40312", False),
            ("2001:db8::1", "[2001:db8:0:0:ffff::2]:40312", True), ("2001:db8::1", "[2001:db8:0:1::1]:5", False),
            ("192.0.2.7", "[2001:db8::1]:5", False), ("::ffff:192.0.2.7", "192.0.2.9:5", True),
            ("", "192.0.2.9:5", True), ("192.0.2.7", "unix:/run/x", True),
        )):  # fmt: skip
            context_id = str(number)
            self.successResultOf(self.store.add(replace(make_context(context_id), registered_from=registered), 100))
            claim = self.reception.claim(context_id, "audiosocket", peer)
            if is_taken:
                self.reception.abandon(self.successResultOf(claim), EndReason.CALLER_HANGUP)
            else:
                error = self.failureResultOf(claim, UnknownContext)
                self.assertIn(f"registered from {registered}", error.getErrorMessage())
                self.assertIs(self.stored(context_id).status, ContextStatus.PENDING)

    def test_once(self) -> None:
        """A registered call is claimed exactly once, and it is written who has it."""
        context = self.claimed()
        self.assertEqual((context.status, context.peer), (ContextStatus.CLAIMED, "192.0.2.1:5"))
        self.assertEqual(self.stored().claimed_at, 100.0)
        self.failureResultOf(self.reception.claim("a", "audiosocket", "elsewhere"), ContextClaimed)

    def test_refused(self) -> None:
        """An unknown and an expired contextId are told apart."""
        self.failureResultOf(self.reception.claim("nobody", "audiosocket", "peer"), UnknownContext)
        self.registered()
        self.reactor.advance(300)
        self.failureResultOf(self.reception.claim("a", "audiosocket", "peer"), ContextExpired)

    def test_over_the_limit(self) -> None:
        """When as many calls are up as may be, the context stays unclaimed for another server."""
        for name in ("x", "y", "z"):
            self.started(name)
        self.registered()
        self.failureResultOf(self.reception.claim("a", "audiosocket", "peer"), TooManyCalls)
        self.assertIs(self.stored().status, ContextStatus.PENDING)


class StartTests(ReceptionTestCase):
    """Claimed calls."""

    def test_up_and_over(self) -> None:
        """A call is up with its assistant until it ends, and how it went is written exactly once."""
        sink, channel = self.started()
        self.assertEqual(len(self.calls), 1)
        sink.audio_received(counted(10))
        self.reactor.pump([0.02] * 5)
        self.assertGreater(len(channel.sent), 3)
        sink.media_ended(EndReason.CALLER_HANGUP)
        sink.media_ended(EndReason.CONNECTION_LOST)
        self.reactor.advance(1)
        sink.media_ended(EndReason.CONNECTION_LOST)
        self.reactor.advance(1)
        ended = self.stored()
        self.assertEqual((ended.status, ended.reason), (ContextStatus.COMPLETED, "caller_hangup"))
        self.assertEqual((ended.audio_in_s, ended.audio_out_s), (0.2, 0.0))
        self.assertEqual(len(self.store.tries), 1)
        self.assertEqual((len(self.calls), self.calls.total, self.reception.unwritten), (0, 1, 0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_assistant_that_hangs_up_at_once(self) -> None:
        """An assistant that hangs up before start() has returned ends a call that is up, in good order."""

        class Short(Assistant):
            async def answer(self, call: object) -> None:
                await call.hang_up()  # type: ignore[attr-defined]

        self.make_assistant = lambda context: Short()
        _, channel = self.started()
        self.reactor.advance(0)
        self.assertEqual((self.stored().reason, channel.hangups), ("assistant_hangup", 1))
        self.assertEqual(len(self.calls), 0)

    def assert_refused_assistant(self, error: type[Exception]) -> None:
        """The call of an assistant that can't be made is hung up and written down as failed, and logged."""
        _, channel = self.started()
        self.reactor.advance(0)
        ended = self.stored()
        self.assertEqual((ended.status, ended.reason), (ContextStatus.FAILED, "assistant_failed"))
        self.assertEqual((channel.hangups, channel.sent, len(self.calls)), (1, [], 0))
        self.assertEqual(len(self.flushLoggedErrors(error)), 1)
        [event] = self.logged.failures
        self.assertEqual((event["id"], event["assistant_id"]), ("a", "123"))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_assistant_that_cannot_be_made(self) -> None:
        """A factory that raises fails the call, and nothing else."""

        def broken(context: CallContext) -> IAssistant:
            raise ZeroDivisionError

        self.make_assistant = broken
        self.assert_refused_assistant(ZeroDivisionError)

    def test_assistant_of_an_impossible_rate(self) -> None:
        """An assistant that asks for a rate that can't be fails its call too."""
        self.make_assistant = lambda context: FakeAssistant(rate_hz=-8000)
        self.assert_refused_assistant(ValueError)

    def test_no_assistant(self) -> None:
        """A factory that gives nothing fails its call too."""
        self.make_assistant = lambda context: None  # type: ignore[assignment,return-value]
        self.assert_refused_assistant(TypeError)

    def test_abandoned(self) -> None:
        """A claimed call whose connection is gone before its start is written as over, without audio."""
        self.reception.abandon(self.claimed(), EndReason.CALLER_HANGUP, "closed")
        ended = self.stored()
        self.assertEqual((ended.status, ended.audio_in_s), (ContextStatus.COMPLETED, 0.0))
        self.assertEqual((len(self.calls), len(self.assistants)), (0, 0))


class UnbridgedTests(ReceptionTestCase):
    """A call whose media is not in Asterisk's bridge yet: Asterisk drops the audio that it gets."""

    def says_at_once(self) -> tuple[IMediaSink, FakeChannel]:
        """A call that is up, whose assistant has queued five frames of speech."""

        async def answer(call: ICall) -> None:
            call.play(counted(5))

        self.make_assistant = lambda context: FakeAssistant(answer)
        sink, channel = self.started()
        self.reactor.advance(0.001)
        return sink, channel

    def test_said_when_it_is_heard(self) -> None:
        """The call sends silence until it is bridged, and two frames more; then the speech, from its first sample."""
        self.bridges.add("a")
        _, channel = self.says_at_once()
        self.reactor.pump([0.020] * 7)
        self.assertEqual(channel.sent, [channel.silence] * 7)
        self.bridges.set_bridged("a")
        self.reactor.pump([0.020] * 8)
        self.assertEqual(b"".join(channel.sent[7:]), 2 * channel.silence + counted(5) + channel.silence)

    def test_bridged_before(self) -> None:
        """Two frames of silence come first also if the call is bridged before it is claimed."""
        self.bridges.add("a")
        self.bridges.set_bridged("a")
        _, channel = self.says_at_once()
        self.reactor.pump([0.020] * 7)
        self.assertEqual(b"".join(channel.sent), 2 * channel.silence + counted(5))

    def test_no_bridge(self) -> None:
        """Another call sends its speech at once."""
        self.bridges.add("b")
        _, channel = self.says_at_once()
        self.reactor.pump([0.020] * 5)
        self.assertEqual(b"".join(channel.sent), counted(5))

    def test_never_joined(self) -> None:
        """A call that is never reported as bridged sends its speech after 10 s."""
        self.bridges.add("a")
        _, channel = self.says_at_once()
        self.reactor.pump([0.020] * (LONGEST_WAIT_FRAMES + 5))
        self.assertEqual(channel.voiced, counted(5))
        self.assertEqual(len(channel.sent), LONGEST_WAIT_FRAMES + 5)


class UnavailableStoreTests(ReceptionTestCase):
    """Ends that the store can't take at once."""

    def end(self, *context_ids: str) -> None:
        """These calls are up, and end."""
        for context_id in context_ids:
            sink, _ = self.started(context_id)
            sink.media_ended(EndReason.CALLER_HANGUP)
        self.reactor.advance(0)

    def test_an_end_that_can_never_be_written(self) -> None:
        """An end that the store refuses for good is logged with its contextId, and not tried again."""
        for error in (UnknownContext("a"), ZeroDivisionError(), StoreUnavailable("so much waits already")):
            self.store.broken = error
            self.reception.abandon(make_context("a"), EndReason.CALLER_HANGUP)
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)
            self.assertEqual(self.reception.unwritten, 0)
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def flush(self, timeout_s: float = 2.0) -> Deferred[None]:
        """The server is about to stop."""
        return Deferred.fromCoroutine(self.reception.flush(timeout_s))

    def test_flush_without_work(self) -> None:
        """With nothing to write the flush is over at once, and leaves no timer."""
        self.successResultOf(self.flush())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_flush_waits_for_what_is_under_way(self) -> None:
        """An end that is just being written at shutdown is waited for, and not written a second time."""
        self.store.slow = True
        self.end("a")
        flushing = self.flush()
        self.assertNoResult(flushing)
        self.store.get_on()
        self.successResultOf(flushing)
        self.assertEqual(len(self.store.tries), 1)
        self.assertIs(self.stored().status, ContextStatus.COMPLETED)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_flush_of_a_store_that_hangs(self) -> None:
        """A store that does not answer is waited for so long and no longer, however many ends there are."""
        self.store.slow = True
        self.end("a", "b", "c")
        flushing = self.flush(timeout_s=2.0)
        self.reactor.advance(1.9)
        self.assertNoResult(flushing)
        self.reactor.advance(0.2)
        self.successResultOf(flushing)
        self.assertEqual(sorted(event["id"] for event in self.logged.at(LogLevel.error)), ["a", "b", "c"])
        # What is under way is not given up: closing the store may still do it.
        self.store.get_on()
        self.assertEqual(self.reception.unwritten, 0)
        self.assertIs(self.stored("c").status, ContextStatus.COMPLETED)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_the_log_tells_the_end(self) -> None:
        """The log line of an end that was not written has all that is needed to write it by hand."""
        self.store.broken = StoreUnavailable("so much waits already")
        sink, _ = self.started()
        sink.audio_received(counted(100))
        sink.media_ended(EndReason.CALLER_HANGUP)
        self.reactor.advance(0)
        [event] = self.logged.failures
        self.assertIn("caller_hangup, heard 2.000 s", formatEvent(event))
        self.flushLoggedErrors(StoreUnavailable)


class TransferTests(ReceptionTestCase):
    """Calls that are handed over."""

    def setUp(self) -> None:
        """Two-digit extensions are allowed."""
        super().setUp()
        self.reception = Reception(
            self.store, self._make_assistant, self.calls, self.clock, self.reactor, now=self.now,
            transfers=TransferRules(["PJSIP/2?"]),
        )  # fmt: skip

    def test_allowed(self) -> None:
        """Where the call goes is in the store before its media ends, and why it ended after."""
        sink, channel = self.started()
        over = cast(Call, sink).transfer("PJSIP/20")
        self.assertEqual((self.stored().next_dial, channel.hangups), ("PJSIP/20", 1))
        self.reactor.advance(0)
        self.assertIsNone(self.successResultOf(over))
        self.assertEqual((self.stored().status, self.stored().reason), (ContextStatus.COMPLETED, "transferred"))

    def test_refused(self) -> None:
        """A call that may not go there goes on, and the log says so."""
        sink, channel = self.started()
        refused = cast(Call, sink).transfer("PJSIP/900").addErrback(lambda failure: failure.trap(TransferRefused))
        self.reactor.advance(0)
        self.successResultOf(refused)
        self.assertEqual((self.stored().next_dial, channel.hangups, len(self.calls)), ("", 0, 1))
        (event,) = self.logged.at(LogLevel.warn)
        self.assertIn("TRANSFER__ALLOW", event["refusal"])

    def test_too_late(self) -> None:
        """A call that is over goes nowhere."""
        sink, _ = self.started()
        sink.media_ended(EndReason.CALLER_HANGUP)
        self.reactor.advance(0)
        refused = cast(Call, sink).transfer("PJSIP/20")
        self.reactor.advance(0)
        self.failureResultOf(refused, CallEnded)
