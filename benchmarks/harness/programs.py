"""Programs that tests need beside Python: found, installed or made by the scripts of ``script/``, at most once.

``python -m benchmarks.harness.programs`` looks for all of them and prints what came of it as JSON. In the environment
variable ``TEST_PROGRAMS`` that text spares the processes of a test run a look-up of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

from twisted.trial.unittest import FailTest, SkipTest

__all__ = ["PROGRAMS", "LookUp", "look_up", "not_tested", "required"]

SCRIPTS = Path(__file__).resolve().parents[2] / "script"
LOOK_UP_S = 900
"""Making the folder with Asterisk takes 90 s where the network is good."""


@dataclass(frozen=True)
class LookUp:
    """What came of a look-up.

    :param path: the program; for Asterisk the folder that it is in; empty if it is missing.
    :param missing: why it is missing, in one line.
    """

    path: str = ""
    missing: str = ""


PROGRAMS = {"redis-server": "redis", "haproxy": "haproxy", "nginx": "nginx", "asterisk": "asterisk"}
"""The script that finds each."""
RARE_PROGRAMS = {"asterisk-older": "asterisk-older"}
"""Those that only long tests need: they are looked for when a test asks."""


def required(program: str) -> Path:
    """The path of a program that a test can't do without; for Asterisk, of the folder that it is in.

    :raises SkipTest: it can't be had here. With ``CI=true`` in the environment that is a failure.
    """
    found = look_up(program)
    if found.missing:
        not_tested(f"{program} is missing: {found.missing}")
    return Path(found.path)


def not_tested(why: str) -> NoReturn:
    """Skip the test: this machine lacks what it needs. With ``CI=true`` in the environment that is a failure."""
    raise (FailTest if os.environ.get("CI") == "true" else SkipTest)(why)


@cache
def look_up(program: str) -> LookUp:
    """Look for a program. The answer is remembered, also when there is none."""
    known = json.loads(os.environ.get("TEST_PROGRAMS", "{}"))
    if program in known:
        return LookUp(**known[program])
    script = SCRIPTS / (PROGRAMS | RARE_PROGRAMS)[program]
    try:
        done = subprocess.run([script], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LOOK_UP_S)
    except subprocess.TimeoutExpired:
        return LookUp(missing=f"script/{script.name} took longer than {LOOK_UP_S} s")
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return LookUp(missing=why.removeprefix(f"script/{script.name}: "))
    if not program.startswith("asterisk"):
        return LookUp(done.stdout.split()[-1])
    root = subprocess.run([script, "--print-root"], check=True, capture_output=True, text=True).stdout.strip()
    if not Path(root, "usr/bin/sipp").exists():
        return LookUp(missing=f"there is no sipp in {root}: remove that folder and try again")
    return LookUp(root)


if __name__ == "__main__":
    json.dump({program: vars(look_up(program)) for program in PROGRAMS}, sys.stdout)
