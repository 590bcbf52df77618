"""Measures a playback queue: where the server may send ahead, the arrival time of a message means nothing.

A caller behind chan_websocket hears one frame with each tick of Asterisk's clock, as long as its queue holds any. So no
frame is late, and network jitter does not matter, until the queue runs empty in the middle of speech: that is a gap,
and each of its ticks is a missing frame. A pause between two utterances is no gap. The server marks a pause (by a mark,
the end of a buffer, a flush, a pause command); any long silence is one, too.
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

__all__ = ["QueueFigures", "QueueMeter"]

PAUSE_TICKS = round(SETTLING_S / FRAME_S)
"""A silence of this many ticks is a pause, with or without the server's mark."""


@dataclass(frozen=True)
class QueueFigures:
    """The figures of a call's queue."""

    depth_ms: Spread | None
    """Queued audio, at each tick that played a frame."""
    gaps: int
    """How often the queue ran empty in the middle of speech."""
    gap_ticks: int
    """Ticks of those gaps: frames that were missing when due."""
    pauses: int
    """Silences between two utterances."""
    flushes: int
    xoff: int
    """How often the phone told the server to stop sending."""
    xon: int
    dropped: int
    """Messages that met a full queue."""


class QueueMeter:
    """Measures one queue."""

    def __init__(self) -> None:
        self.place = 0
        """Ticks of speech so far, gaps included and pauses excluded: the next frame's place in time."""
        self._depths = array("d")
        self._empty_ticks = 0
        self._utterance_over = True
        self._gaps = self._gap_ticks = self._pauses = self._flushes = self._xoff = self._xon = 0

    def silent(self) -> None:
        """A tick passed without a frame."""
        self._empty_ticks += 1

    def heard(self, waiting: int) -> None:
        """A tick played a frame.

        :param waiting: frames in the queue, this one included.
        """
        if self._empty_ticks and len(self._depths):
            if self._utterance_over or self._empty_ticks >= PAUSE_TICKS:
                self._pauses += 1
            else:
                self._gaps += 1
                self._gap_ticks += self._empty_ticks
                self.place += self._empty_ticks
        self.place += 1
        self._empty_ticks, self._utterance_over = 0, False
        self._depths.append(waiting * FRAME_S)

    def event(self, event: Event) -> None:
        """The phone sent an event to the server."""
        if isinstance(event, MediaXoff):
            self._xoff += 1
        elif isinstance(event, MediaXon):
            self._xon += 1
        elif isinstance(event, MediaMarkProcessed | MediaBufferingCompleted):
            self._utterance_over = True

    def command(self, command: Command) -> None:
        """The server sent a command."""
        if isinstance(command, FlushMedia | PauseMedia):
            self._utterance_over = True
            self._flushes += isinstance(command, FlushMedia)

    def figures(self, dropped: int) -> QueueFigures:
        """The figures so far.

        :param dropped: messages that met a full queue.
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
