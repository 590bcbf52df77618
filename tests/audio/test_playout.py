"""The playout queue: against a plain-list model, and sources that act on it while they are taken."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio.formats import SLIN, ULAW, AudioFormat
from rapida_twisted.audio.playout import STANDING_FRAMES, PartsSource, PipeSource, Playout, Source

FRAME_BYTES = SLIN.frame_bytes
LIVE_LIMIT_MS = 100.0
ONES = b"\1\0"
SLIN16 = AudioFormat("slin", 16000)


class Said:
    """A source, as the model sees it: the bytes that were not heard yet, and whether more may come."""

    def __init__(self, source: Source, waiting: bytes, closed: bool) -> None:
        self.source = source
        self.waiting = waiting
        self.closed = closed
        self.length_known = isinstance(source, PipeSource)
        self.taken_bytes = 0

    def take(self, byte_count: int) -> bytes:
        """Whole samples only."""
        byte_count = min(byte_count, len(self.waiting) // 2 * 2)
        taken, self.waiting = self.waiting[:byte_count], self.waiting[byte_count:]
        self.taken_bytes += len(taken)
        return taken


class PlayoutMachine(RuleBasedStateMachine):
    """A playout queue, and beside it a list of what it should hold. No sample is like the one before it."""

    said_by_pipe = Bundle("said_by_pipe")

    def __init__(self) -> None:
        super().__init__()
        self.playout = Playout(SLIN, LIVE_LIMIT_MS)
        self.queue: list[Said] = []
        self.live = b""
        self.finished: list[Source] = []
        self.live_dropped_ms = 0.0
        self.live_least = self.live_taken = 0
        self.heard_bytes = 0
        self._numbers = count()

    def samples(self, byte_count: int) -> bytes:
        """Bytes that were never there before (nearly)."""
        return b"".join((next(self._numbers) % 65000 + 1).to_bytes(2, "little") for _ in range(byte_count // 2 + 1))[
            :byte_count
        ]

    @rule(sizes=st.lists(st.integers(0, 700), max_size=4))
    def put_parts(self, sizes: list[int]) -> None:
        """Say something whose parts can be had at once, cut anywhere."""
        parts = [self.samples(size) for size in sizes]
        source = PartsSource(iter(parts), SLIN, SLIN)
        self.playout.put(source)
        self.queue.append(Said(source, b"".join(parts), closed=True))

    @rule(target=said_by_pipe)
    def put_pipe(self) -> Said:
        """Say something that is still to come."""
        pipe = PipeSource(SLIN, SLIN)
        said = Said(pipe, b"", closed=False)
        self.playout.put(pipe)
        self.queue.append(said)
        return said

    @rule(said=said_by_pipe, size=st.integers(0, 700))
    def feed(self, said: Said, size: int) -> None:
        """One more part, of any length; also of something that was flushed meanwhile."""
        part = self.samples(size)
        assert isinstance(said.source, PipeSource)
        said.source.feed(part)
        said.waiting += part

    @rule(said=consumes(said_by_pipe))
    def close(self, said: Said) -> None:
        """That was the last part."""
        assert isinstance(said.source, PipeSource)
        said.source.close()
        said.closed = True

    @rule(sample_count=st.integers(0, 1200))
    def write(self, sample_count: int) -> None:
        """Live audio, at times more than may wait."""
        payload = self.samples(2 * sample_count)
        self.playout.write(payload)
        self.live += payload
        excess = max(0, len(self.live) - SLIN.bytes_for(LIVE_LIMIT_MS))
        self.live = self.live[excess:]
        self.live_dropped_ms += SLIN.ms(excess)

    @rule(frames=st.integers(1, 8))
    def take(self, frames: int) -> None:
        """Some frames are due."""
        for _ in range(frames):
            expected = self._expected_frame()
            taken = self.playout.take()
            assert taken == expected, (taken, expected)
            assert taken is None or len(taken) == FRAME_BYTES

    def _expected_frame(self) -> bytes | None:
        if self.queue:
            frame = b""
            while self.queue:
                said = self.queue[0]
                frame += said.take(FRAME_BYTES - len(frame))
                if len(frame) == FRAME_BYTES or not said.closed:
                    break
                self.finished.append(self.queue.pop(0).source)
            if frame or self.queue:
                self.heard_bytes += len(frame)
                return frame.ljust(FRAME_BYTES, b"\0") if frame else None
        if len(self.live) < FRAME_BYTES:
            self.live_least = 0
            return None
        frame, self.live = self.live[:FRAME_BYTES], self.live[FRAME_BYTES:]
        self.heard_bytes += FRAME_BYTES
        self.live_least = min(self.live_least, len(self.live))
        self.live_taken += 1
        if self.live_taken == STANDING_FRAMES:
            if self.live_least >= 2 * FRAME_BYTES:
                self.live = self.live[FRAME_BYTES:]
                self.live_dropped_ms += 20
            self.live_taken, self.live_least = 0, len(self.live)
        return frame

    @rule()
    def flush(self) -> None:
        """Barge-in: flush returns the length of the queued audio, to half a sample."""
        known_ms = SLIN.ms(len(self.live) + sum(len(said.waiting) for said in self.queue if said.length_known))
        all_ms = SLIN.ms(len(self.live) + sum(len(said.waiting) for said in self.queue))
        rest_ms, flushed_ms = self.playout.rest_ms, self.playout.flush()
        half_samples_ms = SLIN.ms(len(self.queue))
        assert rest_ms is None or known_ms - half_samples_ms <= rest_ms <= all_ms, (known_ms, rest_ms, all_ms)
        assert rest_ms is not None or not all(said.closed and said.length_known for said in self.queue)
        assert known_ms - half_samples_ms <= flushed_ms <= all_ms, (known_ms, flushed_ms, all_ms)
        self.queue.clear()
        self.live = b""

    @rule(number=st.integers(0, 3))
    def discard(self, number: int) -> None:
        """Take one out, wherever it stands; what is not there can't be taken out."""
        if number < len(self.queue):
            source = self.queue.pop(number).source
            assert self.playout.discard(source)
            assert not self.playout.discard(source)

    @invariant()
    def same_ends(self) -> None:
        """The same sources are over, in the same order."""
        assert self.playout.finished == self.finished

    @invariant()
    def same_heard(self) -> None:
        """What was heard, in all and of each source, without the silence that filled up frames."""
        assert abs(self.playout.heard_ms - SLIN.ms(self.heard_bytes)) < 1e-6
        for said in self.queue:
            assert abs(self.playout.heard_of(said.source) - SLIN.ms(said.taken_bytes)) < 1e-6

    @invariant()
    def same_losses(self) -> None:
        """The same amount of live audio was too old, and never too much waits."""
        assert abs(self.playout.live_dropped_ms - self.live_dropped_ms) < 1e-6
        if not self.queue:
            assert abs(self.playout.queued_ms - SLIN.ms(len(self.live))) < 1e-6


