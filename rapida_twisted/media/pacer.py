"""How what waits to be heard goes to the channel, one tick of the clock at a time.

A channel that does not time the playing itself gets one frame with each tick, silence where nothing waits. A channel
that does (Asterisk's chan_websocket, with a queue of its own) is sent ahead: by a bounded lead, several frames in one
message, so that speech costs few messages and a barge-in has little to take back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rapida_twisted.audio.formats import FRAME_MS
from rapida_twisted.audio.playout import Playout, Source
from rapida_twisted.interfaces.typed import MediaChannel

__all__ = ["LEAD_MS", "AheadPacer", "Pacer", "RealtimePacer", "make_pacer"]

LEAD_MS = 200.0
UNHEARD_FRAMES = 2
"""Frames of silence after Asterisk has put the channel into a bridge: the thread that read the channel before may read
one frame more, and drop it (``res/res_stasis.c``: ``stasis_app_exec()``); the second frame gives it time."""
LONGEST_WAIT_FRAMES = 500
"""After so many frames (10 s) a call that was not reported as bridged sends its speech all the same."""


class Pacer:
    """From one call's playout to its channel.

    :param played: called with each source when all of it was heard.
    """

    def __init__(self, playout: Playout, channel: MediaChannel, played: Callable[[Source], None]) -> None:
        self.frames_out = 0
        """Frames in which something was said."""
        self.silent_frames = 0
        """Frames of silence sent to keep the line alive."""
        self._closed = False
        self._playout = playout
        self._channel = channel
        self._played = played

    def tick(self) -> bytes:
        """A packet time is over: send what is due. Gives the frame that the caller hears now."""
        raise NotImplementedError

    def flush(self) -> None:
        """What was sent and is not heard yet must not be heard either."""

    def pause(self, paused: bool) -> None:
        """The channel takes no more for now, or again."""

    def close(self) -> None:
        """The call is over: nothing more is sent, not even by the tick that is under way."""
        self._closed = True


class RealtimePacer(Pacer):
    """One frame with each tick, always.

    :param is_bridged: whether Asterisk passes the channel's audio on to the caller. Until it does, each tick sends
        silence, and the speech stays queued. None: Asterisk always does.
    """

    def __init__(
        self,
        playout: Playout,
        channel: MediaChannel,
        played: Callable[[Source], None],
        is_bridged: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(playout, channel, played)
        self._is_bridged = is_bridged
        self._unheard = UNHEARD_FRAMES
        self._waited = 0

    def tick(self) -> bytes:
        playout = self._playout
        frame = playout.take() if self._is_bridged is None or self._is_heard(self._is_bridged) else None
        if self._closed:
            return playout.format.silent_frame
        if frame is None:
            self.silent_frames += 1
            frame = playout.format.silent_frame
        else:
            self.frames_out += 1
        self._channel.send_audio(frame)
        if playout.finished:
            finished, playout.finished = playout.finished, []
            for source in finished:
                self._played(source)
        return frame

    def _is_heard(self, is_bridged: Callable[[], bool]) -> bool:
        if self._unheard and self._waited < LONGEST_WAIT_FRAMES:
            self._waited += 1
            self._unheard -= is_bridged()
            return False
        self._is_bridged = None
        return True


class AheadPacer(Pacer):
    """Several frames ahead of what is heard, and no silence: the peer's own clock makes it.

    :param lead_ms: how far ahead at the most. What is said is sent when half of it is left; live audio at once.
    """

    def __init__(
        self, playout: Playout, channel: MediaChannel, played: Callable[[Source], None], lead_ms: float = LEAD_MS
    ) -> None:
        super().__init__(playout, channel, played)
        self._lead = max(1, round(lead_ms / FRAME_MS))
        self._refill_at = self._lead // 2
        self._ahead: deque[bytes] = deque()
        """The frames that the peer has, as far as we know, and has not played."""
        self._paused = False

    def tick(self) -> bytes:
        heard = self._ahead.popleft() if self._ahead else self._playout.format.silent_frame
        if not self._paused and (len(self._ahead) <= self._refill_at or not self._playout.is_saying):
            self._send_ahead()
        return heard

    def flush(self) -> None:
        self._ahead.clear()
        self._channel.flush()

    def pause(self, paused: bool) -> None:
        self._paused = paused

    def _send_ahead(self) -> None:
        playout, ahead = self._playout, self._ahead
        frames: list[bytes] = []
        # What is sent may fill the connection, and so pause this.
        while len(ahead) < self._lead and not self._paused:
            # With nothing ahead there is no time left to wait for the rest of a frame.
            frame = playout.take(fill=not ahead)
            if frame is not None:
                frames.append(frame)
                ahead.append(frame)
            if playout.finished:
                self._send(frames)
                frames = []
                self._mark_finished()
            # What is fetched comes on a clock of its own, which is watched: it is taken on ours, and not ahead.
            if frame is None or playout.is_fetching:
                break
        self._send(frames)

    def _send(self, frames: list[bytes]) -> None:
        if frames and not self._closed:
            self.frames_out += len(frames)
            self._channel.send_audio(b"".join(frames))

    def _mark_finished(self) -> None:
        """Sources whose end is on its way: heard when the peer says that it has played up to here."""
        finished, self._playout.finished = self._playout.finished, []

        def reached() -> None:
            for source in finished:
                self._played(source)

        self._channel.mark(reached)


def make_pacer(
    playout: Playout,
    channel: MediaChannel,
    played: Callable[[Source], None],
    lead_ms: float = LEAD_MS,
    is_bridged: Callable[[], bool] | None = None,
) -> Pacer:
    """The pacer that suits the channel. One with a queue of its own never waits for a bridge."""
    if channel.paced:
        return AheadPacer(playout, channel, played, lead_ms)
    return RealtimePacer(playout, channel, played, is_bridged)
