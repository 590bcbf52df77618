"""Two nodes behind HAProxy, on one Redis: for tests, in the place of one server.

``LIVE_SERVERS=2`` in the environment has the live suite run on them. Each call is registered at one node, and its media
comes to the other.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.authority import Authority
from benchmarks.harness.ports import free_port
from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.server import Server
from tests.support.haproxy import Haproxy

__all__ = ["Node", "TwoNodes", "live_server"]


class Node(Server):
    """A server whose ports speak the PROXY protocol, but for the one with TLS.

    :param certificate: its certificate's file.
    :param key: the certificate's key's.
    """

    def __init__(
        self,
        directory: Path,
        *assistants: str,
        options: Sequence[str],
        environment: Mapping[str, str],
        certificate: str,
        key: str,
    ) -> None:
        self.tls_port = free_port()
        super().__init__(directory, *assistants, environment=environment)
        self._command += [
            *options,
            *["--audiosocket-endpoint", f"haproxy:tcp:{self.audiosocket_port}:interface=127.0.0.1"],
            *["--http-endpoint", f"haproxy:tcp:{self.http_port}:interface=127.0.0.1"],
            *["--https", f"ssl:{self.tls_port}:privateKey={key}:certKey={certificate}:interface=127.0.0.1"],
            *["--proxy-allow", "127.0.0.1/32"],
        ]

    @property
    def url(self) -> str:
        """Where operators ask it: its other ports expect HAProxy."""
        return f"http://127.0.0.1:{self.admin_port}"


class TwoNodes(Server):
    """What is said to it, is said to HAProxy; what a node alone knows, is asked there.

    :param apart: whether all calls are registered at the first, and all media comes to the second; otherwise HAProxy
        decides.
    """

    def __init__(
        self,
        directory: Path,
        *assistants: str,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        apart: bool = True,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory, *assistants, options=options, environment=environment)
        self._apart = apart
        self.redis = RedisServer(directory / "redis", keeps=True)
        more = {**(environment or {}), "STORE__URL": self.redis.url()}
        left, https_port, key, certificate = _without_https(options, directory)
        self.one, self.two = [
            Node(directory / name, *assistants, options=left, environment=more, key=key, certificate=certificate)
            for name in ("one", "two")
        ]
        self.nodes = (self.one, self.two)
        joined = directory / "haproxy.pem"
        joined.write_bytes(Path(certificate).read_bytes() + Path(key).read_bytes())
        self.haproxy = Haproxy(
            directory / "haproxy",
            http=[node.http_port for node in self.nodes],
            wss=[node.tls_port for node in self.nodes],
            audiosocket=[node.audiosocket_port for node in self.nodes],
            certificate=joined,
            https_port=https_port,
        )
        self.http_port, self.audiosocket_port = self.haproxy.http_port, self.haproxy.audiosocket_port
        for node in self.nodes:
            node._environment["PUBLIC_AUDIOSOCKET_PORT"] = str(self.audiosocket_port)
        # Each has an application of its own at an Asterisk.
        self.two._environment["ARI__APP"] = "rapida-media-two"
        # Whichever has the media, its recordings are where those of one server are.
        (directory / "state").symlink_to("one/state")
        for node in self.nodes:
            (node.directory / "state").mkdir(mode=0o700, parents=True)
        (self.one.directory / "state/recordings").mkdir(mode=0o700)
        (self.two.directory / "state/recordings").symlink_to("../../one/state/recordings")
        self.wss_port = self.haproxy.wss_port

    def start(self) -> TwoNodes:
        """Start all four, and wait until each of them is ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.redis.start()
        for node in self.nodes:
            node.start()
        self.haproxy.start()
        if self._apart:
            self.haproxy.weigh("http", 1, 0)
            for backend in ("websocket", "wss", "audiosocket"):
                self.haproxy.weigh(backend, 0, 1)
        return self

    def terminate(self) -> None:
        """Send both nodes SIGTERM, and do not wait."""
        for node in self.nodes:
            node.terminate()

    def kill(self) -> None:
        """Send both nodes SIGKILL, and wait for their end."""
        for node in self.nodes:
            node.kill()
        self._stop_rest()

    def wait(self, timeout_s: float) -> None:
        """Wait for both nodes' end."""
        try:
            for node in self.nodes:
                node.wait(timeout_s)
        finally:
            self._stop_rest()

    def stop(self, timeout_s: float = 20) -> None:
        """Stop whatever still runs."""
        try:
            for node in self.nodes:
                node.stop(timeout_s)
        finally:
            self._stop_rest()

    def _stop_rest(self) -> None:
        self.haproxy.stop()
        self.redis.kill()

    def log(self) -> str:
        """What both logged so far."""
        return "".join(node.log() for node in self.nodes if node.directory.exists())

    def metrics(self) -> dict[str, float]:
        """The sums of both nodes' figures."""
        sums: dict[str, float] = {}
        for node in self.nodes:
            for name, value in node.metrics().items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def control(self, *words: str, typed: str = "", timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        """Run ``rapida-media-ctl`` on the first machine; what changes its files, on the second, too."""
        for node in self.nodes if words[0] in ("vault", "key") else self.nodes[:1]:
            done = node.control(*words, typed=typed, timeout_s=timeout_s)
            self.said.append(done.stdout + done.stderr)
            if done.returncode:
                break
        return done


def live_server(
    directory: Path,
    *assistants: str,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Server:
    """What the live suite runs on: a server, or with ``LIVE_SERVERS=2`` two nodes."""
    kind = TwoNodes if os.environ.get("LIVE_SERVERS") == "2" else Server
    return kind(directory, *assistants, options=options, environment=environment)


def _without_https(options: Sequence[str], directory: Path) -> tuple[list[str], int, str, str]:
    """The options but for ``--https``; its port, 0 for any; its key and its certificate, or others."""
    left = list(options)
    if "--https" not in left:
        authority = Authority(directory / "tls")
        authority.certify("127.0.0.1")
        return left, 0, str(authority.key), str(authority.certificate)
    at = left.index("--https")
    found = re.match(r"ssl:(\d+):privateKey=([^:]+):certKey=([^:]+)", left[at + 1])
    assert found is not None, left[at + 1]
    del left[at : at + 2]
    return left, int(found[1]), found[2], found[3]
