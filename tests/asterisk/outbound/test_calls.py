"""Outbound calls over a scripted ARI on the loopback interface: placed at most once, followed, limited, ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from rapida_twisted.asterisk.ari.client import channel_id_of
from rapida_twisted.asterisk.outbound import reconciler
from rapida_twisted.asterisk.outbound.calls import OutboundCalls
from rapida_twisted.asterisk.outbound.progress_writer import ProgressWriter
from rapida_twisted.asterisk.outbound.trunk import Trunk, TrunkLimits
from rapida_twisted.asterisk.vault.master_key import make_master_key
from rapida_twisted.asterisk.vault.vault import Vault
from rapida_twisted.context import CallContext, CallProgress, CallStatus, Direction
from rapida_twisted.errors import CallNotPlaced, Draining, TooManyCalls
from rapida_twisted.interfaces import IOutbound, OutboundCall
from rapida_twisted.net.http_client import make_client
from rapida_twisted.store.memory import MemoryStore
from tests.asterisk.scripted_ari import (
    ALLOCATION_FAILED,
    LOST,
    LOST_BUT_DONE,
    PASSWORD,
    Answer,
    ScriptedAri,
    channel,
    sleep,
    until,
)

LIMITS = {"ari_timeout_s": 0.5, "answer_s": 30.0, "longest_s": 0.0, "wait_s": 5.0, "rate": 1000.0}


class NoStasis:
    """Nobody is in Stasis here."""

    count = 0

    def event(self, event: Any) -> None:
        """Nothing to do."""

    def connected(self, again: bool) -> None:
        """Nothing to do."""

    def close(self, *, leave: bool) -> Deferred[Any]:
        """Nothing to do."""
        return succeed(None)


class OutboundTestCase(TestCase):
    """An Asterisk that does as told, and who places calls through it."""

    timeout = 30

    async def asyncSetUp(self) -> None:
        """Start it."""
        self.patch(reconciler, "LAST_EVENTS_S", 0.05)
        self.ari = ScriptedAri()
        await self.ari.start()
        self.addCleanup(self.ari.stop)
        self.store = MemoryStore()
        self.vault = Vault(Path(self.mktemp()), make_master_key())
        self.vault.set(self.ari.credential(name="office"))
        self.trunks: list[Trunk] = []

    async def start(self, **limits: Any) -> OutboundCalls:
        """Whoever places calls, connected to the Asterisk."""
        client, pool = make_client(reactor)
        self.addCleanup(pool.closeCachedConnections)

        def make_trunk(credential: Any, trunk_limits: TrunkLimits) -> Trunk:
            trunk = Trunk(
                credential, trunk_limits, treq_client=client, tls_options=lambda host: None, reactor=reactor,
                make_stasis=lambda ari, app: NoStasis(), now=time.time,
            )  # fmt: skip
            self.trunks.append(trunk)
            return trunk

        outbound = OutboundCalls(
            vault=self.vault,
            store=self.store,
            writer=ProgressWriter(self.store, notify=True, written=lambda: None, reactor=reactor),
            make_trunk=make_trunk,
            limits=TrunkLimits(**{**LIMITS, **limits}),
            context_ttl_s=300.0,
            max_pending=100,
            reactor=reactor,
            now=time.time,
        )
        await outbound.start()
        self.addCleanup(outbound.stop)
        # Until the first look-up of the calls is over: it would see what the test does next.
        await until(lambda: self.ari.requests("GET", "asterisk/info"))
        await until(lambda: all(trunk._reconciler._running is None for trunk in self.trunks))
        return outbound

    async def ready(self, **limits: Any) -> OutboundCalls:
        """All of it."""
        await self.asyncSetUp()
        return await self.start(**limits)

    def call(self, to: str = "200", **more: Any) -> OutboundCall:
        """A call."""
        return OutboundCall(assistant_id="1", to=to, **more)

    async def refused(self, placing: Deferred[Any]) -> CallNotPlaced:
        """A call is not placed; its record says so, it takes no place, and no password is told."""
        error: CallNotPlaced = await self.assertFailure(placing, CallNotPlaced)
        self.assertNotIn(PASSWORD, str(error))
        if error.context_id:
            context = await self.store.get(error.context_id)
            self.assertEqual((context.status, context.call_status), ("failed", "failed"))
            self.assertEqual(context.reason, "not_placed")
        self.assertEqual([trunk.limiter.active for trunk in self.trunks], [0] * len(self.trunks))
        return error

    def dial(self, context: CallContext, status: str) -> dict[str, Any]:
        """Dialling's event."""
        return {"type": "Dial", "peer": channel(context.channel_id), "dialstatus": status}

    def state(self, context: CallContext, state: str) -> dict[str, Any]:
        """A state's event."""
        return {"type": "ChannelStateChange", "channel": channel(context.channel_id, state)}

    def destroyed(self, context: CallContext, cause: int = 16, text: str = "Normal Clearing") -> dict[str, Any]:
        """The event of its channel's end."""
        self.ari.channels.pop(context.channel_id, None)
        return {"type": "ChannelDestroyed", "channel": channel(context.channel_id), "cause": cause, "cause_txt": text}

    async def becomes(self, context: CallContext, status: str) -> CallContext:
        """Wait until a call has this status."""
        for _ in range(500):
            found = await self.store.get(context.context_id)
            if found.call_status == status:
                return found
            await until(lambda: True)
            waiting: Deferred[None] = Deferred()
            reactor.callLater(0.01, waiting.callback, None)  # type: ignore[attr-defined]
            await waiting
        self.fail(f"it is {found.call_status}, not {status}")

    async def told(self) -> list[str]:
        """The statuses of which notices were made, in order."""
        return [str(notice.record["call_status"]) for notice in await self.store.notices(100)]


