"""What every call store must do: one class of tests for all of them."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from rapida_twisted.context import CallContext, CallProgress, CallStatus, ContextStatus, Direction, EndReason, record_of
from rapida_twisted.errors import (
    ContextClaimed,
    ContextError,
    ContextExpired,
    JournalFull,
    TooManyCalls,
    UnknownContext,
)
from rapida_twisted.interfaces import Adopted, EntryKind, ICallStore, JournalEntry, Swept
from rapida_twisted.store.journal import MAX_BYTES, MAX_ENTRIES

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object  # so that trial runs them for the stores alone

NOW = 1_795_000_000.25


def context(number: int = 1, **changes: Any) -> CallContext:
    """A pending context, made at ``NOW`` plus its number and claimable for 300 s."""
    values: dict[str, Any] = {
        "context_id": f"626162e8-ed7b-44b4-b10d-{number:012d}",
        "assistant_id": "123456789",
        "created_at": NOW + number,
        "expires_at": NOW + number + 300,
    }
    return CallContext(**{**values, **changes})


class StoreTests(TestCase):
    """The shared tests. A subclass is also a TestCase of trial, and gives the store."""

    def make_store(self, owner: str = "") -> Any:
        """A new store of a process of that name, not open yet."""
        raise NotImplementedError

    async def opened(self, owner: str = "") -> Any:
        """An open store, that is closed after the test."""
        store = self.make_store(owner)
        await store.open()
        self.addCleanup(store.close)
        return store

    async def claim(self, store: Any, number: int = 1, *, now: float = NOW + 2) -> CallContext:
        """Claim the context of that number."""
        claimed: CallContext = await store.claim(
            context(number).context_id, transport="audiosocket", peer="192.0.2.7:40312", now=now
        )
        return claimed

    async def finish(self, store: Any, number: int = 1, *, now: float = NOW + 60) -> CallContext:
        """Finish the context of that number."""
        ended: CallContext = await store.finish(
            context(number).context_id, reason=EndReason.CALLER_HANGUP, audio_in_s=2.5, audio_out_s=1.5, now=now
        )
        return ended

    def refused(self, asked: Coroutine[Any, Any, Any] | Deferred[Any], error: type[Exception]) -> Deferred[Any]:
        """What was asked fails with exactly this error; gives the error."""
        asked = asked if isinstance(asked, Deferred) else Deferred.fromCoroutine(asked)

        def exactly(failed: Exception) -> Exception:
            self.assertEqual(type(failed), error)
            return failed

        return self.assertFailure(asked, error).addCallback(exactly)

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

    # Outbound calls

    async def outbound(self, number: int = 1) -> Any:
        """A store with an outbound call that waits to be placed."""
        store = await self.opened()
        await store.add(outbound_context(number), 10)
        return store

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

    async def test_notices(self) -> None:
        """Each change makes a notice if asked for: numbered, in order, with the moment's record, until dropped."""
        store = await self.outbound()
        changes: list[CallContext] = []
        for status in (CallStatus.INITIATED, CallStatus.RINGING, CallStatus.ANSWERED):
            progress = CallProgress(status=status, at=NOW + len(changes))
            changes.append(await store.follow(context().context_id, progress, notify=True))
        notices = await store.notices(10)
        self.assertEqual([notice.record for notice in notices], [record_of(changed) for changed in changes])
        self.assertEqual([notice.made_at for notice in notices], [NOW, NOW + 1, NOW + 2])
        self.assertEqual({notice.context_id for notice in notices}, {context().context_id})
        first, second, third = (notice.number for notice in notices)
        self.assertLess(first, second)
        self.assertEqual([notice.number for notice in await store.notices(1)], [first])
        self.assertEqual([notice.number for notice in await store.notices(9, after=first)], [second, third])
        for number in (first, third, third):
            await store.drop_notice(number)
        self.assertEqual([notice.number for notice in await store.notices(9)], [second])
        over = CallProgress(status=CallStatus.COMPLETED, at=NOW + 9)
        await store.follow(context().context_id, over, notify=True)
        self.assertGreater([notice.number for notice in await store.notices(9)][-1], third)

    # Leases

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

    async def test_adopt_my_own(self) -> None:
        """What this process follows is not adopted, however long it was away; what nobody follows is, once."""
        store = await self.opened("here")
        await store.add(replace(outbound_context(1), follower="here"), 10)
        await store.add(outbound_context(2), 10)
        [adopted] = (await store.adopt(now=NOW)).calls
        self.assertEqual(adopted, replace(outbound_context(2), follower="here"))
        self.assertEqual(await store.get(adopted.context_id), adopted)
        self.assertEqual(await store.adopt(now=NOW), Adopted([], 0))

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

    # The journal

    async def with_journal(self, *texts: str) -> Any:
        """A store with a call, and a transcript of these texts in its journal."""
        store = await self.opened()
        await store.add(context(), 10)
        for second, text in enumerate(texts):
            await store.add_entry(context().context_id, EntryKind.TRANSCRIPT, text, at=NOW + second)
        return store

    async def texts(self, store: Any, **words: Any) -> list[str]:
        """The texts of a page of that journal."""
        return [entry.text for entry in await store.entries(context().context_id, **words)]

    async def test_journal(self) -> None:
        """Entries come back as they were, in order, with their numbers; each call has a journal of its own."""
        store = await self.with_journal("Grüß Gott 😀", "")
        self.assertEqual(await store.add_entry(context().context_id, EntryKind.TOOL, '{"name": "x"}', at=NOW - 1.5), 3)
        await store.add(context(2), 10)
        self.assertEqual(await store.add_entry(context(2).context_id, EntryKind.LOG, "a line\n", at=NOW), 1)
        entries = [
            JournalEntry(context_id=context().context_id, number=number, kind=kind, at=at, text=text)
            for number, kind, at, text in (
                (1, EntryKind.TRANSCRIPT, NOW, "Grüß Gott 😀"),
                (2, EntryKind.TRANSCRIPT, NOW + 1, ""),
                (3, EntryKind.TOOL, NOW - 1.5, '{"name": "x"}'),
            )
        ]
        self.assertEqual(await store.entries(context().context_id), entries)
        self.assertEqual([entry.text for entry in await store.entries(context(2).context_id)], ["a line\n"])

    async def test_journal_of_an_ended_call(self) -> None:
        """A call that is over still gets entries; the call's record does not show them."""
        store = await self.with_journal("before")
        await self.claim(store)
        ended = await self.finish(store)
        self.assertEqual(await store.add_entry(ended.context_id, EntryKind.TURN, "after", at=NOW), 2)
        self.assertEqual(await store.get(ended.context_id), ended)

    async def test_journal_of_nobody(self) -> None:
        """A call that is not known has no journal, and gets none, whatever text its contextId is."""
        store = await self.opened()
        for stranger in ("", "x", "a'b", "\x00", "\ud800", context().context_id):
            await self.refused(store.add_entry(stranger, EntryKind.LOG, "x", at=NOW), UnknownContext)
            self.assertEqual(await store.entries(stranger), [])

    async def test_journal_pages(self) -> None:
        """A page begins behind the number that was given, and has no more entries than asked for."""
        store = await self.with_journal("a", "b", "c", "d")
        self.assertEqual(await self.texts(store, limit=3), ["a", "b", "c"])
        self.assertEqual(await self.texts(store, limit=3, after=3), ["d"])
        for words in ({"after": 4}, {"after": 99}, {"limit": 0}, {"limit": -1}):
            self.assertEqual(await self.texts(store, **words), [])
        self.assertEqual(await self.texts(store, after=-1), ["a", "b", "c", "d"])

    async def test_journal_search(self) -> None:
        """Entries are found by their kind and by text in them, whatever its case; no character is special."""
        store = await self.with_journal("Straße 5", "100 %", "a_b", "STRASSE 6")
        await store.add_entry(context().context_id, EntryKind.LOG, "the street: strasse", at=NOW)
        self.assertEqual(await self.texts(store, text="strasse"), ["Straße 5", "STRASSE 6", "the street: strasse"])
        self.assertEqual(await self.texts(store, text="strasse", after=1, limit=1), ["STRASSE 6"])
        self.assertEqual(await self.texts(store, text="strasse", kind=EntryKind.LOG), ["the street: strasse"])
        self.assertEqual(await self.texts(store, text="%"), ["100 %"])
        self.assertEqual(await self.texts(store, text="_"), ["a_b"])
        self.assertEqual(await self.texts(store, kind=EntryKind.TURN), [])

    async def test_journal_of_odd_text(self) -> None:
        """Half a surrogate pair, as a stream that was cut may have, is replaced."""
        store = await self.with_journal("cut \ud83d", "nul \x00.")
        self.assertEqual(await self.texts(store), ["cut ?", "nul \x00."])

    async def test_journal_bytes(self) -> None:
        """All texts of a call together are bounded in bytes; other calls have room."""
        store = await self.with_journal("ä" * (MAX_BYTES // 2 - 1))
        add = store.add_entry
        await self.refused(add(context().context_id, EntryKind.LOG, "abc", at=NOW), JournalFull)
        self.assertEqual(await add(context().context_id, EntryKind.LOG, "ab", at=NOW), 2)
        await self.refused(add(context().context_id, EntryKind.LOG, "a", at=NOW), JournalFull)
        await store.add(context(2), 10)
        await self.refused(add(context(2).context_id, EntryKind.LOG, "a" * (MAX_BYTES + 1), at=NOW), JournalFull)
        self.assertEqual(await add(context(2).context_id, EntryKind.LOG, "a", at=NOW), 1)

    async def test_journal_entries(self) -> None:
        """A call has no more than so many entries; the last of them is found."""
        store = await self.with_journal()
        for _ in range(MAX_ENTRIES // 1000):
            await gatherResults(
                [store.add_entry(context().context_id, EntryKind.LOG, "x", at=NOW) for _ in range(999)]
                + [store.add_entry(context().context_id, EntryKind.TURN, "y", at=NOW)]
            )
        await self.refused(store.add_entry(context().context_id, EntryKind.LOG, "x", at=NOW), JournalFull)
        found = await store.entries(context().context_id, kind=EntryKind.TURN, after=MAX_ENTRIES - 1000)
        self.assertEqual([entry.number for entry in found], [MAX_ENTRIES])

    async def test_journal_retention(self) -> None:
        """A journal goes as a whole when its newest entry is older than its own retention; the call stays, and may
        begin another one."""
        store = await self.with_journal("a" * (MAX_BYTES - 1), "b")
        await store.sweep(now=NOW, forget_before=0, forget_journals_before=NOW + 1)
        self.assertEqual(len(await self.texts(store)), 2)
        await store.sweep(now=NOW, forget_before=0, forget_journals_before=NOW + 1.5)
        self.assertEqual(await self.texts(store), [])
        self.assertEqual(await store.get(context().context_id), context())
        self.assertEqual(await store.add_entry(context().context_id, EntryKind.LOG, "again", at=NOW), 1)

    async def test_journal_goes_with_its_call(self) -> None:
        """Whatever its own retention, a journal is forgotten with its call."""
        store = await self.with_journal("a")
        await self.claim(store)
        await self.finish(store)
        await store.sweep(now=NOW + 100, forget_before=NOW + 100, forget_journals_before=0)
        self.assertEqual(await self.texts(store), [])
        await self.refused(store.add_entry(context().context_id, EntryKind.LOG, "x", at=NOW), UnknownContext)
        await store.add(context(), 10)
        self.assertEqual(await store.add_entry(context().context_id, EntryKind.LOG, "x", at=NOW), 1)

    async def pass_by(self, store: Any, now: float) -> None:
        """Time passes, for a store that has a clock of its own."""


class SharedStoreTests(StoreTests):
    """What several processes that share a store have of it."""

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

    async def test_orders_of_others(self) -> None:
        """An order reaches the process that it is for, and no other."""
        one, two = await self.opened("one"), await self.opened("two")
        await one.order("two", {"hangup": "x"}, now=NOW)
        self.assertEqual(await one.orders(now=NOW + 1), [])
        self.assertEqual(await two.orders(now=NOW + 1), [{"hangup": "x"}])

    async def test_one_limit(self) -> None:
        """The limit of waiting calls holds for all processes together."""
        one, two = await self.opened("one"), await self.opened("two")
        await one.add(context(1), 2)
        await two.add(context(2), 2)
        await self.refused(one.add(context(3), 2), TooManyCalls)
        self.assertEqual(await one.get(context(2).context_id), context(2))


def outbound_context(number: int = 1) -> CallContext:
    """A pending context of a call that is to be placed."""
    return context(number, direction=Direction.OUTBOUND, call_status=CallStatus.NEW, credential="office")
