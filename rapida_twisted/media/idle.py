"""Calls from which nothing is heard any more: where their end was lost on the way, they would stay for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from rapida_twisted.context import EndReason
from rapida_twisted.media.call import Call

__all__ = ["IdleWatch"]


class IdleWatch:
    """Ends calls whose caller sent no audio, not even silence, for too long.

    :param calls: those that are up.
    :param idle_s: how long is too long; 0: nothing is.
    :param ended: called for each call that was ended.
    :param seconds: a clock that never goes back.
    """

    def __init__(
        self,
        calls: Iterable[Call],
        idle_s: float,
        ended: Callable[[], None] = lambda: None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = calls
        self._idle_s = idle_s
        self._ended = ended
        self._seconds = seconds
        self._heard: dict[str, tuple[float, float]] = {}
        """How much of each call was heard when last looked, and since when it is so much."""

    def look(self) -> None:
        """Look at all calls; to be called from time to time."""
        if not self._idle_s:
            return
        now_s, before = self._seconds(), self._heard
        self._heard = {}
        for call in self._calls:
            heard_s, (known_s, since_s) = call.audio_in_s, before.get(call.context.context_id, (-1.0, now_s))
            if heard_s != known_s:
                since_s = now_s
            self._heard[call.context.context_id] = heard_s, since_s
            if now_s - since_s >= self._idle_s and call.end(
                EndReason.PEER_STALLED, f"nothing was heard from the caller for {self._idle_s:g} s"
            ):
                self._ended()
