"""What every fault needs: servers, callers, and what is measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.harness.server import Server
from benchmarks.harness.waiting import wait_until
from benchmarks.injections.phones import Caller, Callers

__all__ = ["FAULTS", "Fault", "Scale", "Scene", "fault", "kb_of", "workers_of"]


@dataclass(frozen=True)
class Scale:
    """How much of it."""

    calls: int = 100
    seconds: float = 30.0
    connections: int = 1000
    minutes: float = 30.0
    inputs: int = 1_000_000

    @classmethod
    def short(cls) -> Scale:
        """For the tests: some seconds."""
        return cls(calls=10, seconds=2.0, connections=200, minutes=0.15, inputs=5000)


@dataclass
class Scene:
    """A fault's stage. What was found goes to :attr:`found`, and what should not be to :attr:`wrong`."""

    place: Path
    scale: Scale
    found: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)
    ends: list[Callable[[], object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.callers = Callers()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.callers.stop()
        for end in reversed(self.ends):
            end()

    def serve(self, name: str = "server", *options: str, wait_s: float = 0.0, **environment: str) -> Server:
        """A running server with the assistant ``echo``."""
        server = Server(self.place / name, "*=echo", options=("--drain-s", "0", *options), environment=environment)
        self.ends.append(lambda: server.stop(40))
        server.start()
        self.servers.append(server)
        return server

    def call(self, server: Server, count: int | None = None, register_at: Server | None = None) -> list[Caller]:
        """So many calls that are up."""
        ids = [(register_at or server).register("1") for _ in range(self.scale.calls if count is None else count)]
        callers = self.callers.call(server.audiosocket_port, ids)
        wait_until("the calls are up", lambda: all(caller.heard > 5 for caller in callers), 15)
        for caller in callers:
            caller.gap_s = 0.0
        return callers

    def expect(self, holds: bool, what: str) -> None:
        """Something that must be so, and how it is wrong otherwise."""
        if not holds:
            self.wrong.append(what)

    def expect_untouched(self, callers: Iterable[Caller], most_s: float = 0.5) -> None:
        """These calls are up, and none of them has heard nothing for long; notes the longest gap."""
        callers = list(callers)
        up = self.callers.up(callers)
        gap_s = max((caller.gap_s for caller in callers), default=0.0)
        self.found.append(f"{len(up)} of {len(callers)} calls go on, longest gap {gap_s * 1000:.0f} ms")
        self.expect(len(up) == len(callers), f"{len(callers) - len(up)} calls are gone")
        self.expect(gap_s < most_s, f"a call heard nothing for {gap_s:.2f} s")

    def expect_new_call(self, server: Server) -> None:
        """Another call can be placed."""
        (caller,) = self.call(server, 1)
        self.callers.hang_up([caller])

    def expect_ends(self, server: Server, callers: Iterable[Caller], reason: str, limit_s: float) -> float:
        """The record of each has this end; gives how long that took (s)."""
        began = time.monotonic()
        for caller in callers:
            record = server.ended_call(caller.context_id, max(0.1, limit_s - (time.monotonic() - began)))
            self.expect(record["reason"] == reason, f"a call ended as {record['reason']}, not {reason}")
        return time.monotonic() - began


@dataclass(frozen=True)
class Fault:
    """One fault."""

    name: str
    done: str
    """What is done."""
    expected: str
    """What is to happen."""
    run: Callable[[Scene], None]
    short: bool
    """Whether it has a short form."""


FAULTS: dict[str, Fault] = {}


def fault(
    done: str, expected: str, *, short: bool = True
) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Make a function a fault, under its name."""

    def keep(run: Callable[[Scene], None]) -> Callable[[Scene], None]:
        name = run.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, done, expected, run, short)
        return run

    return keep


def pid_of(server: Server) -> int:
    """Its process, or the parent of its workers."""
    assert server._process is not None
    return server._process.pid


def workers_of(server: Server) -> list[int]:
    """The process ids of its workers; the first speaks with ARI."""
    pid = pid_of(server)
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kb_of(server: Server) -> int:
    """The memory of a server (KB), that of its workers included."""
    return sum(_rss_kb(pid) for pid in (pid_of(server), *workers_of(server)))


def _rss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def log_bytes(server: Server) -> int:
    """How long its log is."""
    return os.stat(server._log).st_size


def figure(metrics: dict[str, float], beginning: str) -> float:
    """The sum of what begins so."""
    return sum(value for name, value in metrics.items() if name.startswith(beginning))


def times(count: int, unit: Any) -> str:
    """A count in words."""
    return f"{count:,} {unit}"
