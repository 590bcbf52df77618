"""Runs the parts of the test suite side by side, and sums them up: what ``script/test`` calls.

A *lane* is a list of parts that run one after another; the lanes of a stage run side by side. The live suite is a stage
of its own: its calls are in real time, and it wants the machine for itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Outcome", "Part", "Suite", "main", "outcome_of_check", "outcome_of_trial"]

REPOSITORY = Path(__file__).resolve().parents[2]
WORK = REPOSITORY / "_trial_temp.suite"
"""Logs, and the directories in which the tests run."""
JOBS = os.cpu_count() or 1
"""Workers of trial. More than cores make tests with real sockets late."""
LIVE_JOBS = 3
"""Asterisks. Each is a worker of trial, which gives it the next test when it has done one. A call in real time leaves
most of a core idle."""
LONGER = (
    "an older Asterisk, the oldest dependencies, other Pythons (script/test long); programs of others (script/test"
    " strangers)"
)


@dataclass(frozen=True)
class Outcome:
    """What came of a part."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why tests were skipped, and how many for each reason."""


def outcome_of_trial(output: str, code: int) -> Outcome:
    """Reads trial's last lines."""
    passed = failed = skipped = 0
    for verdict in re.finditer(r"^(?:PASSED|FAILED) \((.*)\)$", output, re.MULTILINE):
        counts = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", verdict[1])}
        failed = sum(counts.get(name, 0) for name in ("failures", "errors", "unexpectedSuccesses"))
        passed = counts.get("successes", 0) + counts.get("expectedFailures", 0)
        skipped = counts.get("skips", 0)
    if not failed and (code or not passed + skipped):
        failed = 1
    reasons: Counter[str] = Counter()
    for reason, tests in re.findall(r"^\[SKIPPED\]\n(.*?)\n\n((?:tests\.\S+\n)+)", output, re.MULTILINE | re.DOTALL):
        reasons[" ".join(reason.split())] += tests.count("\n")
    return Outcome(passed, failed, skipped, f"{passed + failed} tests", reasons)


def outcome_of_check(output: str, code: int) -> Outcome:
    """A check passes or fails as a whole; its last line says what it saw."""
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    return Outcome(passed=not code, failed=bool(code), note=last[:100])


