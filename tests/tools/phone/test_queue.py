"""What a phone makes of the queue that it hears, tick by tick."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.tools.phone.queue import PAUSE_TICKS, QueueMeter
from rapida_twisted.wire.chan_websocket import (
    FlushMedia,
    MarkMedia,
    MediaMarkProcessed,
    MediaXoff,
    MediaXon,
    PauseMedia,
)


class QueueMeterTests(SynchronousTestCase):
    """Gaps, pauses, depth."""

    def setUp(self) -> None:
        self.watch = QueueMeter()

    def hear(self, heard: int, silent: int = 0) -> None:
        """So many ticks with a frame, then so many without."""
        for _ in range(heard):
            self.watch.heard(1)
        for _ in range(silent):
            self.watch.silent()

    def counted(self) -> tuple[int, int, int]:
        """Gaps, their ticks, and pauses."""
        figures = self.watch.figures(0)
        return figures.gaps, figures.gap_ticks, figures.pauses

    def test_nothing_heard(self) -> None:
        """A queue that nothing came to has no gap and no depth."""
        self.hear(0, 100)
        self.assertEqual(self.counted(), (0, 0, 0))
        self.assertIsNone(self.watch.figures(0).depth_ms)

    def test_before_and_after(self) -> None:
        """The silence before the first frame and after the last one is no gap."""
        self.hear(0, 10)
        self.hear(5, 10)
        self.assertEqual((self.counted(), self.watch.place), ((0, 0, 0), 5))

    def test_gap(self) -> None:
        """Ticks without a frame, after which speech goes on, are a gap, and take their time."""
        self.hear(5, 3)
        self.hear(5, 2)
        self.hear(1)
        self.assertEqual((self.counted(), self.watch.place), ((2, 5, 0), 16))

    def test_long_silence(self) -> None:
        """A silence of a second is a pause, even when the server did not say that it was done."""
        self.hear(5, PAUSE_TICKS)
        self.hear(5)
        self.assertEqual((self.counted(), self.watch.place), ((0, 0, 1), 10))

    def test_marked_end(self) -> None:
        """After a mark was heard, silence is a pause, and the next thing said can have a gap again."""
        self.hear(5)
        self.watch.event(MediaMarkProcessed(correlation_id="1"))
        self.hear(0, 3)
        self.hear(5, 3)
        self.hear(5)
        self.assertEqual(self.counted(), (1, 3, 1))

    def test_mark_without_silence(self) -> None:
        """A mark between two things said without silence between them is nothing."""
        self.hear(5)
        self.watch.event(MediaMarkProcessed(correlation_id="1"))
        self.hear(5)
        self.assertEqual(self.counted(), (0, 0, 0))

    def test_asked_for_silence(self) -> None:
        """A flush or a pause that the server asks for makes no gap; a mark that it only sets makes no pause."""
        self.hear(5)
        self.watch.command(FlushMedia())
        self.hear(0, 3)
        self.hear(5)
        self.watch.command(PauseMedia())
        self.hear(0, 3)
        self.hear(5)
        self.watch.command(MarkMedia("1"))
        self.hear(0, 3)
        self.hear(5)
        self.assertEqual(self.counted(), (1, 3, 2))
        self.assertEqual(self.watch.figures(0).flushes, 1)

    def test_depth(self) -> None:
        """The depth is what waited at the ticks that had a frame, in ms; the counts are those of the words said."""
        for waiting in (1, 10, 4):
            self.watch.heard(waiting)
            self.watch.silent()
        self.watch.event(MediaXoff())
        self.watch.event(MediaXon())
        figures = self.watch.figures(7)
        assert figures.depth_ms is not None
        self.assertEqual((figures.depth_ms.p50, figures.depth_ms.max), (80.0, 200.0))
        self.assertEqual((figures.xoff, figures.xon, figures.dropped), (1, 1, 7))
