"""What every attack needs: a server, the calls beside it, and what they noticed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.harness.programs import not_tested
from benchmarks.harness.server import REPOSITORY, Server

__all__ = ["ATTACKS", "Attack", "Figures", "Limits", "Scale", "Stage", "attack"]

WARM_UP_S = 2.0
"""asload sends for 2 s before it counts."""
AFTER_S = 0.5
"""How long asload waits for the last echoes."""
NICE = 10
"""The attackers must not take the generator's core from the generator."""


@dataclass(frozen=True)
class Scale:
    """How much of an attack, and beside what."""

    calls: int = 50
    seconds: int = 8
    """How long the calls are watched."""
    workers: int = 1
    pinned: bool = True
    """Whether server and generator have a core each (one worker only)."""

    @classmethod
    def short(cls) -> Scale:
        """For the tests."""
        return cls(calls=25, seconds=2, pinned=False)


@dataclass(frozen=True)
class Limits:
    """What the calls beside an attack may notice of it."""

    lost_share: float = 0.0
    p99_ms: float = 40.0
    late_p999_ms: float = 10.0
    log_lines: int = 60
    """While the attack lasts; of each kind of refusal there are three at once, and three a minute."""
    line_length: int = 500
    generator_late_ms: float = 5.0
    """A run whose generator was later than this says nothing about delays and losses: the machine had no time."""

    @classmethod
    def short(cls) -> Limits:
        """For a machine that does other things meanwhile."""
        return cls(lost_share=0.02, p99_ms=120.0, late_p999_ms=100.0, generator_late_ms=20.0)


@dataclass(frozen=True)
class Figures:
    """What the calls and the operator noticed."""

    sent: int
    lost: int
    closed: int
    p99_ms: float
    max_ms: float
    late_p999_ms: float
    """The media clock's; with several workers, that of one of them."""
    log_lines: int
    """Without those of registrations that succeed."""
    longest_line: int
    generator_late_ms: float
    cpu: float
    """Cores that the server used."""


@dataclass(frozen=True)
class Attack:
    """One attack."""

    name: str
    done: str
    """What is done, for the table."""
    run: Callable[[Stage], None]
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    assistants: tuple[str, ...] = ("*=echo",)


ATTACKS: dict[str, Attack] = {}


