"""A line: one Asterisk and the trunk behind it, over which calls are placed and followed.

What becomes of a call is told by ARI's events. They may be lost while the connection is, so after each gap, and now and
then without one, the channel of each call is asked for: no call stays "ringing" for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.asterisk.ari.client import AriClient
from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.ari.errors import AriError, AriRejected, AriUnreachable
from rapida_twisted.asterisk.ari.events import AriEvents, retry_pause_s
from rapida_twisted.asterisk.outbound.call import OutgoingCall
from rapida_twisted.asterisk.outbound.call_limiter import CallLimiter
from rapida_twisted.asterisk.outbound.progress import EVENTS, news_of
from rapida_twisted.asterisk.outbound.reconciler import Reconciler
from rapida_twisted.context import CallProgress, CallStatus, EndReason
from rapida_twisted.errors import CallNotPlaced
from rapida_twisted.interfaces import OutboundCall

__all__ = ["StasisSide", "Trunk", "TrunkLimits", "app_name"]

LATE_S = 5.0
"""Asterisk ends by itself what is not answered in time; after this we do."""
HOPELESS_S = 60.0
"""How long after its last deadline a call is given up of which there are no news, since Asterisk is away."""
STASIS_EVENTS = ("StasisStart", "StasisEnd", "ChannelHangupRequest", "ApplicationReplaced")


@dataclass(frozen=True, kw_only=True)
class TrunkLimits:
    """What holds for each line."""

    context: str = "rapida-outbound"
    """Where in the dialplan answered calls go."""
    app: str = "rapida-media"
    """What the names of our Stasis applications begin with."""
    calls: int = 100
    rate: float = 10.0
    queue: int = 100
    wait_s: float = 60.0
    answer_s: float = 60.0
    longest_s: float = 3600.0
    """After so much an answered call is hung up; 0: never."""
    ari_timeout_s: float = 10.0


def app_name(prefix: str, credential: str) -> str:
    """The name of a credential's Stasis application: two trunks of one Asterisk shall not take each other's events."""
    return f"{prefix}-{credential}"


class StasisSide(Protocol):
    """What is done with the channels in our Stasis application."""

    @property
    def count(self) -> int:
        """How many calls there are in it."""

    def event(self, event: Any) -> None:
        """An event came."""

    def connected(self, again: bool) -> None:
        """Events begin to come; after a gap, if again."""

    def close(self, *, leave: bool) -> Deferred[Any]:
        """Take no more channels, and end the calls or leave them; fires when those on their way out are."""


class Trunk:
    """Places calls by one credential, and follows them.

    :param rules: limits and times.
    :param note: called with a contextId and the news of its call, to be kept.
    :param treq_client: for ARI's requests.
    :param tls_options: gives how a host is verified, for ARI's events.
    :param make_stasis: makes what looks after the channels in our Stasis application, of its name.
    :param reactor: provides IReactorTime and IReactorTCP.
    :param now: wall-clock time in UNIX seconds.
    """

    _log = Logger()

    def __init__(
        self,
        credential: AriCredential,
        rules: TrunkLimits,
        *,
        note: Callable[[str, CallProgress], None],
        treq_client: Any,
        tls_options: Callable[[str], Any],
        make_stasis: Callable[[AriClient, str], StasisSide],
        reactor: Any,
        now: Callable[[], float],
    ) -> None:
        self.credential = credential
        self.rules = rules
        self.note = note
        self.admission = CallLimiter(calls=rules.calls, rate=rules.rate, queue=rules.queue, reactor=reactor)
        self._reactor = reactor
        self._now = now
        self._calls: dict[str, OutgoingCall] = {}
        """By the channel's id."""
        self._turns: dict[str, Deferred[None]] = {}
        self._background: set[Deferred[Any]] = set()
        self._subscribing: Deferred[Any] = succeed(None)
        self._stopped = False
        self.ari = AriClient(credential, treq_client=treq_client, reactor=reactor, timeout_s=rules.ari_timeout_s)
        url = urlsplit(credential.ari_url)
        self.app = app_name(rules.app, credential.name)
        self.stasis = make_stasis(self.ari, self.app)
        self.events = AriEvents(
            credential,
            self.app,
            on_event=self._event,
            on_connected=self._connected,
            reactor=reactor,
            tls_options=tls_options(url.hostname or "") if url.scheme == "https" else None,
        )
        self._catching_up = Reconciler(self.ari, self._placed, reactor=reactor, now=now)

    def __repr__(self) -> str:
        return f"<Trunk {self.credential.name}: {len(self._calls)} calls>"

    @property
    def calls(self) -> list[OutgoingCall]:
        """The calls that are not over, those that wait for their turn included."""
        return list(self._calls.values())

    @property
    def busy(self) -> bool:
        """Whether it has calls, placed by us or in our Stasis application."""
        return bool(self._calls) or self.stasis.count > 0

    def _placed(self) -> list[OutgoingCall]:
        return [outgoing for outgoing in self._calls.values() if outgoing.placed]

    def start(self) -> None:
        """Listen to the events."""
        self.events.startService()
        self._catching_up.start()

    async def stop(self, *, leave: bool = False) -> None:
        """Let go of everything; calls go on without us.

        :param leave: whether those in Stasis do, too, since another process looks after them.
        """
        self._stopped = True
        self.admission.close()
        for outgoing in self.calls:
            outgoing.set_deadline(0)
        self._catching_up.stop()
        for doing in list(self._background):
            doing.cancel()
        await self.stasis.close(leave=leave)
        await self.events.stopService()

    # Placing

    def follow(self, outgoing: OutgoingCall) -> None:
        """Take a call that Asterisk may have already, since an earlier process placed it."""
        self.admission.occupy()
        self._calls[outgoing.channel_id] = outgoing
        outgoing.placed = outgoing.admitted = True
        if outgoing.answered:
            self.answered(outgoing)
        else:
            outgoing.set_deadline(self.rules.answer_s + LATE_S, self._overdue)

    async def place(self, outgoing: OutgoingCall, endpoint: str, call: OutboundCall, turn: Deferred[None]) -> None:
        """Have Asterisk place a call when its turn is there; it is over when that fails.

        :param turn: of :attr:`admission`.
        :raises CallNotPlaced: it was not placed, or nobody knows; then its channel is hung up should it come.
        """
        self._calls[outgoing.channel_id] = outgoing
        await self._wait(outgoing, turn)
        timeout_s = call.answer_timeout_s or self.rules.answer_s
        try:
            originating = Deferred.fromCoroutine(self._originate(outgoing, endpoint, call, timeout_s))
            await originating.addTimeout(self.rules.ari_timeout_s, self._reactor)
        except DeferredTimeout:
            message = f"no answer within {self.rules.ari_timeout_s:g} s"
            raise self._failed(outgoing, AriUnreachable(self.credential.name, message)) from None
        except AriError as error:
            raise self._failed(outgoing, error) from None
        outgoing.placed = True
        outgoing.reached(CallStatus.INITIATED)
        if outgoing.over:
            return
        if outgoing.cancelled:
            self.hang_up(outgoing)
        if not outgoing.answered:
            outgoing.set_deadline(timeout_s + LATE_S, self._overdue)

    async def _wait(self, outgoing: OutgoingCall, turn: Deferred[None]) -> None:
        self._turns[outgoing.channel_id] = turn
        try:
            await turn.addTimeout(self.rules.wait_s, self._reactor)
        except (DeferredTimeout, CancelledError) as error:
            waited = isinstance(error, DeferredTimeout)
            why = f"it waited {self.rules.wait_s:g} s for its turn" if waited else "it was taken back"
            self._end(outgoing, why, EndReason.NOT_PLACED if waited else EndReason.CANCELLED, cancelled=not waited)
            raise CallNotPlaced(why, context_id=outgoing.context_id, retryable=waited) from None
        finally:
            del self._turns[outgoing.channel_id]
        outgoing.admitted = True

    async def _originate(self, outgoing: OutgoingCall, endpoint: str, call: OutboundCall, timeout_s: float) -> None:
        self._log.info(
            "call {id}: being placed to {endpoint} by {credential}, channel {channel}",
            id=outgoing.context_id, endpoint=endpoint, credential=self.credential.name, channel=outgoing.channel_id,
        )  # fmt: skip
        await self.ari.originate(
            endpoint,
            channel_id=outgoing.channel_id,
            variables={**call.variables, "RAPIDA_CONTEXT_ID": outgoing.context_id},
            caller=call.caller,
            answer_timeout_s=max(1, round(timeout_s)),
            context="" if call.stasis else call.context or self.rules.context,
            app=self.app if call.stasis else "",
            app_args=f"outbound,{outgoing.context_id}" if call.stasis else "",
        )

    def _failed(self, outgoing: OutgoingCall, error: AriError) -> CallNotPlaced:
        """Asterisk did not take a call, or nobody knows."""
        if isinstance(error, AriUnreachable) and error.placed is not False:
            self._in_background(self.ari.abandon(outgoing.channel_id), outgoing)
        self._end(outgoing, error.message, EndReason.NOT_PLACED)
        return CallNotPlaced(
            str(error),
            context_id=outgoing.context_id,
            refused=isinstance(error, AriRejected),
            retryable=error.retryable,
        )

    def _end(self, outgoing: OutgoingCall, why: str, reason: EndReason, *, cancelled: bool = False) -> None:
        status = CallStatus.CANCELLED if cancelled else CallStatus.FAILED
        outgoing.end(CallProgress(status=status, at=self._now(), cause_text=why, reason=reason))

    def answered(self, outgoing: OutgoingCall) -> None:
        """Somebody answered a call of this line: it may last so long from then on."""
        if not self.rules.longest_s:
            outgoing.set_deadline(0)
            return
        lasted_s = self._now() - (outgoing.answered_at or self._now())
        outgoing.set_deadline(self.rules.longest_s - lasted_s, self._overdue)

    def refuse(self, outgoing: OutgoingCall, why: str) -> None:
        """Take a call back that was never placed."""
        self._end(outgoing, why, EndReason.CANCELLED, cancelled=True)

    def over(self, outgoing: OutgoingCall) -> None:
        """A call of this line is over: there is room for another."""
        if self._calls.pop(outgoing.channel_id, None) is not None and outgoing.admitted:
            self.admission.leave()

    # Hanging up

    def hang_up(self, outgoing: OutgoingCall) -> None:
        """Hang a call up, or take it back."""
        outgoing.cancelled = not outgoing.answered
        turn = self._turns.get(outgoing.channel_id)
        if turn is not None:
            turn.cancel()
        else:
            self._in_background(self.ari.hang_up(outgoing.channel_id), outgoing)

    async def take_back(self) -> None:
        """Take all calls back that nobody has answered yet; those that somebody has are left alone."""
        hanging_up = []
        for outgoing in self.calls:
            if outgoing.answered:
                continue
            turn = self._turns.get(outgoing.channel_id)
            if turn is not None:
                turn.cancel()
                continue
            hanging_up.append(Deferred.fromCoroutine(self.ari.hang_up(outgoing.channel_id)))
            self._end(outgoing, "the server was stopped", EndReason.CANCELLED, cancelled=True)
        await DeferredList(hanging_up, consumeErrors=True)

    def _overdue(self, outgoing: OutgoingCall) -> None:
        """It rings, or lasts, too long."""
        what = f"lasts longer than {self.rules.longest_s:g} s" if outgoing.answered else "is not answered in time"
        self._log.info("call {id}: hung up, for it {what}", id=outgoing.context_id, what=what)
        self._in_background(self.ari.hang_up(outgoing.channel_id), outgoing)
        outgoing.set_deadline(HOPELESS_S, self._hopeless)

    def _hopeless(self, outgoing: OutgoingCall) -> None:
        outgoing.gone(cause_text="there are no news of it from Asterisk")

    def _in_background(self, asking: Coroutine[Any, Any, Any], outgoing: OutgoingCall) -> None:
        """Ask something of Asterisk that nobody waits for."""

        def failed(failure: Failure) -> None:
            failure.trap(AriError)
            self._log.warn("call {id}: {error}", id=outgoing.context_id, error=failure.getErrorMessage())

        self._spawn(Deferred.fromCoroutine(asking).addErrback(failed))

    def _spawn(self, doing: Deferred[Any]) -> Deferred[Any]:
        """Have something done, until the line stops."""
        self._background.add(doing)
        doing.addErrback(self._broke)
        return doing.addBoth(lambda _: self._background.discard(doing))

    # Following

    def _event(self, event: dict[str, Any]) -> None:
        news = news_of(event)
        outgoing = self._calls.get(news.channel_id) if news is not None else None
        if news is not None and outgoing is not None:
            outgoing.told(news)
        self.stasis.event(event)

    def _connected(self, again: bool) -> None:
        if self._stopped:
            return
        self.stasis.connected(again)
        self._subscribing.cancel()
        self._subscribing = self._spawn(Deferred.fromCoroutine(self._subscribe()))

    async def _subscribe(self) -> None:
        """Have Asterisk send what is looked at, and no more: each line of each dialplan makes events of its own."""
        for attempt in count():
            try:
                await self.ari.filter_events(self.app, [*EVENTS, *STASIS_EVENTS])
                await self.ari.subscribe_to_channels(self.app)
                break
            except AriError as error:
                if self._stopped:
                    # A request that is cancelled at its last moment may tell of an error of its own.
                    return
                self._log.warn("ARI {credential}: {error}", credential=self.credential.name, error=str(error))
                await deferLater(self._reactor, retry_pause_s(attempt))
        # What came between the connection and the subscription was not told.
        self._catching_up.look()

    def _broke(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("line {name}: something broke", failure, name=self.credential.name)
