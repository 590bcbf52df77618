"""A limit of a rate. Pure: it has no clock of its own."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Allows so many a second, and after a pause as many at once as one second has.

    :param rate: how many a second.
    :param now_s: the time, of any clock that is asked later, too.
    """

    __slots__ = ("_rate", "_seen_s", "_tokens")

    def __init__(self, rate: float, now_s: float) -> None:
        self._rate = rate
        self._tokens = max(1.0, rate)
        self._seen_s = now_s

    def take(self, now_s: float) -> bool:
        """Whether one more is allowed now; then it is taken."""
        passed_s = max(0.0, now_s - self._seen_s)
        self._seen_s = now_s
        self._tokens = min(max(1.0, self._rate), self._tokens + passed_s * self._rate)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
