"""Looks up calls whose events may be lost: after a gap in the events, and periodically."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, FirstError, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.asterisk.ari.client import AriClient
from rapida_twisted.asterisk.ari.errors import AriError
from rapida_twisted.asterisk.outbound.call import TrackedCall
from rapida_twisted.asterisk.outbound.progress import status_of_state
from rapida_twisted.context import CallStatus, EndReason

__all__ = ["Reconciler"]

EVERY_S = 30.0
CONCURRENT_REQUESTS = 8
LAST_EVENTS_S = 2.0
"""How long (s) the last events of a channel may lag behind its end."""


class Reconciler:
    """Compares the calls of one Asterisk with its channels.

    :param calls: returns the calls that are not over and that Asterisk may have.
    :param now: wall-clock time in UNIX seconds.
    """

    _log = Logger()

    def __init__(
        self, ari: AriClient, calls: Callable[[], list[TrackedCall]], *, reactor: Any, now: Callable[[], float]
    ) -> None:
        self._ari = ari
        self._calls = calls
        self._reactor = reactor
        self._now = now
        self._running: Deferred[Any] | None = None
        self._run_again = False
        self._started: datetime | None = None
        """When Asterisk last started, by its own clock."""
        self._loop = LoopingCall(self.reconcile)
        self._loop.clock = reactor

    def start(self) -> None:
        self._loop.start(EVERY_S, now=False)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        if self._running is not None:
            self._running.cancel()

    def reconcile(self) -> None:
        """Look up each call's channel; once more afterwards, if that is under way already."""
        self._run_again = self._running is not None
        if self._running is None:
            self._running = Deferred.fromCoroutine(self._reconcile())
            self._running.addErrback(self._broke)
            self._running.addCallback(self._done)

    def _done(self, _: Any) -> None:
        self._running = None
        if self._run_again:
            self.reconcile()

    def _broke(self, failure: Failure) -> None:
        # The next period tries again.
        self._run_again = False
        if isinstance(failure.value, FirstError):
            failure = failure.value.subFailure
        if not failure.check(AriError, CancelledError):
            self._log.failure("ARI {name}: cannot look up calls", failure, name=self._ari.credential.name)

    async def _reconcile(self) -> None:
        # Before the list of calls: Asterisk cannot have lost those placed later.
        restarted_at = await self._restarted_at()
        calls, semaphore = self._calls(), DeferredSemaphore(CONCURRENT_REQUESTS)

        def look_up(call: TrackedCall) -> Deferred[bool]:
            return Deferred.fromCoroutine(self._exists(call))

        exist = await gatherResults([semaphore.run(look_up, call) for call in calls], consumeErrors=True)
        missing = [call for call, exists in zip(calls, exist, strict=True) if not exists]
        if missing:
            await deferLater(self._reactor, LAST_EVENTS_S)
        for call in missing:
            self._end(call, restarted_at)

    async def _restarted_at(self) -> float:
        """Asterisk's last start (UNIX s, by this machine's clock), with which all earlier calls ended; 0: unknown."""
        info = await self._ari.info()
        if info.started is None or info.system_time is None:
            return 0.0
        previous, self._started = self._started, info.started
        started_at = self._now() - (info.system_time - info.started).total_seconds()
        # Without an observed restart only the clocks decide, which may differ by a fraction of a second.
        return started_at if previous not in (None, info.started) else started_at - 1

    async def _exists(self, call: TrackedCall) -> bool:
        try:
            channel = await self._ari.channel(call.channel_id)
        except AriError:
            return True  # as far as we know
        if channel is not None:
            call.progressed(status_of_state(channel.state))
        return channel is not None

    def _end(self, call: TrackedCall, restarted_at: float) -> None:
        """End a call whose end no event reported."""
        if call.status is CallStatus.NEW:
            call.end(CallStatus.CANCELLED, EndReason.CANCELLED, "the server ended before it was placed")
        elif call.created_at < restarted_at:
            call.end(CallStatus.FAILED, EndReason.ASTERISK_GONE, "Asterisk was restarted")
        else:
            call.channel_ended(cause_text="it ended while there were no events")
