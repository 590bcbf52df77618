"""A real redis-server on the loopback interface, for tests: it can be stopped, held up, and started again."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

from benchmarks.harness.authority import Authority
from benchmarks.harness.ports import free_port
from benchmarks.harness.programs import required
from benchmarks.harness.waiting import wait_until

__all__ = ["PASSWORD", "RedisServer", "Sentinel"]

PASSWORD = "s3cret/@:%"
"""With all that has to be written otherwise in a URL."""
QUOTED = "s3cret%2F%40%3A%25"


class RedisServer:
    """One server.

    :param directory: what it writes; made if it is not there.
    :param keeps: whether it has what it had after a new start.
    :param authority: whose certificate it shows; it then takes connections with TLS alone.
    :param words: further words of its command line.
    """

    def __init__(
        self, directory: Path, *, keeps: bool = False, authority: Authority | None = None, words: tuple[str, ...] = ()
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory.absolute()
        self.port = free_port()
        self.tls = authority is not None
        self._words = ["--appendonly", "yes", "--appendfsync", "always"] if keeps else ["--appendonly", "no"]
        self._words += words
        self._program = required("redis-server")
        if authority is None:
            self._words += ["--port", str(self.port)]
        else:
            self._words += [
                "--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no",
                "--tls-cert-file", str(authority.certificate), "--tls-key-file", str(authority.key),
                "--tls-ca-cert-file", str(authority.authority),
            ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, *, password: str = QUOTED, more: str = "") -> str:
        """Its address as a setting has it."""
        return f"{'rediss' if self.tls else 'redis'}://:{password}@127.0.0.1:{self.port}{more}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [
            str(self._program), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.directory),
            "--requirepass", PASSWORD, "--logfile", "redis.log", *self._words,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_until(f"redis-server listens: see {self.directory}/redis.log", self._listens, 10)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it ended: see {self.directory}/redis.log"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def hold_up(self) -> None:
        """SIGSTOP: connections stay, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        time.sleep(0.02)


class Sentinel(RedisServer):
    """A sentinel, alone, that watches one server, which it calls ``calls``."""

    def __init__(self, directory: Path, master: RedisServer) -> None:
        super().__init__(directory)
        self._config = self.directory / "sentinel.conf"
        self._config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\nlogfile sentinel.log\n"
            f"sentinel monitor calls 127.0.0.1 {master.port} 1\nsentinel auth-pass calls {PASSWORD}\n"
            "sentinel down-after-milliseconds calls 500\nsentinel failover-timeout calls 5000\n"
        )

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(
            [str(self._program), str(self._config), "--sentinel"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        wait_until(f"the sentinel listens: see {self.directory}/sentinel.log", self._listens, 10)

    @property
    def knows_a_replica(self) -> bool:
        """Whether it has found a replica, to which it can go over. It writes down what it learns."""
        return "sentinel known-replica" in self._config.read_text()
