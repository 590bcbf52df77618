"""A call store and contexts: added, claimed, finished, listed, forgotten."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from rapida_twisted.context import ContextStatus, Direction, EndReason
from rapida_twisted.errors import (
    ContextClaimed,
    ContextError,
    ContextExpired,
    TooManyCalls,
    UnknownContext,
)
from rapida_twisted.interfaces import ICallStore, Swept
from tests.store.shared.case import NOW, StoreTestCase, context


class ContextTests(StoreTestCase):
    """Of one process."""

    async def test_interface(self) -> None:
        """It provides ICallStore."""
        self.assertTrue(verifyObject(ICallStore, self.make_store()))

    async def test_add_and_get(self) -> None:
        """What was added comes back as it was, to the last field."""
        store = await self.opened()
        added = context(
            direction=Direction.OUTBOUND,
            caller="+4930123456",
            called="100",
            channel_id="1795402101.4",
            variables=MappingProxyType({"name": "Jürgen 😀", "empty": "", 'quote"': "'; DROP TABLE calls; --"}),
        )
        await store.add(added, 10)
        self.assertEqual(await store.get(added.context_id), added)

    async def test_get_unknown(self) -> None:
        """A contextId that was never registered is unknown, whatever text it is."""
        store = await self.opened()
        for stranger in ("", "x", "a'b", "\x00", "\ud800", "é" * 100_000, context().context_id):
            await self.refused(store.get(stranger), UnknownContext)
            await self.refused(store.claim(stranger, transport="a", peer="b", now=NOW), UnknownContext)
            await self.refused(
                store.finish(stranger, reason=EndReason.SHUTDOWN, audio_in_s=0, audio_out_s=0, now=NOW), UnknownContext
            )

    async def test_add_twice(self) -> None:
        """A contextId is kept once; the second one is a mistake of the program, and changes nothing."""
        store = await self.opened()
        await store.add(context(), 10)
        await self.refused(store.add(context(caller="2"), 10), ValueError)
        self.assertEqual(await store.get(context().context_id), context())

    async def test_add_not_pending(self) -> None:
        """Only pending contexts are new."""
        store = await self.opened()
        claimed = context().claimed(transport="audiosocket", peer="", now=NOW)
        await self.refused(store.add(claimed, 10), ValueError)

    async def test_max_pending(self) -> None:
        """No more than so many wait; who is claimed or past its time does not wait any more."""
        store = await self.opened()
        await store.add(context(1), 2)
        await store.add(context(2), 2)
        await self.refused(store.add(context(3), 2), TooManyCalls)
        await self.claim(store, 1)
        await store.add(context(3), 2)
        await self.refused(store.add(context(4), 2), TooManyCalls)
        await store.add(context(5, created_at=NOW + 302, expires_at=NOW + 900), 2)
        await self.refused(store.get(context(4).context_id), UnknownContext)

    async def test_claim(self) -> None:
        """A claim gives the context with transport, peer and time, and it stays so."""
        store = await self.opened()
        await store.add(context(), 10)
        claimed = await self.claim(store)
        self.assertEqual(claimed, context().claimed(transport="audiosocket", peer="192.0.2.7:40312", now=NOW + 2))
        self.assertEqual(await store.get(claimed.context_id), claimed)

    async def test_claim_twice(self) -> None:
        """A second claim is refused, while the call is up and after it; who has it is told."""
        store = await self.opened()
        await store.add(context(), 10)
        await self.claim(store)
        error = await self.refused(self.claim(store), ContextClaimed)
        self.assertTrue("192.0.2.7:40312" in str(error), str(error))
        await self.finish(store)
        await self.refused(self.claim(store), ContextClaimed)

    async def test_claim_at_once(self) -> None:
        """Of many claims that are asked for together exactly one succeeds."""
        store = await self.opened()
        await store.add(context(), 10)
        claims = [Deferred.fromCoroutine(self.claim(store)) for _ in range(20)]
        outcomes = await gatherResults(
            [claim.addCallbacks(lambda _: "won", lambda failure: failure.type.__name__) for claim in claims]
        )
        self.assertEqual(sorted(outcomes), ["ContextClaimed"] * 19 + ["won"])

    async def test_claim_expired(self) -> None:
        """A claim at or after the end of its time is too late, whether swept or not."""
        store = await self.opened()
        await store.add(context(1), 10)
        await store.add(context(2), 10)
        await self.refused(self.claim(store, 1, now=NOW + 301), ContextExpired)
        await self.claim(store, 2, now=NOW + 301.9)
        await store.sweep(now=NOW + 400, forget_before=NOW)
        await self.refused(self.claim(store, 1, now=NOW), ContextExpired)

    async def test_finish(self) -> None:
        """A call's end is kept: completed or failed, reason, seconds of audio and time."""
        store = await self.opened()
        await store.add(context(1), 10)
        claimed = await self.claim(store)
        ended = await self.finish(store)
        self.assertEqual(
            ended, claimed.ended(reason=EndReason.CALLER_HANGUP, audio_in_s=2.5, audio_out_s=1.5, now=NOW + 60)
        )
        self.assertEqual(await store.get(ended.context_id), ended)
        await store.add(context(2), 10)
        await self.claim(store, 2)
        failed = await store.finish(
            context(2).context_id, reason=EndReason.ASSISTANT_FAILED, audio_in_s=0.0, audio_out_s=0.0, now=NOW + 3
        )
        self.assertEqual((failed.status, failed.reason, failed.detail), (ContextStatus.FAILED, "assistant_failed", ""))

    async def test_detail(self) -> None:
        """What is known of an end beyond its reason is kept; so is what another server called the call."""
        store = await self.opened()
        await store.add(replace(context(), detail="it rang twice", upstream_id="u-1"), 10)
        kept = await store.get(context().context_id)
        self.assertEqual((kept.detail, kept.upstream_id), ("it rang twice", "u-1"))
        await self.claim(store)
        await store.finish(
            context().context_id, reason=EndReason.UPSTREAM_FAILED, audio_in_s=0, audio_out_s=0, now=NOW, detail="ä; b"
        )
        kept = await store.get(context().context_id)
        self.assertEqual((kept.detail, kept.upstream_id, kept.status), ("ä; b", "u-1", ContextStatus.FAILED))

    async def test_calls_of_key(self) -> None:
        """The calls of a key count while they wait, their time not over, and while they are claimed."""
        store = await self.opened()
        for number in (1, 2, 3):
            await store.add(context(number, key_name="office"), 10)
        await store.add(context(4, key_name="other"), 10)
        await store.add(context(5), 10)
        self.assertEqual((await store.get(context(1).context_id)).key_name, "office")
        self.assertEqual(await store.calls_of_key("office", now=NOW + 10), 3)
        self.assertEqual(await store.calls_of_key("other", now=NOW + 10), 1)
        self.assertEqual(await store.calls_of_key("nobody's", now=NOW + 10), 0)
        await self.claim(store, 1)
        await self.claim(store, 2)
        self.assertEqual(await store.calls_of_key("office", now=NOW + 10), 3)
        await self.finish(store, 2)
        self.assertEqual(await store.calls_of_key("office", now=NOW + 10), 2)
        # The third one's time is over, whether it was swept or not.
        self.assertEqual(await store.calls_of_key("office", now=NOW + 1000), 1)
        await store.sweep(now=NOW + 1000, forget_before=0)
        self.assertEqual(await store.calls_of_key("office", now=NOW + 1000), 1)

    async def test_finish_not_claimed(self) -> None:
        """What is pending or over can't be finished; the same end told again changes nothing."""
        store = await self.opened()
        await store.add(context(), 10)
        await self.refused(self.finish(store), ContextError)
        await self.claim(store)
        ended = await self.finish(store)
        self.assertEqual(await self.finish(store), ended)
        error = await self.refused(self.finish(store, now=NOW + 99), ContextError)
        self.assertTrue("completed" in str(error), str(error))
        self.assertEqual(await store.get(ended.context_id), ended)

    async def test_recent(self) -> None:
        """The newest come first, also when made in the same moment, and no more than asked for."""
        store = await self.opened()
        for number in (2, 1, 4, 3):
            await store.add(context(number), 10)
        for number in (5, 6):
            await store.add(context(number, created_at=NOW), 10)
        ids = [int(found.context_id[-2:]) for found in await store.recent(100)]
        self.assertEqual(ids, [4, 3, 2, 1, 6, 5])
        self.assertEqual([found.context_id for found in await store.recent(1)], [context(4).context_id])
        self.assertEqual(await store.recent(0), [])

    async def test_recent_of_assistants(self) -> None:
        """Those of some assistants alone, of one status or of all; their number is that of what is found."""
        store = await self.opened()
        ids = {}
        for number in range(1, 7):
            made = replace(context(number, created_at=NOW + number), assistant_id=str(number % 3))
            await store.add(made, 10)
            ids[made.context_id] = number
        await self.claim(store, 4)

        async def numbers(*arguments: Any, **named: Any) -> list[int]:
            return [ids[found.context_id] for found in await store.recent(*arguments, **named)]

        self.assertEqual(await numbers(10, assistants=["1"]), [4, 1])
        self.assertEqual(await numbers(3, assistants=frozenset(("1", "2"))), [5, 4, 2])
        self.assertEqual(await numbers(10, ContextStatus.PENDING, assistants=["1"]), [1])
        self.assertEqual(await numbers(10, assistants=["9"]), [])
        self.assertEqual(await numbers(0, assistants=["1"]), [])

    async def test_recent_of_a_status(self) -> None:
        """Only those of the status that was asked for."""
        store = await self.opened()
        for number in (1, 2, 3):
            await store.add(context(number), 10)
        claimed = await self.claim(store, 2)
        self.assertEqual(await store.recent(10, ContextStatus.CLAIMED), [claimed])
        self.assertEqual(await store.recent(10, ContextStatus.PENDING), [context(3), context(1)])
        self.assertEqual(await store.recent(10, ContextStatus.FAILED), [])

    async def test_sweep(self) -> None:
        """What waited too long is expired, and told once; what ended long ago is forgotten; the rest stays."""
        store = await self.opened()
        for number in (1, 2, 3, 4):
            await store.add(context(number), 10)
        up = await self.claim(store, 3)
        await self.claim(store, 4)
        await self.finish(store, 4)
        self.assertEqual(await store.sweep(now=NOW + 301, forget_before=NOW + 60), Swept(1, 0))
        self.assertEqual(await store.sweep(now=NOW + 301, forget_before=NOW + 60), Swept(0, 0))
        expired = context(1).expired(now=NOW + 301)
        self.assertEqual(await store.get(expired.context_id), expired)
        self.assertEqual(await store.sweep(now=NOW + 999, forget_before=NOW + 301), Swept(1, 0))
        self.assertEqual(await store.get(expired.context_id), expired)
        await self.refused(store.get(context(4).context_id), UnknownContext)
        self.assertEqual(await store.sweep(now=NOW + 9999, forget_before=NOW + 9999), Swept(0, 0))
        self.assertEqual(await store.recent(10), [up])

    async def test_check(self) -> None:
        """An open store is well."""
        store = await self.opened()
        self.assertEqual(await store.check(), None)

    async def test_close_twice(self) -> None:
        """Closing again, or without having opened, does nothing."""
        store = self.make_store()
        await store.close()
        store = await self.opened()
        await store.close()
        await store.close()

    async def test_moved_on(self) -> None:
        """Where a claimed call goes next is kept, also when it is over."""
        store = await self.opened()
        await store.add(context(), 10)
        await self.claim(store)
        moved = await store.move_on(context().context_id, next_dial="PJSIP/200")
        self.assertEqual(moved.next_dial, "PJSIP/200")
        await self.finish(store)
        self.assertEqual((await store.get(context().context_id)).next_dial, "PJSIP/200")

    async def test_moved_on_too_early_or_late(self) -> None:
        """A call that nobody has, or that is over, goes nowhere; one that is not known neither."""
        store = await self.opened()
        await store.add(context(), 10)
        await self.assertFailure(store.move_on(context().context_id, next_dial="PJSIP/200"), ContextError)
        await self.claim(store)
        await self.finish(store)
        await self.assertFailure(store.move_on(context().context_id, next_dial="PJSIP/200"), ContextError)
        await self.assertFailure(store.move_on("nobody", next_dial="PJSIP/200"), UnknownContext)


class SharedContextTests(StoreTestCase):
    """Of several processes that share a store."""

    async def test_one_limit(self) -> None:
        """The limit of waiting calls holds for all processes together."""
        one, two = await self.opened("one"), await self.opened("two")
        await one.add(context(1), 2)
        await two.add(context(2), 2)
        await self.refused(one.add(context(3), 2), TooManyCalls)
        self.assertEqual(await one.get(context(2).context_id), context(2))