@dataclass
class Part:
    """One command.

    :param environment: more of its environment.
    :param begin: from where its output is shown when it fails; from the first line if that is not found.
    """

    name: str
    command: Sequence[str]
    read: Callable[[str, int], Outcome] = outcome_of_check
    environment: dict[str, str] = field(default_factory=dict)
    begin: str = ""
    outcome: Outcome | None = None
    took_s: float = 0.0

    @property
    def log(self) -> Path:
        """Where its output is."""
        return WORK / f"{self.name.replace(' ', '-')}.log"

    def run(self) -> None:
        """Run it to its end."""
        began = time.monotonic()
        with open(self.log, "wb") as log:
            done = subprocess.run(
                # It ends with us, however we end.
                ["setpriv", "--pdeathsig", "TERM", *self.command],
                cwd=REPOSITORY,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        self.took_s = time.monotonic() - began
        self.outcome = self.read(self.output(), done.returncode)

    def output(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")

    def report(self) -> str:
        """One line; with the whole of what failed."""
        assert self.outcome is not None
        failed = self.outcome.failed
        line = f"{'FAILED' if failed else 'ok':<7}{self.name:<16}{self.took_s:5.0f} s  {self.outcome.note}"
        if not failed:
            return line
        output = self.output()
        return f"{output[max(0, output.find(self.begin)) :]}\n{line}; see {self.log.relative_to(REPOSITORY)}"


class Suite:
    """Runs stages of lanes of parts, prints what came of each part, and sums up."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._done: list[Part] = []
        self._lock = threading.Lock()

    def run(self, lanes: Iterable[Sequence[Part]]) -> None:
        """Run one stage."""
        threads = [threading.Thread(target=self._run_lane, args=(lane,)) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run_lane(self, lane: Sequence[Part]) -> None:
        for part in lane:
            part.run()
            with self._lock:
                self._done.append(part)
                print(part.report(), flush=True)

    def sum_up(self, not_run: str) -> int:
        """Print the summary; gives the exit code."""
        outcomes = [part.outcome for part in self._done if part.outcome is not None]
        reasons: Counter[str] = Counter()
        for outcome in outcomes:
            reasons.update(outcome.reasons)
        missing = [f"{reason} ({count} tests)" for reason, count in reasons.items()]
        failed = [part.name for part in self._done if part.outcome is not None and part.outcome.failed]
        print(f"\n{len(self._done)} parts in {_text_of(time.monotonic() - self._began)}")
        print("not tested: " + "; ".join([*missing, *([not_run] if not_run else [])] or ["nothing"]))
        if failed:
            print(f"failed: {', '.join(failed)}")
        sums = [sum(getattr(each, name) for each in outcomes) for name in ("passed", "failed", "skipped")]
        print("{} passed, {} failed, {} skipped".format(*sums), flush=True)
        return 1 if sums[1] else 0


def _text_of(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def trial(name: str, tests: Sequence[str], jobs: int, environment: dict[str, str], *, coverage: bool = False) -> Part:
    """A part that runs test classes in as many processes."""
    measured = ["-m", "coverage", "run"] if coverage else []
    words = [sys.executable, *measured, "-m", "twisted.trial", f"--temp-directory={WORK / name}", f"-j{jobs}", *tests]
    return Part(name, words, outcome_of_trial, environment, begin="\n====")


def checks() -> list[Part]:
    """What is not a test."""
    html = str(WORK / "html")
    return [
        Part("ruff", [_program("ruff"), "check", "."]),
        Part("mypy", [_program("mypy")]),
        Part("docs", [_program("sphinx-build"), "-W", "-q", "-b", "html", "docs", html]),
        Part("news", [str(REPOSITORY / "script/news-check")]),
        Part("package", [str(REPOSITORY / "script/package-check")]),
    ]


def coverage_report(environment: dict[str, str]) -> list[Part]:
    """Joins what the processes measured, and holds the threshold of ``pyproject.toml``."""
    coverage = [sys.executable, "-m", "coverage"]
    return [
        Part("coverage data", [*coverage, "combine", "--quiet"], environment=environment),
        Part("coverage", [*coverage, "report", "--skip-covered"], environment=environment),
    ]


def prepare() -> tuple[dict[str, list[str]], dict[str, str]]:
    """The groups of test classes, and the environment of those who run them: the programs are looked for once."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    looking, sorting = (
        subprocess.Popen([sys.executable, "-m", module], stdout=subprocess.PIPE, cwd=REPOSITORY)
        for module in ("benchmarks.harness.programs", "tests.support.selection")
    )
    programs, groups = looking.communicate()[0].decode(), json.loads(sorting.communicate()[0])
    if looking.returncode:
        sys.exit("the look-up of programs failed")
    return groups, {"TEST_PROGRAMS": programs, "PYTHONWARNINGS": "error::RuntimeWarning"}


def main(words: Sequence[str]) -> int:
    """``unit``: what is quick; ``long``, ``strangers``: that group; ``plain``: unit, slow, faults; else everything."""
    groups, environment = prepare()
    suite = Suite()
    what = words[0] if words else ""
    if what == "unit":
        suite.run([[trial("unit", groups["unit"], JOBS, environment)]])
        return suite.sum_up("what takes seconds, the faults, the live suite, lint, types, docs, package (script/test)")
    if what in ("long", "strangers"):
        if groups.get(what):
            suite.run([[trial(what, groups[what], 1, environment)]])
        return suite.sum_up("")
    slow = [*groups.get("slow", []), *groups["faults"]]
    if what == "plain":
        unit = trial("unit", groups["unit"], JOBS, environment)
        suite.run([[unit, trial("slow", slow, JOBS, environment)]])
        return suite.sum_up("")
    measuring = {**environment, "COVERAGE_FILE": str(WORK / "coverage")}
    unit = trial("unit", groups["unit"], JOBS, measuring, coverage=True)
    suite.run([[unit, *coverage_report(measuring)], checks()])
    suite.run([[trial("slow", slow, JOBS, environment)]])
    suite.run([[trial("live", groups["live"], LIVE_JOBS, environment)]])
    return suite.sum_up(LONGER)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
