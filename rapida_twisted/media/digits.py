"""DTMF digits of one call: keeps them until the assistant collects them."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from rapida_twisted.errors import CallEnded

__all__ = ["Digits"]

KEPT = 64
"""Maximum digits kept for a later collect(); beyond it the oldest are dropped."""


class Digits:
    """:param reactor: provides IReactorTime."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._kept: deque[str] = deque(maxlen=KEPT)
        self._ended: CallEnded | None = None
        self._waiting: Deferred[str] | None = None
        self._collected = ""
        self._wanted = 0
        self._terminator = ""

    def received(self, digit: str) -> None:
        if self._waiting is None:
            self._kept.append(digit)
        elif self._take(digit):
            self._waiting.callback(self._collected)

    def collect(self, count: int, timeout_s: float, terminator: str) -> Deferred[str]:
        """Wait for ``count`` digits, the terminator or the timeout, whichever comes first.

        :raises RuntimeError: another collect() is waiting.
        """
        if self._ended is not None:
            return fail(self._ended)
        if self._waiting is not None:
            raise RuntimeError("another collect() already waits for this call's digits")
        if count < 1 or timeout_s < 0:
            raise ValueError(f"count must be 1 or more and the timeout not negative, not {count} and {timeout_s} s")
        self._collected, self._wanted, self._terminator = "", count, terminator
        while self._kept:
            if self._take(self._kept.popleft()):
                return succeed(self._collected)
        self._waiting = Deferred()
        self._waiting.addTimeout(timeout_s, self._reactor, onTimeoutCancel=lambda result, _: self._collected)
        return self._waiting.addBoth(self._done)

    def close(self, error: CallEnded) -> None:
        """The call has ended: fail the waiting collect() and all later ones."""
        self._ended = error
        if self._waiting is not None:
            self._waiting.errback(error)

    def _take(self, digit: str) -> bool:
        """Take one more digit; True if the collection is complete."""
        if digit == self._terminator:
            return True
        self._collected += digit
        return len(self._collected) >= self._wanted

    def _done(self, result: Any) -> Any:
        self._waiting = None
        return result
