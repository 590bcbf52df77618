"""A real HAProxy with the configuration of the page "Grow it", on the loopback interface."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import FailTest

from benchmarks.harness.ports import free_port
from benchmarks.harness.programs import required
from benchmarks.harness.waiting import wait_until

__all__ = ["CONFIGURATION", "Haproxy"]

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATION = REPOSITORY / "docs/grow/haproxy.cfg"


class Haproxy:
    """One HAProxy in front of two nodes.

    :param directory: its log and its socket; made if it is not there.
    :param http: both nodes' ports for HTTP.
    :param wss: both nodes' ports with TLS.
    :param audiosocket: both nodes' ports for AudioSocket.
    :param certificate: a file with a certificate and its key.
    :param https_port: where HTTPS is; a free port if 0.
    """

    def __init__(
        self,
        directory: Path,
        http: Sequence[int],
        wss: Sequence[int],
        audiosocket: Sequence[int],
        certificate: Path,
        https_port: int = 0,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.https_port = https_port or free_port()
        self.http_port, self.wss_port, self.audiosocket_port = free_port(), free_port(), free_port()
        # A socket's path may have 107 bytes at the most, and those of tests are longer.
        self._admin = Path(tempfile.mkdtemp(prefix="rapida-")) / "admin.sock"
        self._environment = {
            "MAXCONN": "1000",
            "RUN_AS": pwd.getpwuid(os.getuid()).pw_name,
            "RUN_AS_GROUP": grp.getgrgid(os.getgid()).gr_name,
            "ADMIN_SOCKET": str(self._admin),
            "CERTIFICATE": str(certificate),
            "HTTPS_BIND": f"127.0.0.1:{self.https_port}",
            "AUDIOSOCKET_BIND": f"127.0.0.1:{self.audiosocket_port}",
            "HTTP_BIND": f"127.0.0.1:{self.http_port}",
            "WSS_BIND": f"127.0.0.1:{self.wss_port}",
            "ONE_HTTP": f"127.0.0.1:{http[0]}",
            "TWO_HTTP": f"127.0.0.1:{http[1]}",
            "ONE_WSS": f"127.0.0.1:{wss[0]}",
            "TWO_WSS": f"127.0.0.1:{wss[1]}",
            "ONE_AUDIOSOCKET": f"127.0.0.1:{audiosocket[0]}",
            "TWO_AUDIOSOCKET": f"127.0.0.1:{audiosocket[1]}",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._program = required("haproxy")

    def start(self) -> None:
        """Start it, and wait until it says that both nodes are up."""
        self._admin.parent.mkdir(exist_ok=True)
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", self._program, "-db", "-f", str(CONFIGURATION)],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        wait_until("HAProxy runs", self._runs, 10)
        for node in ("one", "two"):
            self.wait_for(node, "UP")

    def _runs(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise FailTest(f"HAProxy ended with code {self._process.returncode}:\n{self.log()}")
        try:
            return "Uptime" in self.tell("show info")
        except OSError:
            return False

    def stop(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        shutil.rmtree(self._admin.parent, ignore_errors=True)

    def tell(self, command: str) -> str:
        """Say something on its socket; gives its answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self._admin))
            connection.sendall(f"{command}\n".encode())
            said = b""
            while data := connection.recv(65536):
                said += data
        return said.decode()

    def weigh(self, backend: str, one: int, two: int) -> None:
        """Say how much of a backend's traffic each node gets; 0: none."""
        for node, weight in (("one", one), ("two", two)):
            answer = self.tell(f"set server {backend}/{node} weight {weight}")
            if answer.strip():
                raise FailTest(f"set server {backend}/{node} weight {weight}: {answer}")

    def status(self, node: str, backend: str = "http") -> str:
        """What it takes a node for: ``UP``, ``DOWN``, ``DRAIN`` or the like."""
        for line in self.tell("show stat").splitlines():
            fields = line.split(",")
            if fields[:2] == [backend, node]:
                return fields[17]
        raise FailTest(f"HAProxy knows no {backend}/{node}")

    def wait_for(self, node: str, status: str, timeout_s: float = 10) -> None:
        """Wait until it takes a node for that."""
        wait_until(f"HAProxy takes {node} for {status}", lambda: self.status(node).startswith(status), timeout_s)

    @property
    def _log(self) -> Path:
        return self.directory / "haproxy.log"

    def log(self) -> str:
        """What it logged so far."""
        return self._log.read_text(errors="replace")
