"""Ends idle calls: without audio from the caller for too long, their end was lost and they would last for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import attrs

from rapida_twisted.context import EndReason
from rapida_twisted.media.call import Call

__all__ = ["IdleWatch"]


@attrs.define(eq=False, repr=False, slots=False)
class IdleWatch:
    """Ends calls whose caller sent no audio, not even silence, for too long.

    :param calls: the active calls.
    :param idle_s: the time limit (s); 0: no limit.
    :param ended: called for each call that it ends.
    :param seconds: a monotonic clock.
    """

    _calls: Iterable[Call]
    _idle_s: float
    _ended: Callable[[], None] = lambda: None
    _seconds: Callable[[], float] = time.monotonic
    _heard: dict[str, tuple[float, float]] = attrs.field(factory=dict, init=False)
    """Each call's received audio (s) at the last check, and since when it is unchanged."""

    def check(self) -> None:
        """End the idle calls. Call it periodically."""
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
                EndReason.PEER_STALLED, f"the caller sent no audio for {self._idle_s:g} s"
            ):
                self._ended()
