"""A call while it is up: speech, live audio, hearing, digits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rapida_twisted.audio.formats import SLIN, ULAW
from rapida_twisted.context import EndReason
from rapida_twisted.errors import CallEnded, PlayoutFull
from rapida_twisted.interfaces import (
    IAssistant,
    ICall,
    ICallPlumbing,
    IMediaChannel,
    IMediaSink,
    ITap,
    PlayEnd,
    PlayOutcome,
)
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.media.clock import MediaClock
from tests.media.call_case import SILENCE, SLIN16, CallTestCase, level
from tests.media.fakes import CallOnFakes, FakeChannel, counted, write_wav


class InterfaceTests(SynchronousTestCase):
    """What provides what."""

    def test_provided(self) -> None:
        """The call, the base class of assistants and the fakes provide their interfaces."""
        call = CallOnFakes(start=False).call
        verifyObject(ICallPlumbing, call)
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
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.PLAYED)
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
        self.assertEqual([outcome.end for outcome in told], [PlayEnd.PLAYED] * 4)
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
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.FLUSHED)
        self.assertEqual(fakes.tick(2), [SILENCE] * 2)
        self.assertEqual(fakes.call.queued_ms, 0)

    def test_queue_limit(self) -> None:
        """Once more than the limit waits, nothing more can be said until some of it was heard."""
        fakes = self.up(queue_limit_ms=1000)
        said = [fakes.call.play(counted(30)) for _ in range(2)]
        refused = fakes.call.play(counted(1))
        refused.addErrback(lambda failure: failure.trap(PlayoutFull))
        fakes.tick(15)
        self.assertIs(self.successResultOf(refused), PlayoutFull)
        said.append(fakes.call.play(counted(1)))
        fakes.tick(60)
        self.assertEqual([self.successResultOf(spoken).end for spoken in said], [PlayEnd.PLAYED] * 3)

    def test_cancel(self) -> None:
        """Cancelling one thing said goes on with the next."""
        fakes = self.up()
        first, second = fakes.call.play(counted(9)), fakes.call.play(counted(1, first=50))
        fakes.tick(2)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(fakes.tick(2), [counted(1, first=50), SILENCE])
        self.assertIs(self.successResultOf(second).end, PlayEnd.PLAYED)

    def test_barge_in_from_the_callback(self) -> None:
        """The caller's audio may flush what is being said, from the callback that tells of it."""
        fakes = self.up()
        self.assistant.on_audio = lambda call: call.flush()
        spoken = fakes.call.play(counted(50))
        fakes.tick(3)
        fakes.call.audio_received(counted(1))
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.FLUSHED)
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
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.FLUSHED)


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
            self.assertIs(self.successResultOf(spoken).end, PlayEnd.PLAYED)

    def test_flush(self) -> None:
        """A barge-in flushes what the peer has too, and a mark that comes yet changes nothing."""
        spoken = self.fakes.call.play(counted(5))
        self.fakes.tick(2)
        self.fakes.call.flush()
        self.assertEqual(self.channel.flushes, 1)
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.FLUSHED)
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
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.FLUSHED)


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
        """An assistant without audio_received() gets no audio, but the time counts."""
        fakes = CallOnFakes(Assistant(), channel=FakeChannel(ULAW))
        fakes.call.audio_received(b"\x10" * 160)
        self.assertEqual(fakes.call.audio_in_s, 0.02)

    def test_after_the_end(self) -> None:
        """Audio after the end does not reach the assistant."""
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
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.PLAYED)
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
        tap = fakes.call.tap(heard.append, said.append)
        fakes.call.play(counted(1))
        fakes.call.audio_received(counted(2, first=5))
        fakes.tick(2)
        tap.stop()
        tap.stop()
        fakes.call.audio_received(counted(1))
        fakes.tick(2)
        self.assertEqual((heard, said), ([counted(2, first=5)], [counted(1), SILENCE]))

    def test_several_taps(self) -> None:
        """Each has its rate, its sides and its end; the others go on, also when one stops another from within."""
        fakes = self.up()
        wide: list[bytes] = []
        own: list[bytes] = []
        said: list[bytes] = []
        taps = [
            fakes.call.tap(lambda samples: wide.append(samples) or taps[1].stop(), rate_hz=16000),
            fakes.call.tap(own.append),
            fakes.call.tap(said=said.append),
        ]
        verifyObject(ITap, taps[0])
        for _ in range(10):
            fakes.call.audio_received(counted(1))
            fakes.tick()
            fakes.channel.format = SLIN16 if fakes.channel.format is SLIN else SLIN
            fakes.call.format_changed()
        self.assertApproximates(SLIN16.ms(len(b"".join(wide))), 150, 60)
        self.assertEqual((own, len(said)), ([], 10))
        self.assertEqual({len(samples) for samples in said}, {320})

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
        """The end of the call fails a waiting collect(), in a callback or later."""
        fakes = self.up()
        waiting = fakes.call.digits(4)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        self.failureResultOf(waiting, CallEnded)
        too_late = fakes.call.digits(4)
        fakes.turn()
        self.failureResultOf(too_late, CallEnded)

    def test_hangup_from_a_collected_digit(self) -> None:
        """A collect() callback that hangs up, before digit_received() gets the digit, ends the call once."""

        async def answer(call: ICall) -> None:
            await call.digits(1)
            await call.hang_up()

        fakes = self.up(answer)
        fakes.call.digit_received("1")
        self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)
