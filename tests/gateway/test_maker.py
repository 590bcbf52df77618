"""From a registration here to a far end: what a rule's maker asks of its way, and when it does not ask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rapida_twisted.audio.formats import ULAW
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import UpstreamFailed
from rapida_twisted.gateway.fallback import Fallback
from rapida_twisted.gateway.maker import BridgeMaker
from rapida_twisted.interfaces import IAssistantMaker
from rapida_twisted.upstream.breaker import FAILURES, CircuitBreaker
from tests.gateway.test_bridge import FRAME, FakeFarEnd
from tests.media.fakes import CallOnFakes, make_context

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


class FakePool:
    closed = False

    def closeCachedConnections(self) -> Deferred[None]:  # noqa: N802
        """Keep it."""
        self.closed = True
        return succeed(None)


class MakerTests(SynchronousTestCase):
    """On fake time, with a way that is told what to do."""

    def setUp(self) -> None:
        self.now_s = 0.0
        self.breaker = CircuitBreaker("far.example:443", now=lambda: self.now_s, random=lambda: 0.0)
        self.pool = FakePool()

    def make(self, route: FakeRoute, fallback: Fallback | None = None) -> BridgeMaker:
        """A rule's maker."""
        return BridgeMaker(route, fallback or Fallback(), self.breaker, self.pool)

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
        """A call that is carried on ends the rest."""
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

    def test_close(self) -> None:
        """Closing lets go of the connections."""
        self.successResultOf(Deferred.fromCoroutine(self.make(FakeRoute()).close()))
        self.assertTrue(self.pool.closed)
