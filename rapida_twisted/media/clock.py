"""The one clock of all calls.

Voice is isochronous: each call owes its caller one frame every 20 ms, for ever. So there is one timer for all calls and
none for each: the period is cut into slots, each call sits in a slot, and the deadlines of a slot are absolute, from
a monotonic start. Never "20 ms after the last one", which drifts, and never wall time, which jumps.

When the process was held up, a slot pays its debt with at most two frames a period, so that no burst reaches the
caller's jitter buffer; of a debt beyond 100 ms the older part is forgiven and counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import floor
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

__all__ = ["Lateness", "MediaClock", "Ticking"]

PERIOD_S = 0.020
SLOTS = 4
MAX_FRAMES_A_TICK = 2
MAX_DEBT_FRAMES = 5


class Ticking(Protocol):
    """Whoever is in the clock: a call."""

    def tick(self) -> None:
        """Send one frame now. Called once a period, or twice in a row to make up for a late tick."""


class Lateness:
    """How late frames left after their deadlines: counts in steps of 0.5 ms, the last one open-ended."""

    STEP_S = 0.0005
    STEPS = 400

    def __init__(self) -> None:
        self.counts = [0] * (self.STEPS + 1)
        self.max_s = 0.0

    def add(self, late_s: float) -> None:
        """One frame left so late (s)."""
        step = int(late_s / self.STEP_S)
        self.counts[step if 0 <= step < self.STEPS else (0 if step < 0 else self.STEPS)] += 1
        if late_s > self.max_s:
            self.max_s = late_s

    def percentile_ms(self, share: float) -> float:
        """The lateness that this share (0 to 1) of the frames did not exceed (ms); 0 without frames."""
        wanted = share * sum(self.counts)
        seen = 0
        for step, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return (self.max_s if step == self.STEPS else min((step + 1) * self.STEP_S, self.max_s)) * 1000
        return 0.0

    def reset(self) -> None:
        """Begin to count anew."""
        self.__init__()  # type: ignore[misc]


class _Slot:
    """The calls that share a deadline."""

    def __init__(self, offset_s: float) -> None:
        self.offset_s = offset_s
        self.members: dict[Ticking, None] = {}
        self.round: tuple[Ticking, ...] = ()
        self.done = 0
        """Periods that this slot has behind it."""
        self.debt = 0
        """Periods that were due at the last tick and are still to be paid, one more with each period."""


class MediaClock:
    """Ticks every member once each 20 ms, on absolute deadlines. It runs while it has members.

    :param reactor: provides IReactorTime.callLater; its own idea of the time is not used.
    :param now: a monotonic time in seconds.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, now: Callable[[], float] = time.monotonic, period_s: float = PERIOD_S, slots: int = SLOTS
    ) -> None:
        self.lateness = Lateness()
        self.forgiven = 0
        """Frames that were never sent, because the process was held up for too long."""
        self._reactor = reactor
        self._now = now
        self._period_s = period_s
        self._slots = [_Slot(period_s * number / slots) for number in range(slots)]
        self._slot_of: dict[Ticking, _Slot] = {}
        self._start_s = 0.0
        self._timer: IDelayedCall | None = None
        self._in_tick = False

    def reset_figures(self) -> None:
        """Begin to count anew."""
        self.lateness.reset()
        self.forgiven = 0

    def __len__(self) -> int:
        return len(self._slot_of)

    def add(self, member: Ticking) -> None:
        """Tick this one from now on, in the slot with the fewest members."""
        if member in self._slot_of:
            return
        if self._timer is None and not self._in_tick:
            self._start_s = self._now()
        slot = min(self._slots, key=lambda slot: len(slot.members))
        if not slot.members:
            slot.done, slot.debt = self._periods_due(slot), 0
        slot.members[member] = None
        slot.round = tuple(slot.members)
        self._slot_of[member] = slot
        if not self._in_tick:
            self._set_timer()

    def remove(self, member: Ticking) -> None:
        """Tick it no more; nothing happens if it is not here."""
        slot = self._slot_of.pop(member, None)
        if slot is None:
            return
        del slot.members[member]
        slot.round = tuple(slot.members)
        if not self._slot_of and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _periods_due(self, slot: _Slot) -> int:
        """How many deadlines of the slot are over; the margin is for the rounding of floats."""
        return floor((self._now() - self._start_s - slot.offset_s) / self._period_s + 1e-6)

    def _tick(self) -> None:
        self._timer, self._in_tick = None, True
        try:
            for slot in self._slots:
                if slot.round:
                    self._run(slot)
        finally:
            self._in_tick = False
            if self._slot_of:
                self._set_timer()

    def _run(self, slot: _Slot) -> None:
        """Tick a slot's members, if it is due."""
        due = self._periods_due(slot) - slot.done
        if due <= slot.debt:
            return
        if due > MAX_DEBT_FRAMES:
            self.forgiven += (due - MAX_DEBT_FRAMES) * len(slot.round)
            slot.done += due - MAX_DEBT_FRAMES
            due = MAX_DEBT_FRAMES
        frames = min(due, MAX_FRAMES_A_TICK)
        deadline_s = self._start_s + slot.offset_s + (slot.done + 1) * self._period_s
        slot.done += frames
        slot.debt = due - frames
        now, late = self._now, self.lateness.add
        for member in slot.round:
            try:
                for number in range(frames):
                    if member in slot.members:
                        member.tick()
                        late(now() - deadline_s - number * self._period_s)
            except Exception:
                self._log.failure("a tick failed, and its call leaves the clock: {member!r}", member=member)
                self.remove(member)

    def _set_timer(self) -> None:
        """Wake up at the next deadline of a slot that has members."""
        next_s = min(
            slot.offset_s + (slot.done + slot.debt + 1) * self._period_s for slot in self._slots if slot.members
        )
        wait_s = max(0.0, self._start_s + next_s - self._now())
        if self._timer is None:
            self._timer = self._reactor.callLater(wait_s, self._tick)
        else:
            self._timer.reset(wait_s)
