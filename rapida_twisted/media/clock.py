"""The media clock: one timer that sends a frame of every call each 20 ms.

The clock divides the period of 20 ms into five slots, and each call belongs to one slot. A slot's deadlines are
absolute, from a monotonic start: "20 ms after the last tick" would drift, and wall time jumps::

    ms       0    4    8    12   16   20   24   28   32   36   40
    slot     0    1    2    3    4    0    1    2    3    4    0
    call A   F                        F                        F     in slot 0: a frame F each 20 ms
    call B             F                        F                    in slot 2

After a stall a slot sends at most two frames per period until it has caught up, so that no burst reaches the caller's
jitter buffer. It skips and counts frames that are more than 100 ms late, and does not catch up on silence::

    frame due (ms)     20   40   60   80   100  120
    frame sent (ms)    65   65   80   80   100  120    the process stalled from 5 to 65 ms

With many calls the clock also reads their connections (*polling*): once a period, just before the call's next frame
leaves, in the slot that follows its packets. With few calls the reactor reads (*events*). See :mod:`.governor` and
:mod:`.phase`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import floor
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from rapida_twisted.interfaces import IPolledReader
from rapida_twisted.media.lateness import Lateness
from rapida_twisted.media.phase import Phase

__all__ = ["MediaClock", "Ticking"]

PERIOD_S = 0.020
SLOTS = 5
MAX_FRAMES_PER_TICK = 2
MAX_DEBT_FRAMES = 5


class Ticking(Protocol):
    """A call, as the clock sees it.

    Optional attributes: ``reading`` (:class:`IPolledReader`) lets the clock read the connection, ``idle`` is True while
    the playout queue is empty, ``ready`` is the number of whole live frames in that queue, ``stalled(periods)`` is
    called before the next tick after the clock missed this many periods.
    """

    def tick(self) -> None:
        """Send one frame now. Called once per period, and a second time to catch up."""


class _Member:
    """One call in the clock."""

    __slots__ = ("call", "not_before", "phase", "poll", "reading", "slot", "stalled", "tick")

    def __init__(self, call: Ticking, slot: _Slot, slots: int) -> None:
        self.call = call
        self.slot: _Slot | None = slot
        """None once it was removed."""
        self.tick = call.tick
        self.stalled: Callable[[int], None] = getattr(call, "stalled", lambda periods: None)
        self.reading: IPolledReader | None = getattr(call, "reading", None)
        """None where only the reactor can read the connection."""
        self.poll: Callable[[], bool] | None = None
        """Reads the connection while the clock polls it, else None."""
        self.phase = Phase(slots, slot.number)
        self.not_before = 0
        """The slot's period of its next turn."""

    @property
    def idle(self) -> bool:
        """True if it only sends silence, which need not be on time."""
        return getattr(self.call, "idle", False)

    @property
    def ready(self) -> int:
        """Whole live frames in its playout queue."""
        return getattr(self.call, "ready", 0)


class _Slot:
    """The calls that share a deadline."""

    def __init__(self, number: int, offset_s: float) -> None:
        self.number = number
        self.offset_s = offset_s
        self.members: dict[_Member, None] = {}
        self.served: tuple[_Member, ...] = ()
        """The members, for a loop during which some may leave."""
        self.done = 0
        """Periods served or skipped so far."""
        self.debt = 0
        """Periods that were due at the last tick and not served; each later tick serves one of them."""

    def add(self, member: _Member) -> None:
        member.slot = self
        self.members[member] = None
        self.served = tuple(self.members)

    def remove(self, member: _Member) -> None:
        member.slot = None
        del self.members[member]
        self.served = tuple(self.members)


