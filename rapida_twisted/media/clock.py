"""The one clock of all calls.

Voice is isochronous: each call owes its caller one frame every 20 ms, for ever, and gets one from him. So there is one
timer for all calls and none for each: the period is cut into slots, each call sits in a slot, and the deadlines of a
slot are absolute, from a monotonic start. Never "20 ms after the last one", which drifts, and never wall time, which
jumps.

When the process was held up, a slot pays its debt with at most two frames a period, so that no burst reaches the
caller's jitter buffer; of a debt beyond 100 ms the older part is forgiven and counted. Silence is not made up for.

With many calls the clock reads their connections, too (*polling*): once a period, right before the call's next frame
leaves, in the slot that follows its packets. With few the reactor does (*events*). See :mod:`.governor` and
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
MAX_FRAMES_A_TICK = 2
MAX_DEBT_FRAMES = 5


class Ticking(Protocol):
    """What the clock ticks: a call.

    Optional attributes: ``reading`` (:class:`IPolledReader`) lets the clock read the connection, ``idle`` tells whether
    the playout queue is empty, ``ready`` is the number of whole live frames that wait in it.
    """

    def tick(self) -> None:
        """Send one frame now. Called once a period, or twice in a row to make up for a late tick."""


class _Seat:
    """One call's place in the clock.

    :param reading: of its connection; None where only the reactor can read that.
    """

    __slots__ = ("member", "not_before", "phase", "poll", "reading", "slot", "tick")

    def __init__(self, member: Ticking, slot: _Slot, slots: int) -> None:
        self.member = member
        self.slot: _Slot | None = slot
        """None: it has left."""
        self.tick = member.tick
        self.reading: IPolledReader | None = getattr(member, "reading", None)
        self.poll: Callable[[], bool] | None = None
        """What reads the connection, while the clock does."""
        self.phase = Phase(slots, slot.number)
        self.not_before = 0
        """The slot's period in which its next turn is."""

    @property
    def idle(self) -> bool:
        """Whether it has nothing to say: silence need not be on time, nor made up for."""
        return getattr(self.member, "idle", False)

    @property
    def ready(self) -> int:
        """Whole frames of the caller's audio that wait to be said."""
        return getattr(self.member, "ready", 0)


