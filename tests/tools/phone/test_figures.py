"""What the phone measures, on arrivals made up for it."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.tools.phone.figures import ArrivalFigures, Arrivals, Level, RoundTrip, Spread

FRAME_S = 0.02


def figures_of(
    times_s: list[float], end_s: float | None = None, frame_s: float = FRAME_S, start_s: float | None = None
) -> ArrivalFigures:
    """The figures of frames that came at these times."""
    arrivals = Arrivals()
    for at_s in times_s:
        arrivals.add(at_s, frame_s)
    return arrivals.figures(None if end_s is None else (times_s[0] if start_s is None else start_s, end_s))


class ArrivalsTests(SynchronousTestCase):
    """Late, missing, jitter."""

    def test_nothing_heard(self) -> None:
        """Without a frame there are no figures, and nothing fails."""
        figures = figures_of([])
        self.assertEqual((figures.frames, figures.gap_ms, figures.missing), (0, None, 0))

    def test_on_time(self) -> None:
        """Frames every 20 ms are neither late nor missing, and have no jitter."""
        figures = figures_of([5 + FRAME_S * number for number in range(500)], end_s=15.0)
        self.assertEqual((figures.frames, figures.late, figures.missing, figures.jitter_ms), (500, 0, 0, 0.0))
        self.assertAlmostEqual(figures.audio_s, 10.0)

    def test_missing(self) -> None:
        """Frames that the time went on without are missing, and those after them are not late."""
        times_s = [FRAME_S * number for number in range(500) if number not in (100, 200, 201, 202)]
        figures = figures_of(times_s)
        self.assertEqual((figures.missing, figures.late), (4, 0))

    def test_late(self) -> None:
        """Frames held up for 95 ms, and then sent in a burst, are late and not missing."""
        times_s = [max(FRAME_S * number, 2.095) if 100 <= number < 105 else FRAME_S * number for number in range(500)]
        figures = figures_of(times_s)
        assert figures.late_ms is not None
        self.assertEqual((figures.missing, figures.late), (0, 4))
        self.assertAlmostEqual(figures.late_ms.max, 95, places=1)

    def test_late_and_missing(self) -> None:
        """A hold-up of 200 ms of which half is never made up for is half missing."""
        times_s = [FRAME_S * number for number in range(100)]
        times_s += [2.2 + 0.001 * number for number in range(5)] + [2.2 + FRAME_S * number for number in range(5, 200)]
        figures = figures_of(sorted(times_s))
        self.assertApproximates(figures.missing, 10, 5)

    def test_other_packet_times(self) -> None:
        """Packets of 60 ms every 60 ms are on time, and a lost one is three frames of 20 ms."""
        figures = figures_of([0.06 * number for number in range(100) if number != 50], frame_s=0.06)
        self.assertEqual((figures.missing, figures.late), (3, 0))

    def test_silence_at_the_end(self) -> None:
        """Audio that stops a second before the call's end is missing for that second."""
        figures = figures_of([FRAME_S * number for number in range(100)], end_s=99 * FRAME_S + 1.0)
        self.assertEqual(figures.missing, 49)

    def test_silence_at_the_beginning(self) -> None:
        """Audio that begins 7 s after the call is missing for that time; 200 ms are a server's to begin."""
        for silence_s, missing in ((0.19, 0), (7.01, 349)):
            times_s = [silence_s + FRAME_S * number for number in range(249)]
            self.assertEqual(figures_of(times_s, end_s=times_s[-1], start_s=0.0).missing, missing)

    def test_last_frame_late(self) -> None:
        """A single late frame at the very end is late, for nobody knows of a missing one."""
        figures = figures_of([*(FRAME_S * number for number in range(100)), 2.05])
        self.assertEqual((figures.missing, figures.late), (0, 1))

    def test_jitter(self) -> None:
        """Frames that alternate between 0 and 4 ms after their time have an RFC 3550 jitter of 4 ms."""
        figures = figures_of([FRAME_S * number + 0.004 * (number % 2) for number in range(1000)])
        self.assertAlmostEqual(figures.jitter_ms, 4.0, places=2)
        self.assertEqual(figures.missing, 0)


class LevelTests(SynchronousTestCase):
    """Loudness."""

    def test_silence(self) -> None:
        """Silence has no level."""
        level = Level()
        level.add(bytes(320))
        self.assertIsNone(level.db)

    def test_square_wave(self) -> None:
        """A square wave at half of full scale is at -3 dB, for a sine at full scale is at 0."""
        level = Level()
        level.add(np.array([16384, -16384] * 80, "<i2").tobytes())
        self.assertEqual(level.db, -3.0)

    def test_recent(self) -> None:
        """The recent level forgets what was asked for before; the whole one does not."""
        level = Level()
        level.add(b"\x00\x40" * 160)
        self.assertEqual(level.take_recent_db(), -3.0)
        level.add(bytes(320))
        self.assertIsNone(level.take_recent_db())
        self.assertEqual(level.db, -6.0)


class RoundTripTests(SynchronousTestCase):
    """What is sent, found in what comes."""

    def setUp(self) -> None:
        random = np.random.default_rng(20)
        self.frames = [random.integers(-9999, 9999, 160).astype("<i2").tobytes() for _ in range(100)]

    def echo(self, frames: list[bytes], delay_frames: int, shift_bytes: int = 0) -> RoundTrip:
        """Send frames, and hear them so much later, cut elsewhere."""
        trip = RoundTrip()
        stream = b"".join(frames)
        for number, frame in enumerate(frames):
            trip.sent(frame, number * FRAME_S)
            end = (number - delay_frames + 1) * 320 - shift_bytes
            if end > 0:
                trip.heard(stream[max(0, end - 320) : end], number * FRAME_S + 0.003)
        return trip

    def test_echo(self) -> None:
        """An echo after 3 frames and 3 ms is measured as 63 ms, again and again."""
        trip = self.echo(self.frames, 3)
        self.assertGreater(len(trip.times_s), 3)
        self.assertAlmostEqual(max(trip.times_s), 0.063)
        self.assertAlmostEqual(min(trip.times_s), 0.063)

    def test_cut_elsewhere(self) -> None:
        """An echo whose frames are cut elsewhere is found across their borders."""
        trip = self.echo(self.frames, 3, shift_bytes=30)
        self.assertGreater(len(trip.times_s), 3)

    def test_silence_is_not_used(self) -> None:
        """Silence is found nowhere, for it would be found everywhere."""
        self.assertIsNone(self.echo([bytes(320)] * 100, 3).latest_ms)

    def test_repeated_sound_is_not_used(self) -> None:
        """A sound that repeats itself is measured at its first time only."""
        trip = self.echo(self.frames[:2] * 50, 6)
        self.assertEqual(len(trip.times_s), 1)

    def test_no_echo(self) -> None:
        """Where nothing comes back, there is no round trip, and the next piece is tried after a while."""
        trip = RoundTrip()
        for number in range(600):
            trip.sent(self.frames[number] if number < 100 else np.random.default_rng(number).bytes(320), number * 0.02)
            trip.heard(bytes(320), number * 0.02)
        self.assertIsNone(trip.latest_ms)


class SpreadTests(SynchronousTestCase):
    """Percentiles."""

    def test_spread(self) -> None:
        """The spread of 0 to 100 ms is its median, its last percent and its end; of nothing there is none."""
        self.assertEqual(Spread.of([number / 1000 for number in range(101)]), Spread(50.0, 99.0, 100.0))
        self.assertIsNone(Spread.of([]))
