"""Assistants that hurt the calls beside their own, if they could."""

from __future__ import annotations

import os
import time

from benchmarks.harness.server import Server
from benchmarks.harness.waiting import wait_until
from benchmarks.injections.phones import PERIOD_S, Caller
from benchmarks.injections.scene import Scene, fault, figure, kb_of, pid_of, workers_of

__all__ = ["BOTS"]

BOTS = "benchmarks.injections.assistants"
MOST_KB = 4000
BLOCKED_S = 2.0
LOST = ("rapida_frames_skipped_total", "rapida_audio_dropped_seconds_total", "rapida_frames_missing_total")


def _serve(scene: Scene, bot: str, **environment: str) -> Server:
    return scene.serve("server", "--assistant", f"bot={BOTS}:{bot}", **environment)


def _call_bot(scene: Scene, server: Server) -> Caller:
    (caller,) = scene.callers.call(server.audiosocket_port, [server.register("bot")])
    wait_until("the bot's call is up", lambda: caller.heard > 5, 5)
    return caller


@fault(
    "an assistant that swallows every error and asks on, and its caller hangs up",
    "the other calls lose no frame; its call ends within a second, and its coroutine is closed; memory stays",
)
def runaway_assistant(scene: Scene) -> None:
    """See above."""
    server = _serve(scene, "Runaway")
    callers = scene.call(server)
    bot = _call_bot(scene, server)
    before, heard, began = server.metrics(), [caller.heard for caller in callers], time.monotonic()
    kb, cpu_s = kb_of(server), _cpu_s(server)
    scene.callers.hang_up([bot])
    took_s = scene.expect_ends(server, [bot], "caller_hangup", 5)
    scene.found.append(f"its call ended after {took_s:.2f} s")
    scene.expect(took_s < 1, f"its call ended after {took_s:.1f} s")
    time.sleep(scene.scale.seconds)
    passed_s = time.monotonic() - began
    least = min(caller.heard - count for caller, count in zip(callers, heard, strict=True))
    scene.expect(least >= passed_s / PERIOD_S - 5, f"a caller heard {least} frames in {passed_s:.2f} s")
    lost = sum(figure(server.metrics(), name) - figure(before, name) for name in LOST)
    scene.found.append(f"{lost:g} frames lost; memory {kb_of(server) - kb:+} KB")
    scene.expect(lost == 0, f"{lost:g} frames were lost")
    scene.expect(kb_of(server) - kb < MOST_KB, "the memory grows")
    scene.found.append(f"{(_cpu_s(server) - cpu_s) / passed_s:.2f} of a core")
    scene.expect(server.log().count("its coroutine is closed") == 1, "the log does not name it once")
    scene.expect_untouched(callers)
    scene.expect_new_call(server)


@fault(
    "an assistant that blocks the reactor for 2 s",
    "one warning with the assistant and the stack; a metric; the other calls go on, what they missed is made up for",
)
def blocking_assistant(scene: Scene) -> None:
    """See above."""
    server = _serve(scene, "Blocker")
    callers = scene.call(server)
    bot = _call_bot(scene, server)
    time.sleep(BLOCKED_S + 2)
    blocked_s = figure(server.metrics(), 'rapida_reactor_blocked_seconds_total{assistant="bot"}')
    scene.found.append(f"counted {blocked_s:.1f} s")
    scene.expect(abs(blocked_s - BLOCKED_S) < 0.5, f"{blocked_s:.1f} s were counted")
    scene.expect(server.log().count("blocks the reactor") == 1, "it does not warn once")
    scene.expect(f"{BOTS}.Blocker" in server.log() and "time.sleep(2)" in server.log(), "it does not say who")
    scene.expect_untouched(callers, BLOCKED_S + 1)
    scene.callers.hang_up([bot])
    for caller in callers:
        caller.gap_s = 0.0
    time.sleep(1)
    scene.expect_untouched(callers, 0.2)


@fault(
    "an assistant that blocks one of two workers for 60 s",
    "after ``WORKERS__HUNG_S`` the worker is killed and replaced within 40 s; its calls become ``server_lost``; the"
    " other worker's calls go on",
)
def worker_hung(scene: Scene) -> None:
    """See above."""
    # The default for the long form.
    hung = {} if scene.scale.seconds > 10 else {"WORKERS__HUNG_S": "3"}
    server = _serve(scene, "Sleeper", WORKERS="2", **hung)
    callers = scene.call(server)
    pids = workers_of(server)
    began = time.monotonic()
    scene.callers.call(server.audiosocket_port, [server.register("bot")])
    wait_until("a worker is gone", lambda: set(pids) - set(workers_of(server)), 40, 0.2)
    scene.found.append(f"killed after {time.monotonic() - began:.1f} s")
    wait_until("it is replaced", lambda: server.log().count("is ready") >= 4, 15)
    took_s = time.monotonic() - began
    scene.found.append(f"replaced after {took_s:.1f} s")
    scene.expect(took_s < 40, f"it was replaced after {took_s:.0f} s")
    wait_until("connections end", lambda: any(caller.over for caller in callers), 3)
    time.sleep(0.5)
    lost = [caller for caller in callers if caller.over]
    kept = [caller for caller in callers if not caller.over]
    scene.expect(0 < len(lost) < len(callers), f"{len(lost)} of {len(callers)} calls were the worker's")
    scene.expect_ends(server, lost, "server_lost", 40)
    scene.found.append(f"{len(lost)} calls ``server_lost`` after {time.monotonic() - began:.1f} s")
    scene.expect("blocks the reactor" in server.log(), "it does not warn")
    scene.expect_untouched(kept)
    scene.expect_new_call(server)


def _cpu_s(server: Server) -> float:
    """The CPU time (s) of its process."""
    with open(f"/proc/{pid_of(server)}/stat") as stat:
        words = stat.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