class MediaClock:
    """Ticks each call every 20 ms, on absolute deadlines. Its timer runs while there are calls.

    :param reactor: provides IReactorTime.callLater; the clock does not use its time.
    :param now: a monotonic time (s).
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, now: Callable[[], float] = time.monotonic, period_s: float = PERIOD_S, slots: int = SLOTS
    ) -> None:
        self.lateness = Lateness()
        self.forgiven = 0
        """Frames skipped after long stalls."""
        self.late_ticks = 0
        """Ticks of a slot that began after the next slot's deadline."""
        self.moves = 0
        """How often a call moved to a neighbouring slot."""
        self.busy_s = 0.0
        """Time spent in ticks (s)."""
        self._since_s = now()
        self.polling = False
        """True while the clock reads the connections; see :meth:`set_polling`."""
        self._reactor = reactor
        self._now = now
        self._period_s = period_s
        self._slots = [_Slot(number, period_s * number / slots) for number in range(slots)]
        self._members: dict[Ticking, _Member] = {}
        self._measuring: set[_Member] = set()
        """The members that are read in every slot."""
        self._second_ends_s = 0.0
        self._start_s = 0.0
        self._timer: IDelayedCall | None = None
        self._in_tick = False

    def reset_figures(self) -> None:
        """Restart all counts."""
        self.lateness.reset()
        self.forgiven = self.late_ticks = self.moves = 0
        self.busy_s = 0.0
        self._since_s = self._now()

    @property
    def share(self) -> float:
        """The share of the time spent in ticks (0 to 1)."""
        return self.busy_s / max(self._now() - self._since_s, self._period_s)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def calls_of_slots(self) -> list[int]:
        """The number of calls in each slot."""
        return [len(slot.members) for slot in self._slots]

    @property
    def polled(self) -> int:
        """Calls whose connections the clock reads."""
        return sum(member.poll is not None for member in self._members.values())

    def add(self, call: Ticking) -> None:
        """Tick a call from now on, in the slot with the fewest calls."""
        if call in self._members:
            return
        if self._timer is None and not self._in_tick:
            self._start_s = self._now()
        slot = min(self._slots, key=lambda slot: len(slot.members))
        if not slot.members:
            slot.done, slot.debt = self._periods_due(slot), 0
        member = self._members[call] = _Member(call, slot, len(self._slots))
        slot.add(member)
        if self.polling:
            self._take_over(member)
        if not self._in_tick:
            self._set_timer()

    def remove(self, call: Ticking) -> None:
        """Tick a call no more. Idempotent."""
        member = self._members.pop(call, None)
        if member is None:
            return
        assert member.slot is not None
        member.slot.remove(member)
        self._give_back(member)
        if not self._members and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Polling or events

    def set_polling(self, polling: bool) -> None:
        """Read the connections from now on, or let the reactor read them. No packet is lost or reordered."""
        if polling == self.polling:
            return
        self.polling = polling
        for member in list(self._members.values()):
            if polling:
                self._take_over(member)
            else:
                self._give_back(member)

    def _take_over(self, member: _Member) -> None:
        if member.reading is not None:
            member.reading.take_over()
            member.poll = member.reading.poll
            member.phase.measure()
            self._measuring.add(member)

    def _give_back(self, member: _Member) -> None:
        if member.poll is not None and member.reading is not None:
            member.poll = None
            member.reading.give_back()
        member.phase.stop()
        self._measuring.discard(member)

    # Ticks

    def _periods_due(self, slot: _Slot) -> int:
        """How many deadlines of the slot have passed. The margin is for the rounding of floats."""
        return floor((self._now() - self._start_s - slot.offset_s) / self._period_s + 1e-6)

    def _tick(self) -> None:
        self._timer, self._in_tick = None, True
        began_s = self._now()
        try:
            for slot in self._slots:
                if slot.served or self._measuring:
                    self._run(slot)
            if self.polling and began_s >= self._second_ends_s:
                self._second_ends_s = began_s + 1.0
                self._second_over()
        finally:
            self._in_tick = False
            self.busy_s += self._now() - began_s
            if self._members:
                self._set_timer()

    def _run(self, slot: _Slot) -> None:
        """Serve a slot, if it is due."""
        due = self._periods_due(slot) - slot.done
        if due <= slot.debt:
            return
        if not slot.served:
            slot.done, slot.debt = slot.done + due, 0
            self._measure(slot)
            return
        missed = due - slot.debt - 1
        if missed:
            for member in slot.served:
                member.stalled(missed)
        if due > MAX_DEBT_FRAMES:
            self.forgiven += (due - MAX_DEBT_FRAMES) * len(slot.served)
            slot.done += due - MAX_DEBT_FRAMES
            due = MAX_DEBT_FRAMES
        frames = min(due, MAX_FRAMES_PER_TICK)
        deadline_s = self._start_s + slot.offset_s + (slot.done + 1) * self._period_s
        slot.done += frames
        slot.debt = due - frames
        if due > 1 or self._now() - deadline_s > self._period_s / len(self._slots):
            self.late_ticks += 1
        if self._measuring:
            self._measure(slot)
        self._serve(slot, frames, deadline_s)

    def _serve(self, slot: _Slot, frames: int, deadline_s: float) -> None:
        """Read and tick each member of a slot."""
        now, late = self._now, self.lateness.add
        for member in slot.served:
            try:
                expected = member.poll is None or self._read(member)
                if member.slot is not slot or slot.done < member.not_before:
                    continue
                if not expected and member.idle:
                    self._wait(member, slot)
                    continue
                member.tick()
                late(now() - deadline_s)
                if frames > 1 and member.slot is slot and not member.idle:
                    member.tick()
                    late(now() - deadline_s - self._period_s)
                if member.phase.steps and member.slot is slot:
                    self._move(member, slot)
            except Exception:
                self._log.failure("{call} leaves the clock: its tick failed", call=str(member.call))
                self.remove(member.call)

    def _set_timer(self) -> None:
        """Wake up at the next deadline of a slot that has members; of any slot while calls are measured."""
        slots = self._slots if self._measuring else [slot for slot in self._slots if slot.members]
        next_s = min(slot.offset_s + (slot.done + slot.debt + 1) * self._period_s for slot in slots)
        wait_s = max(0.0, self._start_s + next_s - self._now())
        if self._timer is None:
            self._timer = self._reactor.callLater(wait_s, self._tick)
        else:
            self._timer.reset(wait_s)

    # Polling

    def _read(self, member: _Member) -> bool:
        """Read a call's connection at its turn. False if a packet was expected and has not come."""
        assert member.poll is not None
        phase = member.phase
        came = member.poll()
        if phase.measuring:
            ready = member.ready
            phase.polled(phase.slot, came, ready > 0)
            came = phase.came
            if phase.turn_over(ready - 1):
                self._measuring.discard(member)
            return phase.turn(came)
        expected = phase.turn(came)
        if phase.measuring:
            self._measuring.add(member)
        return expected

    def _measure(self, slot: _Slot) -> None:
        """Read the members of other slots that are being measured."""
        for member in tuple(self._measuring):
            if member.slot is not slot and member.poll is not None:
                found = member.poll()
                if member in self._measuring:
                    member.phase.polled(slot.number, found, member.ready > 0)

    def _move(self, member: _Member, slot: _Slot) -> None:
        """Move a call that was just served one slot earlier: its next frame leaves 16 ms after this one."""
        # The slot before the first is the last one of the same period.
        self._put(member, slot, slot.number - 1, slot.done + (slot.number > 0))
        member.phase.move()

    def _wait(self, member: _Member, slot: _Slot) -> None:
        """Move a call one slot later, unserved: its frame leaves there, 24 ms after the last one."""
        number = (slot.number + 1) % len(self._slots)
        self._put(member, slot, number, slot.done + (number == 0))
        self._measuring.discard(member)
        member.phase.wait()

    def _put(self, member: _Member, slot: _Slot, number: int, period: int) -> None:
        target = self._slots[number]
        if not target.members:
            target.done, target.debt = self._periods_due(target), 0
        slot.remove(member)
        target.add(member)
        member.not_before = period
        self.moves += 1

    def _second_over(self) -> None:
        for member in self._members.values():
            if member.poll is not None and member.phase.second():
                self._measuring.add(member)
