"""A worker as its parent sees it, and the pipe in between as the worker does."""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.server.workers.control_pipe import NEWS_FD, READY, STOP, log_event, log_line
from rapida_twisted.server.workers.worker import News
from rapida_twisted.server.workers.worker_process import LONGEST_LINE, WorkerProcess


class Pipes:
    """The transport of a process."""

    pid = 17

    def __init__(self) -> None:
        self.written = b""
        self.signals: list[str] = []
        self.gone = False
        self.pipes = {0: None, 2: None, NEWS_FD: None}

    def closeChildFD(self, file: int) -> None:  # noqa: N802
        """Close one of them."""
        del self.pipes[file]

    def write(self, data: bytes) -> None:
        """Into its standard input."""
        self.written += data

    def signalProcess(self, name: str) -> None:  # noqa: N802
        """Note it."""
        if self.gone:
            raise ProcessExitedAlready
        self.signals.append(name)


class ProcessTests(SynchronousTestCase):
    """One process."""

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.ready_count = 0
        self.clock = Clock()
        self.process = WorkerProcess("worker 1", 3, b"first\n", self.ready, self.clock)
        self.pipes = Pipes()
        self.process.makeConnection(self.pipes)

    def ready(self) -> None:
        """It listens."""
        self.ready_count += 1

    def says(self, file: int, *pieces: bytes) -> list[str]:
        """What is logged when it says this."""
        del self.events[:]
        for piece in pieces:
            self.process.childDataReceived(file, piece)
        return [str(formatEvent(event)) for event in self.events]

    def test_is_told(self) -> None:
        """What it is to be, and then orders; its end is one."""
        self.process.order(STOP)
        self.assertEqual(self.pipes.written, b'first\n{"order": "stop"}\n')
        self.process.kill()
        self.pipes.gone = True
        self.process.kill()
        self.assertEqual((self.process.pid, self.pipes.signals), (17, ["KILL"]))

    def test_log(self) -> None:
        """Its log is the parent's, with its name before each line, in whatever pieces it comes."""
        event: dict[str, Any] = {
            "log_level": LogLevel.info,
            "log_format": "a {b}",
            "b": "c",
            "log_time": 1.0,
            "log_namespace": "n.m",
        }
        line = log_line(event) + READY
        self.assertEqual(self.says(NEWS_FD, *(bytes([byte]) for byte in line)), ["a c"])
        self.assertEqual((self.events[0]["log_system"], self.events[0]["b"]), ("worker 1 n.m#info", "c"))
        self.assertEqual(self.ready_count, 1)

    def test_says_something_else(self) -> None:
        """Whatever it prints is a warning; without an end of the line it fills no memory."""
        self.assertEqual(self.says(2, b"oh\nno"), ["worker 1 wrote: oh"])
        self.assertEqual(self.says(2, b"!\n"), ["worker 1 wrote: no!"])
        for nonsense in (b"{}", b"[]", b"17", b'{"log": 3}', b'{"log": "{"}', b"\xff"):
            (said,) = self.says(NEWS_FD, nonsense + b"\n")
            self.assertTrue(said.startswith("worker 1 wrote: "), said)
        self.assertEqual(self.ready_count, 0)
        for _ in range(40):
            self.process.childDataReceived(1, b"x" * (LONGEST_LINE // 16))
        self.assertLessEqual(len(self.process._said), LONGEST_LINE)

    def test_a_child_of_it_lives(self) -> None:
        """A process that it started holds its pipes: they are closed a second after its end, so that it is missed."""
        self.process.processExited(Failure(ProcessDone(0)))
        self.clock.advance(0.9)
        self.assertEqual(len(self.pipes.pipes), 3)
        self.clock.advance(0.2)
        self.assertEqual(self.pipes.pipes, {})

    def test_ends(self) -> None:
        """Whoever waits for its end is told how it was, also who asks later."""
        waiting = self.process.when_ended()
        self.process.processEnded(Failure(ProcessTerminated(None, 9, 9)))
        how = self.successResultOf(waiting)
        self.assertIn("signal 9", how)
        self.assertEqual(self.successResultOf(self.process.when_ended()), how)
        other = WorkerProcess("worker 2", 3, b"", self.ready, self.clock)
        other.processEnded(Failure(ProcessDone(0)))
        self.assertEqual(self.successResultOf(other.when_ended()), "in order")


class NewsTests(SynchronousTestCase):
    """A pipe to a parent that is slow."""

    def setUp(self) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self.news = News(self.write_end)
        self.addCleanup(os.close, self.write_end)

    def read(self) -> bytes:
        """All that is in the pipe."""
        data = b""
        while True:
            try:
                data += os.read(self.read_end, 1 << 20)
            except BlockingIOError:
                return data

    def log(self, text: str) -> None:
        """Log something."""
        self.news({"log_level": LogLevel.info, "log_format": "{text}", "text": text})

    def test_parent_is_slow(self) -> None:
        """Nobody waits; lines are lost whole, and how many is told."""
        self.addCleanup(os.close, self.read_end)
        for number in range(1000):
            self.log(f"{number} " + 200 * "x")
        data = self.read()
        self.log("again")
        self.log("and again")
        lines = (data + self.read()).splitlines()
        texts = [log_event(json.loads(line)["log"])["log_text"] for line in lines]
        *numbers, told, again, and_again = texts
        self.assertEqual([int(text.split()[0]) for text in numbers], list(range(len(numbers))))
        self.assertEqual(told, f"{1000 - len(numbers)} lines of the log are lost here")
        self.assertEqual([again, and_again], ["again", "and again"])

    def test_say(self) -> None:
        """What must be heard is said when there is room, and not counted as lost."""
        self.addCleanup(os.close, self.read_end)
        while not self.news._lost:
            self.log(200 * "x")
        self.assertFalse(self.news.say(READY))
        self.assertEqual(self.news._lost, 1)
        self.read()
        self.assertTrue(self.news.say(READY))
        self.assertTrue(self.news.flush())
        self.assertTrue(self.read().endswith(READY))

    def test_parent_is_gone(self) -> None:
        """Nothing happens."""
        os.close(self.read_end)
        for _ in range(3):
            self.log("anybody?")
