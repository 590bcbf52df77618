"""Which slot of the period suits a call: the one just after its own packets arrive.

A packet that comes just after its call was read waits for nearly a period. So each call listens now and then: for some
periods it is read in every slot. Where the caller's audio is what the call says (an echo, a conference), that tells how
many slots earlier a frame was ready each time; where it is only heard, in which slots packets come, and after which of
them the longest stretch without begins. The call moves there, one slot at a time and always to an earlier one: each
step takes a slot's time out of the delay of all that is on its way through the call. Listening costs reads only: no
frame leaves earlier or later for it.

The other way, packets that come later and later find their call served already, one day. If it has nothing else to say
it may wait for them in the next slot: a silence there would stand between their audio and the caller for ever after.

Nothing here knows what a packet is, or how long. Packets of 10 ms come in two slots of each period, those of 30 ms in
two slots of every three periods, those of 60 ms in one slot of every third. Pure: no I/O, no time but what it is told.
"""

from __future__ import annotations

__all__ = ["Phase"]

WANTED_PERIODS = 6
"""Periods with packets that a call listens for; and at the most four times as many periods."""
LONGEST_PERIODS = 4 * WANTED_PERIODS
FIRST_PAUSE_S = 1
LONGEST_PAUSE_S = 60
"""While listening changes nothing, the pauses between grow up to this."""
LONG_GAP = 3
"""After so many turns without a packet (60 ms are the longest that are usual) they may come at another time."""
FLOWING = 3
"""After so many turns in a row with packets, which those of 30 or 60 ms do not make, the next one is expected, too."""


class Phase:
    """Where one call's packets come in the period, and where its slot ought to be.

    :param slots: how many slots a period has.
    :param slot: the call's slot, where its frames leave.
    """

    __slots__ = (
        "_always", "_begun", "_found", "_full", "_pause_s", "_periods", "_ready", "_rest_s", "_with_packets", "came",
        "flow", "listening", "slot", "slots", "steps",
    )  # fmt: skip

    def __init__(self, slots: int, slot: int) -> None:
        self.slots = slots
        self.slot = slot
        self.steps = 0
        """By so many slots it ought to move, to earlier ones."""
        self.listening = False
        """Whether it is to be read in every slot."""
        self.came = False
        """While it listens: whether something came since its last turn."""
        self.flow = 0
        """Turns in a row before which something came; below zero: before which nothing did."""
        self._found: list[int] = []
        self._periods = 0
        self._with_packets = 0
        self._begun = False
        self._always = -1
        """Bit k: whether a frame was ready k slots before each turn that said one."""
        self._ready = 0
        self._full = 0
        self._pause_s = FIRST_PAUSE_S
        self._rest_s = 0

    def second(self) -> bool:
        """A second is over; whether the call begins to listen now."""
        self._rest_s += 1
        if self.listening or self._rest_s < self._pause_s:
            return False
        self.listen()
        return True

    def turn(self, came: bool) -> bool:
        """It is the call's turn; whether something came since the last one. Gives whether that was to be expected now:
        if not, and it has nothing to say, it should wait for it."""
        flow = self.flow
        if came:
            self.flow = flow + 1 if flow > 0 else 1
            if flow <= -LONG_GAP and self._rest_s and not self.listening:
                self.listen()
            return True
        self.flow = flow - 1 if flow < 0 else -1
        return flow < FLOWING

    def heard(self, slot: int, found: bool, ready: bool) -> None:
        """The call was read in this slot while it listens.

        :param found: whether something had come since the read before.
        :param ready: whether a whole frame of what came waits to be said now.
        """
        if found:
            self.came = True
            if self._begun:
                self._found[slot] += 1
        if ready:
            self._ready |= 1 << (self.slot - slot) % self.slots
        # What the first read finds may have come long before.
        self._begun = True

    def turn_over(self, left: int) -> bool:
        """It is the call's turn, while it listens: a period is over. Whether it has listened enough.

        :param left: whole frames that this turn leaves to wait, although they could be said.
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
        """It moves one slot earlier."""
        self.steps -= 1
        self.slot = (self.slot - 1) % self.slots

    def wait(self) -> None:
        """Its packets are late, and it waits for them in the next slot, where it stays. That they are so near to its
        turn is a reason not to come nearer again soon."""
        self.steps = 0
        self.slot = (self.slot + 1) % self.slots
        self._rest_for(4)
        self.stop()

    def listen(self) -> None:
        """Begin to listen."""
        self.listening, self.came, self._begun = True, False, False
        self._found = [0] * self.slots
        self._periods = self._with_packets = self._full = self._ready = 0
        self._always = -1

    def stop(self) -> None:
        """Listen no more, without a result."""
        self.listening = False
        self._rest_s = 0

    def _decide(self) -> None:
        self.stop()
        if sum(self._found) < WANTED_PERIODS // 2:
            # Too little to tell anything from.
            return
        self.steps = self._safe() if self._full >= WANTED_PERIODS // 2 else self._worth()
        # What is taken from a line that needs it for its jitter comes back, and is not to be taken each other second.
        self._rest_for(4 if self.steps >= self.slots else 1 if self.steps else 2)

    def _safe(self) -> int:
        """By how many slots it may move without ever finding less than a frame to say."""
        return next(back for back in range(1, self.slots + 2) if not self._always >> back & 1 or back > self.slots) - 1

    def _worth(self) -> int:
        """By how many slots to move for packets that are only heard; one is not worth it."""
        steps = (self.slot - self._best()) % self.slots
        return steps if steps > 1 else 0

    def _best(self) -> int:
        """The slot after which the longest stretch without packets begins; of several such, the nearest."""
        found, slots = self._found, self.slots
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
