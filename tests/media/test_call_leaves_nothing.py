"""What a bot started through its call ends with the call, without a word in the log."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from soundfile import LibsndfileError
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults

from rapida_twisted.audio.wav import WavReader
from rapida_twisted.context import EndReason
from rapida_twisted.errors import CallEnded, TransferRefused
from rapida_twisted.interfaces import ICall
from tests.media.call_case import SILENCE, CallTestCase
from tests.media.fakes import CallOnFakes, FakeChannel, counted, write_wav


def open_files(path: str) -> int:
    """How often this process has a file open."""
    folder, wanted = Path("/proc/self/fd"), os.path.realpath(path)
    return sum(os.path.realpath(folder / name) == wanted for name in os.listdir(folder))


class LeavesNothingTests(CallTestCase):
    def assert_clean(self, fakes: CallOnFakes) -> None:
        """The call is over, no timer is left, and nothing was logged, not by the garbage collector either."""
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        gc.collect()
        self.assertEqual(self.logged.failures, [])
        self.assertEqual(fakes.reactor.getDelayedCalls(), [])

    def test_nobody_awaits(self) -> None:
        """Requests of every kind that no code awaits, made before the end and after it."""

        async def stream() -> AsyncIterator[bytes]:
            yield counted(1)
            await Deferred[None]()

        requests: list[Any] = [
            lambda call: call.play(counted(50)),
            lambda call: call.play(stream()),
            lambda call: call.play_tone(440, 500),
            lambda call: call.digits(4),
            lambda call: call.wait(60),
            lambda call: call.queued(),
            lambda call: call.hang_up(),
            lambda call: call.transfer("PJSIP/200"),
        ]
        for paced in (False, True):
            fakes = self.up(channel=FakeChannel(paced=paced))
            for request in requests[:-2]:
                request(fakes.call)
            fakes.tick(2)
            fakes.call.media_ended(EndReason.CALLER_HANGUP)
            for request in requests:
                request(fakes.call)
            self.assert_clean(fakes)
            for request in requests:
                request(fakes.call)
            fakes.turn()
            self.assert_clean(fakes)

    def test_sound_files_are_closed(self) -> None:
        """Those that are played, that wait, and that are stopped; also one that was heard to its end."""
        wav = write_wav(self.mktemp(), counted(100))
        for paced in (False, True):
            fakes = self.up(channel=FakeChannel(paced=paced))
            said = [fakes.call.play(wav) for _ in range(5)]
            self.assertEqual(open_files(wav), 5)
            said[0].cancel()
            fakes.call.stop(said[1])
            fakes.tick(3)
            self.assertEqual(open_files(wav), 3)
            fakes.call.flush()
            fakes.turn()
            self.assertEqual(open_files(wav), 0)
            fakes.call.play(wav)
            fakes.call.play(wav)
            fakes.tick(3)
            fakes.call.media_ended(EndReason.CALLER_HANGUP)
            self.assert_clean(fakes)
            self.assertEqual(open_files(wav), 0)

    def test_no_audio_is_kept(self) -> None:
        """What was queued is freed at the end, though the assistant holds its Deferreds and its call."""
        for paced in (False, True):
            fakes = self.up(channel=FakeChannel(paced=paced))
            held = [fakes.call.play(counted(3000)), fakes.call.play(iter([counted(3000)]))]
            sources = list(fakes.call._speech._playing)
            fakes.tick(2)
            fakes.call.media_ended(EndReason.CALLER_HANGUP)
            self.assert_clean(fakes)
            self.assertEqual([source.queued_ms for source in sources], [0, 0])
            self.assertFalse(any(self.successResultOf(each).played for each in held))

    def test_cancelled_requests(self) -> None:
        """Nobody awaits what was cancelled: that is no error."""
        fakes = self.up()
        for request in (fakes.call.digits(1), fakes.call.transfer("PJSIP/200"), fakes.call.wait(1)):
            request.cancel()
        del request
        fakes.turn()
        gc.collect()
        self.assertEqual(self.logged.failures, [])
        self.assertIsNone(fakes.call.ended)

    def test_an_unreadable_file(self) -> None:
        """A sound file that can't be read to its end fails its play() once what came before was heard."""
        read = iter([counted(5)])
        fakes = self.up()
        playing = fakes.call.play(write_wav(self.mktemp(), counted(100)))
        failed = playing.addErrback(lambda failure: failure.type)

        def next_part(reader: WavReader) -> bytes:
            for part in read:
                return part
            raise LibsndfileError(1)

        self.patch(WavReader, "__next__", next_part)
        fakes.tick(7)
        self.assertEqual(fakes.channel.voiced, counted(5))
        self.assertIs(self.successResultOf(failed), LibsndfileError)
        self.assertIsNone(fakes.call.ended)

    def test_generators_are_closed(self) -> None:
        """Their ``finally`` runs when they are stopped, though other code holds them; what it raises is ignored."""
        ends: list[str] = []

        def parts(name: str) -> Iterator[bytes]:
            try:
                while True:
                    yield counted(1)
            finally:
                ends.append(name)
                if name == "c":
                    raise ZeroDivisionError

        fakes = self.up()
        held = [parts(name) for name in "abc"]
        for generator in held:
            playing = fakes.call.play(generator)
            fakes.tick(2)
            if generator is held[0]:
                fakes.call.stop(playing)
            elif generator is held[1]:
                fakes.call.flush()
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assert_clean(fakes)
        self.assertEqual(ends, ["a", "b", "c"])

    def test_an_error_at_the_end(self) -> None:
        """A stream that failed just before the end: the log has one line, and no traceback."""

        async def stream() -> AsyncIterator[bytes]:
            yield counted(50)
            raise ZeroDivisionError

        fakes = self.up()
        fakes.call.play(stream())
        fakes.tick(2)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assert_clean(fakes)


