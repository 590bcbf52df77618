"""The phase of a call: chooses the slot of the media clock just after the call's packets arrive.

A packet that arrives just after its call was read waits for nearly 20 ms::

    slot              0    1    2    3    4    0    1    2    3    4
    packets arrive          ^                        ^                 slots of 4 ms, one packet per period
    read in slot 0    R . . . . . . . . . . . .R                       the packet waits about 14 ms
    read in slot 2              R                        R             after three moves: about 2 ms

A call therefore measures now and then: for some periods the clock reads it in every slot. A call that echoes (or a
conference) learns how many slots earlier a frame was ready each time. Any other call learns in which slots its packets
arrive, and picks the one before the longest gap. Then it moves there, always to an earlier slot and one at a time; each
move removes 4 ms of delay. Measuring costs reads only: frames leave at the same times meanwhile.

In the other direction, packets that drift later arrive one day just after their turn. A call that would only send
silence then waits for its packet in the next slot; otherwise that silence would delay its audio from then on.

Packets may have any length: 10 ms arrive in two slots of each period, 30 ms in two slots of every three periods, 60 ms
in one slot of every third. Pure: no I/O and no clock.
"""

from __future__ import annotations

__all__ = ["Phase"]

WANTED_PERIODS = 6
"""Periods with packets that a measurement needs."""
LONGEST_PERIODS = 4 * WANTED_PERIODS
"""Periods after which a measurement ends in any case."""
FIRST_PAUSE_S = 1
LONGEST_PAUSE_S = 60
"""The upper limit of the pauses between measurements; they grow while measuring changes nothing."""
LONG_GAP = 3
"""Turns without a packet (60 ms, the longest usual packet) after which packets may arrive at another time."""
FLOWING = 3
"""Turns in a row with packets after which the next one is expected. Packets of 30 or 60 ms never make so many."""


class Phase:
    """When the packets of one call arrive within the period, and which slot the call should have.

    :param slots: the number of slots in a period.
    :param slot: the call's slot, in which its frames leave.
    """

    __slots__ = (
        "_always", "_arrivals", "_begun", "_full", "_pause_s", "_periods", "_ready", "_rest_s", "_with_packets",
        "came", "flow", "measuring", "slot", "slots", "steps",
    )  # fmt: skip

    def __init__(self, slots: int, slot: int) -> None:
        self.slots = slots
        self.slot = slot
        self.steps = 0
        """Moves still to make, each one slot earlier."""
        self.measuring = False
        """True while the clock is to read the call in every slot."""
        self.came = False
        """While measuring: True if a packet came since the last turn."""
        self.flow = 0
        """Consecutive turns with a packet; negative: without one."""
        self._arrivals: list[int] = []
        """Packets found in each slot."""
        self._periods = 0
        self._with_packets = 0
        self._begun = False
        self._always = -1
        """Bit k: a frame was ready k slots before every turn that sent one."""
        self._ready = 0
        self._full = 0
        self._pause_s = FIRST_PAUSE_S
        self._rest_s = 0

    def second(self) -> bool:
        """A second has passed. True if a measurement begins."""
        self._rest_s += 1
        if self.measuring or self._rest_s < self._pause_s:
            return False
        self.measure()
        return True

    def turn(self, came: bool) -> bool:
        """It is the call's turn. False if its packet is late: a call that would send silence should wait for it.

        :param came: a packet came since the last turn.
        """
        flow = self.flow
        if came:
            self.flow = flow + 1 if flow > 0 else 1
            if flow <= -LONG_GAP and self._rest_s and not self.measuring:
                self.measure()
            return True
        self.flow = flow - 1 if flow < 0 else -1
        return flow < FLOWING

    def polled(self, slot: int, found: bool, ready: bool) -> None:
        """The clock read the call in this slot, for a measurement.

        :param found: a packet had come since the read before.
        :param ready: a whole live frame waits to be sent.
        """
        if found:
            self.came = True
            if self._begun:
                self._arrivals[slot] += 1
        if ready:
            self._ready |= 1 << (self.slot - slot) % self.slots
        # The first read may find packets that came long before.
        self._begun = True

    def turn_over(self, left: int) -> bool:
        """A period of the measurement has passed. True if the measurement is complete.

        :param left: whole live frames that stay queued after this turn.
        """
        self._with_packets += self.came
        self.came = False
        if self._periods and self._ready & 1:
            self._full += 1
            self._always &= self._ready
        self._ready = 1 << self.slots if left else 0
        self._periods += 1
        if self._with_packets < WANTED_PERIODS and self._periods < LONGEST_PERIODS:
            return False
        self._decide()
        return True

    def move(self) -> None:
        """The call moved one slot earlier."""
        self.steps -= 1
        self.slot = (self.slot - 1) % self.slots

    def wait(self) -> None:
        """The call's packet is late: the call moved one slot later to wait for it, and stays there.

        The packets arrive so close to its turn that it should not move earlier again soon.
        """
        self.steps = 0
        self.slot = (self.slot + 1) % self.slots
        self._rest_for(4)
        self.stop()

    def measure(self) -> None:
        """Begin a measurement."""
        self.measuring, self.came, self._begun = True, False, False
        self._arrivals = [0] * self.slots
        self._periods = self._with_packets = self._full = self._ready = 0
        self._always = -1

    def stop(self) -> None:
        """End the measurement without a result."""
        self.measuring = False
        self._rest_s = 0

    def _decide(self) -> None:
        self.stop()
        if sum(self._arrivals) < WANTED_PERIODS // 2:
            # Too few packets for a decision.
            return
        echoes = self._full >= WANTED_PERIODS // 2
        self.steps = self._steps_by_backlog() if echoes else self._steps_by_arrivals()
        # A call whose jitter needs the delay gets it back. It should not lose it again every other second.
        self._rest_for(4 if self.steps >= self.slots else 1 if self.steps else 2)

    def _steps_by_backlog(self) -> int:
        """For a call that echoes: the moves after which each turn still has a whole frame to send."""
        return next(back for back in range(1, self.slots + 2) if not self._always >> back & 1 or back > self.slots) - 1

    def _steps_by_arrivals(self) -> int:
        """For any other call: the moves to the best slot; a single one is not worth it."""
        steps = (self.slot - self._best_slot()) % self.slots
        return steps if steps > 1 else 0

    def _best_slot(self) -> int:
        """The last slot with packets before the longest gap; of several, the nearest."""
        found, slots = self._arrivals, self.slots
        best, longest = self.slot, 0
        for back in range(slots):
            slot = (self.slot - back) % slots
            if found[slot]:
                after = next(ahead for ahead in range(1, slots + 1) if found[(slot + ahead) % slots])
                if after > longest:
                    best, longest = slot, after
        return best

    def _rest_for(self, times: int) -> None:
        self._pause_s = min(times * self._pause_s, LONGEST_PAUSE_S)
