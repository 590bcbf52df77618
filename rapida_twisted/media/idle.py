"""Ends calls with too little or too much audio from the caller.

Without audio for too long, a call's end was lost, and it would last for ever. With audio much faster than real time, a
peer floods the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import attrs

from rapida_twisted.context import EndReason
from rapida_twisted.media.call import Call

__all__ = ["MAX_AHEAD_S", "IdleWatch"]

MAX_AHEAD_S = 120.0
"""Audio (s) that may come in excess of the time: after the network or this server stood still, it comes in a burst."""


@attrs.define
class _Heard:
    """One call, as it was seen."""

    first_s: float
    """When it was seen first: soon after its start."""
    audio_s: float = -1.0
    """The audio received at the last check, and since when it is unchanged."""
    since_s: float = 0.0


@attrs.define(eq=False, repr=False, slots=False)
class IdleWatch:
    """Ends calls whose caller sent no audio, not even silence, for too long; and those with too much of it.

    :param calls: the active calls.
    :param idle_s: the time limit (s) without audio; 0: no limit.
    :param ended: called for each idle call that it ends.
    :param seconds: a monotonic clock.
    """

    _calls: Iterable[Call]
    _idle_s: float
    _ended: Callable[[], None] = lambda: None
    _seconds: Callable[[], float] = time.monotonic
    _heard: dict[str, _Heard] = attrs.field(factory=dict, init=False)

    def check(self) -> None:
        """End such calls. Call it periodically."""
        now_s, before = self._seconds(), self._heard
        self._heard = {}
        for call in self._calls:
            audio_s = call.audio_in_s
            heard = before.get(call.context.context_id) or _Heard(now_s)
            self._heard[call.context.context_id] = heard
            if audio_s != heard.audio_s:
                heard.audio_s, heard.since_s = audio_s, now_s
            self._check(call, heard, now_s)

    def _check(self, call: Call, heard: _Heard, now_s: float) -> None:
        if self._idle_s and now_s - heard.since_s >= self._idle_s:
            if call.end(EndReason.PEER_STALLED, f"the caller sent no audio for {self._idle_s:g} s"):
                self._ended()
        elif heard.audio_s > now_s - heard.first_s + MAX_AHEAD_S:
            call.end(EndReason.PROTOCOL_ERROR, f"over {MAX_AHEAD_S:g} s of audio came faster than the time")
