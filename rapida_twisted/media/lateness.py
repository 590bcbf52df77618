"""A histogram of how late frames leave, cheap enough for every frame."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Lateness"]


class Lateness:
    """Counts lateness in steps of 0.5 ms up to 200 ms; the last count is open-ended."""

    STEP_S = 0.0005
    STEPS = 400

    def __init__(self) -> None:
        self.counts = [0] * (self.STEPS + 1)
        self.max_s = 0.0

    def add(self, late_s: float) -> None:
        """One frame left ``late_s`` after its deadline."""
        step = int(late_s / self.STEP_S)
        self.counts[step if 0 <= step < self.STEPS else (0 if step < 0 else self.STEPS)] += 1
        if late_s > self.max_s:
            self.max_s = late_s

    def percentile_ms(self, share: float, counts: Sequence[int] | None = None) -> float:
        """The lateness (ms) that this share (0 to 1) of the frames did not exceed; 0 without frames.

        :param counts: the counts of a subset of the frames; None: of all.
        """
        counts = self.counts if counts is None else counts
        wanted, seen = share * sum(counts), 0
        for step, count in enumerate(counts):
            seen += count
            if count and seen >= wanted:
                return (self.max_s if step == self.STEPS else min((step + 1) * self.STEP_S, self.max_s)) * 1000
        return 0.0

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]
