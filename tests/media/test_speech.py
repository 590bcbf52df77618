"""Everything that a call can play, and each outcome."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio import playout as playout_module
from rapida_twisted.audio.convert import Converter, converter
from rapida_twisted.audio.formats import SLIN, AudioFormat
from rapida_twisted.audio.playout import Playout
from rapida_twisted.interfaces import Playable, PlayEnd, PlayOutcome
from rapida_twisted.media.playable import PART_MS
from rapida_twisted.media.requests import Requests
from rapida_twisted.media.speech import AHEAD_MS, Speech
from tests.media.fakes import counted, ramp, write_wav

FRAME = SLIN.frame_bytes


class SpeechTestCase(SynchronousTestCase):
    """One call's speech at 8 kHz, heard frame by frame."""

    def setUp(self) -> None:
        """Nothing is said yet."""
        self.reactor = Clock()
        self.playout = Playout(SLIN)
        self.failures: list[Failure] = []
        self.speech = Speech(self.playout, Requests(self.reactor, self.failures.append), self.reactor)

    def play(self, audio: Playable, rate_hz: int = 8000) -> Deferred[PlayOutcome]:
        """Say something."""
        return self.speech.play(audio, rate_hz)

    def hear(self, frames: int) -> list[bytes | None]:
        """Let several frames be played."""
        heard = []
        for _ in range(frames):
            heard.append(self.playout.take())
            finished, self.playout.finished = self.playout.finished, []
            for source in finished:
                self.speech.played(source)
        return heard

    def hear_all(self) -> bytes:
        """Hear until nothing is there any more."""
        heard = b""
        while (frame := self.hear(1)[0]) is not None:
            heard += frame
        return heard


class Noting:
    """A converter that writes down how much it is given at a time."""

    def __init__(self, convert: Converter, given: list[int]) -> None:
        self.flush = convert.flush
        self._convert = convert
        self._given = given

    def __call__(self, audio: bytes) -> bytes:
        self._given.append(len(audio))
        return self._convert(audio)


class Stream:
    """An async iterable of parts that tells how far it was read, and whether it was closed."""

    def __init__(self, parts: list[bytes], gate: Deferred[None] | None = None) -> None:
        self.read = 0
        self.ended_by: list[str] = []
        self._parts = parts
        self._gate = gate

    async def parts(self) -> AsyncIterator[bytes]:
        """The parts; at the end it waits for the gate, if there is one."""
        try:
            for part in self._parts:
                self.read += 1
                yield part
            if self._gate is not None:
                await self._gate
            self.ended_by.append("end")
        except BaseException as error:
            self.ended_by.append(type(error).__name__)
            raise


