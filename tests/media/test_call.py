"""A call between a fake channel and assistants that do all that assistants may do, on fake time."""

from __future__ import annotations

import gc
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rapida_twisted.audio.formats import SLIN, ULAW, AudioFormat
from rapida_twisted.context import EndReason
from rapida_twisted.errors import CallEnded, PlayoutFull
from rapida_twisted.interfaces import IAssistant, ICall, IMediaChannel, IMediaSink, PlayOutcome
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.media.clock import MediaClock
from tests.media.fakes import CallOnFakes, FakeAssistant, FakeChannel, KeptLog, counted, write_wav

SLIN16 = AudioFormat("slin", 16000)
SILENCE = SLIN.silent_frame


def level(samples: bytes) -> int:
    """The loudest sample."""
    return max(map(abs, array("h", samples)), default=0)


def void(_: object) -> None:
    """Nothing, whatever comes."""


class CallTestCase(SynchronousTestCase):
    """Calls on fakes; nothing that is logged as an error, and no timer, may be left at the end of a test."""

    def setUp(self) -> None:
        """Keep what is logged."""
        self.logged = KeptLog(self)

    def tearDown(self) -> None:
        """Deferreds with an unhandled error tell of it when they are forgotten."""
        gc.collect()

    def up(self, answer: Callable[[ICall], Awaitable[None]] | None = None, **how: Any) -> CallOnFakes:
        """A call that is up, with an assistant that answers so."""
        self.assistant = FakeAssistant(rate_hz=how.pop("rate_hz", None))
        if answer is not None:
            self.assistant._answer = answer
        return CallOnFakes(self.assistant, **how)

    def assert_over(self, fakes: CallOnFakes, reason: EndReason) -> None:
        """The end was told exactly once, with this reason, to everybody, and nothing is left behind."""
        fakes.turn()
        fakes.turn()
        self.assertIs(fakes.call.ended, reason)
        if isinstance(fakes.call._assistant, FakeAssistant):
            self.assertEqual(fakes.call._assistant.ended, [reason])
        self.assertEqual(fakes.over, [fakes.call])
        self.assertEqual(fakes.channel.sent_after_hangup, 0)
        sent = len(fakes.channel.sent)
        fakes.tick(3)
        self.assertEqual(len(fakes.channel.sent), sent)
        self.assertEqual(fakes.over, [fakes.call])
        self.assertEqual(fakes.reactor.getDelayedCalls(), [])

    def assert_failed(self, fakes: CallOnFakes, error: type[Exception]) -> None:
        """The call ended since its assistant failed; that was logged once, with the contextId."""
        self.assert_over(fakes, EndReason.ASSISTANT_FAILED)
        self.assertEqual(fakes.channel.hangups, 1)
        self.assertIn(error.__name__, fakes.call.end_detail)
        self.assertEqual(len(self.flushLoggedErrors(error)), 1)
        self.assertEqual([event["id"] for event in self.logged.failures], [fakes.call.context.context_id])


class InterfaceTests(SynchronousTestCase):
    """What provides what."""

    def test_provided(self) -> None:
        """The call, the base class of assistants and the fakes provide their interfaces."""
        call = CallOnFakes(start=False).call
        verifyObject(ICall, call)
        verifyObject(IMediaSink, call)
        verifyObject(IAssistant, Assistant())
        verifyObject(IMediaChannel, FakeChannel())


