"""Every rejection is counted, and a few of each kind are logged."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, LogPublisher, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.ports.rejection_log import RejectionLog

HERE = IPv4Address("TCP", "127.0.0.1", 1)
FAR = IPv4Address("TCP", "8.8.8.8", 1)


class RefusalsTests(SynchronousTestCase):
    """A few lines a minute of each kind."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.rejections = RejectionLog(self.clock.seconds)
        self.events: list[Any] = []
        self.log = Logger("the.test", observer=LogPublisher(self.events.append))

    def add(self, name: str = "http.garbage", peer: Any = FAR, times: int = 1) -> None:
        """One rejection."""
        for _ in range(times):
            self.rejections.add(name, peer, self.log, "{peer} is refused for {name}", peer=peer.host, name=name)

    def lines(self) -> list[str]:
        """What was logged since the last time."""
        said = [formatEvent(event) for event in self.events]
        self.events.clear()
        return said

    def test_flood(self) -> None:
        """Of a flood three lines are seen, and then one every 20 s, which tells how many there were; every one is
        counted."""
        line = "8.8.8.8 is refused for http.garbage"
        self.add(times=1000)
        self.assertEqual(self.lines(), [line] * 3)
        self.clock.advance(19.9)
        self.add()
        self.assertEqual(self.lines(), [])
        self.clock.advance(0.2)
        self.add(times=5)
        self.assertEqual(self.lines(), [line + " (998 more of this kind since the last such line)"])
        self.assertEqual(self.rejections.counts["http.garbage"], 1006)

    def test_kinds(self) -> None:
        """Another kind, or another sort of address, has lines of its own."""
        for name in ("http.garbage", "http.401"):
            for peer in (HERE, FAR):
                self.add(name, peer, times=10)
        self.assertEqual(len(self.lines()), 4 * 3)

    def test_flood_is_over(self) -> None:
        """Omitted lines are logged once if no further line of their kind comes."""
        self.add(times=5)
        self.rejections.flush()
        self.assertEqual(len(self.lines()), 3)
        self.clock.advance(20)
        for _ in range(3):
            self.rejections.flush()
        self.assertEqual(self.lines(), ["rejected 2 more from public addresses: http.garbage"])
        self.clock.advance(61)
        self.rejections.flush()
        self.assertEqual(self.rejections._kinds, {})
        self.add()
        self.assertEqual(self.lines(), ["8.8.8.8 is refused for http.garbage"])

    def test_nothing_left_out(self) -> None:
        """A rejection that was logged itself is not logged again."""
        self.add()
        self.clock.advance(21)
        self.rejections.flush()
        self.assertEqual(len(self.lines()), 1)

    def test_values_when_needed(self) -> None:
        """What costs time to say is only made for lines that are written."""
        made: list[int] = []
        for _ in range(10):
            self.rejections.tell("a", FAR, self.log, "{what}", what=lambda: made.append(1) or "so")
        self.assertEqual((self.lines(), len(made)), (["so"] * 3, 3))
        self.assertEqual(self.rejections.counts, {})

    def test_level(self) -> None:
        """A line has the level that it is given, and the caller's name."""
        self.rejections.add("a", None, self.log, "b", level=LogLevel.info)
        (event,) = self.events
        self.assertEqual((event["log_level"], event["log_namespace"]), (LogLevel.info, "the.test"))
