"""The servers that are measured: the floor (a C echo), and the real one with its echo assistant, by each transport."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

REPO = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
ASSISTANT_ID = "123456789"
PEER = "asterisk-audiosocket"
"""Another AudioSocket server that can be had from a registry, with an echo in its documentation."""


class BenchmarkError(Exception):
    """The benchmark can't go on; the text is one sentence."""


class Server(Protocol):
    """One that is up, and echoes."""

    name: str
    pid: int
    port: int
    path: str
    """Of the WebSocket handshake, with ``%s`` for the contextId; empty for AudioSocket."""

    def contexts(self, count: int) -> list[str]:
        """So many registered contextIds; none where any will do."""

    def reset_clock(self) -> None:
        """Count the lateness of frames anew."""

    def clock(self) -> dict[str, Any] | None:
        """How late frames left since then; None where that can't be known."""


class Floor:
    """The C echo, or a peer: it needs no registration, and tells nothing of its clock."""

    path = ""

    def __init__(self, pid: int, port: int, name: str = "floor") -> None:
        self.name = name
        self.pid = pid
        self.port = port

    def contexts(self, count: int) -> list[str]:
        """None: any UUID will do."""
        return []

    def reset_clock(self) -> None:
        """It has none."""

    def clock(self) -> dict[str, Any] | None:
        """It has none."""
        return None


class RapidaMedia:
    """``twistd rapida-media`` with the echo assistant for every id.

    :param transport: ``"audiosocket"`` or ``"websocket"``: what its calls come by.
    :param reading: who reads their connections: ``"events"``, ``"polling"`` or, by the load, ``"auto"``.
    """

    def __init__(self, pid: int, transport: str, reading: str, port: int, http_port: int, api_key: str) -> None:
        self.name = f"{transport} {reading}"
        self.pid = pid
        websocket = transport == "websocket"
        self.port = http_port if websocket else port
        # The generator sends no header of its own.
        self.path = f"/v1/talk/asterisk/ctx/%s?x-api-key={api_key}" if websocket else ""
        self._url = f"http://127.0.0.1:{http_port}"
        self._api_key = api_key

    def contexts(self, count: int) -> list[str]:
        """Register so many calls over HTTP, a few at a time."""
        path = f"/v1/talk/asterisk/call/{ASSISTANT_ID}?from=benchmark"
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(lambda _: self._request("GET", path).strip(), range(count)))

    def reset_clock(self) -> None:
        """Count anew, if this server can."""
        try:
            self._request("DELETE", "/v1/clock")
        except urllib.error.HTTPError:
            pass

    def clock(self) -> dict[str, Any] | None:
        """What the server counted, if it does."""
        try:
            counts: dict[str, Any] = json.loads(self._request("GET", "/v1/clock"))
        except (urllib.error.HTTPError, ValueError):
            return None
        return counts

    def healthy(self) -> bool:
        """Whether it answers."""
        try:
            self._request("GET", "/healthz")
        except OSError:
            return False
        return True

    def _request(self, method: str, path: str) -> str:
        request = urllib.request.Request(self._url + path, method=method, headers={"x-api-key": self._api_key})
        with urllib.request.urlopen(request, timeout=10) as response:
            body: bytes = response.read()
        return body.decode()


@contextmanager
def floor(program: Path, core: int | None) -> Iterator[Floor]:
    """The C echo, up while the context lasts."""
    port = free_port()
    with _running([str(program), str(port)], core, {}) as process:
        _wait_until(lambda: _listens(port), process, "the C echo")
        yield Floor(process.pid, port)


def install_peer(place: Path) -> Path | None:
    """Get the peer from its registry; None where that can't be done."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return None
    script = place / "node_echo.mjs"
    shutil.copy(REPO / "benchmarks" / "peers" / script.name, script)
    words = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(place), PEER]
    done = subprocess.run(words, cwd=place, capture_output=True, timeout=120)
    return script if done.returncode == 0 else None


@contextmanager
def peer(script: Path, core: int | None) -> Iterator[Floor]:
    """The peer's echo on Node.js, up while the context lasts."""
    port = free_port()
    with _running(["node", str(script), str(port)], core, {}) as process:
        _wait_until(lambda: _listens(port), process, PEER)
        yield Floor(process.pid, port, PEER)


@contextmanager
def rapida_media(
    transport: str,
    state_dir: Path,
    core: int | None,
    *options: str,
    assistant: str = "echo",
    reading: str = "auto",
    **settings: str,
) -> Iterator[RapidaMedia]:
    """A fresh real server for calls by this transport, up while the context lasts; its log is in the directory.

    :param settings: more of its environment.
    """
    http_port, port = free_port(), free_port()
    api_key = settings.setdefault("RAPIDA_API_KEY", secrets.token_urlsafe(24))
    words = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "rapida-media"]
    words += ["--assistant", f"*={assistant}", "--store-url", "memory:", "--state-dir", str(state_dir)]
    words += ["--http-port", str(http_port), "--admin-port", "0", "--audiosocket-port", str(port), *options]
    settings["MEDIA__POLLING"] = reading
    with _running(words, core, settings, state_dir / "server.log") as process:
        server = RapidaMedia(process.pid, transport, reading, port, http_port, api_key)
        _wait_until(server.healthy, process, f"rapida-media (see {state_dir / 'server.log'})")
        yield server


def rss_kb(pid: int) -> int:
    """The memory that a process holds now (KB)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


@contextmanager
def _running(
    words: list[str], core: int | None, environment: dict[str, str], log: Path = Path(os.devnull)
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            cwd=REPO,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until(ready: Any, process: subprocess.Popen[bytes], what: str) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if process.poll() is not None:
            raise BenchmarkError(f"{what} ended at its start with code {process.returncode}")
        if time.monotonic() > deadline_s:
            raise BenchmarkError(f"{what} did not start within {START_TIMEOUT_S:g} s")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
