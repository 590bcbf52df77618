#!/usr/bin/env python3
"""What the gateway adds to the round trip: see README.md beside this file."""

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

here = Path(__file__).resolve().parent
python = here.parent / ".venv" / "bin" / "python"
if python.exists() and Path(sys.prefix).resolve() != python.parent.parent.resolve():
    os.execv(python, [str(python), *sys.argv])

sys.path[:0] = [str(here), str(here.parent)]

from measure import SETTLE_S, compile_c, cores, machine, median_of, one_run, sources  # noqa: E402
from servers import BenchmarkError, free_port, rapida_media  # noqa: E402

from benchmarks.harness.authority import Authority  # noqa: E402

FAR_KEY = "rpd-key-of-the-far-server"
WAYS = ("direct", "gateway")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives the exit code."""
    words = _parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="rapida-benchmark-") as place:
            report = _measure(words, Path(place))
    except BenchmarkError as error:
        print(f"benchmarks/gateway.py: {error}", file=sys.stderr)
        return 1
    words.out.write_text(json.dumps(report, indent=2) + "\n")
    for way in WAYS:
        print(f"{way:<8} {_line(report['medians'][way])}")
    added = report["added_ms"]
    worst = report["added_worst_ms"]
    print(f"added    round trip p50 {added['p50']:.1f} ms, p99 {added['p99']:.1f} ms (medians of {words.repeats})")
    print(f"worst    round trip p50 {worst['p50']:.1f} ms, p99 {worst['p99']:.1f} ms (of one repeat)")
    print(f"\nAll runs are in {words.out}.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The round trip to an echo far away, straight and by a gateway.")
    parser.add_argument("--calls", type=int, default=50, help="calls at once [default: 50]")
    parser.add_argument("--seconds", type=int, default=10, help="how long each run counts [default: 10]")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind [default: 3]")
    parser.add_argument("--out", type=Path, default=Path("gateway.json"), help="[default: gateway.json]")
    parser.add_argument("--asload", type=Path, metavar="DIR", default=sources(), help="directory of asload.c")
    return parser


def _measure(words: argparse.Namespace, place: Path) -> dict[str, Any]:
    asload = compile_c(words.asload / "asload.c", place)
    server_core, generator_core = cores()
    authority = Authority(place / "tls")
    authority.certify("127.0.0.1")
    https_port = free_port()
    for name in ("far", "near"):
        (place / name).mkdir()
    upstream = {
        # The generator knows its frames by their bytes, which ulaw would change.
        "UPSTREAM__FORMAT": "slin",
        "UPSTREAM__URL": f"https://127.0.0.1:{https_port}", "UPSTREAM__API_KEY": FAR_KEY,
        "TLS__CA_FILE": str(authority.authority),
    }  # fmt: skip
    far_words = ("--https", authority.endpoint(https_port))
    runs: list[dict[str, Any]] = []
    with (
        rapida_media("audiosocket", place / "far", server_core, *far_words, RAPIDA_API_KEY=FAR_KEY) as far,
        rapida_media("audiosocket", place / "near", server_core, assistant="bridge", **upstream) as near,
    ):
        for repeat in range(words.repeats):
            for way, server in zip(WAYS, (far, near), strict=True):
                run = one_run(asload, server, words.calls, words.seconds, generator_core, place)
                runs.append({"repeat": repeat, **run, "server": way})
                print(f"repeat {repeat + 1}, {way:<8} {_line(run)}", file=sys.stderr, flush=True)
                time.sleep(SETTLE_S)
    of_way = {way: [run for run in runs if run["server"] == way] for way in WAYS}
    added = [
        {key: gateway["rtt_ms"][key] - direct["rtt_ms"][key] for key in ("p50", "p99")}
        for direct, gateway in zip(of_way["direct"], of_way["gateway"], strict=True)
    ]
    return {
        "machine": machine(server_core, generator_core),
        "medians": {way: median_of(of_way[way]) for way in WAYS},
        "added_ms": median_of(added),
        "added_worst_ms": {key: max(one[key] for one in added) for key in ("p50", "p99")},
        "added_each_ms": added,
        "runs": runs,
    }


def _line(run: dict[str, Any]) -> str:
    trip = run["rtt_ms"]
    return (
        f"{run['calls']:.0f} calls: round trip p50 {trip['p50']:.1f} p99 {trip['p99']:.1f} max {trip['max']:.1f} ms,"
        f" lost {run['lost']:.0f} of {run['sent']:.0f}, failed {run['failed']:.0f},"
        f" {run['cpu_ms_per_call_s']:.2f} ms of CPU, generator late p99 {run['generator_late_ms_p99']:.2f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