class LineTests(CallTestCase):
    """One frame each 20 ms, whatever happens."""

    def test_silence_from_the_start(self) -> None:
        """A call on which nothing is said sends a frame of silence each 20 ms, from the first period on."""
        fakes = self.up()
        self.assertEqual(fakes.tick(50), [SILENCE] * 50)
        self.assertEqual(fakes.call.silent_frames, 50)
        self.assertEqual(fakes.call.audio_out_s, 0.0)

    def test_silence_of_the_wire(self) -> None:
        """The silence of a mu-law line is mu-law."""
        fakes = self.up(channel=FakeChannel(ULAW))
        self.assertEqual(fakes.tick(2), [b"\xff" * 160] * 2)

    def test_silence_before_and_after(self) -> None:
        """What is said is sent frame by frame, with silence before and after it; only it counts as said."""
        fakes = self.up()
        fakes.tick()
        spoken = fakes.call.play(counted(3))
        self.assertEqual(b"".join(fakes.tick(5)), counted(3) + 2 * SILENCE)
        self.assertIs(self.successResultOf(spoken), PlayOutcome.PLAYED)
        self.assertEqual((fakes.call.audio_out_s, fakes.call.silent_frames), (0.06, 3))

    def test_other_calls_go_on(self) -> None:
        """A call that ends in the middle of a tick does not disturb the others on the same clock."""
        reactor = Clock()
        clock = MediaClock(reactor, now=reactor.seconds)
        calls = [CallOnFakes(reactor=reactor, clock=clock, context_id=str(number)) for number in range(9)]
        calls[0].channel.on_send = lambda: calls[4].call.media_ended(EndReason.CALLER_HANGUP)
        reactor.pump([0.005] * 40)
        self.assertLessEqual(len(calls[4].channel.sent), 1)
        for number in (1, 2, 3, 5, 6, 7, 8):
            self.assertApproximates(len(calls[number].channel.sent), 10, 1)


class SayTests(CallTestCase):
    """Saying things, through the call. How each kind is read is tested with Speech."""

    def test_one_after_the_other(self) -> None:
        """An answer says one thing after the other, each when the one before it was heard."""
        told: list[PlayOutcome] = []
        wav = write_wav(self.mktemp(), counted(2, first=10))

        async def stream() -> AsyncIterator[bytes]:
            yield counted(2, first=20)

        async def answer(call: ICall) -> None:
            for audio in (counted(2), wav, [counted(1, first=30)], stream()):
                told.append(await call.play(audio))

        fakes = self.up(answer)
        fakes.tick(20)
        self.assertEqual(told, [PlayOutcome.PLAYED] * 4)
        self.assertEqual(
            fakes.channel.voiced,
            counted(2) + counted(2, first=10) + counted(1, first=30) + counted(2, first=20),
        )

    def test_the_assistants_rate(self) -> None:
        """Samples are at the assistant's rate if nothing else is said."""
        fakes = self.up(rate_hz=16000)
        self.assertEqual(fakes.call.rate_hz, 16000)
        fakes.call.play(b"\0\x10" * 16000)
        fakes.tick(80)
        self.assertApproximates(fakes.call.audio_out_s, 1.0, 0.03)
        fakes.call.play(b"\0\x10" * 24000, rate_hz=24000)
        fakes.tick(80)
        self.assertApproximates(fakes.call.audio_out_s, 2.0, 0.06)

    def test_flush_in_the_middle(self) -> None:
        """A barge-in tells how much was not heard, the channel drops what it has, and silence follows at once."""
        fakes = self.up()
        spoken = fakes.call.play(counted(50))
        fakes.tick(20)
        self.assertApproximates(fakes.call.queued_ms, 600, 0.1)
        self.assertApproximates(fakes.call.flush(), 600, 0.1)
        self.assertIs(self.successResultOf(spoken), PlayOutcome.FLUSHED)
        self.assertEqual(fakes.tick(2), [SILENCE] * 2)
        self.assertEqual(fakes.call.queued_ms, 0)

    def test_queue_limit(self) -> None:
        """Once more than the limit waits, nothing more can be said until some of it was heard."""
        fakes = self.up(queue_limit_ms=1000)
        said = [fakes.call.play(counted(30)) for _ in range(2)]
        self.assertRaises(PlayoutFull, fakes.call.play, counted(1))
        fakes.tick(15)
        said.append(fakes.call.play(counted(1)))
        fakes.tick(60)
        self.assertEqual([self.successResultOf(spoken) for spoken in said], [PlayOutcome.PLAYED] * 3)

    def test_cancel(self) -> None:
        """Cancelling one thing said goes on with the next."""
        fakes = self.up()
        first, second = fakes.call.play(counted(9)), fakes.call.play(counted(1, first=50))
        fakes.tick(2)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(fakes.tick(2), [counted(1, first=50), SILENCE])
        self.assertIs(self.successResultOf(second), PlayOutcome.PLAYED)

    def test_barge_in_from_the_callback(self) -> None:
        """The caller's audio may flush what is being said, from the callback that tells of it."""
        fakes = self.up()
        self.assistant.on_audio = lambda call: call.flush()
        spoken = fakes.call.play(counted(50))
        fakes.tick(3)
        fakes.call.audio_received(counted(1))
        self.assertIs(self.successResultOf(spoken), PlayOutcome.FLUSHED)
        self.assertEqual(fakes.tick(1), [SILENCE])

    def test_from_what_is_being_said(self) -> None:
        """The code of an iterable may use the call too, while a frame is being taken from it."""

        def parts() -> Iterator[bytes]:
            yield counted(1)
            fakes.call.play(counted(1, first=9))
            fakes.call.flush()
            fakes.call.play(counted(1, first=7))

        fakes = self.up()
        spoken = fakes.call.play(parts())
        self.assertEqual(fakes.tick(3), [counted(1), counted(1, first=7), SILENCE])
        self.assertIs(self.successResultOf(spoken), PlayOutcome.FLUSHED)


