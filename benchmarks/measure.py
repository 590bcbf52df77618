"""Runs the generator against the floor and the real server in turn, and reports medians and ratios."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from plot import plot
from servers import REPO, BenchmarkError, Server, floor, install_peer, peer, rapida_media, rss_kb

WARM_UP_S = 2.0
"""The generator's own: it counts nothing before."""
TRANSPORTS = ("audiosocket", "websocket")
READINGS = ("events", "polling")
SETTLE_S = 1.0
"""Between two runs."""
COLUMNS = (
    ("calls", "calls", "{:.0f}"),
    ("server", "server", "{}"),
    ("CPU ms", "cpu_ms_per_call_s", "{:.2f}"),
    ("x floor", "cpu_to_floor", "{:.2f}"),
    ("x AudioSocket", "cpu_to_audiosocket", "{:.2f}"),
    ("core", "core", "{:.0%}"),
    ("trip p50", "rtt_ms.p50", "{:.2f}"),
    ("p99", "rtt_ms.p99", "{:.2f}"),
    ("max", "rtt_ms.max", "{:.1f}"),
    ("lost", "lost", "{:.0f}"),
    ("failed", "failed", "{:.0f}"),
    ("late p50", "late_ms.p50", "{:.2f}"),
    ("p99", "late_ms.p99", "{:.2f}"),
    ("max", "late_ms.max", "{:.1f}"),
    ("forgiven", "forgiven", "{:.0f}"),
    ("KB/call", "kb_per_call", "{:.1f}"),
    ("gen. late p99", "generator_late_ms_p99", "{:.2f}"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives the exit code."""
    words = _parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="rapida-benchmark-") as place:
            report = _measure(words, Path(place))
    except BenchmarkError as error:
        print(f"benchmarks/run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    words.out.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report["medians"]))
    print(f"\n{_batching(report)}")
    if words.plot is not None:
        words.plot.write_text(plot(report["medians"]))
    print(f"\nAll runs are in {words.out}.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/run",
        description="What an echo call costs, through the whole path, against a C echo on the same core.",
    )
    parser.add_argument(
        "--calls", type=_counts, default=(50, 200, 500), help="numbers of calls, with commas [default: 50,200,500]"
    )
    parser.add_argument(
        "--transport",
        choices=(*TRANSPORTS, "both"),
        default="both",
        help="what the calls come by; both: in turn, with the ratio between them [default: both]",
    )
    parser.add_argument(
        "--reading",
        choices=(*READINGS, "auto", "both"),
        default="both",
        help="who reads the connections of calls (MEDIA__POLLING); both: events and polling [default: both]",
    )
    parser.add_argument("--no-peers", action="store_true", help="leave out other servers, which come from registries")
    parser.add_argument("--plot", type=Path, help="draw CPU and round trip against calls into this SVG file")
    parser.add_argument("--seconds", type=int, default=10, help="how long each run counts [default: 10]")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind [default: 3]")
    parser.add_argument("--out", type=Path, default=Path("benchmark.json"), help="[default: benchmark.json]")
    parser.add_argument(
        "--asload",
        type=Path,
        metavar="DIR",
        default=sources(),
        help="directory of asload.c and echo.c [default: %(default)s]",
    )
    return parser


def _counts(word: str) -> tuple[int, ...]:
    counts = tuple(int(part) for part in word.split(","))
    if not all(0 < count <= 10_000 for count in counts):
        raise argparse.ArgumentTypeError("numbers of calls go from 1 to 10000")
    return counts


def sources() -> Path:
    """Where the generator's sources are: beside this file, or else where this project's checkouts share them."""
    here = Path(__file__).resolve().parent
    return here if (here / "asload.c").exists() else REPO.parent / "shared" / "bench"


def _measure(words: argparse.Namespace, place: Path) -> dict[str, Any]:
    asload, echo = (compile_c(words.asload / name, place) for name in ("asload.c", "echo.c"))
    server_core, generator_core = cores()
    transports = TRANSPORTS if words.transport == "both" else (words.transport,)
    readings = READINGS if words.reading == "both" else (words.reading,)
    script = None if words.no_peers else install_peer(place)
    runs: list[dict[str, Any]] = []
    for repeat in range(words.repeats):
        for calls in words.calls:
            ups: list[AbstractContextManager[Server]] = [floor(echo, server_core)]
            if script is not None:
                ups.append(peer(script, server_core))
            for transport, reading in product(transports, readings):
                state_dir = place / f"{repeat}-{calls}-{transport}-{reading}"
                state_dir.mkdir()
                ups.append(rapida_media(transport, state_dir, server_core, reading=reading))
            for up in ups:
                with up as server:
                    run = one_run(asload, server, calls, words.seconds, generator_core, place)
                runs.append({"repeat": repeat, **run})
                print(_progress(runs[-1]), file=sys.stderr, flush=True)
                time.sleep(SETTLE_S)
    return {
        "machine": machine(server_core, generator_core),
        "seconds": words.seconds,
        "repeats": words.repeats,
        "medians": [row for calls in words.calls for row in _medians(runs, calls)],
        "runs": runs,
    }


def compile_c(source: Path, place: Path) -> Path:
    """Compile a program; gives where it is."""
    if not source.exists():
        raise BenchmarkError(f"{source} is not there, and it is needed: name its directory with --asload")
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchmarkError("there is no C compiler (cc), and the generator and the floor are written in C")
    program = place / source.stem
    done = subprocess.run([compiler, "-O2", "-o", program, source], capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"{source} can't be compiled: {done.stderr.strip().splitlines()[0]}")
    return program


def cores() -> tuple[int | None, int | None]:
    """One core for the server and one for the generator, where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("benchmarks/run: one core only: server and generator disturb each other", file=sys.stderr)
        return None, None
    return cores[0], cores[1]


def one_run(asload: Path, server: Server, calls: int, seconds: int, core: int | None, place: Path) -> dict[str, Any]:
    """One run of the generator, and what it and the server counted."""
    environment = dict(os.environ)
    environment.pop("ASLOAD_WS", None)
    if server.path:
        environment["ASLOAD_WS"] = server.path
    empty_kb = rss_kb(server.pid)
    contexts = server.contexts(calls)
    if contexts:
        listed = place / "contexts"
        listed.write_text("".join(f"{context}\n" for context in contexts))
        environment["ASLOAD_UUIDS"] = str(listed)
    generator = subprocess.Popen(
        [str(word) for word in (asload, "127.0.0.1", server.port, calls, seconds, server.pid)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        time.sleep(WARM_UP_S + 0.1)
        server.reset_clock()
        time.sleep(max(0.5, seconds - 0.8))
        full_kb, clock = rss_kb(server.pid), server.clock() or {}
        printed, _ = generator.communicate(timeout=seconds + 60)
    except (subprocess.TimeoutExpired, FileNotFoundError):
        generator.kill()
        generator.wait()
        raise BenchmarkError(f"the run of {calls} calls against {server.name} did not end") from None
    counted = json.loads(printed)
    return {
        "server": server.name,
        "calls": calls,
        "cpu_ms_per_call_s": counted["cpu_ms_per_call_s"],
        "core": counted["server_cpu"],
        "rtt_ms": counted["rtt_ms"],
        "gap_ms": counted["gap_ms"],
        "sent": counted["sent"],
        "lost": counted["sent"] - counted["echoed"],
        "failed": counted["failed"] + counted["closed"],
        "late_ms": clock.get("late_ms"),
        "frames_timed": clock.get("frames"),
        "forgiven": clock.get("forgiven"),
        "kb_per_call": (full_kb - empty_kb) / calls,
        "generator_late_ms_p99": counted["own_late_ms_p99"],
        "generator_core": counted["own_cpu"],
    }


def _medians(runs: list[dict[str, Any]], calls: int) -> list[dict[str, Any]]:
    """A row for each server: medians of the repeats, and of the ratios to others in the same repeat."""
    of_name: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if run["calls"] == calls:
            of_name.setdefault(run["server"], []).append(run)
    return [
        {
            **median_of(same),
            "cpu_to_floor": _ratio(same, of_name["floor"]),
            "cpu_to_audiosocket": _ratio(same, of_name.get(name.replace("websocket", "audiosocket"), []))
            if name.startswith("websocket")
            else None,
        }
        for name, same in of_name.items()
    ]


def _batching(report: dict[str, Any]) -> str:
    """What a call costs among the most calls, over what it costs among the fewest."""
    lines = []
    for name in dict.fromkeys(row["server"] for row in report["medians"]):
        rows = sorted((row for row in report["medians"] if row["server"] == name), key=lambda row: row["calls"])
        few, many = rows[0], rows[-1]
        if few is not many and few["cpu_ms_per_call_s"] > 0:
            ratio = many["cpu_ms_per_call_s"] / few["cpu_ms_per_call_s"]
            lines.append(f"{name}: a call of {many['calls']:.0f} costs {ratio:.2f} of one of {few['calls']:.0f}")
    return "\n".join(lines)


def _ratio(runs: list[dict[str, Any]], to_runs: list[dict[str, Any]]) -> float | None:
    """The median of the ratios of CPU, repeat by repeat."""
    of_repeat = {run["repeat"]: run["cpu_ms_per_call_s"] for run in to_runs if run["cpu_ms_per_call_s"] > 0}
    ratios = [run["cpu_ms_per_call_s"] / of_repeat[run["repeat"]] for run in runs if run["repeat"] in of_repeat]
    return statistics.median(ratios) if ratios else None


def median_of(values: list[Any]) -> Any:
    """The median of numbers; of dicts, key by key; of anything else, the first."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    if isinstance(known[0], dict):
        return {key: median_of([value.get(key) for value in known]) for key in known[0] if key != "repeat"}
    return statistics.median(known) if isinstance(known[0], int | float) else known[0]


def machine(server_core: int | None, generator_core: int | None) -> dict[str, Any]:
    """What was measured on."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpus": os.cpu_count(),
        "server_core": server_core,
        "generator_core": generator_core,
        "load_1_min": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "twisted": version("twisted"),
    }


def _progress(run: dict[str, Any]) -> str:
    return (
        f"{run['calls']:>5} calls, {run['server']:<20} repeat {run['repeat'] + 1}:"
        f" {run['cpu_ms_per_call_s']:.2f} ms of CPU, round trip p50 {run['rtt_ms']['p50']:.2f} p99"
        f" {run['rtt_ms']['p99']:.2f} ms, lost {run['lost']} of {run['sent']}"
    )


def table(rows: list[dict[str, Any]], columns: Sequence[tuple[str, str, str]] = COLUMNS) -> str:
    """Rows to be read. CPU is in ms per call and second, all other times in ms.

    :param columns: of each its title, its key in a row, and how it is written.
    """
    lines = [[title for title, _, _ in columns]]
    lines += [[_cell(row, key, form) for _, key, form in columns] for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(row: dict[str, Any], key: str, form: str) -> str:
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "-" if value is None else form.format(value)
