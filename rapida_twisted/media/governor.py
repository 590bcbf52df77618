"""Who reads the connections: the reactor while there is time for it, the media clock when there is not.

To be woken for each packet is the quickest answer, and most of what a call costs. So it depends on how busy the process
is: how much of a core it used in the last seconds. The two thresholds are further apart than what polling saves, or the
change itself would call for the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rapida_twisted.media.clock import MediaClock

__all__ = ["Governor"]

BUSY = 0.15
"""More than this share of a core: the clock reads."""
IDLE = 0.05
"""Less than this: the reactor does."""
SECONDS = 2
"""So many seconds in a row, each of them."""
FEWEST_CALLS = 8
"""With fewer calls it is something else that keeps the process busy."""


class Governor:
    """Looks at the load once a second, and tells the clock.

    :param clock: the clock of all calls.
    :param mode: ``auto``, or always ``events`` or ``polling``.
    :param reactor: provides IReactorTime.
    :param cpu_s: the CPU time that the process has used (s).
    :param now: a monotonic time (s).
    """

    _log = Logger()

    def __init__(
        self,
        clock: MediaClock,
        mode: str,
        reactor: Any,
        cpu_s: Callable[[], float] = time.process_time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.load = 0.0
        """The share of a core that was used in the last second."""
        self.changes = 0
        """How often the clock was told otherwise."""
        self._clock = clock
        self._mode = mode
        self._cpu_s = cpu_s
        self._now = now
        self._before = (0.0, 0.0)
        self._seconds = 0
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """Begin."""
        self._clock.set_polling(self._mode == "polling")
        self._before = self._cpu_s(), self._now()
        self._looking.start(1.0, now=False).addErrback(self._broke)

    def stop(self) -> None:
        """End; the clock stays as it is."""
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
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
            wanted = self.load > BUSY and len(clock) >= FEWEST_CALLS
        self._seconds = self._seconds + 1 if wanted != clock.polling else 0
        if self._seconds >= SECONDS:
            self._seconds = 0
            self.changes += 1
            clock.set_polling(wanted)
            self._log.info(
                "{calls} calls, {load:.0f} % of a core: connections are read {how}",
                calls=len(clock), load=100 * self.load, how="by the media clock" if wanted else "as their data comes",
            )  # fmt: skip

    def _broke(self, failure: Any) -> None:
        self._log.failure("the governor broke: connections are read as they were", failure)
