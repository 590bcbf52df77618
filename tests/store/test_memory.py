"""The store in memory."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from rapida_twisted.store.memory import MemoryStore
from tests.store.store_tests import StoreTests


class MemoryStoreTests(StoreTests, TestCase):
    """MemoryStore does what every store does."""

    def make_store(self, owner: str = "") -> MemoryStore:
        """A new store."""
        return MemoryStore(owner)
