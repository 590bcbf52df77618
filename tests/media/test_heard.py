"""How much of the audio the caller heard: outcomes, flushes, and the whole call, over both kinds of channels."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from rapida_twisted.audio.formats import SLIN, ULAW
from rapida_twisted.context import EndReason
from rapida_twisted.interfaces import ICall, PlayEnd, PlayOutcome
from rapida_twisted.wire.chan_websocket import ControlForm, Event, FlushMedia, MarkMedia, MediaMarkProcessed
from rapida_twisted.wire.chan_websocket_queue import MediaQueue
from tests.media.call_case import SILENCE, SLIN16, CallTestCase
from tests.media.fakes import FakeAssistant, FakeChannel, counted, write_wav

PLAYED, FLUSHED = PlayEnd.PLAYED, PlayEnd.FLUSHED


async def open_ended() -> AsyncIterator[bytes]:
    """A stream that gives 100 ms and then nothing more for now."""
    yield counted(5)
    await Deferred[None]()


class QueueChannel(FakeChannel):
    """A channel with Asterisk's own queue behind it, which plays a frame each 20 ms."""

    def __init__(self) -> None:
        super().__init__(paced=True)
        self.queue = MediaQueue(SLIN.frame_bytes, self._event, form=ControlForm.PLAIN)
        self.played_ms = 0.0
        self._reached: dict[str, Callable[[], None]] = {}

    def play_next(self) -> None:
        """20 ms have passed at Asterisk's side. The silence that fills up a frame is no audio."""
        frame = self.queue.take()
        if frame is not None:
            self.played_ms += SLIN.ms(len(frame.rstrip(b"\0")) + 1 & ~1)

    def send_audio(self, payload: bytes) -> None:
        self.queue.audio(payload)

    def flush(self) -> None:
        self.queue.command(FlushMedia())

    def mark(self, reached: Callable[[], None]) -> None:
        name = str(len(self._reached))
        self._reached[name] = reached
        self.queue.command(MarkMedia(name))

    def _event(self, event: Event) -> None:
        if isinstance(event, MediaMarkProcessed):
            self._reached[event.correlation_id]()


