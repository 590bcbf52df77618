"""What systemd hears: at a socket of the tests' own."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.harness.server import Server
from rapida_twisted.server.systemd import SystemdNotifier


class SystemdNotifierTests(SynchronousTestCase):
    """A notifier, and the socket of systemd."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = Path(self.mktemp()).name
        self.systemd = self.listen(self.path)
        self.addCleanup(lambda: Path(self.path).unlink())

    def listen(self, address: str) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listening.close)
        listening.bind(address)
        listening.setblocking(False)
        return listening

    def heard(self) -> list[str]:
        """What came since the last time."""
        heard = []
        while True:
            try:
                heard.append(self.systemd.recv(100).decode())
            except BlockingIOError:
                return heard

    def test_ready_and_alive(self) -> None:
        """READY=1 when it listens, then WATCHDOG=1 three times in each period, and STOPPING=1."""
        notifier = SystemdNotifier(self.clock, {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "30000000"})
        self.assertEqual(self.heard(), [])
        notifier.ready()
        self.assertEqual(self.heard(), ["READY=1", "WATCHDOG=1"])
        self.clock.pump([10, 10])
        self.assertEqual(self.heard(), ["WATCHDOG=1"] * 2)
        notifier.stopping()
        self.clock.advance(10)
        self.assertEqual(self.heard(), ["STOPPING=1", "WATCHDOG=1"])

    def test_without_a_watchdog(self) -> None:
        """Without WatchdogSec, or with that of another process, no heartbeat is sent."""
        for more in ({}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid() + 1)}, {"WATCHDOG_USEC": "x"}):
            SystemdNotifier(self.clock, {"NOTIFY_SOCKET": self.path, **more}).ready()
            self.clock.advance(100)
            self.assertEqual(self.heard(), ["READY=1"])

    def test_abstract_address(self) -> None:
        """An address that begins with @ is no file."""
        self.systemd = self.listen(f"\0{self.path}")
        SystemdNotifier(self.clock, {"NOTIFY_SOCKET": f"@{self.path}"}).ready()
        self.assertEqual(self.heard(), ["READY=1"])

    def test_without_systemd(self) -> None:
        """Started by anything else, it does nothing; a socket that is gone is no error."""
        for environ in ({}, {"NOTIFY_SOCKET": "/nowhere/at/all"}):
            notifier = SystemdNotifier(self.clock, {**environ, "WATCHDOG_USEC": "1000000"})
            notifier.ready()
            notifier.stopping()
        self.assertEqual(self.heard(), [])


class ProgramTests(SynchronousTestCase):
    """The program, with a socket in place of systemd's."""

    slow = True  # starts processes: see tests/support/selection.py

    def states(self, **environment: str) -> list[str]:
        """What a server reports from its start to its end, each state once."""
        # An address has at most 107 bytes.
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        address = str(folder / "notify")
        systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(systemd.close)
        systemd.bind(address)
        systemd.settimeout(20)
        environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
        server = Server(folder / "server", "*=echo", options=("--drain-s", "0"), environment=environment)
        self.addCleanup(server.stop, 40)
        server.start()
        states = [systemd.recv(100).decode() for _ in range(4)]
        server.terminate()
        while states[-1] != "STOPPING=1":
            states.append(systemd.recv(100).decode())
        server.wait(20)
        return list(dict.fromkeys(states))

    def test_one_process(self) -> None:
        """It reports that it is ready, that it is alive, and that it stops."""
        self.assertEqual(self.states(), ["READY=1", "WATCHDOG=1", "STOPPING=1"])

    def test_workers(self) -> None:
        """The supervisor reports it for its workers."""
        self.assertEqual(self.states(WORKERS="2"), ["READY=1", "WATCHDOG=1", "STOPPING=1"])
