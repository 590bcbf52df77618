"""Pauses between attempts double up to a limit. Jitter keeps many clients from reconnecting at once."""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.application.internet import backoffPolicy

__all__ = ["backoff"]

_JITTER = 0.5
"""Each pause is shortened at random, to this share of it at most. Twisted's jitter is added in seconds, which is too
much for pauses of 0.1 s and nothing for those of 5 min."""


def backoff(first_s: float, longest_s: float) -> Callable[[int], float]:
    """The pause (s) after a number of failures, counted from 0."""
    doubled = backoffPolicy(first_s, longest_s, factor=2.0, jitter=lambda: 0.0)
    return lambda failures: doubled(failures) * random.uniform(_JITTER, 1.0)
