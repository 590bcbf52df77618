"""Chooses between events and polling: the media clock reads the connections while the process is busy.

A reactor wake-up per packet has the shortest delay, and is most of a call's cost. The choice therefore follows the
share of a core that the process uses. The thresholds are further apart than what polling saves; otherwise each change
would cause the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rapida_twisted.media.clock import MediaClock

__all__ = ["Governor"]

BUSY = 0.15
"""Above this share of a core the clock polls."""
IDLE = 0.05
"""Below this share of a core the reactor reads."""
SECONDS = 2
"""Consecutive seconds beyond a threshold before a change."""
MIN_CALLS_TO_POLL = 8
"""With fewer calls, something else keeps the process busy."""


@attrs.define(eq=False, repr=False, slots=False)
class Governor:
    """Samples the load once per second and sets the clock's mode.

    :param mode: ``auto``, or always ``events`` or ``polling``.
    :param reactor: provides IReactorTime.
    :param cpu_s: the CPU time of the process (s).
    :param now: a monotonic time (s).
    """

    _log = Logger()
    _clock: MediaClock
    _mode: str
    _reactor: Any
    _cpu_s: Callable[[], float] = time.process_time
    _now: Callable[[], float] = time.monotonic
    load: float = attrs.field(default=0.0, init=False)
    """The share of a core used in the last second."""
    changes: int = attrs.field(default=0, init=False)
    """Changes between events and polling."""
    _before: tuple[float, float] = attrs.field(default=(0.0, 0.0), init=False)
    _seconds: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._sampling = LoopingCall(self._sample)
        self._sampling.clock = self._reactor

    def start(self) -> None:
        """Set the initial mode and begin sampling."""
        self._clock.set_polling(self._mode == "polling")
        self._before = self._cpu_s(), self._now()
        self._sampling.start(1.0, now=False).addErrback(self._failed)

    def stop(self) -> None:
        """Stop sampling; the clock keeps its mode."""
        if self._sampling.running:
            self._sampling.stop()

    def _sample(self) -> None:
        cpu_s, now_s = self._cpu_s(), self._now()
        before_cpu_s, before_s = self._before
        self._before = cpu_s, now_s
        self.load = (cpu_s - before_cpu_s) / max(now_s - before_s, 0.001)
        if self._mode == "auto":
            self._govern()

    def _govern(self) -> None:
        clock = self._clock
        if clock.polling:
            wanted = self.load >= IDLE and len(clock) > 0
        else:
            wanted = self.load > BUSY and len(clock) >= MIN_CALLS_TO_POLL
        self._seconds = self._seconds + 1 if wanted != clock.polling else 0
        if self._seconds >= SECONDS:
            self._seconds = 0
            self.changes += 1
            clock.set_polling(wanted)
            self._log.info(
                "{calls} calls, {load:.0f} % of a core: {reader} reads the connections now",
                calls=len(clock), load=100 * self.load, reader="the media clock" if wanted else "the reactor",
            )  # fmt: skip

    def _failed(self, failure: Any) -> None:
        self._log.failure("the governor failed: the media clock stays in its mode", failure)