class KindsTests(SpeechTestCase):
    """Everything that can be said."""

    def test_samples(self) -> None:
        """Samples in memory are heard as they are, and are played once the frame after their last one is due."""
        samples = counted(5)
        spoken = self.play(samples)
        self.assertEqual(b"".join(frame or b"" for frame in self.hear(5)), samples)
        self.assertNoResult(spoken)
        self.assertEqual(self.hear(1), [None])
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.PLAYED)

    def test_every_kind_sounds_the_same(self) -> None:
        """Bytes, a bytearray, a memoryview, a file's name, an iterable and an async iterable sound the same."""
        samples = ramp(8000)
        wav = write_wav(self.mktemp(), samples)
        cuts = [samples[begin : begin + 777] for begin in range(0, len(samples), 777)]
        kinds: dict[str, Playable] = {
            "bytes": samples,
            "file": wav,
            "list": cuts,
            "generator": iter(cuts),
            "stream": Stream(cuts).parts(),
        }
        for name, audio in kinds.items():
            spoken = self.play(audio)
            self.assertEqual(self.hear_all()[: len(samples)], samples, name)
            self.assertIs(self.successResultOf(spoken).end, PlayEnd.PLAYED)
        for raw in (bytearray(samples), memoryview(samples)):
            self.play(raw)  # type: ignore[arg-type]
            self.assertEqual(self.hear_all()[: len(samples)], samples)

    def test_other_rates(self) -> None:
        """Samples and files of another rate last as long as they should."""
        for rate_hz in (16000, 24000, 48000):
            tone = b"\0\x10" * rate_hz
            for audio in (tone, [tone], Stream([tone]).parts(), write_wav(self.mktemp(), tone, rate_hz)):
                spoken = self.play(audio, 8000 if isinstance(audio, str) else rate_hz)
                self.assertApproximates(SLIN.ms(len(self.hear_all())), 1000, 30)
                self.assertIs(self.successResultOf(spoken).end, PlayEnd.PLAYED)

    def test_nothing(self) -> None:
        """Saying nothing at all is played with the next frame."""
        for nothing in (b"", [], [b"", b""], Stream([]).parts()):
            spoken = self.play(nothing)
            self.assertEqual(self.hear(1), [None])
            self.assertIs(self.successResultOf(spoken).end, PlayEnd.PLAYED)

    def test_cut_in_the_middle_of_a_sample(self) -> None:
        """Parts may be cut anywhere: half a sample waits for its other half."""
        samples = ramp(400)
        cuts = [samples[:1], samples[1:2], samples[2:101], samples[101:]]
        for audio in (cuts, Stream(cuts).parts()):
            self.play(audio)
            self.assertEqual(self.hear_all()[: len(samples)], samples)

    def test_in_order_without_gaps(self) -> None:
        """What is said follows what was said before, in the same frame if need be."""
        samples = ramp(1000)
        for begin in range(0, 2000, 250):
            self.play(samples[begin : begin + 250])
        self.assertEqual(self.hear_all()[:2000], samples)

    def test_no_audio(self) -> None:
        """What is no audio is refused at once, with a sentence; a file's errors fail the Deferred."""

        async def words() -> bytes:
            return b""

        forgotten = words()
        self.addCleanup(forgotten.close)
        wrong: list[tuple[Any, type[Exception], str]] = [
            (17, TypeError, "not int"),
            (forgotten, TypeError, "not coroutine: await it first"),
            ([b"", 1], TypeError, "not int"),
            ("Hello", ValueError, "plays sound files and does not synthesise speech: there is no file 'Hello'"),
            ("How do you do? Yes. No.", ValueError, "does not synthesise"),
            (np.zeros(10, np.int32), TypeError, "an array of int16 or float32"),
            (np.zeros((10, 2), np.int16), ValueError, "one channel"),
        ]
        for audio, error, sentence in wrong:
            self.assertIn(sentence, str(self.assertRaises(error, self.play, audio)))
        self.assertRaises(ValueError, self.play, b"", rate_hz=0)
        missing = [
            ("no/such/file.wav", FileNotFoundError),
            (Path("nothing"), FileNotFoundError),
            (Path(__file__), ValueError),
        ]
        for audio, error in missing:
            refused = self.play(audio)
            self.assertNoResult(refused)
            self.reactor.advance(0)
            self.failureResultOf(refused, error)
        self.assertEqual(self.hear(1), [None])

    def test_long_parts_are_converted_in_pieces(self) -> None:
        """However long a part is, no more than 100 ms of it are converted at once."""
        converted: list[int] = []

        def noting(source: AudioFormat, wire: AudioFormat) -> Noting:
            convert = converter(source, wire)
            assert convert is not None
            return Noting(convert, converted)

        self.patch(playout_module, "converter", noting)
        tone = b"\0\x10" * 16000
        for audio in (tone, [tone], Stream([tone]).parts()):
            converted.clear()
            self.play(audio, 16000)
            self.hear_all()
            self.assertEqual(sum(converted), len(tone))
            self.assertLessEqual(max(converted), AudioFormat("slin", 16000).bytes_for(PART_MS))


