"""DTMF digits of one call: keeps them until the assistant collects them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from rapida_twisted.errors import CallEnded
from rapida_twisted.media.assistant import ASSISTANT_ERRORS
from rapida_twisted.media.requests import Request, Requests

__all__ = ["Digits"]

KEPT = 64
"""Maximum digits kept for a later collect(); beyond it the oldest are dropped."""


class Digits:
    """:param reactor: provides IReactorTime.

    :param requests: the call's.
    """

    def __init__(self, reactor: Any, requests: Requests) -> None:
        self._reactor = reactor
        self._requests = requests
        self._kept: deque[str] = deque(maxlen=KEPT)
        self._ended: CallEnded | None = None
        self._waiting: Deferred[str] | None = None
        self._collected = ""
        self._count: int | None = None
        self._terminator = ""
        self._pattern: re.Pattern[str] | None = None
        self._on_digit: Callable[[str], object] | None = None

    def received(self, digit: str) -> None:
        if self._waiting is None:
            self._kept.append(digit)
            return
        try:
            complete = self._take(digit)
        except ASSISTANT_ERRORS:
            # That code may have cancelled the wait, too.
            if self._waiting is not None:
                self._requests.fail(self._waiting, Failure())
            return
        # The assistant's code in on_digit may have cancelled the wait.
        if complete and self._waiting is not None:
            self._waiting.callback(self._collected)

    def collect(
        self,
        count: int | None,
        timeout_s: float,
        terminator: str,
        pattern: str | None = None,
        on_digit: Callable[[str], object] | None = None,
    ) -> Deferred[str]:
        """Wait for ``count`` digits, a match, the terminator or the timeout, whichever comes first.

        :raises RuntimeError: another collect() is waiting.
        :raises ValueError: an argument can't be used.
        """
        if self._ended is not None:
            return fail(self._ended)
        if self._waiting is not None:
            raise RuntimeError("another digits() already waits for this call's digits: await or cancel that first")
        _check(count, timeout_s, pattern)
        self._pattern = None if pattern is None else re.compile(pattern)
        self._collected, self._count, self._terminator, self._on_digit = "", count, terminator, on_digit
        self._waiting = waiting = Request[str](self._requests.check_later)
        waiting.addTimeout(timeout_s, self._reactor, onTimeoutCancel=lambda result, _: self._collected)
        waiting.addBoth(self._done)
        waiting.heeded = False  # Not by the assistant's code.
        while self._kept and self._waiting is waiting:
            self.received(self._kept.popleft())
        return waiting

    def close(self, error: CallEnded) -> None:
        """The call has ended: fail the waiting collect() and all later ones."""
        self._ended = error
        self.interrupt(error)

    def interrupt(self, error: CallEnded) -> None:
        """Fail the waiting collect()."""
        if self._waiting is not None:
            self._requests.fail(self._waiting, error)

    def _take(self, digit: str) -> bool:
        """Take one more digit; True if the collection is complete."""
        if digit == self._terminator:
            return True
        self._collected += digit
        if self._on_digit is not None:
            self._on_digit(self._collected)
        if self._pattern is not None and self._pattern.fullmatch(self._collected):
            return True
        return self._count is not None and len(self._collected) >= self._count

    def _done(self, result: Any) -> Any:
        self._waiting = None
        return result


def _check(count: int | None, timeout_s: float, pattern: str | None) -> None:
    if count is None and pattern is None:
        raise ValueError("digits() needs a count, as in digits(4), or a pattern, as in digits(pattern='[1-3]')")
    if (count is not None and count < 1) or timeout_s < 0:
        raise ValueError(f"count must be 1 or more and the timeout not negative, not {count} and {timeout_s} s")
