"""Waiting for another process, without a reactor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from twisted.trial.unittest import FailTest

__all__ = ["wait_until"]

Found = TypeVar("Found")


def wait_until(what: str, probe: Callable[[], Found | None], timeout_s: float, every_s: float = 0.02) -> Found:
    """Call ``probe`` until it returns something true, and return that.

    :param what: what is waited for, for the message when it does not come.
    :raises FailTest: it did not come in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise FailTest(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)
