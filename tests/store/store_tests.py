"""What every call store must do: one class of tests for all of them."""

from __future__ import annotations

from tests.store.shared.case import NOW, context, outbound_context
from tests.store.shared.contexts import ContextTests, SharedContextTests
from tests.store.shared.journal import JournalTests
from tests.store.shared.leases import LeaseTests, SharedLeaseTests
from tests.store.shared.notices import NoticeTests
from tests.store.shared.orders import OrderTests, SharedOrderTests
from tests.store.shared.outbound import OutboundTests, SharedOutboundTests

__all__ = ["NOW", "SharedStoreTests", "StoreTests", "context", "outbound_context"]


class StoreTests(ContextTests, OutboundTests, NoticeTests, LeaseTests, OrderTests, JournalTests):
    """The tests of every store. A subclass is also a TestCase of trial, and gives the store."""


class SharedStoreTests(StoreTests, SharedContextTests, SharedOutboundTests, SharedLeaseTests, SharedOrderTests):
    """What several processes that share a store have of it."""
