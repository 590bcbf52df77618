"""Shares the reactor's turns between HTTP and calls: calls come first.

A reactor serves all that is ready before it looks at its timers again. A stranger who keeps many connections ready
would make each turn long, and the frames of all calls late. So HTTP has one budget for each turn; what exceeds it waits
for the next turn, in the order of arrival::

    turn     | frames | HTTP 1 ms | frames | HTTP 1 ms | frames | ...
    waiting             7 connections        4 connections
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["BUDGET_S", "TurnBudget"]

BUDGET_S = 0.001


class TurnBudget:
    """The time for HTTP in each turn of the reactor.

    It needs no timer of its own: work that began at least a budget after the last work has a full budget again. So
    HTTP has at most half of the time even if that was still the same turn.

    :param reactor: provides IReactorTime.
    :param needed: False while nothing else needs the reactor; then there is no limit.
    :param seconds: a monotonic clock of high resolution.
    """

    def __init__(
        self,
        reactor: Any,
        needed: Callable[[], bool] = lambda: True,
        budget_s: float = BUDGET_S,
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._reactor = reactor
        self._needed = needed
        self._budget_s = budget_s
        self._seconds = seconds
        self._waiting: deque[Callable[[], object]] = deque()
        self._began_s = self._ended_s = 0.0
        self._spent_s = 0.0

    def begin(self) -> bool:
        """Begin work now, and call :meth:`end` after it; False: call :meth:`later` instead."""
        if self._waiting:
            return False
        now_s = self._seconds()
        if now_s - self._ended_s >= self._budget_s:
            self._spent_s = 0.0
        elif self._is_spent():
            return False
        self._began_s = now_s
        return True

    def end(self) -> None:
        self._ended_s = self._seconds()
        self._spent_s += self._ended_s - self._began_s

    def later(self, work: Callable[[], object]) -> None:
        """Do work in a later turn. It may raise nothing."""
        if not self._waiting:
            self._reactor.callLater(0, self._next_turn)
        self._waiting.append(work)

    def _is_spent(self) -> bool:
        return self._spent_s >= self._budget_s and self._needed()

    def _next_turn(self) -> None:
        self._spent_s = 0.0
        # What is added meanwhile waits for the turn after this one.
        count = len(self._waiting)
        while count and not self._is_spent():
            count -= 1
            self._began_s = self._seconds()
            self._waiting[0]()
            self._waiting.popleft()
            self.end()
        if self._waiting:
            self._reactor.callLater(0, self._next_turn)