class _Slot:
    """The calls that share a deadline."""

    def __init__(self, number: int, offset_s: float) -> None:
        self.number = number
        self.offset_s = offset_s
        self.seats: dict[_Seat, None] = {}
        self.round: tuple[_Seat, ...] = ()
        self.done = 0
        """Periods that this slot has behind it."""
        self.debt = 0
        """Periods that were due at the last tick and are still to be paid, one more with each period."""

    def enter(self, seat: _Seat) -> None:
        seat.slot = self
        self.seats[seat] = None
        self.round = tuple(self.seats)

    def leave(self, seat: _Seat) -> None:
        seat.slot = None
        del self.seats[seat]
        self.round = tuple(self.seats)


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
        self.late_ticks = 0
        """Ticks of a slot that began after the next slot's deadline."""
        self.moves = 0
        """How often a call was moved to a neighbouring slot."""
        self.busy_s = 0.0
        """Time spent in ticks."""
        self._since_s = now()
        self.polling = False
        """Whether connections are read by the clock; see :meth:`set_polling`."""
        self._reactor = reactor
        self._now = now
        self._period_s = period_s
        self._slots = [_Slot(number, period_s * number / slots) for number in range(slots)]
        self._seats: dict[Ticking, _Seat] = {}
        self._listening: set[_Seat] = set()
        """Those who are read in every slot."""
        self._second_ends_s = 0.0
        self._start_s = 0.0
        self._timer: IDelayedCall | None = None
        self._in_tick = False

    def reset_figures(self) -> None:
        """Begin to count anew."""
        self.lateness.reset()
        self.forgiven = self.late_ticks = self.moves = 0
        self.busy_s = 0.0
        self._since_s = self._now()

    @property
    def share(self) -> float:
        """The share of the time that was spent in ticks."""
        return self.busy_s / max(self._now() - self._since_s, self._period_s)

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def calls_of_slots(self) -> list[int]:
        """How many calls sit in each slot."""
        return [len(slot.seats) for slot in self._slots]

    @property
    def polled(self) -> int:
        """Calls whose connections are read by the clock."""
        return sum(seat.poll is not None for seat in self._seats.values())

    def add(self, member: Ticking) -> None:
        """Tick this one from now on, in the slot with the fewest members."""
        if member in self._seats:
            return
        if self._timer is None and not self._in_tick:
            self._start_s = self._now()
        slot = min(self._slots, key=lambda slot: len(slot.seats))
        if not slot.seats:
            slot.done, slot.debt = self._periods_due(slot), 0
        seat = self._seats[member] = _Seat(member, slot, len(self._slots))
        slot.enter(seat)
        if self.polling:
            self._take_over(seat)
        if not self._in_tick:
            self._set_timer()

    def remove(self, member: Ticking) -> None:
        """Tick it no more; nothing happens if it is not here."""
        seat = self._seats.pop(member, None)
        if seat is None:
            return
        assert seat.slot is not None
        seat.slot.leave(seat)
        self._give_back(seat)
        if not self._seats and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Who reads

    def set_polling(self, polling: bool) -> None:
        """Read the connections from now on, or have the reactor do it. What has come stays in its order, whoever
        reads it."""
        if polling == self.polling:
            return
        self.polling = polling
        for seat in list(self._seats.values()):
            if polling:
                self._take_over(seat)
            else:
                self._give_back(seat)

    def _take_over(self, seat: _Seat) -> None:
        if seat.reading is not None:
            seat.reading.take_over()
            seat.poll = seat.reading.poll
            seat.phase.listen()
            self._listening.add(seat)

    def _give_back(self, seat: _Seat) -> None:
        if seat.poll is not None and seat.reading is not None:
            seat.poll = None
            seat.reading.give_back()
        seat.phase.stop()
        self._listening.discard(seat)

    # Ticks

    def _periods_due(self, slot: _Slot) -> int:
        """How many deadlines of the slot are over; the margin is for the rounding of floats."""
        return floor((self._now() - self._start_s - slot.offset_s) / self._period_s + 1e-6)

    def _tick(self) -> None:
        self._timer, self._in_tick = None, True
        began_s = self._now()
        try:
            for slot in self._slots:
                if slot.round or self._listening:
                    self._run(slot)
            if self.polling and began_s >= self._second_ends_s:
                self._second_ends_s = began_s + 1.0
                self._a_second_is_over()
        finally:
            self._in_tick = False
            self.busy_s += self._now() - began_s
            if self._seats:
                self._set_timer()

    def _run(self, slot: _Slot) -> None:
        """Tick a slot's members, if it is due."""
        due = self._periods_due(slot) - slot.done
        if due <= slot.debt:
            return
        if not slot.round:
            slot.done, slot.debt = slot.done + due, 0
            self._listen(slot)
            return
        if due > MAX_DEBT_FRAMES:
            self.forgiven += (due - MAX_DEBT_FRAMES) * len(slot.round)
            slot.done += due - MAX_DEBT_FRAMES
            due = MAX_DEBT_FRAMES
        frames = min(due, MAX_FRAMES_A_TICK)
        deadline_s = self._start_s + slot.offset_s + (slot.done + 1) * self._period_s
        slot.done += frames
        slot.debt = due - frames
        if due > 1 or self._now() - deadline_s > self._period_s / len(self._slots):
            self.late_ticks += 1
        if self._listening:
            self._listen(slot)
        self._serve(slot, frames, deadline_s)

    def _serve(self, slot: _Slot, frames: int, deadline_s: float) -> None:
        """Read and tick each of a slot's members."""
        now, late = self._now, self.lateness.add
        for seat in slot.round:
            try:
                expected = seat.poll is None or self._read(seat)
                if seat.slot is not slot or slot.done < seat.not_before:
                    continue
                if not expected and seat.idle:
                    self._wait(seat, slot)
                    continue
                seat.tick()
                late(now() - deadline_s)
                if frames > 1 and seat.slot is slot and not seat.idle:
                    seat.tick()
                    late(now() - deadline_s - self._period_s)
                if seat.phase.steps and seat.slot is slot:
                    self._move(seat, slot)
            except Exception:
                self._log.failure("a tick failed, and its call leaves the clock: {member!r}", member=seat.member)
                self.remove(seat.member)

    def _set_timer(self) -> None:
        """Wake up at the next deadline of a slot that has members; while somebody listens, of any."""
        slots = self._slots if self._listening else [slot for slot in self._slots if slot.seats]
        next_s = min(slot.offset_s + (slot.done + slot.debt + 1) * self._period_s for slot in slots)
        wait_s = max(0.0, self._start_s + next_s - self._now())
        if self._timer is None:
            self._timer = self._reactor.callLater(wait_s, self._tick)
        else:
            self._timer.reset(wait_s)

    # Polling

    def _read(self, seat: _Seat) -> bool:
        """It is a call's turn: read its connection. Whether what came, or did not, was to be expected."""
        assert seat.poll is not None
        phase = seat.phase
        came = seat.poll()
        if phase.listening:
            ready = seat.ready
            phase.heard(phase.slot, came, ready > 0)
            came = phase.came
            if phase.turn_over(ready - 1):
                self._listening.discard(seat)
            return phase.turn(came)
        expected = phase.turn(came)
        if phase.listening:
            self._listening.add(seat)
        return expected

    def _listen(self, slot: _Slot) -> None:
        """Read those who listen and sit elsewhere."""
        for seat in tuple(self._listening):
            if seat.slot is not slot and seat.poll is not None:
                found = seat.poll()
                if seat in self._listening:
                    seat.phase.heard(slot.number, found, seat.ready > 0)

    def _move(self, seat: _Seat, slot: _Slot) -> None:
        """Move a call, which was just served, to the slot before: its next frame leaves 16 ms after this one."""
        # The slot before the first is the last one of the same period.
        self._seat_in(seat, slot, slot.number - 1, slot.done + (slot.number > 0))
        seat.phase.move()

    def _wait(self, seat: _Seat, slot: _Slot) -> None:
        """Move a call to the next slot, and serve it there first: 24 ms after its last frame."""
        number = (slot.number + 1) % len(self._slots)
        self._seat_in(seat, slot, number, slot.done + (number == 0))
        self._listening.discard(seat)
        seat.phase.wait()

    def _seat_in(self, seat: _Seat, slot: _Slot, number: int, period: int) -> None:
        there = self._slots[number]
        if not there.seats:
            there.done, there.debt = self._periods_due(there), 0
        slot.leave(seat)
        there.enter(seat)
        seat.not_before = period
        self.moves += 1

    def _a_second_is_over(self) -> None:
        for seat in self._seats.values():
            if seat.poll is not None and seat.phase.second():
                self._listening.add(seat)
