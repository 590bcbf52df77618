"""Asterisk's queue in chan_websocket: rule by rule, and against a simple model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.wire.chan_websocket import (
    QUEUE_MAX_FRAMES,
    XOFF_LEVEL_FRAMES,
    XON_LEVEL_FRAMES,
    Answer,
    Command,
    ContinueMedia,
    ControlForm,
    ErrorEvent,
    Event,
    FlushMedia,
    GetStatus,
    Hangup,
    MarkMedia,
    MediaBufferingCompleted,
    MediaMarkProcessed,
    MediaXoff,
    MediaXon,
    PauseMedia,
    QueueDrained,
    ReportQueueDrained,
    SetMediaDirection,
    StartMediaBuffering,
    Status,
    StopMediaBuffering,
    UnknownCommand,
)
from rapida_twisted.wire.chan_websocket_queue import EVENTS_OF_FRAME, MAX_EVENTS, MediaQueue

SIZE = 4
CHANNEL_ID = "1.4"


def frame(number: int) -> bytes:
    """A frame that differs from the others."""
    return number.to_bytes(SIZE, "big")


def frames(count: int, first: int = 0) -> bytes:
    """A message of several frames."""
    return b"".join(map(frame, range(first, first + count)))


class QueueTestCase(SynchronousTestCase):
    """A queue whose events are kept."""

    def setUp(self) -> None:
        self.make()

    def make(self, form: ControlForm = ControlForm.JSON) -> None:
        """A new queue."""
        self.said: list[Event] = []
        self.queue = MediaQueue(SIZE, self.said.append, channel_id=CHANNEL_ID, form=form)

    def do(self, *commands: Command) -> None:
        """The application asks for something."""
        for command in commands:
            self.queue.command(command)

    def take(self, count: int = 1) -> list[bytes | None]:
        """Several periods of 20 ms."""
        return [self.queue.take() for _ in range(count)]

    def news(self) -> list[Event]:
        """The events since the last call."""
        said = self.said[:]
        self.said.clear()
        return said

    @property
    def status(self) -> Status:
        """What GET_STATUS gives."""
        self.do(GetStatus())
        event = self.said.pop()
        assert isinstance(event, Status)
        return event


class FlowTests(QueueTestCase):
    """The queue's length, and what is said of it."""

    def test_in_order(self) -> None:
        """A message of several frames is heard frame by frame, one each packet time, then silence."""
        self.queue.audio(frames(2))
        self.queue.audio(frames(1, first=2))
        self.assertEqual(self.queue.frames, 3)
        self.assertEqual(self.take(4), [frame(0), frame(1), frame(2), None])
        self.assertEqual((self.queue.frames, self.news()), (0, []))

    def test_xoff(self) -> None:
        """MEDIA_XOFF is said once, by the frame that makes 900."""
        self.queue.audio(frames(XOFF_LEVEL_FRAMES - 1))
        self.assertEqual(self.news(), [])
        self.queue.audio(frames(1))
        self.assertEqual(self.news(), [MediaXoff(channel_id=CHANNEL_ID)])
        self.queue.audio(frames(50))
        self.assertEqual(self.news(), [])

    def test_xon(self) -> None:
        """MEDIA_XON is said when a frame is taken and fewer than 800 waited before it; then XOFF may come again."""
        self.queue.audio(frames(XOFF_LEVEL_FRAMES))
        self.take(XOFF_LEVEL_FRAMES - XON_LEVEL_FRAMES + 1)
        self.assertEqual(self.queue.frames, XON_LEVEL_FRAMES - 1)
        self.assertEqual(self.news(), [MediaXoff(channel_id=CHANNEL_ID)])
        self.assertTrue(self.status.queue_full)
        self.take()
        self.assertEqual(self.news(), [MediaXon(channel_id=CHANNEL_ID)])
        self.assertFalse(self.status.queue_full)
        self.queue.audio(frames(XOFF_LEVEL_FRAMES - self.queue.frames))
        self.assertEqual(self.news(), [MediaXoff(channel_id=CHANNEL_ID)])

    def test_full(self) -> None:
        """What comes to a queue of 1,000 is dropped without a word; a message that began below that is taken whole."""
        self.queue.audio(frames(QUEUE_MAX_FRAMES - 1))
        self.news()
        self.queue.audio(frames(3, first=2000))
        self.assertEqual((self.queue.frames, self.queue.dropped_messages), (QUEUE_MAX_FRAMES + 2, 0))
        self.queue.audio(frames(1))
        self.queue.audio(b"")
        self.assertEqual((self.queue.frames, self.queue.dropped_messages), (QUEUE_MAX_FRAMES + 2, 2))
        self.assertEqual(self.news(), [])
        self.assertEqual(self.take(QUEUE_MAX_FRAMES + 3)[-4:], [frame(2000), frame(2001), frame(2002), None])

    def test_status(self) -> None:
        """STATUS tells lengths, levels and states, at once and whatever waits."""
        self.assertEqual(self.status, Status(channel_id=CHANNEL_ID, queue_length=0))
        self.queue.audio(frames(1000))
        self.do(StartMediaBuffering(), PauseMedia())
        self.assertEqual(
            self.status,
            Status(
                channel_id=CHANNEL_ID, queue_length=1000, xon_level=800, xoff_level=900, queue_full=True,
                bulk_media=True, media_paused=True,
            ),
        )  # fmt: skip

    def test_not_its_business(self) -> None:
        """ANSWER, HANGUP and unknown commands change nothing and are not answered."""
        self.do(Answer(), Hangup(), UnknownCommand("DANCE"))
        self.assertEqual((self.status, self.news()), (Status(channel_id=CHANNEL_ID, queue_length=0), []))


