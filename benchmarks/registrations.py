#!/usr/bin/env python3
"""How many calls a second one server process registers, by each call store: see README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
VENV_PYTHON = REPO / ".venv" / "bin" / "python"
SERVER_CORE, OTHERS_CORE = 0, 1
CONNECTIONS = 50
TWISTD = "from twisted.scripts.twistd import run; run()"
KEY = "rpd-benchmark-registrations"


def main() -> int:
    """The command."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--store", choices=("memory", "sqlite", "redis"), action="append", help="only these")
    words.add_argument("--seconds", type=float, default=5.0)
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--rate", type=float, default=0.0, help="of the second part [default: half of the first]")
    words.add_argument("--close", action="store_true", help="a new connection for each registration")
    words.add_argument("--out", type=Path, help="write all figures there, as JSON")
    asked = words.parse_args()
    os.sched_setaffinity(0, {OTHERS_CORE})
    print(f"{'store':8} {'most/s':>8} {'at/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'refused':>8}")
    runs = []
    for store in asked.store or ("memory", "sqlite", "redis"):
        for _ in range(asked.repeats):
            runs.append({"store": store, **measure(store, asked.seconds, asked.rate, asked.close)})
        mine = [run for run in runs if run["store"] == store]
        medians = {name: statistics.median(run[name] for run in mine) for name in mine[0] if name != "store"}
        print(
            f"{store:8} {medians['most']:8.0f} {medians['rate']:8.0f} {medians['p50']:8.1f} {medians['p99']:8.1f}"
            f" {medians['max']:8.1f} {medians['refused']:8.0f}",
            flush=True,
        )
    if asked.out:
        asked.out.write_text(json.dumps(runs, indent=1))
    return 0


def measure(store: str, seconds: float, rate: float, close: bool) -> dict[str, float]:
    """One server with a store of its own: as many as it takes, then half as many."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = {"memory": "memory:", "sqlite": "sqlite:"}.get(store) or stack.enter_context(redis(Path(folder)))
        port = stack.enter_context(server(Path(folder), url))
        full(port, 1.0, close)
        most = full(port, seconds, close)
        rate = rate or most["done"] / seconds / 2
        paced = at_rate(port, seconds, rate, close)
    waits_ms = sorted(paced["waits_ms"])
    return {
        "most": most["done"] / seconds, "rate": rate, "p50": waits_ms[len(waits_ms) // 2],
        "p99": waits_ms[int(len(waits_ms) * 0.99)], "max": waits_ms[-1], "refused": most["refused"] + paced["refused"],
    }  # fmt: skip


class Client:
    """A connection, and the request that is under way on it."""

    def __init__(self, port: int, close: bool) -> None:
        self._port = port
        self._close = close
        ending = "Connection: close\r\n" if close else ""
        self._request = (
            "GET /v1/talk/asterisk/call/1?from=%2B4930123456&to=100&channel_id=1795402101.4 HTTP/1.1\r\n"
            f"Host: x\r\nx-api-key: {KEY}\r\n{ending}\r\n"
        ).encode()
        self._data = b""
        self.due_s = 0.0
        self.socket = self._connected()

    def _connected(self) -> socket.socket:
        connected = socket.create_connection(("127.0.0.1", self._port))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def ask(self, due_s: float) -> None:
        """Send a request that was due then."""
        self.due_s = due_s
        self._data = b""
        self.socket.sendall(self._request)

    def answered(self) -> int | None:
        """The status, if the answer is complete now."""
        self._data += self.socket.recv(4096)
        head, _, body = self._data.partition(b"\r\n\r\n")
        status = int(head[9:12])
        return status if status != 200 or len(body) >= 36 else None


def run(port: int, close: bool, seconds: float, rate: float) -> dict[str, Any]:
    """Ask on many connections; without a rate, again as soon as there was an answer."""
    selector = selectors.DefaultSelector()
    clients = [Client(port, close) for _ in range(CONNECTIONS)]
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
    idle: deque[Client] = deque(clients)
    done = refused = asked = 0
    waits_ms: list[float] = []
    began_s = time.perf_counter()
    while (now_s := time.perf_counter()) - began_s < seconds or len(idle) < CONNECTIONS:
        running = now_s - began_s < seconds
        while idle and running and (not rate or began_s + asked / rate <= now_s):
            # Counted from when it was due, not from when a connection was free for it.
            idle.popleft().ask(began_s + asked / rate if rate else now_s)
            asked += 1
        until_s = began_s + asked / rate - now_s if rate and idle and running else 0.05
        for key, _ in selector.select(max(0.0, min(until_s, 0.05))):
            client = key.data
            status = client.answered()
            if status is None:
                continue
            waits_ms.append((time.perf_counter() - client.due_s) * 1000)
            done += status == 200
            refused += status != 200
            if close:
                selector.unregister(client.socket)
                client.socket.close()
                client.socket = client._connected()
                selector.register(client.socket, selectors.EVENT_READ, client)
            idle.append(client)
    for client in clients:
        client.socket.close()
    return {"done": done, "refused": refused, "waits_ms": waits_ms}


def full(port: int, seconds: float, close: bool) -> dict[str, Any]:
    """As many as the server takes."""
    return run(port, close, seconds, 0.0)


def at_rate(port: int, seconds: float, rate: float, close: bool) -> dict[str, Any]:
    """So many a second, evenly."""
    return run(port, close, seconds, rate)


@contextmanager
def server(folder: Path, url: str) -> Iterator[int]:
    """``twistd rapida-media`` on its core; gives its HTTP port."""
    port = free_port()
    python = str(VENV_PYTHON if VENV_PYTHON.exists() else sys.executable)
    environment = {
        **os.environ, "RAPIDA_API_KEY": KEY, "STORE__URL": url, "MAX_WAITING": "999999999", "HTTP__PORT": str(port),
        "AUDIOSOCKET__PORT": "0", "ADMIN__PORT": "0", "STATE_DIR": str(folder / "state"),
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-c", TWISTD, "-n", "--pidfile=", "rapida-media"],
            cwd=REPO, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )  # fmt: skip
    try:
        wait_until_ready(port, process, folder / "log")
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A redis-server beside the generator, without persistence; gives its URL."""
    program = subprocess.run([REPO / "script" / "redis"], capture_output=True, text=True, check=True).stdout.split()[-1]
    port, password = free_port(), secrets.token_hex(8)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([*command, "--requirepass", password], stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield f"redis://:{password}@127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """The server answers."""
    for _ in range(200):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"the server did not start:\n{log.read_text()}")


def free_port() -> int:
    """One that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