class PacedTests(CallTestCase):
    """Channels that time the playing themselves: sent ahead, and marks tell what was heard."""

    def setUp(self) -> None:
        """A call on such a channel, 200 ms ahead at the most."""
        super().setUp()
        self.fakes = self.up(channel=FakeChannel(paced=True))
        self.channel = self.fakes.channel

    def test_no_silence(self) -> None:
        """Where nothing is said, nothing is sent."""
        self.assertEqual(self.fakes.tick(20), [])

    def test_ahead(self) -> None:
        """What is said is sent ahead of its time, several frames at once, in order, and never further than the lead."""
        self.fakes.call.play(counted(50))
        for heard in range(1, 51):
            self.fakes.tick()
            self.assertLessEqual(len(b"".join(self.channel.sent)), (heard + 10) * SLIN.frame_bytes)
        self.assertEqual(b"".join(self.channel.sent), counted(50))
        self.assertLess(len(self.channel.sent), 20)

    def test_played_when_the_mark_is_reached(self) -> None:
        """Something said is played when the peer says so, also when it ends with a frame or has none at all."""
        for samples in (counted(5), counted(5)[:-10], b""):
            self.channel.marks.clear()
            spoken = self.fakes.call.play(samples)
            self.fakes.tick(20)
            self.assertNoResult(spoken)
            [reached] = self.channel.marks
            reached()
            self.assertIs(self.successResultOf(spoken), PlayOutcome.PLAYED)

    def test_flush(self) -> None:
        """A barge-in flushes what the peer has too, and a mark that comes yet changes nothing."""
        spoken = self.fakes.call.play(counted(5))
        self.fakes.tick(2)
        self.fakes.call.flush()
        self.assertEqual(self.channel.flushes, 1)
        self.assertIs(self.successResultOf(spoken), PlayOutcome.FLUSHED)
        for reached in self.channel.marks:
            reached()

    def test_paused(self) -> None:
        """While the peer takes no more nothing is sent; after that it goes on where it was."""
        self.fakes.call.play(counted(50))
        self.fakes.tick(2)
        self.fakes.call.sending_paused(True)
        self.assertEqual(self.fakes.tick(20), [])
        self.fakes.call.sending_paused(False)
        self.fakes.tick(60)
        self.assertEqual(b"".join(self.channel.sent), counted(50))

    def test_end(self) -> None:
        """The end flushes what was said and was not heard yet."""
        spoken = self.fakes.call.play(counted(5))
        self.fakes.tick(2)
        self.fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assert_over(self.fakes, EndReason.CALLER_HANGUP)
        self.assertIs(self.successResultOf(spoken), PlayOutcome.FLUSHED)


