"""The counts that processes share."""

from __future__ import annotations

import os
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.server.role import ACCEPTING, BEAT
from rapida_twisted.server.workers.scoreboard import COLUMNS, ROWS, Scoreboard


class BoardTests(SynchronousTestCase):
    """One memory, and three processes."""

    def setUp(self) -> None:
        self.parent = Scoreboard.make()
        self.addCleanup(os.close, self.parent.fd)
        self.workers = [Scoreboard(self.parent.fd, row) for row in (1, 2, ROWS - 1)]

    def test_elsewhere(self) -> None:
        """Each knows what the others have together, of each thing by itself."""
        for count, worker in enumerate(self.workers, 1):
            worker.counter("calls").publish(10 * count)
            worker.counter("HTTP").publish(count)
        self.assertEqual([worker.counter("calls").others for worker in self.workers], [50, 40, 30])
        self.assertEqual([worker.counter("HTTP").others for worker in self.workers], [5, 4, 3])
        self.assertEqual(self.workers[0].counter("AudioSocket").others, 0)

    def test_process_is_gone(self) -> None:
        """What it had counts no more; what the others have does."""
        for worker in self.workers:
            for name in COLUMNS:
                worker.counter(name).publish(7)
        self.parent.wipe(2)
        self.assertEqual([worker.counter("calls").others for worker in self.workers], [7, 14, 7])

    def test_heartbeats(self) -> None:
        """The supervisor sees how long ago each process had its last heartbeat."""
        self.assertEqual(self.parent.silent_s(1), 0)
        self.workers[0].counter(BEAT).publish(int((time.monotonic() - 5) * 1000))
        self.assertLess(abs(self.parent.silent_s(1) - 5), 0.5)
        self.assertEqual(self.parent.silent_s(2), 0)
        self.parent.wipe(1)
        self.assertEqual(self.parent.silent_s(1), 0)

    def test_bridges(self) -> None:
        """All processes see which calls are bridged; the counts stay as they are."""
        call = "6b0e2a52-8f4c-4a53-9c3e-3d3b6d7c0f11"
        self.workers[2].bridges.add(call)
        self.workers[2].counter("AudioSocket").publish(7)
        self.assertEqual([worker.bridges.get(call) for worker in self.workers], [False] * 3)
        self.assertEqual(self.workers[0].counter("AudioSocket").others, 7)
        self.workers[2].bridges.set_bridged(call)
        self.assertIs(self.workers[0].bridges.get(call), True)

    def test_ahead(self) -> None:
        """Who has more than the one with the fewest, of those that take more, is ahead by so many."""
        for count, worker in zip((5, 2, 9), self.workers, strict=True):
            worker.counter("HTTP").publish(count)
        self.assertEqual(self.workers[0].counter("HTTP").surplus, 0)
        for worker in self.workers:
            worker.counter(ACCEPTING).publish(1)
        self.assertEqual([worker.counter("HTTP").surplus for worker in self.workers], [3, 0, 7])
        self.workers[1].counter(ACCEPTING).publish(0)
        self.assertEqual([worker.counter("HTTP").surplus for worker in self.workers], [0, -3, 4])

    def test_nobody_shares_it(self) -> None:
        """Something that the board has no place for is counted by each process for itself."""
        counter = self.workers[0].counter("keys")
        counter.publish(3)
        self.assertEqual((self.workers[1].counter("keys").others, counter.surplus), (0, 0))

    @given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(COLUMNS), st.integers(0, 1 << 40))))
    def test_any_counts(self, told: list[tuple[int, str, int]]) -> None:
        """Whatever was told last holds."""
        for row in range(ROWS):
            self.parent.wipe(row)
        last: dict[tuple[int, str], int] = {}
        for number, name, count in told:
            self.workers[number].counter(name).publish(count)
            last[number, name] = count
        for mine, worker in enumerate(self.workers):
            for name in COLUMNS:
                others = sum(last.get((number, name), 0) for number in range(3) if number != mine)
                self.assertEqual(worker.counter(name).others, others)
