"""The digits that a caller pressed, and whoever waits for them."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from rapida_twisted.errors import CallEnded

__all__ = ["Digits"]

KEPT = 64
"""Digits that nobody collects are kept up to this many; then the oldest go."""


class Digits:
    """One call's digits, in their order.

    :param reactor: provides IReactorTime.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._kept: deque[str] = deque(maxlen=KEPT)
        self._ended: CallEnded | None = None
        self._waiting: Deferred[str] | None = None
        self._collected = ""
        self._wanted = 0
        self._terminator = ""

    def received(self, digit: str) -> None:
        """The caller pressed a key."""
        if self._waiting is None:
            self._kept.append(digit)
        elif self._take(digit):
            self._waiting.callback(self._collected)

    def collect(self, count: int, timeout_s: float, terminator: str) -> Deferred[str]:
        """Wait for up to ``count`` digits, the terminator, or the end of the time, whatever comes first.

        :raises RuntimeError: somebody waits already.
        """
        if self._ended is not None:
            return fail(self._ended)
        if self._waiting is not None:
            raise RuntimeError("somebody collects this call's digits already")
        if count < 1 or timeout_s < 0:
            raise ValueError(f"at least one digit must be wanted, in no negative time: not {count} in {timeout_s} s")
        self._collected, self._wanted, self._terminator = "", count, terminator
        while self._kept:
            if self._take(self._kept.popleft()):
                return succeed(self._collected)
        self._waiting = Deferred()
        self._waiting.addTimeout(timeout_s, self._reactor, onTimeoutCancel=lambda result, _: self._collected)
        return self._waiting.addBoth(self._done)

    def close(self, error: CallEnded) -> None:
        """The call is over: whoever waits, and whoever comes later, gets this error."""
        self._ended = error
        if self._waiting is not None:
            self._waiting.errback(error)

    def _take(self, digit: str) -> bool:
        """One more digit; whether no more are wanted."""
        if digit == self._terminator:
            return True
        self._collected += digit
        return len(self._collected) >= self._wanted

    def _done(self, result: Any) -> Any:
        self._waiting = None
        return result
