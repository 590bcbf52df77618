"""A call store and orders of one process to another."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from rapida_twisted.errors import TooManyCalls
from tests.store.shared.case import NOW, StoreTestCase


class OrderTests(StoreTestCase):
    """Of one process."""

    async def test_orders(self) -> None:
        """Orders are taken once, in order, by whom they are for; an old one by nobody."""
        store = await self.opened("here")
        await store.order("here", {"hangup": "1"}, now=NOW)
        await store.order("there", {"hangup": "2"}, now=NOW)
        await store.order("here", {"hangup": "ä", "more": ""}, now=NOW)
        self.assertEqual(await store.orders(now=NOW + 1), [{"hangup": "1"}, {"hangup": "ä", "more": ""}])
        self.assertEqual(await store.orders(now=NOW + 1), [])
        await store.order("here", {"hangup": "3"}, now=NOW)
        await self.pass_by(store, NOW + 61)
        self.assertEqual(await store.orders(now=NOW + 61), [])

    async def test_too_many_orders(self) -> None:
        """A process that takes no orders gets no more than a thousand."""
        store = await self.opened("here")
        await gatherResults([store.order("there", {"n": str(number)}, now=NOW) for number in range(1000)])
        await self.refused(store.order("there", {"n": "1000"}, now=NOW), TooManyCalls)
        await store.order("here", {"n": "0"}, now=NOW)


class SharedOrderTests(StoreTestCase):
    """Of several processes that share a store."""

    async def test_orders_of_others(self) -> None:
        """An order reaches the process that it is for, and no other."""
        one, two = await self.opened("one"), await self.opened("two")
        await one.order("two", {"hangup": "x"}, now=NOW)
        self.assertEqual(await one.orders(now=NOW + 1), [])
        self.assertEqual(await two.orders(now=NOW + 1), [{"hangup": "x"}])