class WaitTests(CallTestCase):
    """Waiting for a time."""

    def test_wait(self) -> None:
        """It fires after its time; cancelled, it leaves no timer; after the end it fails."""
        times: list[float] = []

        async def answer(call: ICall) -> None:
            await call.wait(1.5)
            times.append(fakes.reactor.seconds())

        fakes = self.up(answer, start=False)
        fakes.call.start()
        fakes.tick(100)
        self.assertApproximates(times[0], 1.5, 0.021)
        timers = len(fakes.reactor.getDelayedCalls())
        cancelled = fakes.call.wait(60)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        fakes.turn()
        self.assertEqual(len(fakes.reactor.getDelayedCalls()), timers)
        self.assertRaises(ValueError, fakes.call.wait, -1)
        waiting = fakes.call.wait(60)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        self.failureResultOf(waiting, CallEnded)
        refused = fakes.call.wait(1)
        fakes.turn()
        self.failureResultOf(refused, CallEnded)


class FailureTests(CallTestCase):
    """Who gets to know of a failure."""

    def test_handled(self) -> None:
        """A bot that handles the failure of a stream, or of a file, goes on."""

        async def stream() -> AsyncIterator[bytes]:
            yield counted(1)
            raise KeyError("no voice")

        caught: list[str] = []

        async def answer(call: ICall) -> None:
            for audio in (stream(), "missing.wav"):
                try:
                    await call.play(audio)
                except (KeyError, OSError) as error:
                    caught.append(type(error).__name__)
            failed, queued = call.play(stream()), call.queued()
            await queued
            try:
                await failed
            except KeyError:
                caught.append("late")
            failed = call.play("missing.wav")
            try:
                await gatherResults([failed, call.wait(60)])
            except FirstError:
                caught.append("gathered")
            await call.wait(0.02)
            # Or Twisted logs what gatherResults() left.
            failed.addErrback(lambda failure: None)
            call.play("missing.wav").addErrback(lambda failure: caught.append(failure.type.__name__))
            await call.play(counted(1, first=7))

        fakes = self.up(answer)
        fakes.tick(10)
        self.assertEqual(caught, ["KeyError", "FileNotFoundError", "late", "gathered", "FileNotFoundError"])
        self.assertEqual(fakes.channel.voiced, 2 * counted(1) + counted(1, first=7))
        self.assertIsNone(fakes.call.ended)

    def test_nobody_awaits(self) -> None:
        """A failure that no code handles ends the call in the next turn, whatever it was, also of a callback."""
        requests: list[tuple[Any, type[Exception]]] = [
            (lambda call: call.play("missing.wav"), FileNotFoundError),
            (lambda call: call.play(iter([1])), TypeError),
            (lambda call: call.transfer("PJSIP/200"), TransferRefused),
            (lambda call: call.play("missing.wav").addCallback(str), FileNotFoundError),
            (lambda call: call.play(counted(1)).addCallback(lambda outcome: 1 // 0), ZeroDivisionError),
        ]
        for request, error in requests:
            self.logged.events.clear()
            fakes = self.up()
            held = request(fakes.call)
            fakes.tick(2)
            fakes.turn()
            self.assert_failed(fakes, error)
            self.failureResultOf(held, error)

    def test_misuse(self) -> None:
        """What is wrong in the program is raised at once, and nothing is queued."""
        fakes = self.up()
        error = self.assertRaises(ValueError, fakes.call.play, "Hello")
        self.assertIn("does not synthesise speech", str(error))
        self.assertIn("await it first", str(self.assertRaises(TypeError, fakes.call.play, Deferred())))
        self.assertIn("takes a coroutine", str(self.assertRaises(TypeError, fakes.call.run, self.test_misuse)))
        for hz, duration_ms in ((0, 100), (5000, 100), (440, -1)):
            self.assertRaises(ValueError, fakes.call.play_tone, hz, duration_ms)
        self.assertRaises(ValueError, fakes.call.digits)
        self.assertEqual(fakes.tick(), [SILENCE])

    def test_tone(self) -> None:
        """A tone is as long as wanted."""
        fakes = self.up(rate_hz=16000)
        playing = fakes.call.play_tone(440, 100)
        fakes.tick(8)
        self.assertApproximates(self.successResultOf(playing).heard_ms, 100, 3)
