"""How a call ends: hang-ups, lost media, failing assistants."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater

from rapida_twisted.context import EndReason
from rapida_twisted.credentials.masking import keep_out_of_logs
from rapida_twisted.errors import CallEnded
from rapida_twisted.interfaces import ICall, PlayEnd
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.media.clock import MediaClock
from tests.media.call_case import CallTestCase, void
from tests.media.fakes import CallOnFakes, FakeChannel, counted


class EndTests(CallTestCase):
    """The end from either side: notified once, waiting Deferreds fire, no error is logged."""

    def waiting_for_ever(self, ends: list[str]) -> Callable[[ICall], Awaitable[None]]:
        """An answer that waits, and tells what ended it."""

        async def answer(call: ICall) -> None:
            try:
                await Deferred()
            except BaseException as error:
                ends.append(type(error).__name__)
                raise

        return answer

    def test_the_caller_hangs_up(self) -> None:
        """The answer is cancelled, what was said is flushed, and the channel is not hung up on again."""
        ends: list[str] = []
        fakes = self.up(self.waiting_for_ever(ends))
        spoken = fakes.call.play(counted(50))
        fakes.tick(2)
        fakes.call.media_ended(EndReason.CALLER_HANGUP, "as told")
        self.assertEqual((ends, self.assistant.ended), ([], []))
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        self.assertEqual(ends, ["CancelledError"])
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.FLUSHED)
        self.assertEqual((fakes.channel.hangups, fakes.call.end_detail), (0, "as told"))

    def test_errors_of_every_kind(self) -> None:
        """Whatever a callback raises ends its call, and nothing else."""

        def fail_with(error: BaseException) -> Callable[..., Any]:
            def fail(*_: Any) -> Any:
                raise error

            return fail

        for kind in (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, SystemExit, ValueError):
            for callback in ("answer", "on_audio", "on_digit", "heard", "said", "play", "on_ended"):
                if (callback, kind) == ("answer", asyncio.CancelledError):
                    continue  # Cancelled code has not failed.
                with self.subTest(kind=kind, callback=callback):
                    fail = fail_with(kind("x"))
                    fakes = self.up(fail if callback == "answer" else None)
                    reason = EndReason.ASSISTANT_FAILED
                    if callback == "heard":
                        fakes.call.tap(fail, None)
                    elif callback == "said":
                        fakes.call.tap(None, fail)
                    elif callback == "play":
                        fakes.call.fetch(fail)
                    elif callback != "answer":
                        setattr(self.assistant, callback, fail)
                    if callback == "on_ended":
                        reason = EndReason.CALLER_HANGUP
                        fakes.call.media_ended(reason)
                    fakes.call.audio_received(counted(1))
                    fakes.call.digit_received("1")
                    fakes.tick(2)
                    self.assert_over(fakes, reason)
                    self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_only_the_first_reason_counts(self) -> None:
        """Whatever else is said of the end is ignored."""
        fakes = self.up()
        self.assertTrue(fakes.call.end(EndReason.OPERATOR_HANGUP))
        self.assertFalse(fakes.call.end(EndReason.SHUTDOWN))
        fakes.call.media_ended(EndReason.CONNECTION_LOST, "gone")
        fakes.turn()
        fakes.call.media_ended(EndReason.CONNECTION_LOST, "gone")
        self.assert_over(fakes, EndReason.OPERATOR_HANGUP)
        self.assertEqual(fakes.channel.hangups, 1)

    def test_hangup_from_answer(self) -> None:
        """An answer that hangs up at once, or after a while, is cancelled where it waits for that."""
        ends: list[str] = []

        async def at_once(call: ICall) -> None:
            try:
                await call.hang_up()
            except CancelledError:
                ends.append("cancelled")
                raise

        async def later(call: ICall) -> None:
            await call.play(counted(2))
            await at_once(call)

        for answer in (at_once, later):
            fakes = self.up(answer)
            fakes.tick(4)
            self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)
            self.assertEqual(fakes.channel.hangups, 1)
        self.assertEqual(ends, ["cancelled"] * 2)

    def test_hangup_from_callbacks(self) -> None:
        """Every callback may hang up; what comes after it in the same turn disturbs nothing."""
        fakes = self.up()
        self.assistant.on_audio = lambda call: call.hang_up()
        fakes.call.audio_received(counted(1))
        fakes.call.audio_received(counted(1))
        self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)
        self.assertEqual(len(self.assistant.heard), 1)

        fakes = self.up()
        self.assistant.on_digit = lambda call: call.hang_up()
        fakes.call.digit_received("1")
        self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)

        fakes = self.up()
        fakes.call.play(counted(1)).addCallback(lambda _: fakes.call.hang_up())
        fakes.call.play(counted(1))
        fakes.tick(5)
        self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)

        fakes = self.up()
        fakes.call.tap(None, lambda samples: void(fakes.call.hang_up()))
        fakes.reactor.advance(0.1)
        self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)
        self.assertEqual(len(fakes.channel.sent), 1)

    def test_hangup_from_what_is_being_said(self) -> None:
        """An iterable, or a stream, that hangs up: no frame is sent after that."""

        def parts() -> Iterator[bytes]:
            yield counted(1)
            fakes.call.hang_up()
            yield counted(1)

        async def stream() -> AsyncIterator[bytes]:
            for part in range(60):
                if part == 55:
                    fakes.call.hang_up()
                yield counted(1)

        for audio in (parts(), stream()):
            fakes = self.up()
            spoken = fakes.call.play(audio)
            fakes.tick(20)
            self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)
            self.assertIs(self.successResultOf(spoken).end, PlayEnd.FLUSHED)

    def test_hangup_ends_what_is_sent_ahead(self) -> None:
        """A generator that hangs up and returns: nothing more is sent, no mark either."""
        fakes = self.up(channel=FakeChannel(paced=True))

        def parts() -> Iterator[bytes]:
            yield counted(1)
            fakes.call.hang_up()

        fakes.call.play(parts())
        fakes.tick(1)
        self.assertEqual((fakes.channel.sent, fakes.channel.marks), ([], []))
        self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)

    def test_hangup_while_ending(self) -> None:
        """Hanging up a call that is ending, or over, fires when it is over."""
        fakes = self.up()
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        during = fakes.call.hang_up()
        self.assertNoResult(during)
        inside: list[Deferred[None]] = []
        self.assistant.on_ended = lambda call: inside.append(call.hang_up())
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        self.successResultOf(during)
        self.successResultOf(inside[0])
        after = fakes.call.hang_up()
        fakes.turn()
        self.successResultOf(after)
        self.assertEqual(fakes.channel.hangups, 0)

    def test_the_channel_ends_while_sending(self) -> None:
        """A channel that says from within send_audio() that it is gone gets no second frame, even when one is owed."""
        fakes = self.up()
        fakes.channel.on_send = lambda: fakes.call.media_ended(EndReason.PEER_STALLED, "it took nothing")
        fakes.call.play(counted(9))
        fakes.reactor.advance(0.1)
        self.assert_over(fakes, EndReason.PEER_STALLED)
        self.assertEqual(len(fakes.channel.sent), 1)

    def test_the_channel_ends_while_hanging_up(self) -> None:
        """A channel that says from within hangup() that it is gone changes nothing."""
        fakes = self.up()

        def hang_up() -> None:
            fakes.call.media_ended(EndReason.CONNECTION_LOST)

        self.patch(fakes.channel, "hang_up", hang_up)
        fakes.call.hang_up()
        self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)

    def test_too_late(self) -> None:
        """After the end nothing can be said, and the error tells which call and why."""
        fakes = self.up()
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        too_late = fakes.call.play(counted(1))
        fakes.turn()
        error = self.failureResultOf(too_late, CallEnded)
        self.assertIn(fakes.call.context.context_id, error.getErrorMessage())
        self.assertIn("caller_hangup", error.getErrorMessage())
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        flushes = fakes.channel.flushes
        self.assertEqual(fakes.call.flush(), 0.0)
        self.assertEqual(fakes.channel.flushes, flushes)

    def test_an_answer_that_comes_too_late(self) -> None:
        """An answer() that wakes up between the end and its cancellation, and gets CallEnded, has not failed."""
        for reason in (EndReason.CALLER_HANGUP, EndReason.CONNECTION_LOST):
            gate: Deferred[None] = Deferred()

            async def answer(call: ICall, gate: Deferred[None] = gate) -> None:
                await gate
                await call.play(counted(1))

            fakes = self.up(answer)
            fakes.call.media_ended(reason)
            gate.callback(None)
            self.assert_over(fakes, reason)

    def test_an_answer_that_returned(self) -> None:
        """The return of answer() does not end the call."""
        fakes = self.up()
        fakes.tick(10)
        self.assertIsNone(fakes.call.ended)
        self.assertIn("up", repr(fakes.call))

    def test_a_stream_at_the_end(self) -> None:
        """At the end of the call a stream is cancelled where it waits."""
        ends: list[str] = []

        async def stream() -> AsyncIterator[bytes]:
            try:
                yield counted(1)
                await Deferred[None]()
            except CancelledError:
                ends.append("cancelled")
                raise

        async def answer(call: ICall) -> None:
            await call.play(stream())

        fakes = self.up(answer)
        fakes.tick(2)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        self.assertEqual(ends, ["cancelled"])

    def test_cancelling_is_neither_swallowed_nor_logged(self) -> None:
        """Wherever an answer waits when the call ends, CancelledError reaches it, and no log tells of it."""
        ends: list[str] = []

        async def stream() -> AsyncIterator[bytes]:
            yield counted(100)
            await Deferred[None]()

        waits: list[Callable[[ICall], Awaitable[object]]] = [
            lambda call: call.play(counted(500)),
            lambda call: call.play(stream()),
            lambda call: call.digits(4),
            lambda call: deferLater(call.reactor, 60.0),
            lambda call: call.hang_up(),
        ]
        for wait in waits:

            async def answer(call: ICall, wait: Callable[[ICall], Awaitable[object]] = wait) -> None:
                try:
                    await wait(call)
                finally:
                    ends.append("went on")
                ends.append("swallowed")

            fakes = self.up(answer)
            fakes.tick(3)
            fakes.call.media_ended(EndReason.CALLER_HANGUP)
            self.assert_over(fakes, fakes.call.ended or EndReason.CALLER_HANGUP)
        self.assertEqual(ends, ["went on"] * len(waits))
        gc.collect()
        self.assertEqual(self.logged.failures, [])


class FailureTests(CallTestCase):
    """Assistants that raise: their call ends, with its contextId in the log, and no other."""

    def failing(self, *args: object) -> Any:
        """Every method raises."""
        raise ZeroDivisionError("on purpose")

    def test_answer_raises(self) -> None:
        """At once, or after a while."""

        async def at_once(call: ICall) -> None:
            self.failing()

        async def later(call: ICall) -> None:
            await call.play(counted(1))
            self.failing()

        for answer in (at_once, later):
            self.logged.events.clear()
            fakes = self.up(answer)
            fakes.tick(3)
            self.assert_failed(fakes, ZeroDivisionError)

    def test_secrets_in_errors(self) -> None:
        """An error that quotes a secret does not bring it into the call's record, also not its beginning."""
        secret = "secret-of-the-call-end-tests"
        keep_out_of_logs(secret)

        async def answer(call: ICall) -> None:
            raise ValueError("x" * 180 + f"https://x/?key={secret}")

        fakes = self.up(answer)
        self.assert_failed(fakes, ValueError)
        self.assertNotIn("secret-of", fakes.call.detail)

    def test_answer_is_no_coroutine(self) -> None:
        """An answer() that forgot to be async fails like any other, raising or not."""

        class Plain(Assistant):
            def answer(self, call: ICall) -> None:  # type: ignore[override]
                call.play(counted(1))

        class Raising(Assistant):
            def answer(self, call: ICall) -> None:  # type: ignore[override]
                raise TypeError("on purpose")

        for assistant in (Plain(), Raising()):
            self.logged.events.clear()
            self.assert_failed(CallOnFakes(assistant), TypeError)

    def test_answer_may_be_a_deferred(self) -> None:
        """An answer() that gives a Deferred, as inlineCallbacks does, is fine, and is cancelled at the end."""
        waiting: Deferred[None] = Deferred()

        class Older(Assistant):
            def answer(self, call: ICall) -> Deferred[None]:  # type: ignore[override]
                return waiting

        fakes = CallOnFakes(Older())
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        self.assertTrue(waiting.called)

    def test_callbacks_raise(self) -> None:
        """In hearing audio, or a digit, or a tap."""
        fakes = self.up()
        self.assistant.on_audio = self.failing
        fakes.call.audio_received(counted(1))
        self.assert_failed(fakes, ZeroDivisionError)

        self.logged.events.clear()
        fakes = self.up()
        self.assistant.on_digit = self.failing
        fakes.call.digit_received("1")
        self.assert_failed(fakes, ZeroDivisionError)

        self.logged.events.clear()
        fakes = self.up()
        fakes.call.tap(self.failing, None)
        fakes.call.audio_received(counted(1))
        self.assert_failed(fakes, ZeroDivisionError)

        self.logged.events.clear()
        fakes = self.up()
        fakes.call.tap(None, self.failing)
        fakes.tick(2)
        self.assert_failed(fakes, ZeroDivisionError)

    def test_call_ended_raises(self) -> None:
        """A failure in call_ended() is logged with the contextId; the end goes on, with its own reason."""
        fakes = self.up()
        self.assistant.on_ended = self.failing
        over = fakes.call.hang_up()
        self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)
        self.successResultOf(over)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([event["id"] for event in self.logged.failures], [fakes.call.context.context_id])

    def test_what_is_being_said_raises(self) -> None:
        """An iterable, or a stream, that raises while it is heard, and that nobody awaits."""

        def parts() -> Iterator[bytes]:
            yield counted(1)
            self.failing()

        async def stream() -> AsyncIterator[bytes]:
            for _ in range(55):
                yield counted(1)
            self.failing()

        for audio in (parts(), stream()):
            self.logged.events.clear()
            fakes = self.up()
            spoken = fakes.call.play(audio)
            fakes.tick(60)
            self.assert_failed(fakes, ZeroDivisionError)
            self.failureResultOf(spoken, ZeroDivisionError)

    def test_other_calls_go_on(self) -> None:
        """The calls beside one that fails are not disturbed."""
        reactor = Clock()
        clock = MediaClock(reactor, now=reactor.seconds)
        calls = [CallOnFakes(reactor=reactor, clock=clock, context_id=str(number)) for number in range(6)]

        def parts() -> Iterator[bytes]:
            self.failing()
            yield b""

        calls[2].call.play(parts())
        said = [fakes.call.play(counted(5)) for fakes in calls if fakes is not calls[2]]
        reactor.pump([0.005] * 40)
        self.assertIs(calls[2].call.ended, EndReason.ASSISTANT_FAILED)
        self.assertEqual([self.successResultOf(spoken).end for spoken in said], [PlayEnd.PLAYED] * 5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(clock), 5)
