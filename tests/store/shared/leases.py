"""A call store and leases: calls of processes that are gone."""

from __future__ import annotations

from dataclasses import replace

from rapida_twisted.context import ContextStatus
from rapida_twisted.errors import (
    ContextClaimed,
    ContextError,
)
from rapida_twisted.interfaces import Adopted, Swept
from tests.store.shared.case import NOW, StoreTestCase, context, outbound_context


class LeaseTests(StoreTestCase):
    """Of one process."""

    async def test_lost(self) -> None:
        """A call whose process renewed its lease no more is over, and told once; one without an owner is not."""
        store = await self.opened("here")
        for number in (1, 2):
            await store.add(context(number), 10)
        await store.renew(now=NOW, until=NOW + 30)
        claimed = await self.claim(store, 1)
        self.assertEqual(claimed.owner, "here")
        self.assertEqual(await store.sweep(now=NOW + 29, forget_before=NOW), Swept(0, 0))
        await self.pass_by(store, NOW + 31)
        self.assertEqual(await store.sweep(now=NOW + 31, forget_before=NOW), Swept(0, 1))
        self.assertEqual(await store.sweep(now=NOW + 31, forget_before=NOW), Swept(0, 0))
        lost = await store.get(claimed.context_id)
        self.assertEqual((lost.status, lost.reason, lost.ended_at), (ContextStatus.FAILED, "server_lost", NOW + 31))
        await self.refused(self.claim(store, 1), ContextClaimed)

    async def test_lost_and_found(self) -> None:
        """Who was thought to be lost, and was not, tells the true end late; also where the call goes next."""
        store = await self.opened("here")
        await store.add(context(), 10)
        claimed = await self.claim(store)
        self.assertEqual(await store.sweep(now=NOW + 31, forget_before=NOW), Swept(0, 1))
        await store.move_on(claimed.context_id, next_dial="PJSIP/200")
        ended = await self.finish(store)
        self.assertEqual((ended.status, ended.reason, ended.next_dial, ended.ended_at),
                         (ContextStatus.COMPLETED, "caller_hangup", "PJSIP/200", NOW + 60))  # fmt: skip
        self.assertEqual(await store.get(claimed.context_id), ended)
        await self.refused(self.finish(store, now=NOW + 99), ContextError)
        self.assertEqual(await store.sweep(now=NOW + 99, forget_before=NOW + 60), Swept(0, 0))
        self.assertEqual(await store.get(claimed.context_id), ended)

    async def test_end_lease(self) -> None:
        """The lease of a process that is known to be gone is not waited for."""
        store = await self.opened("here")
        await store.add(context(), 10)
        await store.renew(now=NOW, until=NOW + 30)
        await self.claim(store)
        await store.end_lease("nobody")
        self.assertEqual(await store.sweep(now=NOW + 1, forget_before=NOW), Swept(0, 0))
        await store.end_lease("here")
        self.assertEqual(await store.sweep(now=NOW + 1, forget_before=NOW), Swept(0, 1))

    async def test_not_presumed(self) -> None:
        """Nobody is taken for gone when that may not be presumed, but him whose lease was ended."""
        store = await self.opened("here")
        for number in (1, 2):
            await store.add(context(number), 10)
        await store.add(replace(outbound_context(3), follower="there"), 10)
        await self.claim(store, 1)
        await store.renew(now=NOW, until=NOW + 30)
        await self.pass_by(store, NOW + 31)
        self.assertEqual(await store.sweep(now=NOW + 31, forget_before=NOW, presume=False), Swept(0, 0))
        self.assertEqual(await store.adopt(now=NOW + 31, presume=False), Adopted([], 0))
        await store.end_lease("here")
        await store.end_lease("there")
        self.assertEqual(await store.sweep(now=NOW + 31, forget_before=NOW, presume=False), Swept(0, 1))
        self.assertEqual(len((await store.adopt(now=NOW + 31, presume=False)).calls), 1)
        await store.renew(now=NOW, until=NOW + 60)
        await self.claim(store, 2, now=NOW + 3)
        self.assertEqual(await store.sweep(now=NOW + 31, forget_before=NOW), Swept(0, 0))


class SharedLeaseTests(StoreTestCase):
    """Of several processes that share a store."""

    async def test_one_is_lost(self) -> None:
        """Only the calls of the process whose lease is over are lost; a clean end takes the lease along."""
        one, two = await self.opened("one"), await self.opened("two")
        for number, store in enumerate((one, two, two), 1):
            await store.add(context(number), 10)
            await self.claim(store, number)
            await store.renew(now=NOW, until=NOW + 30)
        self.assertEqual(await one.sweep(now=NOW + 1, forget_before=NOW), Swept(0, 0))
        await two.close()
        self.assertEqual(await one.sweep(now=NOW + 1, forget_before=NOW), Swept(0, 2))
        found = {context.owner: context.status for context in await one.recent(10)}
        self.assertEqual(found, {"one": ContextStatus.CLAIMED, "two": ContextStatus.FAILED})
