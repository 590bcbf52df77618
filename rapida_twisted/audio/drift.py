"""Two clocks that are not quite alike, for an hour: single frames are left out or repeated where nothing is said.

Live audio arrives on its sender's clock and is taken on ours. A sender that is 200 ppm fast brings 720 ms too much in
an hour, which would all wait; one that is slow leaves us with nothing to take now and then, in the middle of a word.
So it is watched how long frames wait before they are taken. What counts is the least wait of some seconds, for jitter
only ever adds to it. When that is more than a frame, one silent frame is left out; when it is nearly nothing, one
silent frame is heard twice. Only where more than 60 ms wait for a whole second, as after a hold-up, frames are left out
whatever is in them.

No I/O and no clock: whoever has the queue says what arrives and what is due.
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
"""After so many takes (5 s) the waits are looked at."""
LONG_S = 0.030
SHORT_S = 0.003
"""The least wait shall be between these two: more than a frame apart, or each step would call for the other."""
LEFT_S = 0.010
"""At least so much is left to wait when frames are left out."""
TOO_LONG_S = 0.060
"""What may wait at the most, silence or not, for all of a :data:`SHORT_WINDOW`."""
SHORT_WINDOW = 50
"""After so many takes (1 s) it is looked whether too much waits, as after a hold-up on either side."""
SILENCE_PEAK = 103
"""-50 dBFS: the loudest sample of what is called silence here, of 32,768."""
LIVE_BURST = 3
"""More frames than that in one message (60 ms) are no live audio."""
LIVE_BALANCE = 5
"""In one window of live audio, arrivals and takes differ by no more than this; in a short one by two."""
SHORT_BALANCE = 2

_ENDLESS_S = float("inf")


class Step(Enum):
    """What is to be done with the frame that is due."""

    TAKE = "take it"
    LEAVE_OUT = "leave it out, and look at the next"
    REPEAT = "take it, and let it wait for the next time, too"


class DriftGuard:
    """Watches one queue of frames, first in, first out.

    Frames that were sent ahead on purpose, as speech from a file is, wait as long as they must: while frames come in
    bursts, or more or fewer of them than are taken, nothing is done.

    :param format: of the frames.
    """

    def __init__(self, format: AudioFormat) -> None:
        self.left_out = 0
        """Frames that were left out."""
        self.repeated = 0
        """Frames that were heard twice."""
        self._format = format
        self._arrivals: deque[float] = deque()
        self._wanted = 0
        """Frames to leave out (above zero), or to repeat (below) at the next silence."""
        self._too_long = False
        """Whether too much waited in all of the last short window."""
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

    # What the queue says

    def arrived(self, frames: int, now_s: float) -> None:
        """So many frames came in one message.

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
        """The packet time is over, and this frame is the first that waits. To be asked again about the next one after
        :attr:`Step.LEAVE_OUT`."""
        arrivals = self._arrivals
        waited_s = now_s - arrivals[0] if arrivals else 0.0
        if len(arrivals) > 1 and self._may_leave_out(frame, waited_s):
            self._wanted = max(0, self._wanted - 1)
            self.left_out += 1
            arrivals.popleft()
            return Step.LEAVE_OUT
        if self._wanted < 0 and is_silent(frame, self._format):
            self._wanted = 0
            self.repeated += 1
            # What waited so far says nothing any more.
            self._begin()
            return Step.REPEAT
        if arrivals:
            arrivals.popleft()
        self._count(waited_s)
        return Step.TAKE

    def empty(self) -> None:
        """The packet time is over, and nothing waits. What comes next will have waited longer than what came last."""
        self._wanted, self._too_long = max(0, self._wanted), False
        self._least_s = _ENDLESS_S
        self._count(_ENDLESS_S)

    def lost_oldest(self) -> None:
        """The frame that had waited for longest was thrown away."""
        self._arrivals.popleft()

    def cleared(self) -> None:
        """All that waited was thrown away."""
        self._arrivals.clear()
        self._wanted, self._too_long = 0, False
        self._begin()
        self._begin_short()

    # What follows from it

    def _may_leave_out(self, frame: bytes, waited_s: float) -> bool:
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
            self._look_at_the_most()
            self._begin_short()
        if self._taken == WINDOW:
            self._look()
            self._begin()

    def _look_at_the_most(self) -> None:
        """A short window is over: whether too much waited in all of it, of live audio."""
        balanced = abs(self._short_arrived - self._short_taken) <= SHORT_BALANCE
        live = balanced and self._short_burst <= LIVE_BURST
        self._too_long = live and TOO_LONG_S < self._short_least_s < _ENDLESS_S

    def _look(self) -> None:
        """A window is over: what is wanted from now on."""
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
    """Whether nothing in a frame is louder than -50 dBFS."""
    if format.encoding == "ulaw":
        frame = ulaw_to_slin(frame)
    elif format.encoding == "alaw":
        frame = alaw_to_slin(frame)
    return bool(audioop.max(frame[: len(frame) // 2 * 2], 2) <= SILENCE_PEAK)