class ModelTests(SynchronousTestCase):
    """The queue and its model."""

    def test_like_a_list(self) -> None:
        """Every byte said comes out once, in order, without gaps or mixing, in frames of exactly 20 ms."""
        run_state_machine_as_test(PlayoutMachine, settings=settings(max_examples=150, stateful_step_count=40))


class SourceTests(SynchronousTestCase):
    """Sources: how they are read, and what their code may do to the queue that reads them."""

    def setUp(self) -> None:
        """An empty queue at 8 kHz."""
        self.playout = Playout(SLIN)

    def put(self, parts: Iterator[bytes]) -> PartsSource:
        """Say something at the wire's own rate."""
        source = PartsSource(parts, SLIN, SLIN)
        self.playout.put(source)
        return source

    def test_read_when_it_is_heard(self) -> None:
        """A part is read when it is about to be heard, not before."""
        read: list[int] = []

        def parts() -> Iterator[bytes]:
            for number in range(3):
                read.append(number)
                yield b"\1\0" * 320

        self.put(parts())
        self.assertEqual(read, [])
        progress = [(self.playout.take(), list(read))[1] for _ in range(6)]
        self.assertEqual(progress, [[0], [0], [0, 1], [0, 1], [0, 1, 2], [0, 1, 2]])
        self.assertIsNone(self.playout.take())

    def test_part_taken(self) -> None:
        """The feeder is called for each part that is taken, and may feed the next one then."""
        asked: list[float] = []

        def feed_more() -> None:
            asked.append(pipe.queued_ms)
            if len(asked) < 3:
                pipe.feed(b"\1\0" * 160)

        pipe = PipeSource(SLIN, SLIN, feed_more)
        self.playout.put(pipe)
        pipe.feed(b"\1\0" * 160)
        self.assertEqual([self.playout.take() for _ in range(4)], [b"\1\0" * 160] * 3 + [None])
        self.assertEqual(len(asked), 3)

    def test_underruns_are_counted(self) -> None:
        """A stream that does not keep up leaves silence, which is counted, and goes on where it was."""
        pipe = PipeSource(SLIN, SLIN)
        self.playout.put(pipe)
        pipe.feed(b"\1\0" * 200)
        self.assertEqual(self.playout.take(), b"\1\0" * 160)
        self.assertEqual(self.playout.take(), b"\1\0" * 40 + b"\0\0" * 120)
        self.assertEqual(self.playout.underruns, 1)
        pipe.feed(b"\2\0" * 160)
        self.assertEqual(self.playout.take(), b"\2\0" * 160)
        self.assertEqual(self.playout.underruns, 1)

    def test_flushed_by_its_own_parts(self) -> None:
        """Parts whose code flushes the queue: what comes next is not lost, and nothing breaks."""

        def parts() -> Iterator[bytes]:
            yield b"\1\0" * 80
            self.playout.flush()
            self.put(iter([b"\2\0" * 160]))

        source = self.put(parts())
        self.put(iter([b"\3\0" * 160]))
        self.assertEqual(self.playout.take(), b"\1\0" * 80 + b"\2\0" * 80)
        self.assertEqual(self.playout.take(), b"\2\0" * 80 + b"\0\0" * 80)
        self.assertNotIn(source, self.playout.finished)
        self.assertEqual(len(self.playout.finished), 1)

    def test_discarded_by_its_own_parts(self) -> None:
        """Parts whose code takes out the very source: the next one follows at once, and it does not count as over."""

        def parts() -> Iterator[bytes]:
            yield b"\1\0" * 80
            self.playout.discard(source)

        source = self.put(parts())
        after = self.put(iter([b"\3\0" * 80]))
        self.assertEqual(self.playout.take(), b"\1\0" * 80 + b"\3\0" * 80)
        self.playout.take()
        self.assertEqual(self.playout.finished, [after])

    def test_said_before_live(self) -> None:
        """Live audio waits while something is said, also while a stream has nothing ready, and is not mixed in."""
        pipe = PipeSource(SLIN, SLIN)
        self.playout.put(pipe)
        self.playout.write(b"\7\0" * 160)
        self.assertIsNone(self.playout.take())
        pipe.feed(b"\1\0" * 80)
        pipe.close()
        self.assertEqual(self.playout.take(), b"\1\0" * 80 + b"\0\0" * 80)
        self.assertEqual(self.playout.take(), b"\7\0" * 160)

    def test_one_large_write(self) -> None:
        """Of a single piece of live audio that is longer than the limit only the newest part is kept."""
        self.playout.write(b"\1\0" * 8000 + b"\2\0" * 1600)
        self.assertEqual(self.playout.queued_ms, 200.0)
        self.assertEqual(self.playout.live_dropped_ms, 1000.0)
        self.assertEqual(self.playout.take(), b"\2\0" * 160)

    def test_live_audio_is_not_cut_up(self) -> None:
        """Live audio leaves in whole frames: less than one waits for its rest."""
        self.playout.write(ONES * 120)
        self.assertIsNone(self.playout.take())
        self.playout.write(ONES * 120)
        self.assertEqual(self.playout.take(), ONES * 160)
        self.assertIsNone(self.playout.take())
        self.assertEqual(self.playout.queued_ms, 10.0)


