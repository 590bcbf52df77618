"""Who is in a worker's place, on fake time and with processes that do as told."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.server.workers.control_pipe import RETIRE, STOP
from rapida_twisted.server.workers.slot import LONGEST_PAUSE_S, Slot
from rapida_twisted.server.workers.worker_process import WorkerProcess


class FakeProcess:
    """Notes its orders; is ready, and ends, when the test says."""

    def __init__(self, ready: Callable[[], None]) -> None:
        self.ready = ready
        self.row = 1
        self.orders: list[str] = []
        self.killed = False
        self._ended: list[Deferred[str]] = []

    def order(self, word: str) -> None:
        """Note it."""
        self.orders.append(word)

    def kill(self) -> None:
        """End it."""
        self.killed = True
        self.end("signal 9")

    def when_ended(self) -> Deferred[str]:
        """Fires with :meth:`end`."""
        self._ended.append(Deferred())
        return self._ended[-1]

    def end(self, how: str = "exit code 1") -> None:
        """It ends."""
        ended, self._ended = self._ended, []
        for each in ended:
            each.callback(how)


class PlaceTests(SynchronousTestCase):
    """One place."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.spawned: list[FakeProcess] = []
        self.ready_count = 0
        self.fails = False
        self.place = Slot("worker 1", self.spawn, self.ready, self.clock)
        self.place.fill()
        (self.first,) = self.spawned
        self.first.ready()
        self.ready_count = 0

    def spawn(self, ready: Callable[[], None]) -> WorkerProcess:
        """Start a process, or fail to."""
        if self.fails:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.spawned.append(FakeProcess(ready))
        return cast(WorkerProcess, self.spawned[-1])

    def ready(self) -> None:
        """The place's worker listens."""
        self.ready_count += 1

    def test_hung(self) -> None:
        """A process that does not respond is killed, and replaced like one that died; its successor is left alone."""
        silent_s = {1: 30.0}
        self.place.kill_hung(silent_s.__getitem__, 30)
        self.assertFalse(self.first.killed)
        silent_s[1] = 30.1
        self.place.kill_hung(silent_s.__getitem__, 30)
        self.assertTrue(self.first.killed)
        self.wait_for_next(5)
        self.place.kill_hung({1: 0.0}.__getitem__, 30)
        self.assertFalse(self.spawned[-1].killed)

    def wait_for_next(self, limit_s: float) -> float:
        """How long until one more was started."""
        count, passed_s = len(self.spawned), 0.0
        while len(self.spawned) == count and passed_s < limit_s:
            self.clock.advance(0.1)
            passed_s += 0.1
        self.assertEqual(len(self.spawned), count + 1)
        return passed_s

    def test_dies_after_long(self) -> None:
        """One that ran for long is started again at once."""
        self.clock.advance(61)
        self.first.end()
        self.clock.advance(0)
        self.assertEqual(len(self.spawned), 2)
        self.spawned[1].ready()
        self.assertEqual(self.ready_count, 1)

    def test_keeps_dying(self) -> None:
        """One that dies again and again is started ever more rarely, and a minute apart in the end."""
        pauses = []
        for _ in range(9):
            self.spawned[-1].end()
            pauses.append(self.wait_for_next(2 * LONGEST_PAUSE_S))
        for number, pause_s in enumerate(pauses):
            most_s = min(LONGEST_PAUSE_S, 2.0**number)
            self.assertTrue(0.5 * most_s - 0.01 <= pause_s <= most_s + 0.2, (number, pause_s))
        self.spawned[-1].ready()
        self.clock.advance(61)
        self.spawned[-1].end()
        self.clock.advance(0)
        self.spawned[-1].end()
        self.assertLess(self.wait_for_next(5), 1.2)

    def test_replaced(self) -> None:
        """The old one goes when the new one listens, and is not missed when it is gone."""
        replaced = self.place.replace()
        self.assertEqual((len(self.spawned), self.first.orders), (2, []))
        self.assertNoResult(replaced)
        self.spawned[1].ready()
        self.assertEqual((self.first.orders, self.spawned[1].orders), ([RETIRE], []))
        self.assertTrue(self.successResultOf(replaced))
        self.assertEqual(len(self.place.processes), 2)
        self.first.end("in order")
        self.clock.advance(100)
        self.assertEqual(self.place.processes, [self.spawned[1]])
        self.spawned[1].end()
        self.clock.advance(0)
        self.assertEqual(len(self.spawned), 3)

    def test_successor_does_not_come(self) -> None:
        """One that can't start takes nobody's place, and is not started again."""
        replaced = self.place.replace()
        self.spawned[1].end()
        self.assertFalse(self.successResultOf(replaced))
        self.clock.advance(100)
        self.assertEqual((len(self.spawned), self.first.orders), (2, []))
        again = self.place.replace()
        self.spawned[2].ready()
        self.assertTrue(self.successResultOf(again))

    def test_hangs_at_its_start(self) -> None:
        """One that is not ready within a minute is killed: a successor does not come, another one is tried."""
        replaced = self.place.replace()
        self.clock.advance(59)
        self.assertNoResult(replaced)
        self.clock.advance(2)
        self.assertTrue(self.spawned[1].killed)
        self.assertFalse(self.successResultOf(replaced))
        self.first.end()
        self.wait_for_next(2)
        self.clock.advance(61)
        self.assertTrue(self.spawned[2].killed)
        self.clock.advance(0)
        self.assertEqual(len(self.spawned), 4)

    def test_close(self) -> None:
        """Once it is closed nobody is started, whoever ends."""
        self.place.close()
        self.first.end("in order")
        self.clock.advance(100)
        self.assertEqual(len(self.spawned), 1)

    def test_dies_while_being_replaced(self) -> None:
        """Then the new one is the place's worker, and no third is started."""
        self.place.replace()
        self.first.end()
        self.spawned[1].ready()
        self.clock.advance(200)
        self.assertEqual((len(self.spawned), self.spawned[1].orders), (2, []))

    def test_dies_long_before_its_successor_comes(self) -> None:
        """Then both the next one and the successor come, and the one that listens last stays."""
        self.place.replace()
        self.first.end()
        self.wait_for_next(2)
        self.spawned[2].ready()
        self.spawned[1].ready()
        self.assertEqual((self.spawned[1].orders, self.spawned[2].orders), ([], [RETIRE]))
        self.spawned[2].end("in order")
        self.clock.advance(100)
        self.assertEqual(self.place.processes, [self.spawned[1]])

    def test_replaced_twice_at_once(self) -> None:
        """There is one successor at a time; where nobody is, the next one comes anyway."""
        self.place.replace()
        self.assertFalse(self.successResultOf(self.place.replace()))
        self.spawned[1].end()
        self.first.end()
        self.assertTrue(self.successResultOf(self.place.replace()))
        self.assertEqual(len(self.spawned), 2)
        self.wait_for_next(2)

    def test_no_process_can_be_made(self) -> None:
        """It is tried again later, as if one had died; a successor does not come then."""
        self.fails = True
        self.assertRaises(BlockingIOError, Slot("other", self.spawn, self.ready, self.clock).fill)
        self.assertFalse(self.successResultOf(self.place.replace()))
        self.first.end()
        self.clock.advance(1)
        self.clock.advance(2)
        self.assertEqual(len(self.spawned), 1)
        self.fails = False
        self.wait_for_next(5)

    def test_stop(self) -> None:
        """All who are here are told; it is over when they are gone, and none is started again."""
        self.place.replace()
        self.spawned[1].ready()
        stopped = self.place.stop(30)
        self.assertEqual((self.first.orders, self.spawned[1].orders), ([RETIRE, STOP], [STOP]))
        self.first.end("in order")
        self.assertNoResult(stopped)
        self.spawned[1].end("in order")
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.successResultOf(self.place.stop(30)) is None)
        self.place.replace()
        self.assertEqual(len(self.spawned), 2)

    def test_stop_while_nobody_is_here(self) -> None:
        """None is started any more."""
        self.first.end()
        self.successResultOf(self.place.stop(30))
        self.clock.advance(100)
        self.assertEqual(len(self.spawned), 1)

    def test_does_not_end(self) -> None:
        """Who does not end in time is killed."""
        stopped = self.place.stop(30)
        self.clock.advance(29.9)
        self.assertFalse(self.first.killed)
        self.clock.advance(0.2)
        self.assertTrue(self.first.killed)
        self.successResultOf(stopped)
