"""The terminal line that shows the state of a phone's calls while they last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TextIO

from twisted.internet.task import LoopingCall

from rapida_twisted.tools.phone.call import PhoneCall

__all__ = ["StatusLine", "status_text"]

EVERY_S = 0.25
ERASE = "\r\x1b[K"


class StatusLine:
    """Shows the state of the calls in one line, if the output is a terminal.

    :param calls: the calls placed so far; the list may grow.
    """

    def __init__(self, terminal: TextIO, calls: Sequence[PhoneCall], now: Callable[[], float], reactor: Any) -> None:
        self._terminal = terminal
        self._calls = calls
        self._now = now
        self._started_s = now()
        self._updating = LoopingCall(self._update)
        self._updating.clock = reactor

    def start(self) -> None:
        if self._terminal.isatty():
            # A terminal that closes ends the display, not the calls.
            self._updating.start(EVERY_S).addErrback(lambda failure: None)

    def stop(self) -> None:
        if self._updating.running:
            self._updating.stop()
            self._write("")

    def _update(self) -> None:
        self._write(status_text(self._calls, self._now() - self._started_s))

    def _write(self, text: str) -> None:
        self._terminal.write(ERASE + text)
        self._terminal.flush()


def status_text(calls: Sequence[PhoneCall], elapsed_s: float) -> str:
    """The time, the calls (if several), frames out and in, the received level, and the round trip."""
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