class RealtimeTests(CallTestCase):
    """A channel that gets a frame each 20 ms: what was sent was heard."""

    def outcome(self, playing: Deferred[PlayOutcome]) -> tuple[PlayEnd, float]:
        """How it ended, and how much of it was heard."""
        outcome = self.successResultOf(playing)
        self.assertEqual(outcome.played, outcome.end is PLAYED)
        return outcome.end, outcome.heard_ms

    def test_all_kinds(self) -> None:
        """All of it, to the sample."""

        async def stream() -> AsyncIterator[bytes]:
            yield counted(5)[:-100]

        fakes = self.up()
        wav = write_wav(self.mktemp(), counted(5)[:-100])
        kinds = (counted(5)[:-100], wav, [counted(5)[:-100]], iter([counted(5)[:-100]]), stream())
        said = [fakes.call.play(audio) for audio in kinds]
        fakes.tick(40)
        self.assertEqual([self.outcome(playing) for playing in said], [(PLAYED, 93.75)] * 5)
        self.assertEqual(fakes.call.heard_ms, 5 * 93.75)

    def test_flush(self) -> None:
        """What was heard and what is not heard add up, over several sources in one frame and those that wait."""
        fakes = self.up()
        said = [fakes.call.play(counted(1)[:80]) for _ in range(10)] + [fakes.call.play(counted(50)) for _ in range(2)]
        fakes.tick(3)
        self.assertEqual(fakes.call.flush(), 10 * 5 + 2 * 1000 - 60)
        heard = [self.outcome(playing) for playing in said]
        self.assertEqual(heard, [(PLAYED, 5.0)] * 10 + [(FLUSHED, 10.0), (FLUSHED, 0.0)])
        self.assertEqual(fakes.call.heard_ms, 60)
        self.assertEqual(fakes.tick(), [SILENCE])
        self.assertEqual(fakes.call.heard_ms, 60)

    def test_rest_of_files_and_streams(self) -> None:
        """A file's rest is known, a stream's is not until it has ended, and an iterator's never."""
        fakes = self.up()
        fakes.call.play(write_wav(self.mktemp(), bytes(32000), 16000))
        fakes.tick(10)
        self.assertApproximates(fakes.call.flush(), 800, 5)
        unknown = [lambda: open_ended(), lambda: iter([counted(5)])]
        for audio in unknown:
            fakes.call.play(audio())
            fakes.tick(2)
            self.assertIsNone(fakes.call.flush())
        fakes.call.play([counted(5), counted(5)])
        fakes.tick(2)
        self.assertEqual(fakes.call.flush(), 160)
        self.assertEqual(fakes.call.flush(), 0)

    def test_underrun(self) -> None:
        """Silence while a stream is too slow, and silence that fills up a frame, is not heard audio."""
        gate: Deferred[None] = Deferred()

        async def slow() -> AsyncIterator[bytes]:
            yield counted(2)[:480]
            await gate
            yield counted(2)

        fakes = self.up()
        playing = fakes.call.play(slow())
        fakes.tick(20)
        self.assertEqual((fakes.call.heard_ms, fakes.call.silent_frames), (30, 18))
        gate.callback(None)
        fakes.tick(1)
        self.assertEqual(fakes.call.flush(), 20)
        self.assertEqual(self.outcome(playing), (FLUSHED, 50))
        self.assertEqual(fakes.call.heard_ms, 50)

    def test_live_audio_counts(self) -> None:
        """Live audio counts for the call; it is part of no play()."""
        fakes = self.up()
        fakes.call.write(counted(3))
        playing = fakes.call.play(counted(2))
        fakes.tick(4)
        self.assertEqual((self.outcome(playing), fakes.call.heard_ms), ((PLAYED, 40), 80))
        self.assertEqual(fakes.call.flush(), 20)
        fakes.call.fetch(lambda: counted(1))
        fakes.tick(5)
        self.assertEqual(fakes.call.heard_ms, 180)

    def test_format_change(self) -> None:
        """The line's format may change in the middle."""
        fakes = self.up(rate_hz=8000)
        playing = fakes.call.play(counted(50))
        fakes.tick(10)
        fakes.channel.format = SLIN16
        fakes.call.format_changed()
        fakes.tick(10)
        self.assertApproximates(fakes.call.flush(), 600, 5)
        self.assertEqual(self.outcome(playing), (FLUSHED, 400))

    def test_other_rates(self) -> None:
        """Times are those of the audio, whatever the line's encoding and rate."""
        fakes = self.up(channel=FakeChannel(ULAW), rate_hz=24000)
        playing = fakes.call.play(bytes(24000))
        fakes.tick(40)
        end, heard_ms = self.outcome(playing)
        self.assertIs(end, PLAYED)
        self.assertApproximates(heard_ms, 500, 5)

    def test_hand_over(self) -> None:
        """What the former assistant played is heard, and counts on."""
        fakes = self.up()
        playing = fakes.call.play(counted(4))
        fakes.tick(2)
        fakes.call.hand_over(FakeAssistant())
        fakes.tick(3)
        self.assertEqual((self.outcome(playing), fakes.call.heard_ms), ((PLAYED, 80), 80))

    def test_end_of_the_call(self) -> None:
        """The end of the call cuts what is played; the call's sum stays."""
        fakes = self.up()
        playing, waiting = fakes.call.play(counted(50)), fakes.call.play(counted(50))
        fakes.tick(7)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        self.assertEqual([self.outcome(one) for one in (playing, waiting)], [(FLUSHED, 140), (FLUSHED, 0)])
        self.assertEqual(fakes.call.heard_ms, 140)