class OtherFormatTests(SynchronousTestCase):
    """Wires that are not linear, and wires that change."""

    def test_silence_of_the_wire(self) -> None:
        """A frame is filled up with the silence of the wire's own encoding."""
        playout = Playout(ULAW)
        playout.put(PartsSource([b"\0\x20" * 100], SLIN, ULAW))
        frame = playout.take()
        assert frame is not None
        self.assertEqual(len(frame), 160)
        self.assertEqual(frame[100:], b"\xff" * 60)
        self.assertNotIn(b"\xff", frame[:100])

    def test_the_wire_changes(self) -> None:
        """What waits when the wire's rate changes lasts as long as before, in frames of the new length."""
        playout = Playout(SLIN)
        playout.put(PartsSource([b"\0\x10" * 8000], SLIN, SLIN))
        playout.write(b"\0\x10" * 800)
        self.assertEqual(playout.take(), b"\0\x10" * 160)
        playout.retarget(SLIN16)
        frames: list[bytes] = []
        while (frame := playout.take()) is not None:
            frames.append(frame)
        self.assertEqual({len(frame) for frame in frames}, {SLIN16.frame_bytes})
        # 49 frames of what was said and 5 live; a converter may keep some milliseconds to itself.
        self.assertApproximates(len(frames), 54, 3)
        self.assertEqual(playout.format, SLIN16)

    def test_the_live_limit_follows(self) -> None:
        """The limit of live audio is a time: after a change of rate it is twice the bytes."""
        playout = Playout(SLIN)
        playout.retarget(SLIN16)
        playout.write(b"\1\0" * 16000)
        self.assertEqual(playout.queued_ms, 200.0)


