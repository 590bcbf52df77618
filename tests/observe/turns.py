"""Fake time in which a turn of the reactor is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock

TURN_S = 1e-6


class TurningClock(Clock):
    """What is to be done in the next turn is not done in this one, as Clock would do it."""

    def callLater(self, when: float, what: Callable[..., object], *words: Any, **named: Any) -> DelayedCall:
        """As Clock's, but a turn takes a microsecond."""
        return super().callLater(max(when, TURN_S), what, *words, **named)

    def turn(self) -> None:
        """One turn."""
        self.advance(TURN_S)
