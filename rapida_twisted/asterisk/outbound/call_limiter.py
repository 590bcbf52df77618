"""How many calls one credential may have under way, and how fast it places them: the others wait, a few of them."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from rapida_twisted.errors import TooManyCalls

__all__ = ["CallLimiter"]


class CallLimiter:
    """A door: so many within, so many let in a second, so many waiting before it, in the order in which they came.

    :param calls: how many may be within at once.
    :param rate: how many are let in a second; may be below one.
    :param queue: how many may wait.
    :param reactor: provides IReactorTime.
    """

    def __init__(self, *, calls: int, rate: float, queue: int, reactor: Any) -> None:
        self._calls = calls
        self._burst = max(1, int(rate))
        self._window_s = self._burst / rate
        self._queue = queue
        self._reactor = reactor
        self._within = 0
        self._entered: deque[float] = deque(maxlen=self._burst)
        """When the last ones were let in: as many as may come within one window."""
        self._waiting: deque[Deferred[None]] = deque()
        self._next: IDelayedCall | None = None

    @property
    def within(self) -> int:
        """How many are within."""
        return self._within

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self) -> Deferred[None]:
        """Come in: fires when there is room and it is one's turn. Cancelling it leaves the queue.

        :raises TooManyCalls: too many wait already.
        """
        if not self._waiting and self._has_room() and not self._wait_s():
            self._let_in()
            turn: Deferred[None] = Deferred()
            turn.callback(None)
            return turn
        if len(self._waiting) >= self._queue:
            raise TooManyCalls(f"{self._within} outbound calls are under way, and {len(self._waiting)} wait already")
        turn = Deferred(self._waiting.remove)
        self._waiting.append(turn)
        self._look()
        return turn

    def occupy(self) -> None:
        """Be within without having waited: a call that an earlier process placed."""
        self._within += 1

    def leave(self) -> None:
        """Go out; once for each that came in."""
        self._within -= 1
        self._look()

    def close(self) -> None:
        """Let nobody in any more; whoever waits may be cancelled."""
        self._calls = 0
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _has_room(self) -> bool:
        return self._within < self._calls

    def _wait_s(self) -> float:
        """How long until the next one may be let in for the rate."""
        if self._entered and self._entered[-1] > self._reactor.seconds():
            # The clock was set back.
            self._entered.clear()
        if len(self._entered) < self._burst:
            return 0.0
        return max(0.0, self._entered[0] + self._window_s - self._reactor.seconds())

    def _let_in(self) -> None:
        self._within += 1
        self._entered.append(self._reactor.seconds())

    def _look(self) -> None:
        """Let in whoever may come in now, and look again when the next one may."""
        while self._waiting and self._has_room():
            wait_s = self._wait_s()
            if wait_s:
                if self._next is None or not self._next.active():
                    self._next = self._reactor.callLater(wait_s, self._look)
                return
            self._let_in()
            self._waiting.popleft().callback(None)
