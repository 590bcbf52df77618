"""The lease: renewed in time, orders taken, and no hasty judgement after a step of the clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import CallContext, ContextStatus
from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.server.lease import Lease, owner_name
from rapida_twisted.store.memory import MemoryStore

NOW = 1_795_000_000.0


class LeaseTests(SynchronousTestCase):
    """A process with one call."""

    def setUp(self) -> None:
        """A call that is up here, and clocks that the test moves."""
        self.clock = Clock()
        self.step_s = 0.0
        self.obeyed: list[Mapping[str, str]] = []
        self.store = MemoryStore("here")
        call = CallContext(context_id="c", assistant_id="1", created_at=NOW, expires_at=NOW + 300)
        self.successResultOf(self.store.add(call, 10))
        self.lease = Lease(self.store, self.obey, self.clock, self.now, self.clock.seconds)
        self.addCleanup(self.lease.stop)
        self.lease.start()
        self.successResultOf(self.store.claim("c", transport="audiosocket", peer="", now=NOW))

    def now(self) -> float:
        """The wall clock."""
        return NOW + self.clock.seconds() + self.step_s

    def obey(self, words: Mapping[str, str]) -> None:
        """Keep the order; one of them can't be carried out."""
        self.obeyed.append(words)
        if words.get("break"):
            raise ZeroDivisionError

    def status(self) -> ContextStatus:
        """What a sweep leaves the call at."""
        self.successResultOf(self.store.sweep(now=self.now(), forget_before=0))
        return self.successResultOf(self.store.get("c")).status

    def test_renewed(self) -> None:
        """The lease lasts as long as the process, from the start on, and half a minute longer."""
        self.assertEqual(self.status(), ContextStatus.CLAIMED)
        self.clock.pump([0.5] * 240)
        self.assertEqual(self.status(), ContextStatus.CLAIMED)
        self.lease.stop()
        self.clock.advance(29)
        self.assertEqual(self.status(), ContextStatus.CLAIMED)
        self.clock.advance(2)
        self.assertEqual(self.status(), ContextStatus.FAILED)

    def test_store_away(self) -> None:
        """A store that does not answer for a while is told once, and the lease is renewed after that."""
        real: Any = self.store.renew
        self.patch(self.store, "renew", lambda **_: fail(StoreUnavailable("away")))
        self.patch(self.store, "orders", lambda **_: fail(StoreUnavailable("away")))
        self.clock.pump([0.5] * 100)
        self.patch(self.store, "renew", real)
        self.clock.pump([0.5] * 20)
        self.assertEqual(self.status(), ContextStatus.CLAIMED)

    def test_orders(self) -> None:
        """Orders are carried out within half a second; one that can't be keeps no other back."""
        for words in ({"break": "1"}, {"hangup": "c"}):
            self.successResultOf(self.store.order("here", words, now=self.now()))
        self.clock.advance(0.5)
        self.assertEqual(self.obeyed, [{"break": "1"}, {"hangup": "c"}])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(0.5)
        self.assertEqual(len(self.obeyed), 2)

    def judges(self, *, after_s: float) -> None:
        """Others are judged after so many seconds, and not sooner."""
        for _ in range(int(after_s / 0.5)):
            self.assertFalse(self.lease.may_judge(), self.clock.seconds())
            self.clock.advance(0.5)
        self.clock.advance(0.5)
        self.assertTrue(self.lease.may_judge())
        self.assertEqual(self.status(), ContextStatus.CLAIMED)

    def test_start(self) -> None:
        """At first nobody is judged: the store may have been away just before."""
        self.judges(after_s=30)

    def test_clock_steps(self) -> None:
        """After a step of the wall clock, either way, nobody is judged until the living have renewed their leases."""
        self.judges(after_s=30)
        for step_s in (3600.0, -3600.0, 10.0):
            self.clock.advance(1)
            self.step_s += step_s
            self.judges(after_s=30)

    def test_after_an_outage(self) -> None:
        """When the store was away nobody could renew a lease, so nobody is judged for as long as one lasts."""
        self.judges(after_s=30)
        real: Any = self.store.renew
        self.patch(self.store, "renew", lambda **_: fail(StoreUnavailable("away")))
        self.clock.pump([0.5] * 80)
        self.assertFalse(self.lease.may_judge())
        self.patch(self.store, "renew", real)
        while self.store._leases["here"] < self.now():
            self.clock.advance(0.5)
        self.judges(after_s=30)

    def test_held_up(self) -> None:
        """A process that was held up for long judges nobody, and has its own lease first."""
        self.judges(after_s=30)
        self.clock.rightNow += 40
        self.assertFalse(self.lease.may_judge())
        self.clock.advance(0)
        self.judges(after_s=30)

    def test_slow_clock(self) -> None:
        """A clock that is put right little by little has made no step."""
        self.judges(after_s=30)
        for _ in range(100):
            self.clock.advance(5)
            self.step_s += 0.05
            self.assertTrue(self.lease.may_judge())

    def test_names(self) -> None:
        """Each name is another, and fit for the name of a file."""
        names = {owner_name() for _ in range(100)}
        self.assertEqual(len(names), 100)
        for name in names:
            self.assertRegex(name, "^[A-Za-z0-9-]{10,60}$")
