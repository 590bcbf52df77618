"""A store whose operations are counted does what every store does, and tells what came of it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.observe.interface import Metrics
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.store.observed import observed
from tests.store.store_tests import NOW, StoreTests, context


class ToldMetrics(Metrics):
    """Keeps what it is told of the store."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str]] = []
        self.seconds: list[float] = []
        self.counted: list[tuple[str, int]] = []

    def stored(self, operation: str, outcome: str, seconds: float) -> None:
        """Keep it."""
        self.told.append((operation, outcome))
        self.seconds.append(seconds)

    def contexts(self, outcome: str, count: int = 1) -> None:
        """Keep it."""
        self.counted.append((outcome, count))


class ObservedStoreTests(StoreTests, TestCase):
    """Nothing is another thing than with the store itself."""

    def make_store(self, owner: str = "") -> Any:
        """A new store."""
        return observed(MemoryStore(owner), Metrics())


class BrokenStore(MemoryStore):
    """A store that fails in all ways."""

    def check(self) -> Deferred[None]:
        """It does not answer."""
        return fail(StoreUnavailable("the disk is full"))

    def get(self, context_id: str) -> Deferred[Any]:
        """A mistake of ours."""
        raise ZeroDivisionError


class TellingTests(SynchronousTestCase):
    """What is told."""

    def test_outcomes(self) -> None:
        """What worked, what was refused, what the store could not do, and what is our mistake."""
        metrics = ToldMetrics()
        store = observed(BrokenStore(), metrics)
        self.successResultOf(store.add(context(), 10))
        words = {"transport": "audiosocket", "peer": "192.0.2.1:1", "now": NOW + 2}
        self.successResultOf(store.claim(context().context_id, **words))
        self.failureResultOf(store.claim(context().context_id, **words))
        self.failureResultOf(store.check(), StoreUnavailable)
        self.failureResultOf(store.get("x"), ZeroDivisionError)
        self.assertEqual(
            metrics.told,
            [("add", "ok"), ("claim", "ok"), ("claim", "refused"), ("check", "unavailable"), ("get", "failed")],
        )
        self.assertTrue(all(0 <= seconds < 1 for seconds in metrics.seconds))

    def test_contexts(self) -> None:
        """Calls that were registered, and those that expired, are counted."""
        metrics = ToldMetrics()
        store = observed(MemoryStore(), metrics)
        for number in (1, 2, 3):
            self.successResultOf(store.add(context(number), 3))
        self.failureResultOf(store.add(context(4), 3))
        self.successResultOf(store.sweep(now=NOW + 302.5, forget_before=0))
        self.assertEqual(metrics.counted, [("registered", 1)] * 3 + [("expired", 2)])