class BufferingTests(QueueTestCase):
    """Messages that are no multiple of a frame."""

    def test_tail_thrown_away(self) -> None:
        """Outside of buffering the tail of a message is lost, and a message of less than a frame with it."""
        self.queue.audio(frame(1) + b"ab")
        self.queue.audio(b"cd")
        self.queue.audio(frame(2))
        self.assertEqual(self.take(3), [frame(1), frame(2), None])

    def test_leftovers(self) -> None:
        """In buffering messages are cut anywhere, and the frames come out whole."""
        self.do(StartMediaBuffering())
        for part in (b"a", b"b", b"cdefg", b"hijklmnop", b"q"):
            self.queue.audio(part)
        self.assertEqual(self.queue.frames, 4)
        self.do(StopMediaBuffering("x"))
        self.assertEqual(self.take(4), [b"abcd", b"efgh", b"ijkl", b"mnop"])
        self.assertEqual(self.news(), [])
        self.assertEqual(self.take(), [b"q"])
        self.assertEqual(self.news(), [])
        self.assertEqual(self.take(), [None])
        self.assertEqual(self.news(), [MediaBufferingCompleted(correlation_id="x", channel_id=CHANNEL_ID)])

    def test_nothing_left(self) -> None:
        """The end of buffering with no leftover adds no frame."""
        self.do(StartMediaBuffering())
        self.queue.audio(frames(1))
        self.do(StopMediaBuffering())
        self.assertEqual((self.queue.frames, self.take()), (1, [frame(0)]))

    def test_leftover_does_not_wait(self) -> None:
        """What is short of a frame is heard when nothing else is, and its rest begins a new frame."""
        self.do(StartMediaBuffering())
        self.queue.audio(b"abcdef")
        self.assertEqual(self.take(3), [b"abcd", b"ef", None])
        self.queue.audio(b"ghij")
        self.assertEqual(self.take(2), [b"ghij", None])

    def test_leftover_after_marks(self) -> None:
        """It is heard in the packet time in which only marks waited."""
        self.do(StartMediaBuffering())
        self.queue.audio(b"ab")
        self.do(MarkMedia("1"))
        self.assertEqual(self.take(), [b"ab"])
        self.assertEqual(self.news(), [MediaMarkProcessed(correlation_id="1", channel_id=CHANNEL_ID)])

    def test_leftover_in_pause(self) -> None:
        """It is heard in a pause too, which only keeps what is in the queue."""
        self.do(StartMediaBuffering(), PauseMedia())
        self.queue.audio(b"abcdef")
        self.assertEqual(self.take(2), [b"ef", None])

    def test_leftover_then_whole_messages(self) -> None:
        """Buffering that is begun again within buffering goes on where it was."""
        self.do(StartMediaBuffering())
        self.queue.audio(b"ab")
        self.do(StartMediaBuffering())
        self.queue.audio(b"cd")
        self.assertEqual(self.take(), [b"abcd"])

    def test_stop_without_start(self) -> None:
        """STOP_MEDIA_BUFFERING alone is a mark of another name."""
        self.queue.audio(frames(1))
        self.do(StopMediaBuffering("y"))
        self.take()
        self.assertEqual(self.news(), [])
        self.take()
        self.assertEqual(self.news(), [MediaBufferingCompleted(correlation_id="y", channel_id=CHANNEL_ID)])

    def test_last_part_in_a_full_queue(self) -> None:
        """The last partial frame finds a place in a queue that takes no messages."""
        self.do(StartMediaBuffering())
        self.queue.audio(frames(QUEUE_MAX_FRAMES) + b"z")
        self.do(StopMediaBuffering())
        self.assertEqual(self.take(QUEUE_MAX_FRAMES + 1)[-1], b"z")


