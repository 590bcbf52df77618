"""A circuit breaker: while a server fails again and again, calls are spared the waiting for it."""

from __future__ import annotations

import random as random_
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from twisted.logger import Logger

from rapida_twisted.errors import UpstreamFailed

__all__ = ["Attempt", "CircuitBreaker"]

FAILURES = 5
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0


class CircuitBreaker:
    """Whether one server is to be asked now.

    Closed, everything passes. After some failures in a row it opens, and nothing passes until a pause is over. Then it
    is half open: one attempt at a time is the probe. Its success closes the breaker; its failure opens it again, for
    twice as long. Not thread-safe: for the reactor's thread.

    :param name: the server's host and port, for messages.
    :param failures: how many in a row open it.
    :param first_pause_s: the first pause, at most: each is shortened a little at random, lest several servers that
        lost the same one come back to it at once.
    :param longest_pause_s: how far the pauses grow.
    :param now: a monotonic time (s).
    :param random: gives numbers from 0.0 to 1.0.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        *,
        failures: int = FAILURES,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
        now: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_.random,
    ) -> None:
        self._name = name
        self._most_failures = failures
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._now = now
        self._random = random
        self._failures = 0
        self._last_error = ""
        self._next_pause_s = first_pause_s
        self._opens_until: float | None = None
        """When the pause is over; None: closed."""
        self._probe: Attempt | None = None
        self._turns = 0
        """How often it opened or closed. What an attempt tells of an earlier time is not news any more."""

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half-open``."""
        if self._opens_until is None:
            return "closed"
        return "open" if self._now() < self._opens_until else "half-open"

    def enter(self) -> Attempt:
        """Begin an attempt, as in ``with breaker.enter() as attempt``: see :class:`Attempt`.

        :raises UpstreamFailed: ``resting``: the server is not to be asked now.
        """
        self.check()
        attempt = Attempt(self, self._turns)
        if self._opens_until is not None:
            self._probe = attempt
        return attempt

    def check(self) -> None:
        """Whether :meth:`enter` would let an attempt pass now; takes no probe's place.

        :raises UpstreamFailed: ``resting``: it would not.
        """
        state, after = self.state, f"after {self._failures} failures in a row"
        if state == "open":
            words = f"rests {after}; it is asked again in {self._retry_in_s():.1f} s"
            raise UpstreamFailed("resting", f"the upstream {self._name} {words}")
        if state == "half-open" and self._probe is not None:
            raise UpstreamFailed("resting", f"the upstream {self._name} is being tried by another call {after}")

    def health(self) -> dict[str, Any]:
        """For ``/readyz``: the state, the failures in a row, when it is asked again (s; None unless open), and the
        last failure's words, which hold no secrets."""
        is_open = self.state == "open"
        return {
            "state": self.state,
            "failures": self._failures,
            "retry_in_s": round(self._retry_in_s(), 1) if is_open else None,
            "last_error": self._last_error,
        }

    def _retry_in_s(self) -> float:
        return max(0.0, (self._opens_until or 0.0) - self._now())

    # What attempts tell

    def _ended(self, attempt: Attempt, turn: int, failure: UpstreamFailed | None, *, tells: bool) -> None:
        """:param tells: whether it says anything about the server; ``failure`` None then means a success."""
        if turn != self._turns:
            return
        if attempt is self._probe:
            self._probe = None
        if not tells:
            return
        if failure is None:
            self._succeeded()
        else:
            self._failed(failure)

    def _succeeded(self) -> None:
        self._failures, self._last_error = 0, ""
        if self._opens_until is not None:
            self._opens_until = None
            self._next_pause_s = self._first_pause_s
            self._turns += 1
            self._log.info("the upstream {name} takes calls again", name=self._name)

    def _failed(self, failure: UpstreamFailed) -> None:
        self._failures += 1
        self._last_error = str(failure)
        if self._opens_until is not None or self._failures >= self._most_failures:
            self._open()

    def _open(self) -> None:
        pause_s = self._next_pause_s * (1.0 - 0.2 * self._random())
        self._opens_until = self._now() + pause_s
        self._next_pause_s = min(self._longest_pause_s, 2.0 * self._next_pause_s)
        self._turns += 1
        self._log.warn(
            "the upstream {name} failed {failures} times in a row and rests for {pause_s:.1f} s; at last: {error}",
            name=self._name, failures=self._failures, pause_s=pause_s, error=self._last_error,
        )  # fmt: skip


class Attempt:
    """One attempt at a server, which :meth:`CircuitBreaker.enter` gives. The first word about it counts.

    At the end of its ``with`` block, unless a word was said: an UpstreamFailed counts as :meth:`failed`; all else,
    and nothing, as :meth:`dropped`.
    """

    def __init__(self, breaker: CircuitBreaker, turn: int) -> None:
        self._breaker: CircuitBreaker | None = breaker
        self._turn = turn

    def succeeded(self) -> None:
        """The server did what was asked of it."""
        self._end(None, tells=True)

    def failed(self, failure: UpstreamFailed) -> None:
        """It did not. If it only did not want this call (``of_call``), that is as good as :meth:`dropped`."""
        self._end(failure, tells=not failure.of_call)

    def dropped(self) -> None:
        """It is not known what came of it, such as when the call has ended meanwhile: nothing is said about the
        server, neither good nor bad."""
        self._end(None, tells=False)

    def _end(self, failure: UpstreamFailed | None, *, tells: bool) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._ended(self, self._turn, failure, tells=tells)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, UpstreamFailed):
            self.failed(error)
        else:
            self.dropped()