class PlacedTests(OutboundTestCase):
    """Calls that Asterisk takes."""

    async def test_placed(self) -> None:
        """What Asterisk is asked for, what is registered, and what is answered."""
        outbound = await self.ready()
        self.assertTrue(verifyObject(IOutbound, outbound))
        context = await outbound.place(self.call(caller="4930", variables={"a": "1"}))
        self.assertEqual((context.call_status, context.direction), (CallStatus.INITIATED, Direction.OUTBOUND))
        self.assertEqual(context.channel_id, channel_id_of(context.context_id))
        (asked,) = self.ari.requests("POST", "channels")
        self.assertEqual(
            asked.query,
            {
                "endpoint": "PJSIP/200@trunk", "channelId": context.channel_id, "timeout": "30", "callerId": "4930",
                "context": "rapida-outbound", "extension": "s", "priority": "1",
            },
        )  # fmt: skip
        self.assertEqual(asked.body, {"variables": {"a": "1", "RAPIDA_CONTEXT_ID": context.context_id}})
        self.assertEqual((await self.store.get(context.context_id)).call_status, "initiated")

    async def test_to_stasis(self) -> None:
        """Into our application instead, and another time for ringing."""
        outbound = await self.ready()
        context = await outbound.place(self.call(stasis=True, answer_timeout_s=7))
        (asked,) = self.ari.requests("POST", "channels")
        self.assertEqual(asked.query["app"], "rapida-media-office")
        self.assertEqual((asked.query["appArgs"], asked.query["timeout"]), (f"outbound,{context.context_id}", "7"))
        self.assertNotIn("context", asked.query)

    async def test_followed(self) -> None:
        """Its life by its events: in order, twice, late, of others, and no events at all."""
        outbound = await self.ready()
        context = await outbound.place(self.call())
        other = {"type": "ChannelDestroyed", "channel": channel("rapida-other"), "cause": 16}
        self.ari.tell(
            self.dial(context, ""), b"no JSON", other, self.dial(context, "RINGING"), self.state(context, "Ringing")
        )
        await self.becomes(context, "ringing")
        self.ari.tell(self.state(context, "Up"), self.dial(context, "ANSWER"), self.dial(context, "RINGING"), [1])
        answered = await self.becomes(context, "answered")
        self.assertIsNotNone(answered.answered_at)
        self.ari.tell(self.destroyed(context), self.destroyed(context), self.state(context, "Up"))
        over = await self.becomes(context, "completed")
        self.assertEqual((over.cause, over.cause_text, over.dial_status), (16, "Normal Clearing", "ANSWER"))
        self.assertEqual((over.status, over.reason), ("failed", "no_media"))
        self.assertEqual(await self.told(), ["initiated", "ringing", "answered", "completed"])
        self.assertEqual((self.trunks[0].limiter.active, self.trunks[0].calls), (0, []))

    async def test_events_before_the_answer(self) -> None:
        """Asterisk may tell of a call before it answers the request for it; it may even be over by then."""
        outbound = await self.ready()
        self.ari.script("POST", "channels", Answer(does=True, after_s=0.2))
        placing = outbound.place(self.call())
        await until(lambda: self.ari.channels)
        (context,) = await self.store.recent(1)
        self.ari.tell(
            self.dial(context, "RINGING"), self.dial(context, "BUSY"), self.destroyed(context, 17, "User busy")
        )
        await self.becomes(context, "failed")
        self.assertEqual((await placing).call_status, "failed")
        self.assertEqual((await self.store.get(context.context_id)).reason, "busy")
        self.assertEqual(await self.told(), ["ringing", "failed"])

    async def test_lost_answer(self) -> None:
        """An answer that gets lost is looked up; the call goes on, and nothing is placed twice."""
        outbound = await self.ready()
        self.ari.script("POST", "channels", LOST_BUT_DONE)
        context = await outbound.place(self.call())
        self.assertEqual(context.call_status, "initiated")
        self.assertEqual(len(self.ari.requests("POST", "channels")), 1)

    async def test_caller_of_place_goes_away(self) -> None:
        """Who does not wait for the answer does not take the call back."""
        outbound = await self.ready()
        self.ari.script("POST", "channels", Answer(does=True, after_s=0.1))
        placing = outbound.place(self.call())
        placing.cancel()
        await self.assertFailure(placing, CancelledError)
        await until(lambda: self.ari.channels)
        (context,) = await self.store.recent(1)
        await self.becomes(context, "initiated")
        self.assertEqual(self.ari.hung_up, [])