class FlushTests(SpeechTestCase):
    """What is cut short."""

    def test_flush_in_the_middle(self) -> None:
        """A flush in the middle tells how much was not heard, of samples to the millisecond; all is flushed."""
        first, second = self.play(counted(50)), self.play(counted(25))
        self.hear(20)
        self.assertApproximates(self.speech.flush(), 1000 + 500 - 400, 0.1)
        self.assertIs(self.successResultOf(first).end, PlayEnd.FLUSHED)
        self.assertIs(self.successResultOf(second).end, PlayEnd.FLUSHED)
        self.assertEqual(self.hear(1), [None])
        self.assertEqual(self.speech.flush(), 0.0)

    def test_said_in_answer_to_a_flush(self) -> None:
        """Audio that is played from a flushed Deferred's callback is not flushed with the rest."""
        again: list[Deferred[PlayOutcome]] = []
        self.play(counted(5)).addCallback(lambda _: again.append(self.play(counted(1, first=99))))
        self.play(counted(5))
        self.speech.flush()
        self.assertEqual(self.hear(2), [counted(1, first=99), None])
        self.assertIs(self.successResultOf(again[0]).end, PlayEnd.PLAYED)

    def test_flush_in_answer_to_a_flush(self) -> None:
        """A flush from a flushed Deferred's callback changes nothing for the other Deferreds."""
        told: list[PlayOutcome] = []
        self.play(counted(5)).addCallback(lambda _: self.speech.flush())
        self.play(counted(5)).addCallback(told.append)
        self.speech.flush()
        self.assertEqual([outcome.end for outcome in told], [PlayEnd.FLUSHED])

    def test_cancel_one(self) -> None:
        """Cancelling stops this one thing, wherever it stands in the queue; the rest goes on."""
        for stopped in range(3):
            texts = [counted(10, first=100), counted(10, first=200), counted(10, first=300)]
            said = [self.play(text) for text in texts]
            self.hear(2)
            texts[0] = texts[0][2 * FRAME :]
            cancelled = said.pop(stopped)
            cancelled.cancel()
            self.failureResultOf(cancelled, CancelledError)
            del texts[stopped]
            self.assertEqual(self.hear_all(), b"".join(texts))
            self.assertEqual([self.successResultOf(spoken).end for spoken in said], [PlayEnd.PLAYED] * 2)

    def test_too_late_to_cancel(self) -> None:
        """Cancelling what was played already does nothing."""
        spoken = self.play(counted(1))
        self.hear(2)
        spoken.cancel()
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.PLAYED)


