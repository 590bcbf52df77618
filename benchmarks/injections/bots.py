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
LOST = ("rapida_frames_skipped_total", "rapida_audio_dropped_seconds_total")


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
    kb, cpu_s = kb_of(server), _cpu_s(server)
    with_bot = _lost_in(scene, server, callers)
    scene.callers.hang_up([bot])
    took_s = scene.expect_ends(server, [bot], "caller_hangup", 5)
    scene.found.append(f"its call ended after {took_s:.2f} s")
    scene.expect(took_s < 1, f"its call ended after {took_s:.1f} s")
    lost = _lost_in(scene, server, callers)
    # A busy machine loses frames, too: see how many before.
    most = with_bot + len(callers) * scene.scale.seconds / PERIOD_S / 100
    scene.expect(lost <= most, f"{lost} frames were lost, {with_bot} before")
    scene.found.append(f"{lost} frames lost ({with_bot} in the same time before); memory {kb_of(server) - kb:+} KB")
    scene.expect(kb_of(server) - kb < MOST_KB, "the memory grows")
    scene.found.append(f"{(_cpu_s(server) - cpu_s) / 2 / scene.scale.seconds:.2f} of a core")
    scene.expect(server.log().count("its coroutine is closed") == 1, "the log does not name it once")
    scene.expect_untouched(callers)
    scene.expect_new_call(server)


@fault(
    "an assistant that plays files and a stream, starts timers and awaits none of it; calls to it come and go",
    "it all ends with each call: no file stays open, memory stays, and no error is logged; the other calls go on",
)
def leaking_assistant(scene: Scene) -> None:
    """See above."""
    server = _serve(scene, "Leaker")
    callers = scene.call(server)
    # What grows with the first calls is no leak.
    _call_and_hang_up(scene, server, scene.scale.seconds)
    time.sleep(1)
    files, kb = _files(server), kb_of(server)
    count = _call_and_hang_up(scene, server, scene.scale.seconds)
    time.sleep(1)
    more = _files(server) - files
    scene.found.append(f"{count} calls; {more} more files open; memory {kb_of(server) - kb:+} KB")
    scene.expect(more <= 0, f"{more} more files are open")
    scene.expect(kb_of(server) - kb < MOST_KB, "the memory grows")
    scene.expect("Unhandled" not in server.log() and "Traceback" not in server.log(), "errors are logged")
    scene.expect_untouched(callers)


def _call_and_hang_up(scene: Scene, server: Server, seconds: float) -> int:
    """Calls to the bot for some time, ten at once; gives how many."""
    count, until_s = 0, time.monotonic() + seconds
    while time.monotonic() < until_s:
        ids = [server.register("bot") for _ in range(10)]
        bots = scene.callers.call(server.audiosocket_port, ids)
        wait_until("the bots' calls are up", lambda: all(caller.heard > 5 for caller in bots), 5)  # noqa: B023
        scene.callers.hang_up(bots)
        for caller in bots:
            server.ended_call(caller.context_id, 5)
        count += len(bots)
    return count


def _files(server: Server) -> int:
    return len(os.listdir(f"/proc/{pid_of(server)}/fd"))


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
    scene.expect(server.log().count("has blocked the reactor") == 1, "it does not warn once")
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
    scene.expect("has blocked the reactor" in server.log(), "it does not warn")
    scene.expect_untouched(kept)
    scene.expect_new_call(server)


def _lost_in(scene: Scene, server: Server, callers: list[Caller]) -> int:
    """How many frames are lost while time passes: not sent by the server, dropped by it, or not heard by a caller."""
    before, heard, began = server.metrics(), sum(caller.heard for caller in callers), time.monotonic()
    time.sleep(scene.scale.seconds)
    due = int((time.monotonic() - began) / PERIOD_S) * len(callers)
    unheard = due - (sum(caller.heard for caller in callers) - heard)
    after = server.metrics()
    skipped, dropped_s = (figure(after, name) - figure(before, name) for name in LOST)
    # A frame that is just under way is not lost.
    return max(0, round(skipped + dropped_s / PERIOD_S), unheard - 2 * len(callers))


def _cpu_s(server: Server) -> float:
    """The CPU time (s) of its process."""
    with open(f"/proc/{pid_of(server)}/stat") as stat:
        words = stat.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