class NotPlacedTests(OutboundTestCase):
    """Calls that come to nothing, each told by its kind."""

    async def test_ari_failures(self) -> None:
        """What Asterisk answers decides who is told what: the call can't be, or Asterisk can't now, or can't at all."""
        outbound = await self.ready(ari_timeout_s=5.0)
        for answer, refused, retryable, words in [
            (ALLOCATION_FAILED, True, False, "Allocation failed"),
            (Answer(400, {"message": "Invalid endpoint specified"}), True, False, "Invalid endpoint"),
            (Answer(401, {"message": "Authentication required"}), False, False, "credential office"),
            (Answer(503, {"message": "Asterisk not booted"}), False, True, "not booted"),
            (Answer(200, b"<html>"), False, True, "no JSON"),
        ]:  # fmt: skip
            self.ari.script("POST", "channels", answer)
            error = await self.refused(outbound.place(self.call()))
            self.assertEqual((error.refused, error.retryable), (refused, retryable), words)
            self.assertIn(words, str(error))

    async def test_nobody_there(self) -> None:
        """An Asterisk that is down is told as such, and may be tried again."""
        outbound = await self.ready()
        await self.ari.stop()
        error = await self.refused(outbound.place(self.call()))
        self.assertEqual((error.refused, error.retryable), (False, True))
        self.assertIn("refused", str(error))
        await self.ari.start()

    async def test_given_up(self) -> None:
        """An Asterisk that does not answer is given up in time; the channel, when it comes up later, is hung up."""
        outbound = await self.ready()
        self.ari.script("POST", "channels", Answer(hangs=True, does_after_s=0.8))
        began = time.monotonic()
        error = await self.refused(outbound.place(self.call()))
        self.assertTrue(error.retryable)
        self.assertLess(time.monotonic() - began, 0.75)
        await until(lambda: self.ari.hung_up)
        self.assertEqual([hung_up[0] for hung_up in self.ari.hung_up], [channel_id_of(error.context_id)])
        self.assertEqual(len(self.ari.requests("POST", "channels")), 1)

    async def test_lost(self) -> None:
        """A request that nobody knows anything of is not sent again."""
        outbound = await self.ready()
        self.ari.script("POST", "channels", LOST)
        error = await self.refused(outbound.place(self.call()))
        self.assertEqual((error.refused, error.retryable), (False, True))
        self.assertEqual(len(self.ari.requests("POST", "channels")), 1)

    async def test_credentials(self) -> None:
        """No such credential, none at all, several and none named; a number that no dial string can hold."""
        outbound = await self.ready()
        for call, words in [
            (self.call(credential="nobody"), "no credential 'nobody'"),
            (self.call("20,0"), "cannot dial"),
            (self.call("200@other"), "cannot dial"),
        ]:
            error = await self.refused(outbound.place(call))
            self.assertTrue(error.refused)
            self.assertIn(words, str(error))
        self.vault.set(self.ari.credential(name="other"))
        self.assertIn("one of office, other", str(await self.refused(outbound.place(self.call()))))
        self.vault.set(self.ari.credential(name="default", trunk="another"))
        context = await outbound.place(self.call())
        self.assertEqual(context.credential, "default")
        self.assertEqual(self.ari.requests("POST", "channels")[-1].query["endpoint"], "PJSIP/200@another")
        for name in ("office", "other", "default"):
            self.vault.remove(name)
        error = await self.assertFailure(outbound.place(self.call()), CallNotPlaced)
        self.assertIn("rapida-media-ctl vault set", str(error))

    async def test_changed_credential(self) -> None:
        """What is changed in the vault counts for the next call."""
        outbound = await self.ready()
        self.vault.set(self.ari.credential(name="office", ari_password="wrong"))
        error = await self.refused(outbound.place(self.call()))
        self.assertEqual((error.refused, error.retryable), (False, False))
        self.vault.set(self.ari.credential(name="office"))
        outbound.refresh()
        self.assertEqual((await outbound.place(self.call())).call_status, "initiated")


