"""Pauses between attempts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.net.backoff import backoff

__all__ = ["BackoffTests"]


class BackoffTests(SynchronousTestCase):
    """They double, up to a limit, and differ by chance."""

    def test_pauses(self) -> None:
        """From half to the whole of a doubled pause, for however many failures."""
        pause = backoff(0.5, 30.0)
        for failures, whole_s in ((0, 0.5), (1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0), (1_000_000, 30.0)):
            pauses = [pause(failures) for _ in range(500)]
            self.assertGreaterEqual(min(pauses), whole_s / 2)
            self.assertLessEqual(max(pauses), whole_s)
            self.assertGreater(len(set(pauses)), 100)
