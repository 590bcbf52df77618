"""Makes a reactor's timers independent of the wall clock."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["use_monotonic_time"]


def use_monotonic_time(reactor: Any) -> None:
    """Make a reactor's timers follow the monotonic clock. Call it once, early, in a process of your own.

    Twisted's reactors use the wall clock (:func:`time.time`). When that is set back by an hour, every timer, such as
    the next frame of a call, waits for an hour; when it is set forward, all timeouts expire at once. Afterwards
    ``reactor.seconds()`` is no wall-clock time, which its interface never promised.
    """
    left = [(call, call.getTime() - reactor.seconds()) for call in reactor.getDelayedCalls()]
    reactor.seconds = time.monotonic
    for call, seconds in left:
        call.seconds = time.monotonic
        call.reset(max(0.0, seconds))
