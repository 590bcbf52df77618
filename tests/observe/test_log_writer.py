"""Log lines are written in a thread, from a bounded queue."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.harness.ports import free_port
from rapida_twisted.observe import log_writer
from rapida_twisted.observe.log_writer import LogWriter
from tests.support.twistd_program import BIN, KEY, Program, wait_for


class LogWriterTests(SynchronousTestCase):
    """A writer whose reader reads when the test says so."""

    def setUp(self) -> None:
        self.lines: list[str] = []
        self.reading = threading.Event()
        self.reading.set()
        self.writer = LogWriter(self.write, lambda count: f"{count} dropped")
        self.patch(log_writer, "STOP_S", 0.2)
        self.addCleanup(self.reading.set)

    def write(self, lines: Sequence[str]) -> None:
        """Block as a full pipe does."""
        self.reading.wait(20)
        self.lines += lines

    def test_at_once(self) -> None:
        """Before the start and after the stop lines are there when add() returns; between them none is lost."""
        self.writer.add("a")
        self.assertEqual(self.lines, ["a"])
        self.writer.start()
        for number in range(1000):
            self.writer.add(str(number))
        self.writer.stop()
        self.assertEqual(self.lines, ["a", *map(str, range(1000))])
        self.writer.add("b")
        self.assertEqual(self.lines[-1], "b")

    def test_slow_reader(self) -> None:
        """add() does not wait; what exceeds the queue is dropped, counted, and told of once."""
        self.patch(log_writer, "QUEUE_CHARACTERS", 50)
        self.reading.clear()
        self.writer.start()
        began_s = time.monotonic()
        for _ in range(1000):
            self.writer.add("x" * 10)
        self.assertLess(time.monotonic() - began_s, 1)
        self.reading.set()
        self.writer.stop()
        self.assertEqual(len(self.lines) - 1 + self.writer.dropped, 1000)
        self.assertLessEqual(len(self.lines), 11)
        self.assertIn(f"{self.writer.dropped} dropped", self.lines)

    def test_stuck(self) -> None:
        """A reader that never reads holds the end up for a limited time."""
        self.reading.clear()
        self.writer.start()
        self.writer.add("a")
        self.writer.stop()
        self.writer.add("b")
        self.assertEqual(self.writer.dropped, 1)

    def test_calls(self) -> None:
        """A function is called between the lines that it was added between."""
        self.writer.start()
        for number in range(3):
            self.writer.add(str(number))
            self.writer.add(lambda: self.lines.append("-"))
        self.writer.stop()
        self.assertEqual(self.lines, ["0", "-", "1", "-", "2", "-"])

    def test_broken(self) -> None:
        """A file that can't be written to drops lines, and breaks nothing."""

        def write(lines: Sequence[str]) -> None:
            raise OSError("full")

        writer = LogWriter(write, str)
        writer.add("a")
        writer.start()
        writer.add("b")
        writer.stop()
        self.assertEqual(writer.dropped, 2)


class StalledPipeTests(SynchronousTestCase):
    """The real server, with nobody at the other end of its stdout."""

    slow = True

    def test_goes_on(self) -> None:
        """It answers, though its log fills the pipe, and ends."""
        folder, port = Path(self.mktemp()).absolute(), free_port()
        folder.mkdir()
        words = [
            str(BIN / "twistd"), "-n", "--pidfile=", "rapida-media", "--state-dir", str(folder / "state"),
            "--audiosocket-port", "0", "--http-port", str(port), "--admin-port", "0",
        ]  # fmt: skip
        process = subprocess.Popen(words, cwd=folder, env={"RAPIDA_API_KEY": KEY}, stdout=subprocess.PIPE)
        self.addCleanup(process.kill)
        program = Program.__new__(Program)
        program.url = f"http://127.0.0.1:{port}"

        def is_up() -> bool:
            try:
                return program.ask("/readyz")[0] == 200
            except OSError:
                return False

        wait_for(is_up)
        for _ in range(900):
            self.assertEqual(program.ask("/v1/calls?x=" + "y" * 400)[0], 200)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0)
        assert process.stdout is not None
        process.stdout.close()