class StopTests(CallTestCase):
    """One thing is stopped, and the others go on."""

    def test_stop(self) -> None:
        """It fires with what was heard of it, wherever it stands; stopping it again changes nothing."""
        fakes = self.up()
        said = [fakes.call.play(counted(10, first=first)) for first in (100, 200, 300)]
        fakes.tick(2)
        for playing in (said[0], said[1], said[1]):
            fakes.call.stop(playing)
        outcomes = [self.successResultOf(playing) for playing in said[:2]]
        self.assertEqual(outcomes, [PlayOutcome(FLUSHED, 40), PlayOutcome(FLUSHED, 0)])
        self.assertEqual(b"".join(fakes.tick(11)), counted(10, first=300) + SILENCE)
        self.assertEqual(self.successResultOf(said[2]), PlayOutcome(PLAYED, 200))
        fakes.call.stop(said[2])

    def test_something_else(self) -> None:
        """Only what play() returned can be stopped."""
        error = self.assertRaises(TypeError, self.up().call.stop, "hello.wav")
        self.assertIn("takes what play() returned, not str", str(error))

    def test_a_cancelled_play_that_nobody_awaits(self) -> None:
        """It is no error, and the call goes on."""
        fakes = self.up()
        fakes.call.play(counted(10)).cancel()
        self.assertEqual(fakes.tick(), [SILENCE])
        self.assertIsNone(fakes.call.ended)

    def test_cancelled_where_it_is_awaited(self) -> None:
        """CancelledError is raised where the play() is awaited; not caught, it ends answer(), and the call goes on."""
        raised: list[str] = []
        said: list[Deferred[PlayOutcome]] = []

        async def answer(call: ICall) -> None:
            said.append(call.play(counted(50)))
            try:
                await said[0]
            except CancelledError:
                raised.append("cancelled")
                raise

        fakes = self.up(answer)
        fakes.tick(2)
        said[0].cancel()
        fakes.call.play(counted(1, first=9))
        self.assertEqual(fakes.tick(2), [counted(1, first=9), SILENCE])
        self.assertEqual((raised, fakes.call.ended, self.logged.failures), (["cancelled"], None, []))

    def test_sent_ahead(self) -> None:
        """Where its audio was sent ahead, the peer drops that too."""
        for how in ("stop", "cancel"):
            fakes = self.up(channel=FakeChannel(paced=True))
            playing = fakes.call.play(counted(50))
            fakes.tick(4)
            if how == "stop":
                fakes.call.stop(playing)
                self.assertEqual(self.successResultOf(playing), PlayOutcome(FLUSHED, 60))
            else:
                playing.cancel()
                self.failureResultOf(playing, CancelledError)
            self.assertEqual((fakes.channel.flushes, fakes.call.heard_ms), (1, 60))

    def test_a_mark_that_is_dropped(self) -> None:
        """The peer drops the mark of audio without sound along with what is stopped: its play() ends nevertheless."""
        fakes = self.up(channel=FakeChannel(paced=True))
        nothing, stopped = fakes.call.play(b""), fakes.call.play(counted(50))
        fakes.tick(3)
        fakes.call.stop(stopped)
        self.assertEqual(fakes.channel.flushes, 1)
        self.assertEqual(self.successResultOf(nothing), PlayOutcome(PLAYED, 0))

    def test_sent_ahead_behind_another(self) -> None:
        """Where another's end was sent ahead with it, that is heard, and so is what was sent of it."""
        fakes = self.up(channel=FakeChannel(paced=True))
        first, second = fakes.call.play(counted(5)), fakes.call.play(counted(50))
        fakes.tick(2)
        fakes.call.stop(second)
        self.assertEqual((self.successResultOf(second), fakes.channel.flushes), (PlayOutcome(FLUSHED, 100), 0))
        for reached in fakes.channel.marks:
            reached()
        self.assertEqual(self.successResultOf(first), PlayOutcome(PLAYED, 100))