class StreamTests(SpeechTestCase):
    """Async iterables."""

    def test_read_ahead_is_bounded(self) -> None:
        """A stream is read a second ahead of what is heard, and one part more at the most."""
        part_ms = 100
        stream = Stream([counted(5, first=10 * number) for number in range(100)])
        spoken = self.play(stream.parts())
        for heard_ms in range(0, 10_000, 20):
            self.assertLessEqual(stream.read * part_ms - heard_ms, AHEAD_MS + part_ms)
            self.assertGreaterEqual(stream.read * part_ms - heard_ms, min(AHEAD_MS - part_ms, 10_000 - heard_ms))
            self.hear(1)
        self.hear(1)
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.PLAYED)
        self.assertEqual(stream.ended_by, ["end"])
        self.assertEqual(self.playout.underruns, 0)

    def test_long_parts_are_not_read_sooner(self) -> None:
        """A stream of long parts is read on when less than a second of what was read is left."""
        stream = Stream([counted(150)] * 5)
        self.play(stream.parts())
        for _ in range(700):
            self.assertLessEqual(self.playout.queued_ms, AHEAD_MS + 3000)
            self.hear(1)
        self.assertEqual((stream.read, self.playout.underruns), (5, 0))

    def test_slower_than_heard(self) -> None:
        """A stream that waits for its own source leaves silence, then goes on; what follows it waits."""
        gate: Deferred[None] = Deferred()

        async def parts() -> AsyncIterator[bytes]:
            yield counted(1, first=1)
            await gate
            yield counted(1, first=2)

        spoken = self.play(parts())
        after = self.play(counted(1, first=3))
        self.assertEqual(self.hear(3), [counted(1, first=1), None, None])
        gate.callback(None)
        self.assertEqual(self.hear(3), [counted(1, first=2), counted(1, first=3), None])
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.PLAYED)
        self.assertIs(self.successResultOf(after).end, PlayEnd.PLAYED)

    def test_any_async_iterable(self) -> None:
        """It need not be a generator: whatever has the two methods will do."""

        class Twice:
            def __init__(self) -> None:
                self.left = 2

            def __aiter__(self) -> Twice:
                return self

            async def __anext__(self) -> bytes:
                if not self.left:
                    raise StopAsyncIteration
                self.left -= 1
                return counted(1)

        spoken = self.play(Twice())
        self.assertEqual(self.hear(3), [counted(1), counted(1), None])
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.PLAYED)

    def test_flushed_while_it_waits(self) -> None:
        """A stream that waits for its own source is cancelled there, in the reactor's next turn."""
        gate: Deferred[None] = Deferred()
        stream = Stream([counted(1)], gate)
        spoken = self.play(stream.parts())
        self.hear(1)
        self.speech.flush()
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.FLUSHED)
        self.reactor.advance(0)
        self.assertEqual(stream.ended_by, ["CancelledError"])
        self.assertEqual(self.failures, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_flushed_while_it_is_ahead(self) -> None:
        """A stream that is far enough ahead is closed, so that it lets go of what it holds, and is read no further."""
        stream = Stream([counted(5)] * 100)
        spoken = self.play(stream.parts())
        read = stream.read
        self.speech.flush()
        self.reactor.advance(0)
        self.assertEqual(stream.ended_by, ["GeneratorExit"])
        self.assertEqual(stream.read, read)
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.FLUSHED)
        self.assertEqual(self.failures, [])

    def test_cancelled(self) -> None:
        """Cancelling the saying of a stream stops the stream too."""
        stream = Stream([counted(5)] * 100)
        spoken = self.play(stream.parts())
        spoken.cancel()
        self.failureResultOf(spoken, CancelledError)
        self.reactor.advance(0)
        self.assertEqual(stream.ended_by, ["GeneratorExit"])
        self.assertEqual(self.hear(1), [None])

    def test_a_stream_that_flushes(self) -> None:
        """A stream whose own code flushes the queue, as one that hears of a barge-in first, is stopped like any."""
        gate, never = Deferred[None](), Deferred[None]()
        ended_by: list[str] = []

        async def parts() -> AsyncIterator[bytes]:
            try:
                yield counted(1)
                await gate
                self.speech.flush()
                yield counted(1)
                await never
            except BaseException as error:
                ended_by.append(type(error).__name__)
                raise

        spoken = self.play(parts())
        self.hear(1)
        gate.callback(None)
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.FLUSHED)
        self.reactor.advance(0)
        self.assertEqual(ended_by, ["CancelledError"])
        self.assertEqual(self.failures, [])

    def test_a_stream_that_raises(self) -> None:
        """Its play() fails once what it gave before was heard; what comes after it is heard, too."""

        async def parts() -> AsyncIterator[bytes]:
            yield counted(2)
            raise ZeroDivisionError

        spoken, after = self.play(parts()), self.play(counted(1, first=9))
        self.assertEqual(self.hear(2), [counted(1), counted(1, first=2)])
        self.assertNoResult(spoken)
        self.assertEqual(self.hear(2), [counted(1, first=9), None])
        self.failureResultOf(spoken, ZeroDivisionError)
        self.assertTrue(self.successResultOf(after).played)
        self.reactor.advance(0)
        self.assertEqual(self.failures, [])

    def test_nobody_handles_a_failure(self) -> None:
        """A failure that no code handles by the next turn is reported once; a later await still gets it."""

        async def parts() -> AsyncIterator[bytes]:
            raise ZeroDivisionError
            yield b""

        spoken = self.play(parts())
        self.hear(1)
        self.assertEqual(self.failures, [])
        self.reactor.advance(0)
        self.assertEqual([failure.type for failure in self.failures], [ZeroDivisionError])
        self.failureResultOf(spoken, ZeroDivisionError)

    def test_a_stream_that_raises_when_stopped(self) -> None:
        """What a stream makes of being stopped, such as an error of its own, is no failure of the call."""

        async def parts() -> AsyncIterator[bytes]:
            try:
                yield counted(1)
                await Deferred[None]()
            except CancelledError:
                raise OSError("the connection is closed") from None

        spoken = self.play(parts())
        self.speech.flush()
        self.reactor.advance(0)
        self.assertIs(self.successResultOf(spoken).end, PlayEnd.FLUSHED)
        self.assertEqual(self.failures, [])

    def test_an_iterable_that_raises(self) -> None:
        """A plain iterable that raises, or that gives no audio, fails its play() likewise."""

        def parts(last: Any) -> Iterator[bytes]:
            yield counted(1)
            yield last or b"" * (1 // 0)

        for last, error in ((None, ZeroDivisionError), ("no audio", TypeError)):
            spoken = self.play(parts(last))
            self.assertEqual(self.hear(1), [counted(1)])
            self.assertNoResult(spoken)
            self.assertEqual(self.hear(1), [None])
            self.failureResultOf(spoken, error)
