"""Calls that come and go for long."""

from __future__ import annotations

import random
import sqlite3
import statistics
import time
from contextlib import closing

from benchmarks.harness.server import Server
from benchmarks.harness.waiting import wait_until
from benchmarks.injections.phones import Caller
from benchmarks.injections.scene import Scene, fault, kb_of

MEAN_CALL_S = 20.0
UNCLAIMED = 0.03
"""What part of the calls never gets its media."""
CONTEXT_TTL_S = 30
LOOK_S = 5.0
FLAT_KB_A_MIN = 50.0
SHORT_FLAT_KB = 4000
WARM_UP_CALLS = 8000
"""So many calls fill the page caches of SQLite (2 MB a connection): what grows until then is no leak."""
TOGETHER = 20


@fault(
    "calls come and go for 30 minutes",
    "memory is flat over the last two thirds; registered = completed + failed + expired",
)
def soak(scene: Scene) -> None:
    """See above."""
    seconds = scene.scale.minutes * 60
    server = scene.serve(CONTEXT_TTL_S=str(CONTEXT_TTL_S if seconds > 60 else 2))
    chance = random.Random(11)
    ends: dict[Caller, float] = {}
    registered = _warm_up(scene, server) if scene.scale.minutes > 5 else 0
    looks = []
    mean_s = min(MEAN_CALL_S, seconds / 4)
    began = time.monotonic()
    look_at = began
    while (now := time.monotonic()) < began + seconds:
        for caller in [caller for caller, end in ends.items() if now > end]:
            scene.callers.hang_up([caller])
            scene.callers.all.remove(caller)
            del ends[caller]
        while len(ends) < scene.scale.calls:
            context_id = server.register("1")
            registered += 1
            if chance.random() > UNCLAIMED:
                (caller,) = scene.callers.call(server.audiosocket_port, [context_id])
                ends[caller] = now + chance.expovariate(1 / mean_s) + 0.5
        if now > look_at:
            looks.append(((now - began) / 60, kb_of(server)))
            look_at += min(LOOK_S, seconds / 20)
        time.sleep(0.02)
    last = [look for look in looks if look[0] > scene.scale.minutes / 3]
    slope = statistics.linear_regression(*zip(*last, strict=True)).slope
    scene.found.append(f"{scene.scale.minutes:g} minutes, {registered:,} calls registered")
    growth = f"{last[0][1] / 1000:.1f} MB, then {last[-1][1] / 1000:.1f} MB: {slope:+.1f} KB per minute"
    scene.found.append(f"memory {growth}")
    if scene.scale.minutes > 5:
        scene.expect(slope < FLAT_KB_A_MIN, f"the memory grows by {slope:.0f} KB per minute")
    else:
        scene.expect(last[-1][1] - last[0][1] < SHORT_FLAT_KB, "the memory grows")
    late = [caller for caller in ends if caller.over and not caller.hung_up]
    scene.expect(not late, f"{len(late)} calls were lost")
    scene.callers.hang_up(list(ends))

    wait_until("every call is over", lambda: not {"pending", "claimed"} & set(_told(server)), CONTEXT_TTL_S + 60, 0.5)
    counts = _told(server)
    scene.found.append(f"{registered:,} = " + " + ".join(f"{count:,} {what}" for what, count in sorted(counts.items())))
    scene.expect(sum(counts.values()) == registered, f"{sum(counts.values())} of {registered} calls are accounted for")
    scene.expect(set(counts) <= {"completed", "expired"}, f"calls are {set(counts)}")


def _warm_up(scene: Scene, server: Server) -> int:
    """Short calls; gives how many."""
    for _ in range(WARM_UP_CALLS // TOGETHER):
        callers = scene.callers.call(server.audiosocket_port, [server.register("1") for _ in range(TOGETHER)])
        time.sleep(0.15)
        scene.callers.hang_up(callers)
        for caller in callers:
            scene.callers.all.remove(caller)
    return WARM_UP_CALLS


def _told(server: Server) -> dict[str, int]:
    """How many calls have which status, as the store has them."""
    file = server.directory / "state" / "calls.sqlite3"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as store:
        return dict(store.execute("SELECT status, count(*) FROM calls GROUP BY status").fetchall())
