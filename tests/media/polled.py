"""Calls whose packets come on a clock of their own, for a polling media clock on fake time."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from twisted.internet.task import Clock
from zope.interface import implementer

from rapida_twisted.interfaces import IPolledReader
from rapida_twisted.media.clock import MediaClock

STEP_S = 0.0005


@implementer(IPolledReader)
class Line:
    """A connection on which packets arrive.

    :param packet_ms: how long each is; what it carries are numbered frames of 10 ms.
    :param phase_s: when the first one comes.
    :param ppm: how fast the peer's clock is.
    :param jitter_s: how late a packet may be, at random.
    """

    def __init__(
        self, packet_ms: int, phase_s: float, *, ppm: float = 0.0, jitter_s: float = 0.0, seed: int = 1
    ) -> None:
        self.polled = False
        self.received: Callable[[int, float], None] = lambda number, came_s: None
        self.silent_from_s = self.silent_until_s = 0.0
        self.late_once_s = 0.0
        """By how much the next packet is late."""
        self.polls = 0
        self._random = random.Random(seed)
        self._jitter_s = jitter_s
        self._interval_s = packet_ms / 1000 / (1 + ppm / 1e6)
        self._frames = packet_ms // 10
        self._next_s = phase_s
        self._late_s = 0.0
        self._number = 0
        self._waiting: deque[tuple[int, float]] = deque()

    @property
    def sent(self) -> int:
        """How many frames of 10 ms came so far."""
        return self._number

    def come(self, now_s: float) -> None:
        """Packets that are due arrive; without polling, the reactor delivers them at once."""
        while self._next_s + self._late_s <= now_s:
            came_s = self._next_s + self._late_s
            if not self.silent_from_s <= came_s < self.silent_until_s:
                for _ in range(self._frames):
                    self._waiting.append((self._number, came_s))
                    self._number += 1
            self._next_s += self._interval_s
            self._late_s = self._random.random() * self._jitter_s + self.late_once_s
            self.late_once_s = 0.0
        if not self.polled:
            self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting:
            self.received(*self._waiting.popleft())

    def take_over(self) -> None:
        """As the real one."""
        assert not self.polled
        self.polled = True

    def give_back(self) -> None:
        """As the real one: the reactor finds at once what lies there."""
        self.polled = False
        self._hand_on()

    def poll(self) -> bool:
        """As the real one."""
        assert self.polled
        self.polls += 1
        found = bool(self._waiting)
        self._hand_on()
        return found


class EchoCall:
    """A call in the clock: sends the caller's audio, two halves of a frame with each tick, or silence."""

    def __init__(self, line: Line, clock: Clock, talks: bool = False) -> None:
        self.reading = line
        self.heard: list[int] = []
        self.said: list[int] = []
        self.delays_s: list[float] = []
        self.ticks_s: list[float] = []
        self.silences = 0
        self.talks = talks
        """Whether it has something of its own to say with each tick, too."""
        self._clock = clock
        self._live: deque[tuple[int, float]] = deque()
        line.received = self._received

    def _received(self, number: int, came_s: float) -> None:
        self.heard.append(number)
        self._live.append((number, came_s))

    @property
    def idle(self) -> bool:
        """Nothing to say."""
        return not self._live and not self.talks

    @property
    def ready(self) -> int:
        """Whole frames that wait."""
        return len(self._live) // 2

    def tick(self) -> None:
        """Say one frame."""
        now_s = self._clock.seconds()
        self.ticks_s.append(now_s)
        if len(self._live) < 2:
            self.silences += 1
            return
        for _ in range(2):
            number, came_s = self._live.popleft()
            self.said.append(number)
        self.delays_s.append(now_s - came_s)


class Room:
    """A clock on fake time, and calls in it."""

    def __init__(self, polling: bool = True) -> None:
        self.reactor = Clock()
        self.clock = MediaClock(self.reactor, now=self.reactor.seconds)
        self.clock.set_polling(polling)
        self.calls: list[EchoCall] = []

    def call(self, packet_ms: int = 20, phase_s: float = 0.0, *, talks: bool = False, **words: float) -> EchoCall:
        """One more call."""
        line = Line(packet_ms, self.reactor.seconds() + phase_s, **words)  # type: ignore[arg-type]
        made = EchoCall(line, self.reactor, talks)
        self.clock.add(made)
        self.calls.append(made)
        return made

    def hold_up(self, seconds: float) -> None:
        """The process gets no time for so long; packets come meanwhile."""
        until_s = self.reactor.seconds() + seconds
        for call in self.calls:
            polled, call.reading.polled = call.reading.polled, True
            call.reading.come(until_s)
            call.reading.polled = polled
        self.reactor.advance(seconds)

    def run(self, seconds: float) -> None:
        """Let time go by."""
        for _ in range(round(seconds / STEP_S)):
            self.reactor.advance(STEP_S)
            for call in self.calls:
                call.reading.come(self.reactor.seconds())
