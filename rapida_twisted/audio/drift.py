"""Compensates clock drift between a sender and us: skips or repeats single silent frames of live audio.

Live audio arrives on the sender's clock and is taken on ours. A sender that is 200 ppm fast queues 720 ms in an hour;
a slow one leaves the queue empty now and then, in the middle of a word. The guard therefore measures how long frames
wait. Jitter only adds to a wait, so the shortest wait of a window shows the drift::

    wait of each frame when it is taken (ms)
     60 |- - - - - - - - - - - - -  all of a 1 s window above: skip frames at once, silent or not
        |   :     :        :
     30 |- -:-.- -:- - .- -:- . -   shortest wait of a 5 s window above: skip a silent frame
        | : : : . : :  : . : :
        | : : : : : :  : : : :      between: do nothing
      3 |- - - - - - - - - - - - -  shortest wait below: repeat one silent frame
      0 +------------------------>  frames taken, one each 20 ms

Pure: the owner of the queue reports arrivals and takes, with their times.
"""

from __future__ import annotations

import warnings
from collections import deque
from enum import Enum

from rapida_twisted.audio.formats import FRAME_MS, AudioFormat
from rapida_twisted.audio.g711 import alaw_to_slin, ulaw_to_slin

with warnings.catch_warnings():
    # As in g711.py.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

__all__ = ["DriftGuard", "Step", "is_silent"]

WINDOW = 250
"""Takes (5 s) after which the shortest wait is judged."""
LONG_S = 0.030
SHORT_S = 0.003
"""The limits of the shortest wait. They are more than a frame apart, or a skip would call for a repeat."""
LEFT_S = 0.010
"""The shortest wait that skipping leaves."""
TOO_LONG_S = 0.060
"""If all waits of a :data:`SHORT_WINDOW` are longer, frames are skipped whether silent or not."""
SHORT_WINDOW = 50
"""Takes (1 s) after which long waits are judged, as after a stall on either side."""
SILENCE_PEAK = 103
"""The highest sample of a silent frame: -50 dBFS of 32,768."""
LIVE_BURST = 3
"""Live audio has at most this many frames (60 ms) in one message."""
LIVE_BALANCE = 5
"""In a window of live audio, arrivals and takes differ by at most this many frames."""
SHORT_BALANCE = 2
"""The same for a short window."""

_ENDLESS_S = float("inf")


class Step(Enum):
    """What to do with the frame that is due."""

    TAKE = "take it"
    SKIP = "discard it, and ask about the next"
    REPEAT = "take it, and keep it in the queue"


class DriftGuard:
    """Watches one first-in, first-out queue of frames.

    It leaves audio alone that is not live: frames in bursts, or more or fewer than are taken. Speech from a file, for
    instance, is sent ahead on purpose.

    :param format: of the frames.
    """

    def __init__(self, format: AudioFormat) -> None:
        self.skipped = 0
        """Frames skipped."""
        self.repeated = 0
        """Frames repeated."""
        self._format = format
        self._arrivals: deque[float] = deque()
        self._wanted = 0
        """Frames to skip (positive) or to repeat (negative) at the next silence."""
        self._too_long = False
        """True if all waits of the last short window were too long."""
        self._begin()
        self._begin_short()

    def _begin(self) -> None:
        self._least_s = _ENDLESS_S
        self._taken = 0
        self._arrived = 0
        self._burst = 0

    def _begin_short(self) -> None:
        self._short_least_s = _ENDLESS_S
        self._short_taken = 0
        self._short_arrived = 0
        self._short_burst = 0

    # Reports of the queue

    def arrived(self, frames: int, now_s: float) -> None:
        """One message brought this many frames.

        :param now_s: a monotonic time (s).
        """
        self._arrivals.extend([now_s] * frames)
        self._arrived += frames
        self._short_arrived += frames
        if frames > self._burst:
            self._burst = frames
        if frames > self._short_burst:
            self._short_burst = frames

    def due(self, frame: bytes, now_s: float) -> Step:
        """20 ms are over and this frame is the first in the queue. After :attr:`Step.SKIP`, ask about the next one."""
        arrivals = self._arrivals
        waited_s = now_s - arrivals[0] if arrivals else 0.0
        if len(arrivals) > 1 and self._may_skip(frame, waited_s):
            self._wanted = max(0, self._wanted - 1)
            self.skipped += 1
            arrivals.popleft()
            return Step.SKIP
        if self._wanted < 0 and is_silent(frame, self._format):
            self._wanted = 0
            self.repeated += 1
            # All later waits are a frame longer.
            self._begin()
            return Step.REPEAT
        if arrivals:
            arrivals.popleft()
        self._count(waited_s)
        return Step.TAKE

    def empty(self) -> None:
        """20 ms are over and the queue is empty. The next frame will have waited longer than the last one."""
        self._wanted, self._too_long = max(0, self._wanted), False
        self._least_s = _ENDLESS_S
        self._count(_ENDLESS_S)

    def oldest_dropped(self) -> None:
        """The queue dropped its first frame."""
        self._arrivals.popleft()

    def cleared(self) -> None:
        """The queue was flushed."""
        self._arrivals.clear()
        self._wanted, self._too_long = 0, False
        self._begin()
        self._begin_short()

    # Decisions

    def _may_skip(self, frame: bytes, waited_s: float) -> bool:
        if self._too_long and waited_s > TOO_LONG_S:
            return True
        return self._wanted > 0 and is_silent(frame, self._format)

    def _count(self, waited_s: float) -> None:
        if waited_s < self._least_s:
            self._least_s = waited_s
        if waited_s < self._short_least_s:
            self._short_least_s = waited_s
        self._taken += 1
        self._short_taken += 1
        if self._short_taken == SHORT_WINDOW:
            self._judge_short_window()
            self._begin_short()
        if self._taken == WINDOW:
            self._judge_window()
            self._begin()

    def _judge_short_window(self) -> None:
        balanced = abs(self._short_arrived - self._short_taken) <= SHORT_BALANCE
        live = balanced and self._short_burst <= LIVE_BURST
        self._too_long = live and TOO_LONG_S < self._short_least_s < _ENDLESS_S

    def _judge_window(self) -> None:
        self._wanted = 0
        balanced = abs(self._arrived - self._taken) <= LIVE_BALANCE
        live = balanced and self._burst <= LIVE_BURST and self._least_s < _ENDLESS_S
        if not live:
            return
        if self._least_s > LONG_S:
            self._wanted = int((self._least_s - LEFT_S) * 1000 / FRAME_MS)
        elif self._least_s < SHORT_S:
            self._wanted = -1


def is_silent(frame: bytes, format: AudioFormat) -> bool:
    """True if no sample of a frame is louder than -50 dBFS."""
    if format.encoding == "ulaw":
        frame = ulaw_to_slin(frame)
    elif format.encoding == "alaw":
        frame = alaw_to_slin(frame)
    return bool(audioop.max(frame[: len(frame) // 2 * 2], 2) <= SILENCE_PEAK)