class HungUpTests(OutboundTestCase):
    """Calls that we end."""

    async def test_while_ringing(self) -> None:
        """A call that is hung up while it rings is cancelled, whatever Asterisk's cause."""
        outbound = await self.ready()
        context = await outbound.place(self.call())
        self.ari.tell(self.state(context, "Ringing"))
        await self.becomes(context, "ringing")
        self.assertTrue(outbound.hang_up(context.context_id))
        await until(lambda: self.ari.hung_up)
        self.ari.tell(self.destroyed(context, 19, "User alerting, no answer"))
        over = await self.becomes(context, "cancelled")
        self.assertEqual((over.reason, over.cause), ("cancelled", 19))
        self.assertFalse(outbound.hang_up(context.context_id))

    async def test_while_being_placed(self) -> None:
        """A call that is hung up before Asterisk's response is hung up as soon as its channel exists."""
        outbound = await self.ready()
        self.ari.script("POST", "channels", Answer(after_s=0.2, does_after_s=0.15, body=channel("x")))
        placing = outbound.place(self.call())
        await until(lambda: self.ari.requests("POST", "channels"))
        (context,) = await self.store.recent(1)
        self.assertTrue(outbound.hang_up(context.context_id))
        await placing
        await until(lambda: self.ari.hung_up)
        self.ari.tell(self.destroyed(context))
        await self.becomes(context, "cancelled")

    async def test_in_a_while(self) -> None:
        """A call whose media another process ends first is hung up after that; at the end of all, at once."""
        outbound = await self.ready(calls=2)
        for after_s, hurry in ((0.1, False), (60.0, True)):
            context = await outbound.place(self.call())
            self.ari.tell(self.state(context, "Up"))
            await self.becomes(context, "answered")
            for _ in range(2):
                outbound.hang_up_later(context.context_id, after_s)
            self.assertEqual(self.ari.hung_up, [])
            if hurry:
                await outbound.leave()
            await until(lambda: self.ari.hung_up)
            self.ari.hung_up.clear()
            if not hurry:
                self.ari.tell(self.destroyed(context))
                await self.becomes(context, "completed")
        outbound.hang_up_later("nobody", 0.01)
        await sleep(0.05)
        self.assertEqual(self.ari.hung_up, [])

    async def test_too_long(self) -> None:
        """An answered call is hung up when it lasts too long."""
        outbound = await self.ready(longest_s=0.2)
        context = await outbound.place(self.call())
        self.ari.tell(self.state(context, "Up"))
        await self.becomes(context, "answered")
        await until(lambda: self.ari.hung_up)
        self.ari.tell(self.destroyed(context))
        await self.becomes(context, "completed")


