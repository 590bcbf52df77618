"""nginx and HAProxy with the configurations of the page "Behind a proxy", on ports of the loopback interface."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import FailTest

from benchmarks.harness.authority import Authority
from benchmarks.harness.ports import free_port
from benchmarks.harness.programs import required
from benchmarks.harness.waiting import wait_until
from tests.support.blocks import DOCS

__all__ = ["Proxy"]


class Proxy:
    """One proxy. The configuration is the page's, but for its ports, its directories and its certificate.

    :param program: ``nginx`` or ``haproxy``.
    :param directory: its files; made if it is not there.
    :param behind: the server's ports, by those of the configuration.
    """

    def __init__(self, program: str, directory: Path, behind: Mapping[int, int], authority: Authority) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.ports = {port: free_port() for port in (80, 443, 8443, 4573)}
        """Where it listens, by the ports of the configuration."""
        self._log = directory / "proxy.log"
        self._process: subprocess.Popen[bytes] | None = None
        joined = directory / "certificate-and-key.pem"
        joined.write_bytes(authority.certificate.read_bytes() + authority.key.read_bytes())
        changed = self._nginx(directory, authority) if program == "nginx" else self._haproxy(joined)
        configuration, self._command = changed
        for port, there in behind.items():
            configuration = configuration.replace(f"127.0.0.1:{port}", f"127.0.0.1:{there}")
        file = directory / "proxy.conf"
        file.write_text(configuration)
        self._command = [str(required(program)), *self._command, str(file)]

    def _nginx(self, directory: Path, authority: Authority) -> tuple[str, list[str]]:
        text = (DOCS / "proxy/nginx.conf").read_text("utf-8")
        text = re.sub(r"listen (\d+)", lambda found: f"listen 127.0.0.1:{self.ports[int(found[1])]}", text)
        text = text.replace("/etc/nginx/tls/certificate.pem", str(authority.certificate))
        text = text.replace("/etc/nginx/tls/key.pem", str(authority.key))
        text = text.replace("/run/nginx.pid", f"{directory}/pid").replace("/var/log/nginx", str(directory))
        return text, ["-g", "daemon off; user root;", "-c"]

    def _haproxy(self, joined: Path) -> tuple[str, list[str]]:
        text = (DOCS / "proxy/haproxy.cfg").read_text("utf-8")
        text = re.sub(r"bind :(\d+)", lambda found: f"bind 127.0.0.1:{self.ports[int(found[1])]}", text)
        return text.replace("/etc/haproxy/certificate-and-key.pem", str(joined)), ["-db", "-f"]

    def start(self) -> None:
        """Start it and wait until it listens."""
        with open(self._log, "wb") as log:
            command = ["setpriv", "--pdeathsig", "TERM", *self._command]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until("the proxy listens", self._listens, 10)

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise FailTest(f"the proxy ended with code {self._process.returncode}:\n{self.log()}")
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.ports[4573])) == 0

    def stop(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        """What it logged so far."""
        return "".join(path.read_text(errors="replace") for path in self._log.parent.glob("*.log"))
