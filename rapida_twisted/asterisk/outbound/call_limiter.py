"""Limits the outbound calls of a trunk: concurrency, rate, and a FIFO queue."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from rapida_twisted.errors import TooManyCalls

__all__ = ["CallLimiter"]


class CallLimiter:
    """Admits calls in the order in which they came.

    :param calls: the maximum of concurrent calls.
    :param rate: the maximum of calls admitted per second; may be below one.
    :param queue: the maximum of calls that wait.
    """

    def __init__(self, *, calls: int, rate: float, queue: int, reactor: Any) -> None:
        self.active = 0
        """The number of admitted calls."""
        self._calls = calls
        self._burst = max(1, int(rate))
        self._window_s = self._burst / rate
        self._queue = queue
        self._reactor = reactor
        self._admitted_s: deque[float] = deque(maxlen=self._burst)
        """The times of the last admissions: as many as one window allows."""
        self._waiting: deque[Deferred[None]] = deque()
        self._next: IDelayedCall | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def acquire(self) -> Deferred[None]:
        """Fires when the call is admitted. Cancelling it leaves the queue.

        :raises TooManyCalls: the queue is full.
        """
        if not self._waiting and self._has_room() and not self._wait_s():
            self._admit()
            return succeed(None)
        if len(self._waiting) >= self._queue:
            raise TooManyCalls(f"{self.active} outbound calls are under way, and {len(self._waiting)} wait already")
        admission: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(admission)
        self._admit_waiting()
        return admission

    def occupy(self) -> None:
        """Count a call that an earlier process placed."""
        self.active += 1

    def release(self) -> None:
        """A call is over; once for each admitted or occupying one."""
        self.active -= 1
        self._admit_waiting()

    def close(self) -> None:
        """Admit no more calls."""
        self._calls = 0
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _has_room(self) -> bool:
        return self.active < self._calls

    def _wait_s(self) -> float:
        """How long the rate delays the next admission."""
        now_s: float = self._reactor.seconds()
        if self._admitted_s and self._admitted_s[-1] > now_s:
            # The clock was set back.
            self._admitted_s.clear()
        if len(self._admitted_s) < self._burst:
            return 0.0
        return max(0.0, self._admitted_s[0] + self._window_s - now_s)

    def _admit(self) -> None:
        self.active += 1
        self._admitted_s.append(self._reactor.seconds())

    def _admit_waiting(self) -> None:
        """Admit whatever may be admitted now, and schedule the next admission."""
        while self._waiting and self._has_room():
            wait_s = self._wait_s()
            if wait_s:
                if self._next is None or not self._next.active():
                    self._next = self._reactor.callLater(wait_s, self._admit_waiting)
                return
            self._admit()
            self._waiting.popleft().callback(None)
