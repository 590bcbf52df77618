"""Timers that do not care for the wall clock."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["use_monotonic_time"]


def use_monotonic_time(reactor: Any) -> None:
    """Have a reactor's timers follow the monotonic clock. To be called once, early, by whoever owns the process.

    Twisted's reactors reckon with the wall clock (:func:`time.time`). When that is set back by an hour, all that was to
    happen, such as the next frame of every call, waits for an hour; when it is set forward, all timeouts are over at
    once. ``reactor.seconds()`` is no wall-clock time afterwards, which nobody may take it for anyway.
    """
    left = [(call, call.getTime() - reactor.seconds()) for call in reactor.getDelayedCalls()]
    reactor.seconds = time.monotonic
    for call, seconds in left:
        call.seconds = time.monotonic
        call.reset(max(0.0, seconds))
