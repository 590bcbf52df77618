"""A call store and outbound calls: their progress, and who follows them."""

from __future__ import annotations

from dataclasses import replace

from rapida_twisted.context import CallProgress, CallStatus, ContextStatus, EndReason
from rapida_twisted.errors import (
    ContextClaimed,
    UnknownContext,
)
from rapida_twisted.interfaces import Adopted, Swept
from tests.store.shared.case import NOW, StoreTestCase, context, outbound_context


class OutboundTests(StoreTestCase):
    """Of one process."""

    async def test_followed(self) -> None:
        """News of an outbound call are kept, each once; what is late or comes twice changes nothing."""
        store = await self.outbound()
        context_id = context().context_id
        expected = outbound_context()
        for progress in (
            CallProgress(status=CallStatus.INITIATED, at=NOW + 1),
            CallProgress(status=CallStatus.ANSWERED, at=NOW + 2, dial_status="ANSWER"),
        ):
            expected = expected.followed(progress)
            self.assertEqual(await store.follow(context_id, progress), expected)
            self.assertEqual(await store.follow(context_id, progress), None)
        late = CallProgress(status=CallStatus.RINGING, at=NOW + 3)
        self.assertEqual(await store.follow(context_id, late, notify=True), None)
        self.assertEqual(await store.get(context_id), expected)
        self.assertEqual((expected.answered_at, expected.dial_status), (NOW + 2, "ANSWER"))
        self.assertEqual(await store.notices(10), [])

    async def test_followed_without_media(self) -> None:
        """A call that ends before its media came takes its context with it: nobody can claim it any more."""
        store = await self.outbound()
        busy = CallProgress(
            status=CallStatus.FAILED, at=NOW + 5, dial_status="BUSY", cause=17, cause_text="User busy",
            reason=EndReason.BUSY,
        )  # fmt: skip
        ended = await store.follow(context().context_id, busy)
        self.assertEqual((ended.status, ended.reason, ended.ended_at), (ContextStatus.FAILED, "busy", NOW + 5))
        self.assertEqual((ended.hung_up_at, ended.cause, ended.cause_text), (NOW + 5, 17, "User busy"))
        self.assertEqual(await store.get(ended.context_id), ended)
        await self.refused(self.claim(store), ContextClaimed)
        self.assertEqual(await store.sweep(now=NOW + 999, forget_before=NOW + 999), Swept(0, 0))
        await self.refused(store.get(ended.context_id), UnknownContext)

    async def test_followed_with_media(self) -> None:
        """A call whose media came: the end of the channel leaves its record of the media alone, whichever is first."""
        store = await self.outbound()
        await store.follow(context().context_id, CallProgress(status=CallStatus.ANSWERED, at=NOW + 1))
        await self.claim(store)
        over = CallProgress(status=CallStatus.COMPLETED, at=NOW + 9, cause=16, cause_text="Normal Clearing")
        self.assertEqual((await store.follow(context().context_id, over)).status, ContextStatus.CLAIMED)
        ended = await self.finish(store)
        self.assertEqual((ended.status, ended.reason), (ContextStatus.COMPLETED, "caller_hangup"))
        self.assertEqual((ended.call_status, ended.cause, ended.hung_up_at), (CallStatus.COMPLETED, 16, NOW + 9))

    async def test_follow_others(self) -> None:
        """There are no news of a call that is not known, and none of an inbound one."""
        store = await self.opened()
        await store.add(context(), 10)
        news = CallProgress(status=CallStatus.ANSWERED, at=NOW)
        self.assertEqual(await store.follow(context().context_id, news, notify=True), None)
        for stranger in ("nobody", "\ud800"):
            await self.refused(store.follow(stranger, news), UnknownContext)
        self.assertEqual(await store.notices(10), [])

    async def test_adopt(self) -> None:
        """Outbound calls are there to be followed until they are over, also when their media is over, or expired."""
        store = await self.opened()
        await store.add(context(9), 10)
        for number in (3, 2, 1):
            await store.add(outbound_context(number), 10)
        await store.follow(context(2).context_id, CallProgress(status=CallStatus.CANCELLED, at=NOW))
        await self.claim(store, 1)
        await self.finish(store, 1)
        await store.sweep(now=NOW + 9999, forget_before=NOW)
        adopted = await store.adopt(now=NOW)
        self.assertEqual(
            [found.context_id for found in adopted.calls], [context(number).context_id for number in (1, 3)]
        )

    async def test_adopt_my_own(self) -> None:
        """What this process follows is not adopted, however long it was away; what nobody follows is, once."""
        store = await self.opened("here")
        await store.add(replace(outbound_context(1), follower="here"), 10)
        await store.add(outbound_context(2), 10)
        [adopted] = (await store.adopt(now=NOW)).calls
        self.assertEqual(adopted, replace(outbound_context(2), follower="here"))
        self.assertEqual(await store.get(adopted.context_id), adopted)
        self.assertEqual(await store.adopt(now=NOW), Adopted([], 0))


class SharedOutboundTests(StoreTestCase):
    """Of several processes that share a store."""

    async def test_adopt_of_the_dead(self) -> None:
        """Who is gone has his outbound calls followed by one other, and their notices delivered by the same."""
        one, two, three = [await self.opened(name) for name in ("one", "two", "three")]
        for number, store in ((1, one), (2, two)):
            await store.renew(now=NOW, until=NOW + 30)
            await store.add(replace(outbound_context(number), follower=store.owner), 10)
            news = CallProgress(status=CallStatus.RINGING, at=NOW + number)
            await store.follow(context(number).context_id, news, notify=True)
        [mine] = await two.notices(10)
        self.assertEqual(mine.context_id, context(2).context_id)
        self.assertEqual(await two.adopt(now=NOW + 1), Adopted([], 0))
        await one.end_lease("one")
        [adopted], notices = await two.adopt(now=NOW + 1)
        self.assertEqual(notices, 1)
        self.assertEqual(
            (adopted.context_id, adopted.follower, adopted.call_status),
            (context(1).context_id, "two", CallStatus.RINGING),
        )
        self.assertEqual(await three.adopt(now=NOW + 1), Adopted([], 0))
        self.assertEqual([notice.made_at for notice in await two.notices(10)], [NOW + 1, NOW + 2])
        await three.drop_notice(mine.number)
        self.assertEqual(len(await two.notices(10)), 2)
        over = CallProgress(status=CallStatus.COMPLETED, at=NOW + 9)
        await two.follow(adopted.context_id, over)
        await two.end_lease("two")
        self.assertEqual(
            [found.context_id for found in (await three.adopt(now=NOW + 1)).calls], [context(2).context_id]
        )