class LimitTests(OutboundTestCase):
    """Calls that have to wait."""

    async def test_queue(self) -> None:
        """The second waits and is placed when the first is over; the third finds the queue full."""
        outbound = await self.ready(calls=1, queue=1)
        first = await outbound.place(self.call("1"))
        second = await outbound.place(self.call("2"))
        self.assertEqual((first.call_status, second.call_status), ("initiated", "new"))
        await self.assertFailure(outbound.place(self.call("3")), TooManyCalls)
        self.assertEqual(len(await self.store.recent(10)), 2)
        self.ari.tell(self.destroyed(first))
        await self.becomes(second, "initiated")
        self.assertEqual(self.ari.requests("POST", "channels")[-1].query["channelId"], second.channel_id)

    async def test_waited_in_vain(self) -> None:
        """A queued call fails after its time limit, or is cancelled; neither is dialled."""
        outbound = await self.ready(calls=1, wait_s=0.2)
        await outbound.place(self.call("1"))
        second, third = await outbound.place(self.call("2")), await outbound.place(self.call("3"))
        self.assertTrue(outbound.hang_up(third.context_id))
        self.assertEqual((await self.becomes(third, "cancelled")).reason, "cancelled")
        failed = await self.becomes(second, "failed")
        self.assertEqual((failed.reason, failed.cause_text), ("not_placed", "it waited 0.2 s in the trunk's queue"))
        self.assertEqual(len(self.ari.requests("POST", "channels")), 1)

    async def test_stopping(self) -> None:
        """Who stops takes back what waits and what rings, and leaves alone what is answered."""
        outbound = await self.ready(calls=2)
        up, rings = await outbound.place(self.call("1")), await outbound.place(self.call("2"))
        waits = await outbound.place(self.call("3"))
        self.ari.tell(self.state(up, "Up"))
        await self.becomes(up, "answered")
        outbound.drain()
        await self.becomes(waits, "cancelled")
        await self.assertFailure(outbound.place(self.call()), Draining)
        await outbound.stop()
        self.assertEqual([hung_up[0] for hung_up in self.ari.hung_up], [rings.channel_id])
        self.assertEqual((await self.store.get(rings.context_id)).call_status, "cancelled")
        self.assertEqual((await self.store.get(up.context_id)).call_status, "answered")


class GapTests(OutboundTestCase):
    """Calls whose events were lost."""

    async def gap(self) -> None:
        """The events' connection breaks, and comes again."""
        before = len(self.ari.subscriptions)
        self.ari.drop_subscribers()
        await until(lambda: len(self.ari.subscriptions) > before)

    async def test_caught_up(self) -> None:
        """After a gap each call's channel is asked for: what was answered meanwhile, and what ended."""
        outbound = await self.ready()
        answered, gone = await outbound.place(self.call("1")), await outbound.place(self.call("2"))
        self.ari.channels[answered.channel_id]["state"] = "Up"
        del self.ari.channels[gone.channel_id]
        await self.gap()
        await self.becomes(answered, "answered")
        over = await self.becomes(gone, "failed")
        self.assertEqual((over.reason, over.cause), ("unavailable", None))
        self.assertIn("no events", over.cause_text)

    async def test_restarted_asterisk(self) -> None:
        """An Asterisk that was started anew has none of its calls any more, and they are told so."""
        outbound = await self.ready()
        context = await outbound.place(self.call())
        self.ari.tell(self.state(context, "Up"))
        await self.becomes(context, "answered")
        self.ari.channels.clear()
        started = {"startup_time": "2025-01-31T12:00:00.500+0000"}
        info = Answer(200, {"system": {"version": "22"}, "status": started})
        self.ari.script("GET", "asterisk/info", info, info)
        await self.gap()
        over = await self.becomes(context, "failed")
        self.assertEqual((over.reason, over.cause_text), ("asterisk_gone", "Asterisk was restarted"))

    async def test_resumed(self) -> None:
        """Calls of an earlier process are followed: one that is up, one that is gone, one that never was placed."""
        await self.asyncSetUp()
        contexts = []
        for number, status in enumerate((CallStatus.RINGING, CallStatus.RINGING, CallStatus.NEW, CallStatus.RINGING)):
            context_id = f"626162e8-ed7b-44b4-b10d-{number:012d}"
            context = CallContext(
                context_id=context_id, assistant_id="1", created_at=time.time(), expires_at=time.time() + 300,
                direction=Direction.OUTBOUND, call_status=CallStatus.NEW, channel_id=channel_id_of(context_id),
                credential="office" if number < 3 else "forgotten",
            )  # fmt: skip
            await self.store.add(context, 10)
            await self.store.follow(context_id, CallProgress(status=status, at=1.0))
            contexts.append(context)
        self.ari.channels[contexts[0].channel_id] = channel(contexts[0].channel_id, "Up")
        await self.start(calls=1)
        await self.becomes(contexts[0], "answered")
        self.assertEqual((await self.becomes(contexts[1], "failed")).reason, "no_answer")
        self.assertEqual((await self.becomes(contexts[2], "cancelled")).reason, "cancelled")
        self.assertIn("no credential 'forgotten'", (await self.becomes(contexts[3], "failed")).cause_text)
        self.assertEqual(self.trunks[0].limiter.active, 1)
        self.assertEqual(self.ari.requests("POST", "channels"), [])