class LiveTests(CallTestCase):
    """Live audio."""

    def test_echo(self) -> None:
        """What the caller says comes back frame by frame, also when the caller's packets have another length."""
        fakes = self.up()
        self.assistant.on_audio = lambda call: call.write(self.assistant.heard[-1])
        for begin in range(12):
            fakes.call.audio_received(counted(3)[80 * begin : 80 * (begin + 1)])
        self.assertEqual(b"".join(fakes.tick(3)), counted(3))

    def test_oldest_is_dropped(self) -> None:
        """More than the limit never waits: the oldest goes, and is counted."""
        fakes = self.up(live_limit_ms=100)
        fakes.call.write(counted(3, first=1))
        fakes.call.write(counted(4, first=4))
        self.assertEqual(fakes.call.queued_ms, 100)
        self.assertEqual(b"".join(fakes.tick(6)), counted(5, first=3) + SILENCE)
        self.assertEqual(fakes.call._playout.live_dropped_ms, 40)

    def test_rate(self) -> None:
        """Live audio at the assistant's rate lasts as long on the wire."""
        fakes = self.up(rate_hz=16000, live_limit_ms=2000)
        for _ in range(50):
            fakes.call.write(b"\0\x10" * 320)
        fakes.tick(60)
        self.assertApproximates(fakes.call.audio_out_s, 1.0, 0.03)

    def test_after_the_end(self) -> None:
        """Writing after the end does nothing."""
        fakes = self.up()
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.call.write(counted(3))
        self.assertEqual(fakes.call.queued_ms, 0)
        self.assert_over(fakes, EndReason.CALLER_HANGUP)


class HearingTests(CallTestCase):
    """The caller's audio on its way up."""

    def test_packets_as_they_come(self) -> None:
        """The assistant hears each packet as it came, and the time heard is counted."""
        fakes = self.up()
        for size in (320, 480, 2, 960):
            fakes.call.audio_received(bytes(size))
        self.assertEqual([len(heard) for heard in self.assistant.heard], [320, 480, 2, 960])
        self.assertApproximates(fakes.call.audio_in_s, 1762 / 16000, 1e-9)

    def test_converted_once(self) -> None:
        """An assistant at 16 kHz hears mu-law as 16 kHz linear."""
        fakes = self.up(channel=FakeChannel(ULAW), rate_hz=16000)
        for _ in range(50):
            fakes.call.audio_received(b"\x10" * 160)
        heard = b"".join(self.assistant.heard)
        self.assertApproximates(SLIN16.ms(len(heard)), 1000, 30)
        self.assertGreater(level(heard), 10000)
        self.assertEqual(fakes.call.audio_in_s, 1.0)

    def test_deaf_assistant(self) -> None:
        """An assistant that does not hear is not told, but the time counts."""
        fakes = CallOnFakes(Assistant(), channel=FakeChannel(ULAW))
        fakes.call.audio_received(b"\x10" * 160)
        self.assertEqual(fakes.call.audio_in_s, 0.02)

    def test_after_the_end(self) -> None:
        """What still comes after the end is not told to the assistant."""
        fakes = self.up()
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.call.audio_received(counted(1))
        fakes.call.digit_received("1")
        fakes.call.sending_paused(True)
        fakes.call.format_changed()
        self.assertEqual((self.assistant.heard, self.assistant.digits), ([], []))
        self.assert_over(fakes, EndReason.CALLER_HANGUP)

    def test_format_change(self) -> None:
        """When the wire's rate changes in the middle, both ways follow, what waits too, and the times add up."""
        fakes = self.up(rate_hz=8000)
        fakes.call.audio_received(counted(50))
        spoken = fakes.call.play(b"\0\x10" * 8000)
        fakes.tick(10)
        fakes.channel.format = SLIN16
        fakes.call.format_changed()
        frames = fakes.tick(50)
        self.assertEqual({len(frame) for frame in frames}, {SLIN16.frame_bytes})
        self.assertApproximates(fakes.call.audio_out_s, 1.0, 0.05)
        self.assertIs(self.successResultOf(spoken), PlayOutcome.PLAYED)
        self.assistant.heard.clear()
        for _ in range(50):
            fakes.call.audio_received(b"\0\x10" * 320)
        self.assertApproximates(len(b"".join(self.assistant.heard)), 16000, 500)
        self.assertEqual(fakes.call.audio_in_s, 2.0)
        fakes.channel.format = SLIN
        fakes.call.format_changed()
        fakes.call.audio_received(counted(50))
        self.assertEqual(fakes.call.audio_in_s, 3.0)

    def test_tap(self) -> None:
        """A tap hears each packet of the caller and each frame that leaves, silence included, until it is taken off."""
        heard: list[bytes] = []
        said: list[bytes] = []
        fakes = self.up()
        fakes.call.tap(heard.append, said.append)
        fakes.call.play(counted(1))
        fakes.call.audio_received(counted(2, first=5))
        fakes.tick(2)
        fakes.call.tap(None, None)
        fakes.call.audio_received(counted(1))
        fakes.tick(2)
        self.assertEqual((heard, said), ([counted(2, first=5)], [counted(1), SILENCE]))

    def test_tap_of_another_rate(self) -> None:
        """A tap hears both sides as s16le at the assistant's rate, also where the assistant itself hears nothing."""
        heard: list[bytes] = []
        said: list[bytes] = []
        assistant = Assistant()
        assistant.rate_hz = 16000
        fakes = CallOnFakes(assistant, channel=FakeChannel(ULAW))
        fakes.call.tap(heard.append, said.append)
        for _ in range(50):
            fakes.call.audio_received(b"\x10" * 160)
            fakes.tick()
        for side in (heard, said):
            self.assertApproximates(SLIN16.ms(len(b"".join(side))), 1000, 30)
        self.assertGreater(level(b"".join(heard)), 10000)
        self.assertLess(level(b"".join(said)), 100)


