"""Limits a rate. Pure: the caller gives the time."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Token bucket: ``rate`` events per second, a burst of one second's worth.

    :param now_s: the time of the clock that :meth:`take` is called with.
    :param burst: events at once after a pause, in place of one second's worth.
    """

    __slots__ = ("_burst", "_rate", "_seen_s", "_tokens")

    def __init__(self, rate: float, now_s: float, burst: float = 0) -> None:
        self._rate = rate
        self._burst = self._tokens = burst or max(1.0, rate)
        self._seen_s = now_s

    def take(self, now_s: float, count: float = 1) -> bool:
        """True if this many further events are allowed now; counts them."""
        passed_s = max(0.0, now_s - self._seen_s)
        self._seen_s = now_s
        self._tokens = min(self._burst, self._tokens + passed_s * self._rate)
        if self._tokens < count:
            return False
        self._tokens -= count
        return True
