"""The lease: how this process tells those that share its store that it lives, and hears what they want of it."""

from __future__ import annotations

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
"""How long others wait for word of a process until they take it for gone."""
RENEW_S = 10.0
ORDERS_S = 0.5
STEP_S = 2.0
"""How far the wall clock may go beside the steady one between two looks; more is a step."""


def owner_name() -> str:
    """A name for this process that no other has had: its host's, and a random part."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname()).strip("-")[:40]
    return f"{host or 'host'}-{token_hex(4)}"


class Lease:
    """Renews the lease, and takes the orders of other processes.

    :param obey: called with the words of each order.
    :param reactor: provides IReactorTime.
    :param now: wall-clock time in UNIX seconds.
    :param steady_s: a clock that never steps (s).
    """

    _log = Logger()

    def __init__(
        self,
        store: CallStore,
        obey: Callable[[Mapping[str, str]], None],
        reactor: Any,
        now: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._obey = obey
        self._now = now
        self._steady_s = steady_s
        self._offset_s = now() - steady_s()
        self._since_s: float | None = None
        """Since when the lease was renewed without a failure, and the clock made no step; by the steady clock."""
        self._renewed_s = steady_s()
        self._works = True
        self._renewing = LoopingCall(self._renew)
        self._asking = LoopingCall(self._ask)
        self._renewing.clock = self._asking.clock = reactor

    def start(self) -> None:
        """Begin. Called once, when the store is open, before any call is claimed."""
        for loop, every_s in ((self._renewing, RENEW_S), (self._asking, ORDERS_S)):
            loop.start(every_s, now=True).addErrback(self._broke)

    def stop(self) -> None:
        """Renew no more; the store ends the lease when it is closed."""
        for loop in (self._renewing, self._asking):
            if loop.running:
                loop.stop()

    def may_judge(self) -> bool:
        """Whether others may be taken for gone now, who did not renew their leases.

        Not for as long as a lease lasts after the store was away, as far as this process knows, when nobody could; and
        after a step of the wall clock, which leases go by in stores that have no clock of their own.
        """
        now_s, offset_s = self._steady_s(), self._now() - self._steady_s()
        if abs(offset_s - self._offset_s) > STEP_S:
            self._log.warn("the clock was changed by {step:.1f} s", step=offset_s - self._offset_s)
            self._since_s = now_s
        self._offset_s = offset_s
        # Who was held up, and is about to renew his own, does not know how the others are.
        recently = now_s - self._renewed_s < 2 * RENEW_S
        return recently and self._since_s is not None and now_s - self._since_s > LEASE_S

    def _renew(self) -> Deferred[Any]:
        now = self._now()
        renewing = self._store.renew(now=now, until=now + LEASE_S)
        return renewing.addCallbacks(self._renewed, self._not_renewed)

    def _renewed(self, _: None) -> None:
        if self._since_s is None or self._steady_s() - self._renewed_s > 2 * RENEW_S:
            self._since_s = self._steady_s()
        self._renewed_s = self._steady_s()
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
        for words in orders:
            try:
                self._obey(words)
            except Exception:
                self._log.failure("an order of another process could not be carried out: {words}", words=dict(words))

    def _broke(self, failure: Failure) -> None:
        self._log.failure("the lease is not renewed any more: others will take this process for gone", failure)
