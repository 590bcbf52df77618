"""Asking what became of calls whose events may have been lost: after a gap, and now and then without one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.asterisk.ari.client import AriClient
from rapida_twisted.asterisk.ari.errors import AriError
from rapida_twisted.asterisk.outbound.call import OutgoingCall
from rapida_twisted.asterisk.outbound.progress import status_of_state
from rapida_twisted.context import CallProgress, CallStatus, EndReason

__all__ = ["Reconciler"]

EVERY_S = 30.0
"""How often each call's channel is asked for without any reason."""
ASKED_AT_ONCE = 8
LAST_EVENTS_S = 2.0
"""How long the last events of a channel that is gone may be on their way."""


class Reconciler:
    """Looks after the calls of one Asterisk.

    :param calls: gives the calls that are not over and that Asterisk may have.
    :param reactor: provides IReactorTime.
    :param now: wall-clock time in UNIX seconds.
    """

    _log = Logger()

    def __init__(
        self, ari: AriClient, calls: Callable[[], list[OutgoingCall]], *, reactor: Any, now: Callable[[], float]
    ) -> None:
        self._ari = ari
        self._calls = calls
        self._reactor = reactor
        self._now = now
        self._looking: Deferred[Any] | None = None
        self._look_again = False
        self._started: datetime | None = None
        """When Asterisk was started, by its own clock, as far as it told us."""
        self._looks = LoopingCall(self.look)
        self._looks.clock = reactor

    def start(self) -> None:
        """Look now and then."""
        self._looks.start(EVERY_S, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._looks.running:
            self._looks.stop()
        if self._looking is not None:
            self._looking.cancel()

    def look(self) -> None:
        """Ask for each call's channel; once more, if that is being done already."""
        self._look_again = self._looking is not None
        if self._looking is None:
            self._looking = Deferred.fromCoroutine(self._look())
            self._looking.addErrback(self._broke)
            self._looking.addCallback(self._looked)

    def _looked(self, _: Any) -> None:
        self._looking = None
        if self._look_again:
            self.look()

    def _broke(self, failure: Failure) -> None:
        # What could not be asked now is asked the next time.
        self._look_again = False
        if not failure.check(AriError, CancelledError):
            self._log.failure("ARI {name}: looking after calls failed", failure, name=self._ari.credential.name)

    async def _look(self) -> None:
        # Before the calls are counted: those that are placed from now on are not lost.
        restarted_at = await self._restarted_at()
        calls = self._calls()
        few = DeferredSemaphore(ASKED_AT_ONCE)

        def ask(outgoing: OutgoingCall) -> Deferred[bool]:
            return Deferred.fromCoroutine(self._is_there(outgoing))

        there = await gatherResults([few.run(ask, outgoing) for outgoing in calls], consumeErrors=True)
        missing = [outgoing for outgoing, is_there in zip(calls, there, strict=True) if not is_there]
        if missing:
            await deferLater(self._reactor, LAST_EVENTS_S)
        for outgoing in missing:
            self._gone(outgoing, restarted_at)

    async def _restarted_at(self) -> float:
        """Calls of before this moment (UNIX s, by our clock) are gone with the Asterisk that had them; 0: none are."""
        info = await self._ari.info()
        if info.started is None or info.system_time is None:
            return 0.0
        earlier, self._started = self._started, info.started
        started_at = self._now() - (info.system_time - info.started).total_seconds()
        # Who has not seen it start anew goes by the clocks alone, and they may tell different fractions of a second.
        return started_at if earlier not in (None, info.started) else started_at - 1

    async def _is_there(self, outgoing: OutgoingCall) -> bool:
        try:
            channel = await self._ari.channel(outgoing.channel_id)
        except AriError:
            return True  # for all that we know
        if channel is not None:
            outgoing.reached(status_of_state(channel.state))
        return channel is not None

    def _gone(self, outgoing: OutgoingCall, restarted_at: float) -> None:
        """It ended, and nobody told us."""
        if outgoing.status is CallStatus.NEW:
            why, status, reason = "the server ended before it was placed", CallStatus.CANCELLED, EndReason.CANCELLED
        elif outgoing.created_at < restarted_at:
            why, status, reason = "Asterisk was restarted", CallStatus.FAILED, EndReason.ASTERISK_GONE
        else:
            outgoing.gone(cause_text="it ended while there were no events")
            return
        outgoing.end(CallProgress(status=status, at=self._now(), cause_text=why, reason=reason))
