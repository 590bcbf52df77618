"""From a registration here to a far end: what a rule's maker asks of its way, and when it does not ask."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any
from uuid import UUID

import treq
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from zope.interface.verify import verifyObject

from rapida_twisted.assistants.bridge import BridgeMaker
from rapida_twisted.asterisk.ari.client import channel_id_of
from rapida_twisted.asterisk.outbound import reconciler
from rapida_twisted.asterisk.vault.master_key import make_master_key
from rapida_twisted.audio.formats import ULAW
from rapida_twisted.audio.g711 import slin_to_ulaw
from rapida_twisted.bridge.breaker import FAILURES, CircuitBreaker
from rapida_twisted.bridge.fallback import Fallback
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import UpstreamFailed
from rapida_twisted.interfaces import IAssistantMaker
from rapida_twisted.observe.interface import Metrics
from tests.asterisk.scripted_ari import ScriptedAri
from tests.bridge.chain import FAR_ID, FAR_KEY, HOST, NEAR_KEY, ChainTestCase, Phone, nothing, says
from tests.bridge.test_bridged_call import FRAME, FakeFarEnd
from tests.bridge.test_far_end_websocket import Bot
from tests.media.fakes import CallOnFakes, KeptLog, make_context
from tests.protocols.websockets import until

LOUD = array("h", [4000, -4000] * 80).tobytes()
REFUSED = UpstreamFailed("refused", "the upstream far.example:443 does not register the call: 500", status=500)
LOST = UpstreamFailed("unreachable", "the upstream far.example:443 can't be reached")
UPSTREAM_ID = "11111111-2222-3333-4444-555555555555"


class FakeRoute:
    """Keeps what it is asked; what comes of it is told by the test."""

    name = "far.example:443"
    format = ULAW

    def __init__(self, registers: bool = True) -> None:
        self.registers = registers
        self.registered: list[CallContext] = []
        self.connected: list[str] = []
        self.registering: Deferred[str] = succeed(UPSTREAM_ID)
        self.connecting: Deferred[Any] = succeed(FakeFarEnd())

    async def register(self, context: CallContext) -> str:
        """Keep it."""
        self.registered.append(context)
        return await self.registering

    async def connect(self, context: CallContext, upstream_id: str, user: Any) -> Any:
        """Keep it."""
        self.connected.append(upstream_id)
        return await self.connecting


class FakeClient:
    closed = False

    def close(self) -> Deferred[None]:
        """Keep it."""
        self.closed = True
        return succeed(None)


class MakerTests(SynchronousTestCase):
    """On fake time, with a way that is told what to do."""

    def setUp(self) -> None:
        self.now_s = 0.0
        self.breaker = CircuitBreaker("far.example:443", now=lambda: self.now_s, random=lambda: 0.0)
        self.client = FakeClient()

    def make(self, route: FakeRoute, fallback: Fallback | None = None) -> BridgeMaker:
        """A rule's maker."""
        return BridgeMaker(route, fallback or Fallback(), self.breaker, self.client, Metrics())

    def prepare(self, maker: BridgeMaker) -> CallContext:
        """Register a call; it is done at once."""
        return self.successResultOf(Deferred.fromCoroutine(maker.prepare(make_context())))

    def prepare_fails(self, maker: BridgeMaker) -> UpstreamFailed:
        """Register a call, which fails at once."""
        failure = self.failureResultOf(Deferred.fromCoroutine(maker.prepare(make_context())), UpstreamFailed)
        assert isinstance(failure.value, UpstreamFailed)
        return failure.value

    def call(self, maker: BridgeMaker, context: CallContext) -> CallOnFakes:
        """The media of a call comes."""
        return CallOnFakes(maker(context), context=context)

    def others(self) -> Fallback:
        """Somebody who takes over."""
        return Fallback("next:PJSIP/200", dial_string="PJSIP/200")

    def test_interface(self) -> None:
        """It is what the registry wants."""
        verifyObject(IAssistantMaker, self.make(FakeRoute()))

    def test_registered(self) -> None:
        """The contextId there is kept with the call, and connected to without another registration."""
        route = FakeRoute()
        maker = self.make(route)
        context = self.prepare(maker)
        self.assertEqual(
            (context, route.registered), (replace(make_context(), upstream_id=UPSTREAM_ID), [make_context()])
        )
        self.call(maker, context)
        self.assertEqual((len(route.registered), route.connected), (1, [UPSTREAM_ID]))

    def test_not_registered(self) -> None:
        """Without a fallback the registration here fails with it; with one the call is kept, with the reason."""
        route = FakeRoute()
        route.registering = fail(REFUSED)
        self.assertIs(self.prepare_fails(self.make(route)), REFUSED)
        route.registering = fail(REFUSED)
        context = self.prepare(self.make(route, self.others()))
        self.assertEqual((context.upstream_id, context.detail), ("", str(REFUSED)))

    def test_fallback_asks_nobody(self) -> None:
        """A call that was registered for its fallback goes there at once: the far server is not asked again."""
        route = FakeRoute()
        route.registering = fail(REFUSED)
        maker = self.make(route, self.others())
        self.call(maker, self.prepare(maker))
        self.assertEqual((len(route.registered), route.connected), (1, []))

    def test_registered_late(self) -> None:
        """A call that nobody registered here, as one that we placed, is registered when its media comes."""
        route = FakeRoute()
        self.call(self.make(route), make_context())
        self.assertEqual((route.registered, route.connected), ([make_context()], [UPSTREAM_ID]))

    def test_registered_late_in_vain(self) -> None:
        """If that fails the call ends as failed, with the reason; nothing is connected."""
        route = FakeRoute()
        route.registering = fail(REFUSED)
        fakes = self.call(self.make(route), make_context())
        self.assertEqual((len(route.registered), route.connected), (1, []))
        fakes.turn()
        self.assertIs(fakes.call.ended, EndReason.UPSTREAM_FAILED)

    def test_program(self) -> None:
        """Where calls are not registered nothing is asked before the media comes."""
        route = FakeRoute(registers=False)
        maker = self.make(route)
        context = self.prepare(maker)
        self.assertEqual((context, route.connected), (make_context(), []))
        self.call(maker, context)
        self.assertEqual((route.registered, route.connected), ([], [""]))

    def test_program_that_rests(self) -> None:
        """While a program rests, its calls are refused before they are answered."""
        route = FakeRoute(registers=False)
        maker = self.make(route)
        for _ in range(FAILURES):
            route.connecting = fail(LOST)
            self.call(maker, self.prepare(maker))
        self.assertEqual(self.prepare_fails(maker).word, "resting")
        self.assertEqual(maker.health()["state"], "open")
        self.assertEqual(maker.health()["last_error"], str(LOST))

    def test_registering_is_no_success(self) -> None:
        """A server that registers calls and takes none of them fails in a row all the same."""
        route = FakeRoute()
        maker = self.make(route)
        for _ in range(FAILURES):
            route.registering, route.connecting = succeed(UPSTREAM_ID), fail(LOST)
            self.call(maker, self.prepare(maker))
        asked = len(route.registered)
        self.assertEqual(self.prepare_fails(maker).word, "resting")
        self.assertEqual(len(route.registered), asked)

    def test_probe_that_is_given_up(self) -> None:
        """A probe whose dialplan goes away says nothing: the next call is the probe."""
        route = FakeRoute()
        maker = self.make(route)
        for _ in range(FAILURES):
            route.registering = fail(REFUSED)
            self.prepare_fails(maker)
        self.now_s += 5.1
        route.registering = Deferred()
        probing = Deferred.fromCoroutine(maker.prepare(make_context()))
        self.assertEqual(self.prepare_fails(maker).word, "resting")
        probing.cancel()
        self.failureResultOf(probing, CancelledError)
        route.registering = succeed(UPSTREAM_ID)
        self.assertEqual(self.prepare(maker).upstream_id, UPSTREAM_ID)

    def test_well_again(self) -> None:
        """A bridged call ends the rest."""
        route = FakeRoute()
        maker = self.make(route)
        for _ in range(FAILURES):
            route.registering = fail(REFUSED)
            self.prepare_fails(maker)
        self.now_s += 5.1
        route.registering = succeed(UPSTREAM_ID)
        context = self.prepare(maker)
        self.assertEqual(maker.health()["state"], "half-open")
        fakes = self.call(maker, context)
        self.assertEqual((maker.health()["state"], maker.health()["failures"]), ("closed", 0))
        fakes.call.audio_received(FRAME)

    def rest(self, maker: BridgeMaker, route: FakeRoute) -> None:
        """So many calls fail that the breaker opens."""
        for _ in range(FAILURES):
            setattr(route, "registering" if route.registers else "connecting", fail(LOST))
            self.call(maker, make_context())
        self.assertEqual(maker.health()["state"], "open")

    def test_kept_for_its_fallback_while_it_rests(self) -> None:
        """While the server rests a call with a fallback is registered here at once, with the reason, in both ways."""
        for registers in (True, False):
            self.setUp()
            route = FakeRoute(registers)
            maker = self.make(route, self.others())
            self.rest(maker, route)
            asked = len(route.registered), len(route.connected)
            context = self.prepare(maker)
            self.assertEqual(context.upstream_id, "")
            self.assertIn("is not tried for another 5.0 s, after 5 failures", context.detail)
            self.call(maker, context)
            self.assertEqual((len(route.registered), len(route.connected)), asked)

    def test_late_while_it_rests(self) -> None:
        """A call that was registered nowhere, or before, fails at once when its media comes while the server rests."""
        route = FakeRoute()
        maker = self.make(route)
        before = self.prepare(maker)
        self.rest(maker, route)
        asked = len(route.registered), len(route.connected)
        for context in (make_context(), before):
            fakes = self.call(maker, context)
            fakes.turn()
            self.assertIs(fakes.call.ended, EndReason.UPSTREAM_FAILED)
            self.assertIn("is not tried for another 5.0 s, after 5 failures", fakes.call.detail)
        self.assertEqual((len(route.registered), len(route.connected)), asked)

    def test_probe_that_is_registered_only(self) -> None:
        """A probe that is registered and then not taken is a failure: the server rests again, for twice as long."""
        route = FakeRoute()
        maker = self.make(route)
        self.rest(maker, route)
        self.now_s += 5.1
        route.registering, route.connecting = succeed(UPSTREAM_ID), fail(LOST)
        context = self.prepare(maker)
        self.assertEqual(maker.health()["state"], "half-open")
        self.call(maker, context)
        health = maker.health()
        self.assertEqual((health["state"], health["failures"], health["retry_in_s"]), ("open", FAILURES + 1, 10.0))
        self.assertEqual(self.prepare_fails(maker).word, "resting")

    def test_not_this_call(self) -> None:
        """A call that the server does not want says nothing about others, wherever it is told."""
        unwanted = UpstreamFailed("refused", "no such assistant", status=404, of_call=True)
        route = FakeRoute()
        maker = self.make(route)
        for _ in range(FAILURES):
            route.registering = fail(unwanted)
            self.prepare_fails(maker)
            route.registering, route.connecting = succeed(UPSTREAM_ID), fail(unwanted)
            self.call(maker, self.prepare(maker))
        self.assertEqual((maker.health()["state"], maker.health()["failures"]), ("closed", 0))
        self.assertEqual(len(route.connected), FAILURES)

    def test_caller_of_the_probe_hangs_up(self) -> None:
        """A probe whose caller hangs up while it is registered late, or connected, is cancelled and says nothing."""
        for way in ("registering", "connecting"):
            self.setUp()
            route = FakeRoute()
            maker = self.make(route)
            self.rest(maker, route)
            self.now_s += 5.1
            route.registering, route.connecting = succeed(UPSTREAM_ID), succeed(FakeFarEnd())
            waiting: Deferred[Any] = Deferred()
            setattr(route, way, waiting)
            fakes = self.call(maker, make_context())
            self.assertEqual(self.prepare_fails(maker).word, "resting")
            fakes.call.media_ended(EndReason.CALLER_HANGUP)
            fakes.turn()
            self.failureResultOf(waiting.addBoth(lambda _: fail(CancelledError())), CancelledError)
            self.assertEqual((fakes.call.ended, fakes.call.detail), (EndReason.CALLER_HANGUP, ""))
            self.assertEqual((maker.health()["state"], maker.health()["failures"]), ("half-open", FAILURES))
            route.registering = succeed(UPSTREAM_ID)
            self.assertEqual(self.prepare(maker).upstream_id, UPSTREAM_ID)

    def test_log(self) -> None:
        """A call that is registered for its fallback makes one line, which tells which and why."""
        logged = KeptLog(self)
        route = FakeRoute()
        route.registering = fail(REFUSED)
        self.prepare(self.make(route, self.others()))
        (warning,) = logged.at(LogLevel.warn)
        said = formatEvent(warning)
        self.assertEqual(said, f"call {make_context().context_id}: {REFUSED}; registered for its fallback")

    def test_close(self) -> None:
        """Closing lets go of the connections."""
        self.successResultOf(Deferred.fromCoroutine(self.make(FakeRoute()).close()))
        self.assertTrue(self.client.closed)


