"""A program that somebody else wrote, run from its registry in an environment of its own."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from twisted.trial.unittest import FailTest

from benchmarks.harness.ports import free_port
from benchmarks.harness.programs import not_tested
from benchmarks.harness.waiting import wait_until

__all__ = ["Program"]

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALL_S = 600
START_S = 60
"""pipecat takes ten seconds to import on a busy machine."""


class Program:
    """One folder of ``programs/``. It listens on 127.0.0.1 at ``PORT``.

    :param directory: its working directory and its log; made if it is not there.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.port, self.register_port, self.websocket_port = free_port(), free_port(), free_port()
        self._command = _command(name)
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Program:
        """Start it and wait until its port is open."""
        self._directory.mkdir(parents=True, exist_ok=True)
        # Nothing of this Python's own: its PYTHONPATH would lead another Python astray.
        environment = {
            "PATH": os.environ["PATH"],
            "PORT": str(self.port),
            "REGISTER_PORT": str(self.register_port),
            "WEBSOCKET_PORT": str(self.websocket_port),
        }
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        wait_until(f"port {self.port} is open", self._is_open, START_S, 0.1)
        return self

    def _is_open(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise FailTest(f"the program ended with code {self._process.returncode}:\n{self.log()}")
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End it at once: some wait minutes for calls that are over."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def _log(self) -> Path:
        return self._directory / "program.log"

    def log(self) -> str:
        """What it printed so far."""
        return self._log.read_text(errors="replace")


def _command(name: str) -> list[str]:
    script = REPOSITORY / "script/strangers"
    done = subprocess.run([script, name], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode:
        not_tested(done.stderr.strip().splitlines()[-1])
    return done.stdout.split()