class DigitsTests(CallTestCase):
    """Digits, through the call. The rules of collecting are tested with Digits."""

    def test_collected_and_told(self) -> None:
        """Digits that an answer collects still reach the callback, also those that came before."""
        results: list[str] = []

        async def answer(call: ICall) -> None:
            results.append(await call.digits(2))
            results.append(await call.digits(8, timeout_s=1.0))
            results.append(await call.digits(8, terminator="*"))

        fakes = self.up(answer)
        for digit in "123":
            fakes.call.digit_received(digit)
        fakes.tick(60)
        fakes.call.digit_received("4")
        fakes.call.digit_received("*")
        self.assertEqual(results, ["12", "3", "4"])
        self.assertEqual(self.assistant.digits, list("1234*"))

    def test_end_of_the_call(self) -> None:
        """The end of the call fails whoever collects, in a callback or later."""
        fakes = self.up()
        waiting = fakes.call.digits(4)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        self.failureResultOf(waiting, CallEnded)
        self.failureResultOf(fakes.call.digits(4), CallEnded)

    def test_hangup_from_a_collected_digit(self) -> None:
        """An answer that hangs up on a digit, which is then told to the callback, ends the call once."""

        async def answer(call: ICall) -> None:
            await call.digits(1)
            await call.hang_up()

        fakes = self.up(answer)
        fakes.call.digit_received("1")
        self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)


class EndTests(CallTestCase):
    """The end, from whichever side: told once, everybody who waits gets an answer, nothing is logged as an error."""

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
        self.assertIs(self.successResultOf(spoken), PlayOutcome.FLUSHED)
        self.assertEqual((fakes.channel.hangups, fakes.call.end_detail), (0, "as told"))

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
            self.assertIs(self.successResultOf(spoken), PlayOutcome.FLUSHED)

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
        error = self.failureResultOf(fakes.call.play(counted(1)), CallEnded)
        self.assertIn(fakes.call.context.context_id, error.getErrorMessage())
        self.assertIn("caller_hangup", error.getErrorMessage())
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        flushes = fakes.channel.flushes
        self.assertEqual(fakes.call.flush(), 0.0)
        self.assertEqual(fakes.channel.flushes, flushes)

    def test_an_answer_that_comes_too_late(self) -> None:
        """An answer that wakes up between the end and its cancelling, and is told that it is late, has not failed."""
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
        """Whatever is asked of it, it raises."""
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
        """A failure in call_ended() is logged with the contextId; the end is told on, with its own reason."""
        fakes = self.up()
        self.assistant.on_ended = self.failing
        over = fakes.call.hang_up()
        self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)
        self.successResultOf(over)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([event["id"] for event in self.logged.failures], [fakes.call.context.context_id])

    def test_what_is_being_said_raises(self) -> None:
        """An iterable, or a stream, that raises while it is heard."""

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
            fakes.tick(10)
            self.assert_failed(fakes, ZeroDivisionError)
            self.assertIs(self.successResultOf(spoken), PlayOutcome.FLUSHED)

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
        self.assertEqual([self.successResultOf(spoken) for spoken in said], [PlayOutcome.PLAYED] * 5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(clock), 5)
