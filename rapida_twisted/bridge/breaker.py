"""A circuit breaker: while a server keeps failing, calls go to their fallback without waiting for it."""

from __future__ import annotations

import random as random_
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import attrs
from twisted.logger import Logger

from rapida_twisted.errors import UpstreamFailed

__all__ = ["Attempt", "CircuitBreaker"]

FAILURES = 5
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0


@attrs.define(eq=False, repr=False, slots=False)
class CircuitBreaker:
    """Decides whether one server may be tried now. For the reactor's thread only::

        closed --``failures`` failures in a row--> open --pause over--> half-open: one attempt at a time
          ^                                         ^                       | failed: twice the pause
          |                                         +-----------------------+
          +------------------------------ succeeded ------------------------+

    :param name: the server's host and port, for messages.
    :param failures: consecutive failures that open the breaker.
    :param first_pause_s: the first pause. Each pause is up to 20 % shorter at random, so that several processes do not
        return to a server at the same moment.
    :param longest_pause_s: the upper limit of the pauses.
    :param now: a monotonic time (s).
    :param random: returns numbers from 0.0 to 1.0.
    """

    _log = Logger()
    _name: str
    _max_failures: int = attrs.field(default=FAILURES, kw_only=True, alias="failures")
    _first_pause_s: float = attrs.field(default=FIRST_PAUSE_S, kw_only=True)
    _longest_pause_s: float = attrs.field(default=LONGEST_PAUSE_S, kw_only=True)
    _now: Callable[[], float] = attrs.field(default=time.monotonic, kw_only=True)
    _random: Callable[[], float] = attrs.field(default=random_.random, kw_only=True)
    _failures: int = attrs.field(default=0, init=False)
    _last_error: str = attrs.field(default="", init=False)
    _opens_until: float | None = attrs.field(default=None, init=False)
    """When the pause ends; None: closed."""
    _probe: Attempt | None = attrs.field(default=None, init=False)
    _changes: int = attrs.field(default=0, init=False)
    """How often it opened or closed. An attempt from before the last change does not count."""

    def __attrs_post_init__(self) -> None:
        self._next_pause_s = self._first_pause_s

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half-open``."""
        if self._opens_until is None:
            return "closed"
        return "open" if self._now() < self._opens_until else "half-open"

    def enter(self) -> Attempt:
        """Begin an attempt: ``with breaker.enter() as attempt``.

        :raises UpstreamFailed: ``resting``: the server must not be tried now.
        """
        self.check()
        attempt = Attempt(self, self._changes)
        if self._opens_until is not None:
            self._probe = attempt
        return attempt

    def check(self) -> None:
        """Raise as :meth:`enter` would, without beginning an attempt."""
        state, after = self.state, f"after {self._failures} failures in a row"
        if state == "open":
            pause = f"is not tried for another {self._retry_in_s():.1f} s"
            raise UpstreamFailed("resting", f"the upstream {self._name} {pause}, {after}")
        if state == "half-open" and self._probe is not None:
            raise UpstreamFailed("resting", f"the upstream {self._name} is being tried by another call {after}")

    def health(self) -> dict[str, Any]:
        """For ``/readyz``. ``retry_in_s`` is None unless open; ``last_error`` holds no secrets."""
        is_open = self.state == "open"
        return {
            "state": self.state,
            "failures": self._failures,
            "retry_in_s": round(self._retry_in_s(), 1) if is_open else None,
            "last_error": self._last_error,
        }

    def _retry_in_s(self) -> float:
        return max(0.0, (self._opens_until or 0.0) - self._now())

    # Outcomes of attempts

    def _attempt_ended(self, attempt: Attempt, change: int, failure: UpstreamFailed | None, *, counts: bool) -> None:
        """:param counts: False if the outcome says nothing about the server. Otherwise no failure is a success."""
        if change != self._changes:
            return
        if attempt is self._probe:
            self._probe = None
        if not counts:
            return
        if failure is not None:
            self._failures += 1
            self._last_error = str(failure)
            if self._opens_until is not None or self._failures >= self._max_failures:
                self._open()
            return
        self._failures, self._last_error = 0, ""
        if self._opens_until is not None:
            self._opens_until = None
            self._next_pause_s = self._first_pause_s
            self._changes += 1
            self._log.info("the upstream {name} accepts calls again", name=self._name)

    def _open(self) -> None:
        pause_s = self._next_pause_s * (1.0 - 0.2 * self._random())
        self._opens_until = self._now() + pause_s
        self._next_pause_s = min(self._longest_pause_s, 2.0 * self._next_pause_s)
        self._changes += 1
        self._log.warn(
            "the upstream {name} failed {failures} times in a row and is not tried for {pause_s:.1f} s; last failure:"
            " {error}",
            name=self._name, failures=self._failures, pause_s=pause_s, error=self._last_error,
        )  # fmt: skip


class Attempt:
    """One attempt, from :meth:`CircuitBreaker.enter`. Only its first outcome counts.

    Without an outcome at the end of the ``with`` block, an UpstreamFailed counts as :meth:`failed`, anything else as
    :meth:`dropped`.
    """

    def __init__(self, breaker: CircuitBreaker, change: int) -> None:
        self._breaker: CircuitBreaker | None = breaker
        self._change = change

    def succeeded(self) -> None:
        """The server works."""
        self._end(None, counts=True)

    def failed(self, failure: UpstreamFailed) -> None:
        """The server failed. A refusal of this call alone (``of_call``) counts as :meth:`dropped`."""
        self._end(failure, counts=not failure.of_call)

    def dropped(self) -> None:
        """The outcome says nothing about the server: the call ended meanwhile, for instance."""
        self._end(None, counts=False)

    def _end(self, failure: UpstreamFailed | None, *, counts: bool) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._attempt_ended(self, self._change, failure, counts=counts)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, UpstreamFailed):
            self.failed(error)
        else:
            self.dropped()
