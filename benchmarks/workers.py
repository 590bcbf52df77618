#!/usr/bin/env python3
"""How many calls several workers hold, against one: see README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PYTHON = HERE.parent / ".venv" / "bin" / "python"
if PYTHON.exists() and Path(sys.prefix).resolve() != PYTHON.parent.parent.resolve():
    os.execv(PYTHON, [str(PYTHON), *sys.argv])

from measure import compile_c, cores, machine, median_of, one_run, sources, table  # noqa: E402
from servers import BenchmarkError, rapida_media  # noqa: E402

HELD_P99_MS = 40.0
"""Calls count as held while the round trip stays below two periods, and nothing is lost."""
COLUMNS = (
    ("workers", "workers", "{:.0f}"),
    ("calls", "calls", "{:.0f}"),
    ("held", "held", "{:.0f}"),
    ("CPU ms", "cpu_ms_per_call_s", "{:.2f}"),
    ("cores", "core", "{:.2f}"),
    ("trip p50", "rtt_ms.p50", "{:.2f}"),
    ("p99", "rtt_ms.p99", "{:.2f}"),
    ("lost", "lost", "{:.0f}"),
    ("failed", "failed", "{:.0f}"),
    ("gen. cores", "generator_core", "{:.2f}"),
    ("gen. late p99", "generator_late_ms_p99", "{:.2f}"),
)
ALL_READY_S = 3.0
"""From the first worker that listens to the last."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives the exit code."""
    words = _parser().parse_args(argv)
    counts = [int(word) for word in words.calls.split(",")]
    runs: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="rapida-benchmark-") as place:
            asload = compile_c(words.asload / "asload.c", Path(place))
            for repeat in range(words.repeats):
                for workers in (1, words.workers):
                    runs += _until_not_held(asload, workers, counts, words.seconds, Path(place) / f"{repeat}-{workers}")
    except BenchmarkError as error:
        print(f"benchmarks/workers.py: {error}", file=sys.stderr)
        return 1
    report = {"machine": machine(*cores()), "rows": _rows(runs), "runs": runs}
    words.out.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report["rows"], COLUMNS))
    print(f"\n{_most(report['rows'])}\n\nAll runs are in {words.out}.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/workers.py", description="How many echo calls one worker holds, and how many several do."
    )
    parser.add_argument("--workers", type=int, default=2, help="processes, against one [default: 2]")
    parser.add_argument(
        "--calls", default="600,800,1000,1200,1400,1600,1800,2000", help="numbers of calls to try, rising, with commas"
    )
    parser.add_argument("--seconds", type=int, default=8, help="how long each run counts [default: 8]")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind [default: 3]")
    parser.add_argument("--out", type=Path, default=Path("workers.json"), help="[default: workers.json]")
    parser.add_argument("--asload", type=Path, metavar="DIR", default=sources(), help="directory of asload.c")
    return parser


def _until_not_held(asload: Path, workers: int, counts: list[int], seconds: int, place: Path) -> list[dict[str, Any]]:
    """Runs with ever more calls, until they are too many."""
    # One worker has a core for itself, and the generator the other; more workers share all cores with the generator.
    server_core, generator_core = cores() if workers == 1 else (None, None)
    runs = []
    for calls in counts:
        state_dir = place / str(calls)
        state_dir.mkdir(parents=True)
        options = ["--store-url", "sqlite:", "--workers", str(workers), "--drain-s", "0"]
        for limit in ("max-calls", "max-waiting", "connections-max", "connections-of-address"):
            options += [f"--{limit}", "10000"]
        for rate in ("connections-rate", "connections-address-rate"):
            options += [f"--{rate}", "9000"]
        with rapida_media("audiosocket", state_dir, server_core, *options) as server:
            time.sleep(ALL_READY_S)
            run = one_run(asload, server, calls, seconds, generator_core, place)
        held = run["lost"] == 0 and run["failed"] == 0 and run["rtt_ms"]["p99"] < HELD_P99_MS
        runs.append({**run, "workers": workers, "held": held})
        print(table(runs[-1:], COLUMNS), file=sys.stderr, flush=True)
        if not held:
            break
    return runs


def _rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians of what was run with the same number of workers and calls."""
    kinds = sorted({(run["workers"], run["calls"]) for run in runs})
    rows = []
    for workers, calls in kinds:
        same = [run for run in runs if (run["workers"], run["calls"]) == (workers, calls)]
        row = median_of([{key: value for key, value in run.items() if key != "held"} for run in same])
        rows.append({**row, "held": sum(run["held"] for run in same), "runs": len(same)})
    return rows


def _most(rows: list[dict[str, Any]]) -> str:
    """How many calls were held in most runs."""
    most: dict[float, float] = {}
    for row in rows:
        if 2 * row["held"] > row["runs"]:
            most[row["workers"]] = max(row["calls"], most.get(row["workers"], 0))
    told = ", ".join(f"{workers:.0f} workers {calls:.0f} calls" for workers, calls in sorted(most.items()))
    return f"Held by most runs: {told}."


if __name__ == "__main__":
    sys.exit(main())
