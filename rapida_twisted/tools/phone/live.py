"""The line that a phone keeps up to date on a terminal while its calls last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TextIO

from twisted.internet.task import LoopingCall

from rapida_twisted.tools.phone.call import PhoneCall

__all__ = ["LiveLine", "live_text"]

EVERY_S = 0.25
ERASE = "\r\x1b[K"


class LiveLine:
    """Shows the state of the calls in one line of a terminal.

    :param calls: those placed so far; it may grow.
    """

    def __init__(self, terminal: TextIO, calls: Sequence[PhoneCall], now: Callable[[], float], reactor: Any) -> None:
        self._terminal = terminal
        self._calls = calls
        self._now = now
        self._started_s = now()
        self._showing = LoopingCall(self._show)
        self._showing.clock = reactor

    def start(self) -> None:
        """Begin to show."""
        self._showing.start(EVERY_S).addErrback(lambda failure: None)  # a terminal that is gone ends no call

    def stop(self) -> None:
        """Take the line away."""
        if self._showing.running:
            self._showing.stop()
            self._terminal.write(ERASE)
            self._terminal.flush()

    def _show(self) -> None:
        self._terminal.write(ERASE + live_text(self._calls, self._now() - self._started_s))
        self._terminal.flush()


def live_text(calls: Sequence[PhoneCall], elapsed_s: float) -> str:
    """The line: time, calls (if several), frames out and in, level of what is heard, round trip."""
    several = f"  {sum(call.up for call in calls)} of {len(calls)} calls up" if len(calls) > 1 else ""
    levels = [level for call in calls if (level := call.level.take_recent_db()) is not None]
    trips = [trip for call in calls if (trip := call.round_trip.latest_ms) is not None]
    return (
        f"{elapsed_s:6.1f} s{several}"
        f"  out {sum(call.report.frames_out for call in calls)}"
        f"  in {sum(len(call.arrivals) for call in calls)}"
        f"  level {f'{max(levels):.1f} dB' if levels else 'silence'}"
        f"  round trip {f'{sum(trips) / len(trips):.1f} ms' if trips else 'n/a'}"
    )