def attack(
    done: str, *, options: tuple[str, ...] = (), assistants: tuple[str, ...] = ("*=echo",), **environment: str
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Make a function an attack, under its name. It runs in a thread and returns once the stage is over.

    :param done: what is done, for the table.
    :param options: of the server.
    :param assistants: its rules.
    :param environment: of the server: settings.
    """

    def keep(run: Callable[[Stage], None]) -> Callable[[Stage], None]:
        name = run.__name__.replace("_", "-")
        ATTACKS[name] = Attack(name, done, run, environment, options, assistants)
        return run

    return keep


@dataclass
class Stage:
    """A server under attack. What was found goes to :attr:`found`, and what should not be to :attr:`wrong`."""

    place: Path
    scale: Scale = field(default_factory=Scale)
    limits: Limits = field(default_factory=Limits)
    found: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    counts: bool = False
    """Whether the run says something about delays and losses."""
    over: threading.Event = field(default_factory=threading.Event)
    """Set when the attack is to end."""
    server: Server = field(init=False)

    # For attacks

    def expect(self, holds: bool, what: str) -> None:
        """Something that must be so, and how it is wrong otherwise."""
        if not holds:
            self.wrong.append(what)

    def goes_on(self) -> bool:
        return not self.over.is_set()

    def connect(self, port: int = 0, timeout_s: float = 1.0) -> socket.socket:
        """A connection, to the HTTP port unless another one is given."""
        connection = socket.create_connection(("127.0.0.1", port or self.server.http_port), 5)
        connection.settimeout(timeout_s)
        return connection

    def side_by_side(self, count: int, attacker: Callable[[], None]) -> None:
        """Run as many attackers in threads until they end. An attacker whose connection breaks has ended."""

        def one() -> None:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
            try:
                attacker()
            except OSError:
                pass

        threads = [threading.Thread(target=one, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.scale.seconds + WARM_UP_S + 20)

    def flood(self, data: bytes, port: int = 0, bytes_a_second: float = 0.0) -> None:
        """Send the same again and again over one connection, and read what comes back; connects anew when it is closed.

        :param bytes_a_second: at most; 0: as fast as the server reads.
        """
        sent, began = 0, time.monotonic()
        while self.goes_on():
            try:
                with self.connect(port, 0.05) as connection:
                    while self.goes_on():
                        if bytes_a_second and sent > (time.monotonic() - began) * bytes_a_second:
                            time.sleep(0.005)
                            continue
                        sent += _send_some(connection, data)
                        _drain(connection)
            except OSError:
                time.sleep(0.01)

    def once_and_again(self, data: bytes, port: int = 0) -> None:
        """Send this over one connection after another, each until the server closes it."""
        while self.goes_on():
            try:
                with self.connect(port, 0.5) as connection:
                    connection.sendall(data)
                    while connection.recv(65536):
                        pass
            except OSError:
                time.sleep(0.002)

    # For who runs them

    def run(self, attack: Attack) -> Figures:
        """One attack, beside calls."""
        scale = self.scale
        environment = {"WORKERS": str(scale.workers), **attack.environment}
        self.server = Server(
            self.place, *attack.assistants, options=("--drain-s", "0", *attack.options), environment=environment
        )
        self.server.start()
        try:
            return self._beside_calls(attack)
        finally:
            self.over.set()
            self.server.stop(40)

    def _beside_calls(self, attack: Attack) -> Figures:
        scale, server = self.scale, self.server
        ids = self.place / "contexts"
        ids.write_text("".join(f"{server.register('1')}\n" for _ in range(scale.calls)))
        pin = scale.pinned and scale.workers < 2 and len(os.sched_getaffinity(0)) > 1
        server_pid = self.pid()
        if pin:
            first, *others = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(server_pid, {first})
        command = [asload(), "127.0.0.1", server.audiosocket_port, scale.calls, scale.seconds, server_pid]
        generator = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, "ASLOAD_UUIDS": str(ids)},
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, set(others))) if pin else None,
        )
        attackers = threading.Thread(target=self._attack, args=(attack, set(others) if pin else None), daemon=True)
        time.sleep(WARM_UP_S - 0.5)
        server.request("DELETE", "/v1/clock")
        log = _LogWatch(server)
        attackers.start()
        try:
            printed, _ = generator.communicate(timeout=scale.seconds + 60)
        finally:
            self.over.set()
            generator.kill()
        log.end()
        attackers.join(60)
        self.expect(not attackers.is_alive(), "the attack did not end")
        return self._judge(json.loads(printed), log)

    def pid(self) -> int:
        """The server's process, or the parent of its workers."""
        assert self.server._process is not None
        return self.server._process.pid

    def _attack(self, attack: Attack, cores: set[int] | None) -> None:
        # Of this thread alone, and of those that it starts.
        if cores is not None:
            os.sched_setaffinity(0, cores)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            attack.run(self)
        except Exception as error:
            self.wrong.append(f"{type(error).__name__}: {str(error)[:200]}")

    def _judge(self, counted: dict[str, Any], log: _LogWatch) -> Figures:
        lateness = self._lateness_ms()
        figures = Figures(
            sent=counted["sent"], lost=counted["sent"] - counted["echoed"],
            closed=counted["closed"] + counted["failed"], p99_ms=counted["rtt_ms"]["p99"],
            max_ms=counted["rtt_ms"]["max"], late_p999_ms=lateness, log_lines=log.lines,
            longest_line=log.longest, generator_late_ms=counted["own_late_ms_p99"], cpu=counted["server_cpu"],
        )  # fmt: skip
        limits = self.limits
        self.expect(figures.sent > 0, "the calls sent nothing")
        self.expect(not figures.closed, f"{figures.closed} calls broke off")
        self.counts = figures.generator_late_ms <= limits.generator_late_ms
        if self.counts:
            lost = f"{figures.lost} of {figures.sent} frames lost"
            self.expect(figures.lost <= limits.lost_share * figures.sent, lost)
            self.expect(0 <= figures.p99_ms <= limits.p99_ms, f"round trip p99 {figures.p99_ms:.0f} ms")
            self.expect(lateness <= limits.late_p999_ms, f"the clock's p99.9 {lateness:.1f} ms late")
        else:
            late_ms = figures.generator_late_ms
            self.found.append(f"the generator was {late_ms:.0f} ms late: delays and losses do not count")
        self.expect(log.lines <= limits.log_lines, f"{log.lines:,} log lines")
        self.expect(log.longest <= limits.line_length, f"a log line of {log.longest:,} characters")
        return figures

    def _lateness_ms(self) -> float:
        """The clock's p99.9; infinite if the server does not answer any more."""
        status, figures = self._ask_patiently("/v1/clock")
        if status != 200:
            self.wrong.append(f"after the attack the server answered {status}")
            return float("inf")
        late = figures["late_ms"]
        return float(late.get("p999", late["max"]))

    def _ask_patiently(self, path: str) -> tuple[int, Any]:
        for _ in range(40):
            try:
                return self.server.request("GET", path, timeout_s=2)
            except OSError:
                time.sleep(0.25)
        return 0, None


class _LogWatch:
    """How much the server logs while it is attacked."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._from = os.stat(server._log).st_size
        self.lines = 0
        self.longest = 0

    def end(self) -> None:
        """Count what was logged until now. Reads at most 50 MB: more is wrong anyway."""
        with open(self._server._log, "rb") as log:
            log.seek(self._from)
            lines = log.read(50_000_000).splitlines()
        self.lines = sum(b": 200 (" not in line and b" registered, " not in line for line in lines)
        self.longest = max(map(len, lines), default=0)


def _send_some(connection: socket.socket, data: bytes) -> int:
    try:
        return connection.send(data)
    except TimeoutError:
        return 0


def _drain(connection: socket.socket) -> None:
    try:
        while data := connection.recv(1 << 20, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return
    if not data:
        raise ConnectionResetError


@cache
def asload() -> Path:
    """The generator of calls, compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        not_tested("there is no C compiler (cc) for benchmarks/asload.c")
    place = REPOSITORY / ".venv" / "benchmarks"
    place.mkdir(parents=True, exist_ok=True)
    program = place / f"asload-{os.getpid()}"
    subprocess.run([compiler, "-O2", "-o", program, REPOSITORY / "benchmarks" / "asload.c"], check=True)
    return program.rename(place / "asload")