class StandingQueueTests(SynchronousTestCase):
    """Live audio after a hold-up."""

    def test_delay_shrinks(self) -> None:
        """What a hold-up left waiting is dropped frame by frame, down to one left by each take, and counted."""
        playout = Playout(SLIN, live_limit_ms=200)
        for _ in range(8):
            playout.write(bytes(FRAME_BYTES))
        for _ in range(10 * STANDING_FRAMES):
            playout.take()
            playout.write(bytes(FRAME_BYTES))
        self.assertEqual(playout.queued_ms, 40)
        self.assertEqual(playout.live_dropped_ms, 120)

    def test_packets_of_30_ms(self) -> None:
        """Packets of another length than ours are played without a gap, once they flow."""
        playout = Playout(SLIN, live_limit_ms=200)
        frames: list[bytes | None] = []
        for tick in range(60):
            if tick * 20 % 60 in (0, 40):
                playout.write(b"\x01\x00" * 240)
            frames.append(playout.take())
        flowing = frames[3:]
        self.assertEqual(flowing, [b"\x01\x00" * 160] * len(flowing))


class PartialFrameTests(SynchronousTestCase):
    """Something said that has less than a frame ready."""

    def test_waits_for_its_rest(self) -> None:
        """Without filling up, a part of a frame waits, counts as queued, and comes out with its rest."""
        playout, pipe = Playout(SLIN), PipeSource(SLIN, SLIN)
        playout.put(pipe)
        pipe.feed(b"\x01\x00" * 100)
        self.assertIsNone(playout.take(fill=False))
        self.assertEqual((playout.queued_ms, playout.underruns), (12.5, 0))
        pipe.feed(b"\x02\x00" * 60)
        self.assertEqual(playout.take(fill=False), b"\x01\x00" * 100 + b"\x02\x00" * 60)

    def test_the_end_is_filled_up(self) -> None:
        """The last frame of something said is filled up in any case."""
        playout, pipe = Playout(SLIN), PipeSource(SLIN, SLIN)
        playout.put(pipe)
        pipe.feed(b"\x01\x00" * 100)
        self.assertIsNone(playout.take(fill=False))
        pipe.close()
        self.assertEqual(playout.take(fill=False), (b"\x01\x00" * 100).ljust(FRAME_BYTES, b"\0"))
