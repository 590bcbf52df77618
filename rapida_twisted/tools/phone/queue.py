"""What a phone hears of a queue: where the server may send ahead, its messages' arrival says nothing.

A caller behind chan_websocket hears one frame with each tick of Asterisk's own clock, as long as its queue has any. So
nothing is late there, and jitter of the network does not matter, until the queue runs empty in the middle of speech:
that is a gap, and each of its ticks a missing frame. Silence between two things said is none. It is told from a gap by
what the server says (a mark, the end of a buffer, a flush, a pause), else by its length.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from rapida_twisted.tools.phone.figures import FRAME_S, SETTLING_S, Spread
from rapida_twisted.wire.chan_websocket import (
    Command,
    Event,
    FlushMedia,
    MediaBufferingCompleted,
    MediaMarkProcessed,
    MediaXoff,
    MediaXon,
    PauseMedia,
)

__all__ = ["QueueFigures", "QueueWatch"]

PAUSE_TICKS = round(SETTLING_S / FRAME_S)
"""After so many empty ticks it is a pause, whether the server said so or not."""


@dataclass(frozen=True)
class QueueFigures:
    """How a call's queue went."""

    depth_ms: Spread | None
    """What waited, at each tick that had something to be heard."""
    gaps: int
    """How often the queue ran empty in the middle of speech."""
    gap_ticks: int
    """For how many ticks: frames that were missing when they should have been heard."""
    pauses: int
    """Silences between two things said."""
    flushes: int
    xoff: int
    """How often the server was told to send no more."""
    xon: int
    dropped: int
    """Messages that came to a full queue."""


class QueueWatch:
    """Watches one queue."""

    def __init__(self) -> None:
        self.place = 0
        """Ticks so far of what was said, gaps included and pauses not: where the next frame belongs in time."""
        self._depths = array("d")
        self._empty = 0
        self._said_all = True
        self._gaps = self._gap_ticks = self._pauses = self._flushes = self._xoff = self._xon = 0

    def silent(self) -> None:
        """A tick without a frame."""
        self._empty += 1

    def heard(self, waiting: int) -> None:
        """A tick with a frame; so many waited, this one included."""
        if self._empty and len(self._depths):
            if self._said_all or self._empty >= PAUSE_TICKS:
                self._pauses += 1
            else:
                self._gaps += 1
                self._gap_ticks += self._empty
                self.place += self._empty
        self.place += 1
        self._empty, self._said_all = 0, False
        self._depths.append(waiting * FRAME_S)

    def event(self, event: Event) -> None:
        """The server is told something."""
        if isinstance(event, MediaXoff):
            self._xoff += 1
        elif isinstance(event, MediaXon):
            self._xon += 1
        elif isinstance(event, MediaMarkProcessed | MediaBufferingCompleted):
            self._said_all = True

    def command(self, command: Command) -> None:
        """The server asks for something."""
        if isinstance(command, FlushMedia | PauseMedia):
            self._said_all = True
            self._flushes += isinstance(command, FlushMedia)

    def figures(self, dropped: int) -> QueueFigures:
        """The figures until now.

        :param dropped: messages that came to a full queue.
        """
        return QueueFigures(
            depth_ms=Spread.of(self._depths),
            gaps=self._gaps,
            gap_ticks=self._gap_ticks,
            pauses=self._pauses,
            flushes=self._flushes,
            xoff=self._xoff,
            xon=self._xon,
            dropped=dropped,
        )
