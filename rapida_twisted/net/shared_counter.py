"""A count that several processes limit together."""

from __future__ import annotations

__all__ = ["SharedCounter"]


class SharedCounter:
    """The count of something that several processes limit together. This base class is for one process alone."""

    __slots__ = ()

    def publish(self, count: int) -> None:
        """Set this process's count."""

    @property
    def others(self) -> int:
        """The sum of the other processes' counts."""
        return 0

    @property
    def surplus(self) -> int:
        """How many more calls this worker has than the least-loaded worker that accepts calls."""
        return 0
