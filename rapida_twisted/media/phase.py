"""Which slot of the period suits a call: the one just after its own packets arrive.

A packet that comes just after its call was read waits for nearly a period. So each call listens now and then: for some
periods it is read in every slot, and which slots found something tells when its packets come. Then it moves to where
they wait least, one slot at a time and always to an earlier one: each step takes 5 ms out of the delay of what is on
its way through the call. (A step to a later slot would add them: a frame more would wait, for as long as there is no
silence to leave out.) Listening costs reads only: no frame leaves earlier or later for it.

Nothing here knows what a packet is, or how long. Packets of 10 ms come in two slots of each period, those of 30 ms in
two slots of every three periods, those of 60 ms in one slot of every third; what counts is in which slots, and how many
periods in a row usually bring nothing. Pure: no I/O, no time but what it is told.
"""

from __future__ import annotations

__all__ = ["Phase"]

WANTED_PERIODS = 6
"""Periods with packets that a call listens for; and at the most four times as many periods."""
LONGEST_PERIODS = 4 * WANTED_PERIODS
FIRST_PAUSE_S = 1
LONGEST_PAUSE_S = 60
"""While listening changes nothing, the pauses between grow up to this."""
LONGEST_ALARM_S = 8
"""A call whose packets were missed may listen after so long at the latest, whatever it did before."""
WORTH = 0.7
"""A move must cut the waits (their squares) down to this share."""


class Phase:
    """Where one call's packets come in the period, and where its slot ought to be.

    :param slots: how many slots a period has.
    :param slot: the call's slot, where its frames leave.
    """

    __slots__ = (
        "_alarm_s", "_empty", "_found", "_nothing", "_pause_s", "_periods", "_rest_s", "_usual", "_with_packets",
        "gap", "listening", "slot", "slots", "target",
    )  # fmt: skip

    def __init__(self, slots: int, slot: int) -> None:
        self.slots = slots
        self.slot = slot
        self.target = slot
        """Where it ought to be; it gets there one slot at a time, each one earlier."""
        self.listening = False
        """Whether it is to be read in every slot."""
        self.gap = 0
        """Periods in a row in which nothing came."""
        self._found: list[int] = []
        self._nothing = False
        self._periods = 0
        self._with_packets = 0
        self._empty = 0
        self._usual = 0
        self._pause_s = FIRST_PAUSE_S
        self._alarm_s = FIRST_PAUSE_S
        self._rest_s = 0

    def second(self) -> bool:
        """A second is over; whether the call begins to listen now."""
        self._rest_s += 1
        if self.listening or self._rest_s < self._pause_s:
            return False
        self.listen()
        return True

    def gap_over(self) -> bool:
        """Something came after periods without; whether that was so unusual that the call begins to listen now.

        Packets that move later in the period pass their call's slot once, and that read finds nothing.
        """
        gap, self.gap = self.gap, 0
        if gap <= self._usual or self.listening or self._rest_s < self._alarm_s:
            return False
        self.listen()
        return True

    def heard(self, slot: int, found: bool) -> None:
        """The call was read in this slot while it listens; whether something had come since the read before."""
        if found:
            self._found[slot] += 1
            self._nothing = False

    def period_over(self) -> bool:
        """The call was read in its own slot while it listens: a period is over. Whether it has listened enough."""
        if self._nothing:
            # Nothing came in this period.
            self._empty += 1
        else:
            if self._with_packets:
                self._usual = max(self._usual, self._empty)
            self._with_packets += 1
            self._empty = 0
        self._nothing = True
        self._periods += 1
        if self._with_packets < WANTED_PERIODS and self._periods < LONGEST_PERIODS:
            return False
        self._decide()
        return True

    def wait(self, slot: int) -> int:
        """How long the packets that were found would wait for this slot: squares, since one long wait is worse than
        several short ones."""
        return sum(found * ((slot - came) % self.slots) ** 2 for came, found in enumerate(self._found) if found)

    def stop(self) -> None:
        """Listen no more, without a result."""
        self.listening = False
        self._rest_s = 0

    def listen(self) -> None:
        """Begin to listen."""
        self.listening = True
        self._found = [0] * self.slots
        self._nothing = True
        self._periods = self._with_packets = self._empty = self._usual = 0

    def _decide(self) -> None:
        self.listening = False
        self._rest_s = 0
        self.gap = 0
        now = self.wait(self.slot)
        # From the own slot on, so that it stays where others are no better.
        best = min(((self.slot - back) % self.slots for back in range(self.slots)), key=self.wait)
        if self._with_packets >= 2 and self.wait(best) <= WORTH * now and best != self.slot:
            self.target = best
            self._pause_s = max(FIRST_PAUSE_S, self._pause_s // 2)
            self._alarm_s = FIRST_PAUSE_S
        else:
            self.target = self.slot
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._alarm_s = min(2 * self._alarm_s, LONGEST_ALARM_S)
