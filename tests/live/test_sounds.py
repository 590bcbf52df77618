"""What the live tests measure losses with."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.live.recordings import Recording
from tests.live.sounds import losses, noise

SAID = noise(3.0)


def heard(*parts: tuple[float, float], before_s: float = 0.3) -> Recording:
    """A recording of these parts of what was said, each from one time to another (s); of silence where they are 0."""
    pieces = [np.zeros(round(before_s * SAID.rate_hz)), *(SAID.part(*part).samples for part in parts)]
    return Recording(np.concatenate([*pieces, np.zeros(800)]), SAID.rate_hz)


def muted(from_s: float, to_s: float) -> Recording:
    """All that was said, with silence in the place of one part."""
    samples = SAID.samples.copy()
    samples[round(from_s * SAID.rate_hz) : round(to_s * SAID.rate_hz)] = 0.0
    return Recording(samples, SAID.rate_hz)


class LossesTests(SynchronousTestCase):
    """What is said of a recording."""

    def test_none(self) -> None:
        """All was heard, at once or later, in one piece or with 10 ms of silence in the middle."""
        for recording in (SAID, heard((0.0, 3.0)), heard((0.0, 3.0), before_s=2.0)):
            self.assertEqual(losses(SAID, recording), [])
        late = np.concatenate((SAID.part(0.0, 1.0).samples, np.zeros(80), SAID.part(1.0).samples))
        self.assertEqual(losses(SAID, Recording(late, SAID.rate_hz)), [])

    def test_first_frame(self) -> None:
        """Only the first frame is lost, and the message says so; whether the recording begins before it or after it."""
        (message,) = losses(SAID, heard((0.02, 3.0), before_s=0.0))
        self.assertEqual(
            message,
            "0.00 s: 1 of 150 frames (0.02 s) lost, the rest +0.000 s late; the recording begins at +0.020 s of what"
            " was said",
        )
        (message,) = losses(SAID, heard((0.02, 3.0)))
        self.assertIn("0.00 s: 1 of 150 frames (0.02 s) lost", message)
        self.assertIn("begins at -0.280 s of", message)

    def test_middle(self) -> None:
        """Each stretch is told by itself: where it begins, and how long it is."""
        (message,) = losses(SAID, muted(1.0, 1.06))
        self.assertIn("1.00 s: 3 of 150 frames (0.06 s) lost", message)
        found = losses(SAID, heard((0.0, 0.5), (0.52, 1.0), (1.02, 3.0)))
        self.assertEqual([message.split(" lost")[0] for message in found], [
            "0.50 s: 1 of 150 frames (0.02 s)", "1.00 s: 1 of 150 frames (0.02 s)",
        ])  # fmt: skip

    def test_shifted(self) -> None:
        """A long stretch that is cut out, and a pause, are told from the loss of the rest."""
        (message,) = losses(SAID, heard((0.0, 1.34), (1.58, 3.0)))
        self.assertIn("1.34 s: 12 of 150 frames (0.24 s) lost, the rest -0.240 s late", message)
        late = np.concatenate((SAID.part(0.0, 1.0).samples, np.zeros(800), SAID.part(1.0).samples))
        (message,) = losses(SAID, Recording(late, SAID.rate_hz))
        self.assertIn("1.00 s: 0 of 150 frames (0.00 s) lost, the rest +0.100 s late", message)

    def test_end(self) -> None:
        """What the recording is too short for is lost."""
        (message,) = losses(SAID, Recording(SAID.part(0.0, 2.0).samples, SAID.rate_hz))
        self.assertIn("2.00 s: 50 of 150 frames (1.00 s) lost", message)

    def test_long_beginning(self) -> None:
        """More than the piece by which it is aligned may be lost."""
        (message,) = losses(SAID, heard((0.8, 3.0)))
        self.assertIn("0.00 s: 40 of 150 frames (0.80 s) lost", message)

    def test_something_else(self) -> None:
        """Another sound, or none, is not what was said."""
        for other in (Recording.tone(1000.0, 3.0), Recording(np.zeros(24000), 8000), Recording(np.zeros(0), 8000)):
            (message,) = losses(SAID, other)
            self.assertIn("all is lost", message)