class MarkTests(QueueTestCase):
    """Marks, and the events about the queue."""

    def test_order(self) -> None:
        """Marks are said in their places, before the frame after them, and take no packet time."""
        self.do(MarkMedia("0"))
        self.queue.audio(frames(1))
        self.do(MarkMedia("1"), MarkMedia("2"))
        self.queue.audio(frames(1, first=1))
        self.do(MarkMedia(""))
        self.assertEqual(self.queue.frames, 2)
        heard: list[object] = []
        for _ in range(3):
            taken = self.queue.take()
            heard += [event.correlation_id for event in self.news() if isinstance(event, MediaMarkProcessed)]
            heard.append(taken)
        self.assertEqual(heard, ["0", frame(0), "1", "2", frame(1), "", None])

    def test_marks_are_no_frames(self) -> None:
        """However many marks wait, the queue is not full of them."""
        self.do(*(MarkMedia(str(number)) for number in range(2000)))
        self.assertEqual((self.status.queue_length, self.news()), (0, []))
        for _ in range(2000 // EVENTS_OF_FRAME):
            self.assertEqual(self.take(), [None])
            self.assertEqual(len(self.news()), EVENTS_OF_FRAME)

    def test_too_many_marks(self) -> None:
        """A program that sets marks without end gets errors, and costs no more memory."""
        self.do(*(MarkMedia(str(number)) for number in range(MAX_EVENTS + 1)))
        (error,) = self.news()
        self.assertIsInstance(error, ErrorEvent)

    def test_drained(self) -> None:
        """QUEUE_DRAINED comes once, in the first packet time with nothing in the queue at its beginning."""
        self.queue.audio(frames(1))
        self.do(ReportQueueDrained(), ReportQueueDrained())
        self.take()
        self.assertEqual(self.news(), [])
        self.take()
        self.assertEqual(self.news(), [QueueDrained(channel_id=CHANNEL_ID)])
        self.take(3)
        self.assertEqual(self.news(), [])
        self.do(ReportQueueDrained())
        self.take()
        self.assertEqual(self.news(), [QueueDrained(channel_id=CHANNEL_ID)])

    def test_drained_after_marks(self) -> None:
        """A mark that waits makes QUEUE_DRAINED a packet time later."""
        self.do(ReportQueueDrained(), MarkMedia("1"))
        self.take()
        self.assertEqual(self.news(), [MediaMarkProcessed(correlation_id="1", channel_id=CHANNEL_ID)])
        self.take()
        self.assertEqual(self.news(), [QueueDrained(channel_id=CHANNEL_ID)])

    def test_pause(self) -> None:
        """In a pause nothing is heard, said or lost; then it goes on in its place."""
        self.queue.audio(frames(1))
        self.do(MarkMedia("1"), ReportQueueDrained(), PauseMedia())
        self.queue.audio(frames(1, first=1))
        self.assertEqual((self.take(3), self.news()), ([None] * 3, []))
        self.assertEqual((self.status.queue_length, self.status.media_paused), (2, True))
        self.do(ContinueMedia())
        self.assertEqual(self.take(3), [frame(0), frame(1), None])
        self.assertEqual([type(event) for event in self.news()], [MediaMarkProcessed, QueueDrained])

    def test_no_xon_in_pause(self) -> None:
        """MEDIA_XON waits for the pause's end."""
        self.queue.audio(frames(XOFF_LEVEL_FRAMES))
        self.do(FlushMedia(), PauseMedia())
        self.take(2)
        self.assertEqual(self.news(), [MediaXoff(channel_id=CHANNEL_ID)])
        self.do(ContinueMedia())
        self.take()
        self.assertEqual(self.news(), [MediaXon(channel_id=CHANNEL_ID)])


class FlushTests(QueueTestCase):
    """FLUSH_MEDIA."""

    def test_flush(self) -> None:
        """All that waits is gone at once; its marks and completions are never said; buffering is over."""
        self.do(StartMediaBuffering())
        self.queue.audio(frames(3) + b"ab")
        self.do(MarkMedia("1"), StopMediaBuffering("2"), StartMediaBuffering())
        self.queue.audio(b"xyz")
        self.do(FlushMedia())
        self.assertEqual((self.status.queue_length, self.status.bulk_media), (0, False))
        self.assertEqual((self.take(2), self.news()), ([None, None], []))
        self.queue.audio(b"ab")
        self.assertEqual(self.take(), [None])

    def test_still_full(self) -> None:
        """A queue that was full says so until a frame's time comes: then MEDIA_XON."""
        self.queue.audio(frames(QUEUE_MAX_FRAMES))
        self.do(FlushMedia())
        self.assertEqual((self.status.queue_length, self.status.queue_full), (0, True))
        self.news()
        self.queue.audio(frames(1))
        self.assertEqual(self.take(), [frame(0)])
        self.assertEqual(self.news(), [MediaXon(channel_id=CHANNEL_ID)])

    def test_what_stays(self) -> None:
        """A pause stays a pause, and a requested report is still due."""
        self.queue.audio(frames(1))
        self.do(ReportQueueDrained(), PauseMedia(), FlushMedia())
        self.assertTrue(self.status.media_paused)
        self.do(ContinueMedia())
        self.take()
        self.assertEqual(self.news(), [QueueDrained(channel_id=CHANNEL_ID)])


class DirectionTests(QueueTestCase):
    """SET_MEDIA_DIRECTION, as the application sees directions."""

    def errors(self) -> list[str]:
        """The texts of the errors that were said, and nothing else was."""
        news = self.news()
        self.assertEqual({type(event) for event in news} - {ErrorEvent}, set())
        return [event.error_text for event in news if isinstance(event, ErrorEvent)]

    def test_in(self) -> None:
        """With 'in' the application's audio is dropped and nothing is heard; what waited is heard afterwards."""
        self.queue.audio(frames(2))
        self.do(SetMediaDirection("in"))
        self.queue.audio(frames(1, first=9))
        self.assertEqual((self.take(3), self.queue.frames), ([None] * 3, 2))
        self.do(SetMediaDirection("both"))
        self.assertEqual(self.take(3), [frame(0), frame(1), None])
        self.assertEqual(self.errors(), [])

    def test_out(self) -> None:
        """With 'out' the application is heard as ever."""
        self.do(SetMediaDirection("out"))
        self.queue.audio(frames(1))
        self.assertEqual((self.take(), self.queue.direction), ([frame(0)], "out"))

    def test_refused_while_in(self) -> None:
        """With 'in' what is about playing is refused, each command with an error; the rest is not."""
        self.do(SetMediaDirection("in"))
        refused = (StartMediaBuffering(), StopMediaBuffering("1"), MarkMedia("1"), PauseMedia(), ContinueMedia())
        for command in refused:
            self.do(command)
            self.assertEqual(self.errors(), [f"{command.NAME} not supported while media direction is 'in'"])
        self.assertEqual(self.status, Status(channel_id=CHANNEL_ID, queue_length=0))
        self.do(FlushMedia(), ReportQueueDrained())
        self.assertEqual(self.errors(), [])

    def test_bad_directions(self) -> None:
        """An unknown or missing direction is answered with Asterisk's error, and changes nothing."""
        self.do(SetMediaDirection("sideways"))
        self.assertEqual(self.errors(), ["'sideways' is not a valid direction for SET_MEDIA_DIRECTION.\n"])
        self.do(SetMediaDirection(""))
        self.assertEqual(self.errors(), ["SET_MEDIA_DIRECTION requires a 'direction' parameter.\n"])
        self.assertEqual(self.queue.direction, "both")

    def test_plain_form(self) -> None:
        """In the plain form there is no such command: an error."""
        self.make(ControlForm.PLAIN)
        self.do(SetMediaDirection("in"))
        self.assertEqual(self.errors(), ["SET_MEDIA_DIRECTION only supports JSON format.\n"])
        self.assertEqual(self.queue.direction, "both")


class Against(RuleBasedStateMachine):
    """The queue beside chan_websocket.c's own functions, written down once more in the plainest way."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[Event] = []
        self.expected: list[Event] = []
        self.queue = MediaQueue(SIZE, self.said.append, channel_id=CHANNEL_ID, form=ControlForm.JSON)
        self.items: list[bytes | Event] = []
        self.leftover = b""
        self.bulk = self.paused = self.full = self.report = False
        self.direction = "both"
        self.dropped = 0

    @property
    def length(self) -> int:
        """frame_queue_length."""
        return sum(isinstance(item, bytes) for item in self.items)

    def put(self, data: bytes) -> None:
        """queue_frame_from_buffer()."""
        self.items.append(data)
        if not self.full and self.length >= XOFF_LEVEL_FRAMES:
            self.full = True
            self.expected.append(MediaXoff(channel_id=CHANNEL_ID))

    def allowed(self, name: str) -> bool:
        """ERROR_ON_INVALID_MEDIA_DIRECTION_RTN."""
        if self.direction == "in":
            text = f"{name} not supported while media direction is 'in'"
            self.expected.append(ErrorEvent(channel_id=CHANNEL_ID, error_text=text))
        return self.direction != "in"

    @rule(
        size=st.sampled_from((0, 1, SIZE - 1, SIZE, SIZE + 1, SIZE * 3, SIZE * 90, SIZE * 450 + 2)),
        first=st.integers(0, 255),
    )
    def audio(self, size: int, first: int) -> None:
        """process_binary_message()."""
        payload = bytes((first + at) & 0xFF for at in range(size))
        self.queue.audio(payload)
        if self.direction == "in":
            return
        if self.length >= QUEUE_MAX_FRAMES:
            self.dropped += 1
            return
        if self.bulk and self.leftover:
            needed = SIZE - len(self.leftover)
            self.leftover += payload[:needed]
            payload = payload[needed:]
            if len(self.leftover) < SIZE:
                return
            self.put(self.leftover)
        self.leftover = b""
        while len(payload) >= SIZE:
            self.put(payload[:SIZE])
            payload = payload[SIZE:]
        if self.bulk:
            self.leftover = payload

    @rule(count=st.sampled_from((1, 1, 1, 2, 101, 500)))
    def tick(self, count: int) -> None:
        """webchan_read() and dequeue_frame(), several times."""
        for _ in range(count):
            assert self.queue.take() == self.taken()

    def taken(self) -> bytes | None:
        """One packet time."""
        if self.direction == "in":
            return None
        if not self.paused:
            if self.full and self.length < XON_LEVEL_FRAMES:
                self.full = False
                self.expected.append(MediaXon(channel_id=CHANNEL_ID))
            if not self.items and self.report:
                self.report = False
                self.expected.append(QueueDrained(channel_id=CHANNEL_ID))
            while self.items:
                item = self.items.pop(0)
                if isinstance(item, bytes):
                    return item
                self.expected.append(item)
        leftover, self.leftover = self.leftover, b""
        return leftover or None

    @rule()
    def start(self) -> None:
        """START_MEDIA_BUFFERING."""
        self.queue.command(StartMediaBuffering())
        if self.allowed("START_MEDIA_BUFFERING"):
            self.bulk = True

    @rule(name=st.sampled_from("ab"))
    def stop(self, name: str) -> None:
        """STOP_MEDIA_BUFFERING."""
        self.queue.command(StopMediaBuffering(name))
        if self.allowed("STOP_MEDIA_BUFFERING"):
            self.bulk = False
            if self.leftover:
                self.put(self.leftover)
            self.leftover = b""
            self.items.append(MediaBufferingCompleted(channel_id=CHANNEL_ID, correlation_id=name))

    @rule(name=st.sampled_from("cd"))
    def mark(self, name: str) -> None:
        """MARK_MEDIA."""
        self.queue.command(MarkMedia(name))
        if self.allowed("MARK_MEDIA"):
            self.items.append(MediaMarkProcessed(channel_id=CHANNEL_ID, correlation_id=name))

    @rule()
    def flush(self) -> None:
        """FLUSH_MEDIA."""
        self.queue.command(FlushMedia())
        self.items, self.leftover, self.bulk = [], b"", False

    @rule()
    def pause(self) -> None:
        """PAUSE_MEDIA."""
        self.queue.command(PauseMedia())
        if self.allowed("PAUSE_MEDIA"):
            self.paused = True

    @rule()
    def go_on(self) -> None:
        """CONTINUE_MEDIA."""
        self.queue.command(ContinueMedia())
        if self.allowed("CONTINUE_MEDIA"):
            self.paused = False

    @rule()
    def report_drained(self) -> None:
        """REPORT_QUEUE_DRAINED."""
        self.queue.command(ReportQueueDrained())
        self.report = True

    @rule(direction=st.sampled_from(("both", "both", "in", "out")))
    def set_direction(self, direction: str) -> None:
        """SET_MEDIA_DIRECTION."""
        self.queue.command(SetMediaDirection(direction))
        self.direction = direction

    @rule()
    def ask(self) -> None:
        """GET_STATUS."""
        self.queue.command(GetStatus())
        self.expected.append(
            Status(
                channel_id=CHANNEL_ID, queue_length=self.length, queue_full=self.full, bulk_media=self.bulk,
                media_paused=self.paused,
            )
        )  # fmt: skip

    @invariant()
    def alike(self) -> None:
        """The same was said, in the same order, and the same is left."""
        assert self.said == self.expected
        assert self.queue.frames == self.length
        assert self.queue.dropped_messages == self.dropped


class ModelTests(SynchronousTestCase):
    """The queue against the model."""

    def test_model(self) -> None:
        """Any sequence of audio, commands and packet times gives the same as the model."""
        run_state_machine_as_test(Against, settings=settings(max_examples=150, stateful_step_count=40))
