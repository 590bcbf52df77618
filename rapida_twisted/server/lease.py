"""The lease: shows the processes that share the store that this one is alive, and receives their orders."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.interfaces.typed import CallStore

__all__ = ["LEASE_S", "Lease", "owner_name"]

LEASE_S = 30.0
"""A process whose lease is not renewed for this long (s) counts as dead."""
RENEW_S = 10.0
ORDERS_S = 0.5
STEP_S = 2.0
"""A larger change (s) of the wall clock against the monotonic one, between two checks, is a step."""


def owner_name() -> str:
    """A unique name for this process: its host's name and a random part."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname()).strip("-")[:40]
    return f"{host or 'host'}-{token_hex(4)}"


class Lease:
    """Renews the lease, and receives the orders of other processes.

    :param obey: called with each order.
    :param reactor: provides IReactorTime.
    :param now: wall-clock time in UNIX seconds.
    :param monotonic_s: a clock that never steps (s).
    """

    _log = Logger()

    def __init__(
        self,
        store: CallStore,
        obey: Callable[[Mapping[str, str]], None],
        reactor: Any,
        now: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._obey = obey
        self._now = now
        self._monotonic_s = monotonic_s
        self._offset_s = now() - monotonic_s()
        self._since_s: float | None = None
        """The time, by the monotonic clock, since which the lease was renewed without a failure or a clock step."""
        self._renewed_s = monotonic_s()
        self._works = True
        self._renewing = LoopingCall(self._renew)
        self._asking = LoopingCall(self._ask)
        self._renewing.clock = self._asking.clock = reactor

    def start(self) -> None:
        """Begin. Called once, when the store is open, before any call is claimed."""
        for loop, every_s in ((self._renewing, RENEW_S), (self._asking, ORDERS_S)):
            loop.start(every_s, now=True).addErrback(self._broke)

    def stop(self) -> None:
        """Stop renewing; the store ends the lease when it is closed."""
        for loop in (self._renewing, self._asking):
            if loop.running:
                loop.stop()

    def may_judge(self) -> bool:
        """Whether expired leases may be acted on: not just after a store outage or a clock step.

        For as long as a lease lasts after an outage, other processes may not have renewed theirs yet. Stores without a
        clock of their own compare leases with the wall clock, so that a step of it makes them expire.
        """
        now_s, offset_s = self._monotonic_s(), self._now() - self._monotonic_s()
        if abs(offset_s - self._offset_s) > STEP_S:
            self._log.warn("the wall clock stepped by {step:.1f} s", step=offset_s - self._offset_s)
            self._since_s = now_s
        self._offset_s = offset_s
        # A process that was held up, and has not renewed its own lease, knows nothing of the others'.
        recently = now_s - self._renewed_s < 2 * RENEW_S
        return recently and self._since_s is not None and now_s - self._since_s > LEASE_S

    def _renew(self) -> Deferred[Any]:
        now = self._now()
        renewing = self._store.renew(now=now, until=now + LEASE_S)
        return renewing.addCallbacks(self._renewed, self._not_renewed)

    def _renewed(self, _: None) -> None:
        if self._since_s is None or self._monotonic_s() - self._renewed_s > 2 * RENEW_S:
            self._since_s = self._monotonic_s()
        self._renewed_s = self._monotonic_s()
        if not self._works:
            self._works = True
            self._log.info("the store answers again")

    def _not_renewed(self, failure: Failure) -> None:
        failure.trap(StoreUnavailable)
        self._since_s = None
        if self._works:
            self._works = False
            self._log.warn(
                "the store does not answer ({error}): calls that are up go on, new ones are refused",
                error=failure.getErrorMessage(),
            )

    def _ask(self) -> Deferred[Any]:
        asking = self._store.orders(now=self._now())
        return asking.addCallbacks(self._take, lambda failure: failure.trap(StoreUnavailable))

    def _take(self, orders: list[Mapping[str, str]]) -> None:
        for order in orders:
            try:
                self._obey(order)
            except Exception:
                self._log.failure("cannot carry out the order of another process: {order}", order=json.dumps(order))

    def _broke(self, failure: Failure) -> None:
        self._log.failure("the lease is no longer renewed: other processes will count this one as dead", failure)