class AheadTests(CallTestCase):
    """A channel that plays from a queue of its own: what was sent is heard later."""

    def setUp(self) -> None:
        super().setUp()
        self.channel = QueueChannel()
        self.fakes = self.up(channel=self.channel)

    def asterisk(self, phase_s: float) -> None:
        """Asterisk plays from now on, in steps of 20 ms."""
        playing = LoopingCall(self.channel.play_next)
        playing.clock = self.fakes.reactor
        self.fakes.reactor.callLater(phase_s, playing.start, 0.02)
        self.addCleanup(lambda: playing.running and playing.stop())

    def test_flush_counts_what_was_sent(self) -> None:
        """Of 1 s, 60 ms were heard; the 200 ms that were sent ahead are dropped, too."""
        playing = self.fakes.call.play(counted(50))
        self.fakes.tick(4)
        self.assertEqual(self.fakes.call.flush(), 940)
        self.assertEqual(self.successResultOf(playing), PlayOutcome(FLUSHED, 60))
        self.assertEqual((self.fakes.call.heard_ms, self.channel.queue.frames), (60, 0))

    def test_flush_after_the_last_frame_was_sent(self) -> None:
        """All was sent, and half of it is heard: of each thing its own part, without the silence of its last frame."""
        said = [self.fakes.call.play(samples) for samples in (counted(2)[:480], counted(2), counted(2))]
        self.fakes.tick(4)
        self.assertEqual(self.fakes.call.flush(), 50)
        heard = [self.successResultOf(playing).heard_ms for playing in said]
        self.assertEqual(heard, [30, 30, 0])
        self.assertEqual(self.fakes.call.heard_ms, 60)

    def test_at_random_moments(self) -> None:
        """Interrupted anywhere, whatever is played, it agrees with what Asterisk's queue played, to 40 ms."""
        chance = random.Random(15)
        self.asterisk(chance.random() / 50)
        call, reactor = self.fakes.call, self.fakes.reactor
        for _ in range(200):
            before_ms, counted_before_ms = self.channel.played_ms, call.heard_ms
            said = [call.play(counted(60)[: 2 * chance.randrange(1, 9600)]) for _ in range(chance.randrange(1, 5))]
            for _ in range(chance.randrange(1, 300)):
                reactor.advance(0.005)
            heard_ms, counted_ms = self.channel.played_ms - before_ms, call.heard_ms - counted_before_ms
            self.assertApproximates(counted_ms, heard_ms, 40)
            call.flush()
            outcomes = [self.successResultOf(playing) for playing in said]
            self.assertApproximates(sum(one.heard_ms for one in outcomes), counted_ms, 1e-6)
            self.assertApproximates(call.heard_ms - counted_before_ms, counted_ms, 1e-6)

    def step(self, periods: int = 1) -> None:
        """Time passes at both sides."""
        for _ in range(periods):
            self.channel.play_next()
            self.fakes.reactor.advance(0.02)

    def test_stalls(self) -> None:
        """While the process stands still Asterisk plays on; a recording has what it played, and what it missed."""
        call = self.fakes.call
        tapped: list[bytes] = []
        call.tap(said=tapped.append)
        for periods in (2, 3, 6, 8, 25, 50):
            said = [call.play(counted(60)), call.play(counted(40))]
            self.step(7)
            for _ in range(periods):
                self.channel.play_next()
            self.fakes.reactor.advance(0.02 * periods)
            for _ in range(80):
                self.assertApproximates(call.heard_ms, self.channel.played_ms, 40, periods)
                self.step()
            self.step(40)
            self.assertTrue(all(self.successResultOf(playing).played for playing in said))
        recorded = b"".join(frame for frame in tapped if frame != SILENCE)
        self.assertEqual(recorded, (counted(60) + counted(40)) * 6)

    def test_after_a_stall(self) -> None:
        """While the clock makes up for a stall, what the peer plays meanwhile counts as it is played."""
        fakes = self.up(channel=FakeChannel(paced=True))
        fakes.call.play(counted(100))
        fakes.tick(1)
        before_ms = fakes.call.heard_ms
        fakes.reactor.advance(0.12)
        for number in range(10):
            self.assertApproximates(fakes.call.heard_ms - before_ms, 120 + number * 20, 20)
            fakes.tick(1)

    def test_stall_with_an_empty_queue(self) -> None:
        """All was sent ahead when the process stalls: each period that passed was heard."""
        fakes = self.up(channel=FakeChannel(paced=True))
        fakes.call.play(counted(9))
        fakes.tick(1)
        self.assertTrue(fakes.call.idle)
        before_ms = fakes.call.heard_ms
        fakes.reactor.advance(0.06)
        self.assertEqual(fakes.call.heard_ms - before_ms, 60)

    def test_stopped_behind_a_partial_frame(self) -> None:
        """A speech ends within a frame, and the stream behind it is stopped: the rest is heard now."""

        async def late() -> AsyncIterator[bytes]:
            await Deferred[None]()
            yield b""

        fakes = self.up(channel=FakeChannel(paced=True))
        first = fakes.call.play(counted(4) + counted(1)[:160])
        waiting = fakes.call.play(late())
        fakes.tick(1)
        fakes.call.stop(waiting)
        fakes.tick(10)
        self.assertEqual((fakes.call.queued_ms, fakes.call.heard_ms), (0, 90))
        self.assertEqual(len(fakes.channel.voiced), 5 * 320)
        fakes.channel.marks[0]()
        self.assertEqual(self.successResultOf(first), PlayOutcome(PLAYED, 90))

    def test_late_marks(self) -> None:
        """A mark that comes after a flush, or after the call's end, changes nothing."""
        fakes = self.up(channel=FakeChannel(paced=True))
        first = fakes.call.play(counted(2))
        fakes.tick(20)
        self.assertEqual((fakes.call.heard_ms, fakes.call.flush()), (40, 0))
        self.assertEqual(self.successResultOf(first), PlayOutcome(FLUSHED, 40))
        second = fakes.call.play(counted(2))
        fakes.tick(2)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        for reached in fakes.channel.marks:
            reached()
        self.assertEqual(self.successResultOf(second), PlayOutcome(FLUSHED, 20))
        self.assertEqual(fakes.call.heard_ms, 60)

    def test_paused(self) -> None:
        """What waits for MEDIA_XON was not heard; what was sent before is."""
        playing = self.fakes.call.play(counted(50))
        self.fakes.tick(2)
        self.fakes.call.sending_paused(True)
        self.fakes.tick(30)
        self.assertEqual(self.fakes.call.heard_ms, 200)
        self.assertEqual(self.fakes.call.flush(), 800)
        self.assertEqual(self.successResultOf(playing), PlayOutcome(FLUSHED, 200))

    def test_flushed_by_the_audio_itself(self) -> None:
        """An iterable whose own code flushes while a batch is made: only the frame under way is sent after that."""

        def parts() -> Iterator[bytes]:
            yield counted(3)
            self.fakes.call.flush()
            yield counted(3)

        playing = self.fakes.call.play(parts())
        self.fakes.tick(10)
        self.assertIs(self.successResultOf(playing).end, FLUSHED)
        self.assertLessEqual(self.channel.queue.frames, 1)