class PlacedCallTests(ChainTestCase):
    """Calls that we placed: registered nowhere while they rang. A far side that does as told, and an Asterisk's ARI."""

    slow = True  # real connections with short limits

    def setUp(self) -> None:
        """Make the vault's key."""
        super().setUp()
        self.master_key = make_master_key()

    async def place(self, **words: Any) -> Phone:
        """Place a call to 200; it is answered, and its dialplan connects its media."""
        self.patch(reconciler, "LAST_EVENTS_S", 0.05)
        self.ari = ScriptedAri()
        await self.ari.start()
        self.addCleanup(self.ari.stop)
        near = self.near_server(vault_master_key=self.master_key, **words)
        near.components.vault.set(self.ari.credential())
        near.components.outbound.refresh()
        await until(lambda: self.ari.subscribers)
        url = f"http://{HOST}:{near.http_port}/v1/talk/asterisk/outbound/123"
        body = {"to": "200", "from": "+49 30", "variables": {"ORDER": "7"}}
        answer = await treq.post(url, json=body, headers={"x-api-key": NEAR_KEY}, persistent=False)
        self.answers.append(await answer.text())
        self.assertEqual(answer.code, 201, self.answers[-1])
        context_id = (await answer.json())["contextId"]
        channel_id = channel_id_of(context_id)
        await until(lambda: channel_id in self.ari.channels)
        self.assertEqual(self.side.asked, [])
        self.ari.channels[channel_id]["state"] = "Up"
        return await self.connect(context_id)

    async def connect(self, context_id: str) -> Phone:
        """What its dialplan does once somebody has answered."""
        phone = Phone(UUID(context_id), LOUD)
        await connectProtocol(TCP4ClientEndpoint(reactor, HOST, self.near.audiosocket_port), phone)
        self.addCleanup(self._hang_up, phone)
        return phone

    async def test_carried_on(self) -> None:
        """It is registered there, once, when its media comes, with its numbers; audio goes both ways."""
        self.far_side()
        phone = await self.place()
        await until(lambda: self.side.bots.made and self.side.bots.made[0].audio)
        self.assertEqual(
            self.side.asked, [f"/v1/talk/asterisk/call/123?from=%2B49+30&to=200&x-api-key={FAR_KEY}"]
        )  # fmt: skip
        (bot,) = self.side.bots.made
        self.assertEqual(bot.path, f"/v1/talk/asterisk/ctx/{FAR_ID}?x-api-key={FAR_KEY}")
        self.assertEqual(bot.audio[0], slin_to_ulaw(LOUD))
        bot.play(slin_to_ulaw(LOUD) * 5)
        await until(lambda: max(array("h", phone.heard or b"\0\0")) > 3000)
        bot.say("HANGUP")
        record = await self.ended(phone)
        self.assertEqual((record["status"], record["reason"]), ("completed", "assistant_hangup"))
        self.assertEqual((record["direction"], record["detail"]), ("outbound", ""))
        self.assertTrue(phone.hung_up)

    async def test_far_side_fails(self) -> None:
        """If it is not registered, or not taken, its dialplan goes on, and the record tells why."""
        denying = type("Denying", (Bot,), {"deny": (503, "full")})
        for words, told in (
            ({"register": says(500)}, "does not register the call: 500"),
            ({"register": nothing}, "did not answer within 0.3 s"),
            ({"bot": denying}, "503"),
        ):  # fmt: skip
            self.far_side(**words)
            phone = await self.place(upstream_timeout_s=0.3)
            record = await self.ended(phone)
            self.assertEqual((record["status"], record["reason"]), ("failed", "upstream_failed"))
            self.assertIn(told, record["detail"])
            self.assertTrue(phone.hung_up)
            self.assertEqual(len(self.side.asked), 1)

    async def test_fallback(self) -> None:
        """With a fallback somebody is there for whoever answered."""
        self.far_side(register=says(500))
        phone = await self.place(upstream_fallback="echo")
        await until(lambda: max(array("h", phone.heard or b"\0\0")) > 3000)
        phone.hang_up()
        record = await self.ended(phone)
        self.assertEqual((record["status"], record["reason"]), ("completed", "caller_hangup"))
        self.assertIn("500", record["detail"])
        self.assertEqual(len(self.side.asked), 1)


