"""Stores that do not answer, or have no room."""

from __future__ import annotations

import subprocess
import time
import urllib.error
from pathlib import Path

from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.server import Server
from benchmarks.harness.waiting import wait_until
from benchmarks.injections.scene import Scene, fault

DISK_MB = 16


@fault(
    "Redis does not answer for 30 s (SIGSTOP), then goes on",
    "calls go on; registrations get 503 and an empty body; the spool keeps the ends and delivers them later",
    short=False,
)
def redis_held_up(scene: Scene) -> None:
    """See above."""
    _away(scene, lambda redis: redis.hold_up(), lambda redis: redis.go_on())


@fault(
    "SIGKILL of Redis, and a restart after 30 s",
    "the same",
    short=False,
)
def redis_killed(scene: Scene) -> None:
    """See above."""
    _away(scene, lambda redis: redis.kill(), lambda redis: redis.start())


def _away(scene: Scene, take_away, bring_back) -> None:  # type: ignore[no-untyped-def]
    redis = RedisServer(scene.place / "redis", keeps=True)
    redis.start()
    scene.ends.append(redis.kill)
    server = scene.serve(STORE__URL=redis.url())
    callers = scene.call(server)
    ends, stay = callers[: len(callers) // 2], callers[len(callers) // 2 :]
    take_away(redis)
    gone_at = time.monotonic()
    scene.callers.hang_up(ends)
    slowest_s = _refused(scene, server, scene.scale.seconds)
    scene.found.append(f"refused within {slowest_s:.1f} s")
    bring_back(redis)
    back_at = time.monotonic()
    wait_until("registrations are taken again", lambda: _status(server)[0] == 200, 20)
    scene.found.append(f"away for {back_at - gone_at:.0f} s, registers again {time.monotonic() - back_at:.1f} s later")
    took_s = scene.expect_ends(server, ends, "caller_hangup", 30)
    scene.found.append(f"{len(ends)} ends delivered {took_s:.1f} s after that")
    scene.expect_untouched(stay)
    scene.expect_new_call(server)


def _refused(scene: Scene, server: Server, seconds: float) -> float:
    """Registrations are refused for so long; gives how long the slowest answer took."""
    slowest_s, until = 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        status, body = _status(server)
        slowest_s = max(slowest_s, time.monotonic() - began)
        scene.expect((status, body) == (503, b""), f"a registration was answered {status} {body!r}")
        time.sleep(0.5)
    return slowest_s


def _status(server: Server) -> tuple[int, bytes]:
    """The answer to a registration."""
    try:
        return 200, server.register("1").encode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@fault(
    "the disk of the store and of the spool is full (a tmpfs of 16 MB), then has room again",
    "calls go on; registrations get 503 and an empty body; the spool delivers the ends when there is room",
)
def disk_full(scene: Scene) -> None:
    """See above."""
    disk = (scene.place / "disk").absolute()
    disk.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}M,mode=700", "tmpfs", disk], capture_output=True, text=True
    )
    if done.returncode:
        raise PermissionError(f"a small disk can't be made here: {done.stderr.strip()}")
    scene.ends.append(lambda: subprocess.run(["umount", "--lazy", disk], check=True))
    server = scene.serve("server", "--state-dir", str(disk), "--max-waiting", "100000")
    callers = scene.call(server)
    ends, stay = callers[: len(callers) // 2], callers[len(callers) // 2 :]
    _fill(disk / "rubbish")
    # Pages of the file that are free already still take a few.
    wait_until("registrations are refused", lambda: _status(server)[0] == 503, 60, 0)
    _refused(scene, server, scene.scale.seconds / 2)
    scene.callers.hang_up(ends)
    time.sleep(scene.scale.seconds / 2)
    (disk / "rubbish").unlink()
    room_at = time.monotonic()
    wait_until("registrations are taken again", lambda: _status(server)[0] == 200, 20)
    scene.found.append(f"registers again {time.monotonic() - room_at:.1f} s after there was room")
    took_s = scene.expect_ends(server, ends, "caller_hangup", 30)
    scene.found.append(f"{len(ends)} ends delivered {took_s:.1f} s later")
    scene.expect_untouched(stay)
    scene.expect_new_call(server)


def _fill(file: Path) -> None:
    with open(file, "wb", buffering=0) as rubbish:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    rubbish.write(bytes(size))
            except OSError:
                pass
