"""Limits a rate. Pure: the caller gives the time."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Token bucket: ``rate`` events per second, a burst of one second's worth.

    :param now_s: the time of the clock that :meth:`take` is called with.
    """

    __slots__ = ("_rate", "_seen_s", "_tokens")

    def __init__(self, rate: float, now_s: float) -> None:
        self._rate = rate
        self._tokens = max(1.0, rate)
        self._seen_s = now_s

    def take(self, now_s: float) -> bool:
        """True if another event is allowed now; counts it."""
        passed_s = max(0.0, now_s - self._seen_s)
        self._seen_s = now_s
        self._tokens = min(max(1.0, self._rate), self._tokens + passed_s * self._rate)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
