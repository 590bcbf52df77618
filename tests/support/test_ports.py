"""The ports that test processes hand out."""

from __future__ import annotations

import socket
import subprocess
import sys

from twisted.trial.unittest import FailTest, SynchronousTestCase

from benchmarks.harness.ports import PortRange, free_port, instance

FIRST = 32_000
"""Above all instances, below the range of the kernel."""


class PortRangeTests(SynchronousTestCase):
    """Ports in turn."""

    def test_in_turn(self) -> None:
        """A port comes again when all others had their turn."""
        ports = PortRange(FIRST, 3)
        self.assertEqual(len({ports.take(socket.SOCK_STREAM) for _ in range(3)}), 3)
        self.assertEqual(ports.take(socket.SOCK_STREAM), FIRST)

    def test_taken(self) -> None:
        """A port in use is left out."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", FIRST + 10))
            self.assertEqual(PortRange(FIRST + 10, 2).take(socket.SOCK_STREAM), FIRST + 11)

    def test_block(self) -> None:
        """Several adjacent ports begin with an even one."""
        ports = PortRange(FIRST + 21, 10)
        self.assertEqual(ports.take(socket.SOCK_DGRAM, 4), FIRST + 22)

    def test_kept(self) -> None:
        """What is kept is not handed out before it is released."""
        ports = PortRange(FIRST + 40, 2)
        kept = ports.take(socket.SOCK_DGRAM, 2, keep=True)
        self.assertRaises(FailTest, ports.take, socket.SOCK_DGRAM)
        ports.release(kept, 2)
        self.assertEqual(ports.take(socket.SOCK_DGRAM), kept)


class InstanceTests(SynchronousTestCase):
    """Processes side by side."""

    def test_another_process(self) -> None:
        """It has another number, and other ports."""
        words = [sys.executable, "-c", "from benchmarks.harness.ports import *; print(instance(), free_port())"]
        mine = {instance(), free_port()}
        root = __file__.rpartition("/tests/")[0]
        others = subprocess.run(words, cwd=root, capture_output=True, check=True, text=True).stdout.split()
        self.assertEqual(mine & set(map(int, others)), set())
