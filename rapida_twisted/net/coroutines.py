"""Coroutine functions for callers that know Deferreds only."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred

__all__ = ["returns_deferred"]

P = ParamSpec("P")
T = TypeVar("T")


def returns_deferred(work: Callable[P, Coroutine[Deferred[Any], Any, T]]) -> Callable[P, Deferred[T]]:
    """Have a coroutine function begin when it is called, and give a Deferred."""
    return wraps(work)(lambda *args, **named: Deferred.fromCoroutine(work(*args, **named)))