class QueuedTests(CallTestCase):
    """Waiting until all was heard."""

    def test_heard_or_dropped(self) -> None:
        """It fires with the end of the last of what was queued; what is played later does not count."""
        fakes = self.up()
        said = [fakes.call.play(counted(frames)) for frames in (2, 2, 2)]
        queued = fakes.call.queued()
        later = fakes.call.play(counted(50))
        fakes.tick(1)
        fakes.call.stop(said[2])
        fakes.tick(3)
        self.assertNoResult(queued)
        fakes.tick(1)
        self.assertIsNone(self.successResultOf(queued))
        self.assertNoResult(later)
        flushed = fakes.call.queued()
        fakes.call.flush()
        self.successResultOf(flushed)

    def test_nothing_is_queued(self) -> None:
        """Then it fires at once."""
        self.successResultOf(self.up().call.queued())

    def test_one_cancels_another(self) -> None:
        """Code that one queued() calls back may cancel the next, which would fire in the same moment."""
        fakes = self.up()
        playing = fakes.call.play(counted(1))
        waiting = [fakes.call.queued() for _ in range(3)]
        waiting[0].addCallback(lambda _: waiting[1].cancel())
        fakes.tick(2)
        self.failureResultOf(waiting[1], CancelledError)
        self.assertIsNone(self.successResultOf(waiting[2]))
        self.assertTrue(self.successResultOf(playing).played)

    def test_cancelled(self) -> None:
        """Cancelling it stops only the waiting."""
        fakes = self.up()
        playing = fakes.call.play(counted(2))
        fakes.call.queued().cancel()
        fakes.tick(3)
        self.assertTrue(self.successResultOf(playing).played)

    def test_end(self) -> None:
        """The call's end drops all."""
        fakes = self.up()
        fakes.call.play(counted(2))
        queued = fakes.call.queued()
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        self.successResultOf(queued)
