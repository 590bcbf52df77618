"""Sorts all test classes into the groups that ``script/test`` runs, and prints them as JSON.

A class belongs to ``live``, ``faults`` or ``strangers`` by its package, and to the others by an attribute of its own or
of its module:

- ``long = True``: minutes, or programs that few machines have. Only ``script/test long`` runs it.
- ``slow = True``: starts processes, waits for seconds, or sends audio in real time. ``script/test`` runs it,
  ``script/test unit`` does not.
- neither: ``unit``.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator

from twisted.trial.runner import TestLoader

__all__ = ["grouped"]

PACKAGES = ("live", "faults", "strangers")


def grouped() -> dict[str, list[str]]:
    """The names of the test classes of each group. A module that can't be imported is in ``unit``, to fail there."""
    groups: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for case in _cases(TestLoader().loadByName("tests", recurse=True)):
        kind = type(case)
        if kind.__module__.startswith("tests."):
            groups[_group(kind)][f"{kind.__module__}.{kind.__qualname__}"] = None
        else:
            groups["unit"][case.id()] = None
    return {group: list(names) for group, names in groups.items()}


def _group(kind: type) -> str:
    package = kind.__module__.split(".")[1]
    if package in PACKAGES:
        return package
    places = (kind, sys.modules[kind.__module__])
    return next((group for group in ("long", "slow") if any(getattr(place, group, False) for place in places)), "unit")


def _cases(suite: object) -> Iterator[object]:
    if isinstance(suite, Iterable):
        for part in suite:
            yield from _cases(part)
    else:
        yield suite


if __name__ == "__main__":
    json.dump(grouped(), sys.stdout, indent=1)