class ConnectionTests(ChainTestCase):
    """What becomes of connections, and of registrations on their way."""

    slow = True  # real connections with short limits

    def seen(self, answer: Any = None) -> Any:
        """Registers calls so, and keeps the connections that registrations come on."""
        self.connections: list[Any] = []

        def register(request: Any) -> Any:
            connection = request.channel.transport
            if connection not in self.connections:
                self.connections.append(connection)
            return FAR_ID.encode() if answer is None else answer(request)

        return register

    def lost(self) -> bool:
        """Whether all of them are gone."""
        return not any(connection.connected for connection in self.connections)

    async def test_kept(self) -> None:
        """A connection is kept for the next registration, and closed when the server stops."""
        self.far_side(register=self.seen())
        near = self.near_server()
        for _ in range(3):
            self.assertEqual((await self.register())[0], 200)
        self.assertEqual((len(self.connections), self.lost()), (1, False))
        await near.stopService()
        await until(self.lost)

    async def test_capitals(self) -> None:
        """A scheme in capitals is as good, for the registration and for the media."""
        self.far_side()
        self.near_server(upstream_url=f"HTTPS://{HOST}:{self.far_port}/")
        phone = await self.call(LOUD)
        await until(lambda: self.side.bots.made and self.side.bots.made[0].audio)
        phone.hang_up()
        self.assertEqual((await self.ended(phone))["reason"], "caller_hangup")

    async def test_dialplan_goes_away(self) -> None:
        """A dialplan that does not wait takes its registration with it; nothing is kept of the call."""
        self.far_side(register=self.seen(nothing))
        self.near_server(upstream_timeout_s=5.0)
        asking = Deferred.fromCoroutine(self.register())
        await until(lambda: self.connections)
        asking.cancel()
        await until(self.lost, 3)
        self.assertEqual(await self.ask("/v1/calls"), {"calls": []})
        self.assertEqual((await self.ask("/readyz"))["assistants"]["*"]["failures"], 0)
        await self.assertFailure(asking, CancelledError, ResponseNeverReceived)

    async def test_readiness(self) -> None:
        """/readyz tells for each rule with a bridge, and for no other; the address of the server, and no more of it."""
        self.far_side(register=says(503))
        address = f"ws://{HOST}:1/media?token={FAR_KEY}"
        self.near_server("1=bridge", f"2=bridge:{address}", "*=echo")
        await self.register("1")
        ready = await self.ask("/readyz")
        self.assertTrue(ready["ready"])
        self.assertEqual(sorted(ready["assistants"]), ["1", "2"])
        hosted, program = ready["assistants"]["1"], ready["assistants"]["2"]
        self.assertEqual((hosted["upstream"], hosted["failures"]), (f"{HOST}:{self.far_port}", 1))
        self.assertIn("503", hosted["last_error"])
        self.assertEqual(program, {
            "upstream": f"{HOST}:1", "state": "closed", "failures": 0, "retry_in_s": None, "last_error": "",
        })  # fmt: skip
