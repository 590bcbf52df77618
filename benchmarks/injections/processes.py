"""Processes that are gone, clocks that step, descriptors that run out."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.server import Server
from benchmarks.harness.waiting import wait_until
from benchmarks.injections.scene import Scene, fault, log_bytes, pid_of, workers_of

FAKETIME = [f"/usr/lib/{kind}-linux-gnu/faketime/libfaketime.so.1" for kind in ("x86_64", "aarch64")]


@fault(
    "SIGKILL of one of two workers",
    "the other's calls go on; its own become ``server_lost``; the supervisor restarts it",
)
def worker_killed(scene: Scene) -> None:
    """See above."""
    server = scene.serve(WORKERS="2")
    callers = scene.call(server)
    killed_at = time.monotonic()
    os.kill(workers_of(server)[1], signal.SIGKILL)
    wait_until("connections end", lambda: len(scene.callers.up(callers)) < len(callers), 3)
    time.sleep(0.5)
    lost = [caller for caller in callers if caller.over]
    kept = [caller for caller in callers if not caller.over]
    scene.expect(0 < len(lost) < len(callers), f"{len(lost)} of {len(callers)} calls were the worker's")
    scene.found.append(f"{len(lost)} calls lost")
    wait_until("it is started again", lambda: server.log().count("worker 1 is ready") == 2, 15)
    scene.found.append(f"restarted after {time.monotonic() - killed_at:.1f} s")
    scene.expect_ends(server, lost, "server_lost", 40)
    scene.found.append(f"the lost ones ``server_lost`` after {time.monotonic() - killed_at:.1f} s")
    scene.expect_untouched(kept)
    scene.expect_new_call(server)


@fault(
    "SIGKILL of one of two servers that share a Redis, for good",
    "the other's calls go on; the lost ones become ``server_lost`` within 35 s",
    short=False,
)
def node_killed(scene: Scene) -> None:
    """See above."""
    redis = _redis(scene)
    one, two = (scene.serve(name, STORE__URL=redis.url()) for name in ("one", "two"))
    kept = scene.call(one, scene.scale.calls // 2, register_at=two)
    lost = scene.call(two, scene.scale.calls // 2, register_at=one)
    waiting = two.register("1")
    killed_at = time.monotonic()
    two.kill()
    scene.expect_new_call(one)
    scene.expect_ends(one, lost, "server_lost", 40)
    took_s = time.monotonic() - killed_at
    scene.found.append(f"{len(lost)} calls ``server_lost`` after {took_s:.1f} s")
    scene.expect(took_s < 36, "the lost calls were marked late")
    (caller,) = scene.callers.call(one.audiosocket_port, [waiting])
    wait_until("a call registered at the dead one comes up", lambda: caller.heard > 5, 5)
    scene.expect_untouched(kept)


def _redis(scene: Scene) -> RedisServer:
    redis = RedisServer(scene.place / "redis", keeps=True)
    redis.start()
    scene.ends.append(redis.kill)
    return redis


@fault(
    "the wall clock steps by an hour, forward and back (libfaketime)",
    "calls go on and end with plausible figures; no live call expires or becomes ``server_lost``",
    short=False,
)
def clock_steps(scene: Scene) -> None:
    """See above."""
    library = next((path for path in FAKETIME if Path(path).exists()), "")
    if not library:
        raise RuntimeError("libfaketime is not there: apt-get install libfaketime")
    clock = scene.place / "clock"
    clock.write_text("+0")
    server = scene.serve(
        LD_PRELOAD=library, FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1", FAKETIME_DONT_FAKE_MONOTONIC="1"
    )
    callers = scene.call(server)
    for offset in ("+3600", "+0", "-3600", "+0"):
        clock.write_text(offset)
        time.sleep(scene.scale.seconds / 4)
        scene.expect_new_call(server)
    scene.expect_untouched(callers)
    ends = callers[: len(callers) // 2]
    clock.write_text("-3600")
    time.sleep(1)
    scene.callers.hang_up(ends)
    scene.expect_ends(server, ends, "caller_hangup", 10)
    for caller in ends:
        record = server.call(caller.context_id)
        scene.expect(0 <= record["audio_in_s"] < 2 * scene.scale.seconds + 60, f"audio_in_s is {record['audio_in_s']}")
    clock.write_text("+0")
    lost = [call for call in server.calls() if call["reason"] == "server_lost"]
    scene.expect(not lost, f"{len(lost)} calls were taken for lost")


@fault(
    "no file descriptor left",
    "calls go on; the log stays small; new calls come up as soon as there are descriptors again",
)
def descriptors_exhausted(scene: Scene) -> None:
    """See above."""
    server = scene.serve(AUDIOSOCKET__UUID_S="20")
    callers = scene.call(server)
    used = len(os.listdir(f"/proc/{pid_of(server)}/fd"))
    log_before = log_bytes(server)
    subprocess.run(["prlimit", "--pid", str(pid_of(server)), f"--nofile={used + 20}:{used + 20}"], check=True)
    knocking = []
    until = time.monotonic() + min(5.0, scene.scale.seconds)
    while time.monotonic() < until:
        for _ in range(10):
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", server.audiosocket_port))
            knocking.append(connection)
        time.sleep(0.1)
    scene.expect(len(os.listdir(f"/proc/{pid_of(server)}/fd")) >= used + 15, "the descriptors did not run out")
    scene.expect_untouched(callers)
    for connection in knocking:
        connection.close()
    scene.found.append(f"{len(knocking)} connections tried, {(log_bytes(server) - log_before) / 1000:.0f} kB of log")
    scene.expect(log_bytes(server) - log_before < 200_000, "the log was flooded")
    wait_until("it is reached again", lambda: _reaches(server), 10)
    scene.expect_new_call(server)


def _reaches(server: Server) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", server.http_port), 1) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(100)
    except OSError:
        return False
