"""Counts and times the operations of any call store."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import directlyProvides
from zope.interface.interfaces import IMethod

from rapida_twisted.errors import RapidaError, StoreUnavailable
from rapida_twisted.interfaces import ICallStore
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.observe.interface import Metrics

__all__ = ["observed"]

NOT_TIMED = frozenset({"open", "close"})


def observed(store: CallStore, metrics: Metrics) -> CallStore:
    """The same store, which reports each operation to the metrics by the name of the interface's method."""
    return ICallStore(_Observed(store, metrics))


class _Observed:
    """Wraps the methods of the interface; passes on every other attribute."""

    def __init__(self, store: CallStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        for name in ICallStore.names(all=True):
            if IMethod.providedBy(ICallStore[name]) and name not in NOT_TIMED:
                setattr(self, name, self._timed(name, getattr(store, name)))
        directlyProvides(self, ICallStore)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def __repr__(self) -> str:
        return f"<observed {self._store!r}>"

    def _timed(self, name: str, operation: Callable[..., Deferred[Any]]) -> Callable[..., Deferred[Any]]:
        def timed(*arguments: Any, **named: Any) -> Deferred[Any]:
            began_s = time.perf_counter()

            def report(result: Any) -> Any:
                self._metrics.stored(name, _outcome(result), time.perf_counter() - began_s)
                self._count(name, result)
                return result

            return maybeDeferred(operation, *arguments, **named).addBoth(report)

        return timed

    def _count(self, name: str, result: Any) -> None:
        if isinstance(result, Failure):
            return
        if name == "add":
            self._metrics.contexts("registered")
        elif name == "sweep":
            # Swept; a store of somebody else may return the number alone.
            self._metrics.contexts("expired", int(getattr(result, "expired", result)))


def _outcome(result: Any) -> str:
    if not isinstance(result, Failure):
        return "ok"
    if result.check(StoreUnavailable):
        return "unavailable"
    # That a context is unknown or claimed already is an answer of a working store.
    return "refused" if result.check(RapidaError, CancelledError) else "failed"
