"""Sends a call's queued audio to its channel: in real time, or ahead of a peer that has a queue of its own.

AudioSocket has no queue in Asterisk, so each tick sends one frame, silence if nothing is queued. chan_websocket has
one, so speech is sent up to 200 ms ahead: few messages, and little to take back at barge-in::

    tick (20 ms)     1      2   3   4   5   6        7   8   9  10  11
    RealtimePacer    F1     F2  F3  F4  F5  F6       F7  F8  F9 F10 F11    one frame each tick
    AheadPacer       F1-10                  F11-15                  F16-20 refills at half of the lead
      peer plays     F1     F2  F3  F4  F5  F6       F7  F8  F9 F10 F11
"""

from __future__ import annotations

from collections.abc import Callable

from rapida_twisted.audio.formats import FRAME_MS
from rapida_twisted.audio.playout import Playout, Source
from rapida_twisted.interfaces.typed import MediaChannel
from rapida_twisted.media.clock import MAX_DEBT_FRAMES

__all__ = ["LEAD_MS", "AheadPacer", "Pacer", "RealtimePacer"]

LEAD_MS = 200.0
UNHEARD_FRAMES = 2
"""Frames of silence after Asterisk has put the channel into a bridge: the thread that read the channel before may read
and drop one more frame (``res/res_stasis.c``: ``stasis_app_exec()``); the second frame gives it time."""
LONGEST_WAIT_FRAMES = 500
"""After this many frames (10 s) a call sends its speech even if Asterisk has not reported the bridge."""


class Pacer:
    """Sends one call's playout queue to its channel.

    :param played: called with each source once the caller has heard all of it.
    """

    def __init__(self, playout: Playout, channel: MediaChannel, played: Callable[[Source], None]) -> None:
        self.silent_frames = 0
        """Frames of silence sent to keep the connection alive."""
        self._closed = False
        self._playout = playout
        self._channel = channel
        self._played = played

    @property
    def frames_out(self) -> int:
        """Frames sent with audio of the assistant."""
        return self._playout.frames

    def tick(self) -> bytes:
        """20 ms have passed: send the audio that is due. Returns the frame that the caller hears now."""
        raise NotImplementedError

    def stalled(self, periods: int) -> list[bytes]:
        """This many periods passed without a tick. Returns the frames that the caller heard meanwhile."""
        return []

    def flush(self) -> None:
        """Barge-in: discard audio that was sent and not played yet."""

    def pause(self, paused: bool) -> None:
        """The channel accepts no more audio, or accepts it again."""

    def close(self) -> None:
        """The call has ended: send nothing more, not even in the current tick."""
        self._closed = True


class RealtimePacer(Pacer):
    """Sends one frame with each tick.

    :param is_bridged: True once Asterisk passes the channel's audio on to the caller. Until then each tick sends
        silence, and speech stays queued. None: Asterisk always does.
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
    """Sends several frames ahead, and no silence: the peer inserts that itself.

    :param lead_ms: the maximum lead. Speech is sent when half of the lead is left, live audio at once.
    """

    def __init__(
        self, playout: Playout, channel: MediaChannel, played: Callable[[Source], None], lead_ms: float = LEAD_MS
    ) -> None:
        super().__init__(playout, channel, played)
        self._lead = max(1, round(lead_ms / FRAME_MS))
        self._refill_at = self._lead // 2
        self._ahead = playout.ahead
        self._batch: list[bytes] = []
        """Frames to send in one message."""
        self._catching_up = 0
        """Ticks to come while the clock makes up for a stall, two in each period: the peer plays a frame in the time of
        every other one."""
        self._paused = False

    def tick(self) -> bytes:
        if not (self._catching_up and self._makes_up()) and self._ahead:
            heard = self._ahead.popleft()
        else:
            heard = self._playout.format.silent_frame
        if not self._paused and (len(self._ahead) <= self._refill_at or not self._playout.is_saying):
            self._send_ahead()
        return heard

    def _makes_up(self) -> bool:
        """Whether the peer plays nothing in the time of this tick."""
        # A call with an empty queue gets no such ticks.
        self._catching_up = 0 if self._playout.idle else self._catching_up - 1
        return self._catching_up % 2 == 1

    def stalled(self, periods: int) -> list[bytes]:
        self._catching_up = min(self._catching_up + 2 * periods, 2 * (MAX_DEBT_FRAMES - 1))
        return [self._ahead.popleft() for _ in range(min(periods, len(self._ahead)))]

    def flush(self) -> None:
        self._playout.drop_ahead()
        self._batch.clear()
        if not self._closed:
            self._channel.flush()

    def pause(self, paused: bool) -> None:
        self._paused = paused

    def close(self) -> None:
        super().close()
        # A stream's own code may end the call while frames are taken.
        self._lead = 0

    def _send_ahead(self) -> None:
        playout, ahead = self._playout, self._ahead
        # Sending may fill the connection, which pauses this pacer.
        while len(ahead) < self._lead and not self._paused:
            # With nothing ahead, a partial frame cannot wait for its rest.
            frame = playout.take(fill=not ahead)
            if frame is not None:
                self._batch.append(frame)
                ahead.append(frame)
            if playout.finished and not self._closed:
                self._send()
                self._mark_finished()
            # A DriftGuard compares the clock of fetched audio with ours: take it in real time.
            if frame is None or playout.is_fetching:
                break
        self._send()

    def _send(self) -> None:
        batch, self._batch = self._batch, []
        if batch and not self._closed:
            self._channel.send_audio(b"".join(batch))

    def _mark_finished(self) -> None:
        """Report the finished sources as played once the peer has played up to here."""
        finished, self._playout.finished = self._playout.finished, []

        def reached() -> None:
            for source in finished:
                self._played(source)

        self._channel.mark(reached)
