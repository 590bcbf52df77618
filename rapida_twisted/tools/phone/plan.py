"""What a call of the phone does, as its command line says. Light: ``--help`` imports it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rapida_twisted.tools.phone.microphone import Headset
    from rapida_twisted.tools.phone.sound import Sound

__all__ = ["CallPlan", "TimedDigit"]

AFTER_LAST_S = 2.0
"""How long a call lasts after its sound and its digits."""
LONGEST_S = 60.0
"""How long a call lasts without a given duration."""


@dataclass(frozen=True, order=True)
class TimedDigit:
    """A key, and when to press it (s after the media connection is up)."""

    at_s: float
    digit: str


@dataclass(frozen=True)
class CallPlan:
    """What a call does."""

    sound: Sound
    digits: tuple[TimedDigit, ...] = ()
    duration_s: float | None = None
    """When to hang up; None: 2 s after sound and digits, and after 60 s at the latest."""
    save: Path | None = None
    """The WAV file for the received audio."""
    tolerate_percent: float = 5.0
    """The missing and late frames of a call that counts as whole."""
    speaker: Headset | None = None
    """Plays the received audio."""

    @property
    def end_s(self) -> float:
        """When the phone hangs up, if the server has not."""
        if self.duration_s is not None:
            return self.duration_s
        if self.sound.length_s is None:
            return LONGEST_S
        last_s = max([self.sound.length_s, *(timed.at_s for timed in self.digits)])
        return min(LONGEST_S, last_s + AFTER_LAST_S)

    def numbered(self, number: int | None) -> CallPlan:
        """This plan with the number in the name of its file; unchanged for None."""
        if self.save is None or number is None:
            return self
        return replace(self, save=self.save.with_name(f"{self.save.stem}-{number}{self.save.suffix}"))
