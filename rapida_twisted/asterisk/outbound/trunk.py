"""Places calls over one Asterisk and the trunk behind it, and follows them to their end.

ARI's events report the progress of a call. Events get lost while the connection is down, so after each gap, and
periodically, the trunk looks up the channel of each call: no call stays "ringing" for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol
from urllib.parse import urlsplit

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.asterisk.ari.client import AriClient
from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.ari.errors import AriError, AriRejected, AriUnreachable
from rapida_twisted.asterisk.ari.events import AriEvents, retry_pause_s
from rapida_twisted.asterisk.outbound.call import TrackedCall
from rapida_twisted.asterisk.outbound.call_limiter import CallLimiter
from rapida_twisted.asterisk.outbound.progress import EVENTS, update_from
from rapida_twisted.asterisk.outbound.reconciler import Reconciler
from rapida_twisted.context import CallStatus, EndReason
from rapida_twisted.errors import CallNotPlaced
from rapida_twisted.interfaces import OutboundCall

__all__ = ["StasisHandler", "Trunk", "TrunkLimits", "app_name"]

LATE_S = 5.0
"""How long after its time limit a call is hung up here: Asterisk itself should end an unanswered one."""
HOPELESS_S = 60.0
"""How long after its last deadline a call is given up without a report from Asterisk."""
STASIS_EVENTS = ("StasisStart", "StasisEnd", "ChannelHangupRequest", "ApplicationReplaced")


@dataclass(frozen=True, kw_only=True)
class TrunkLimits:
    """The limits and times of each trunk."""

    context: str = "rapida-outbound"
    """The dialplan context of answered calls."""
    app: str = "rapida-media"
    """The prefix of the Stasis applications' names."""
    calls: int = 100
    rate: float = 10.0
    queue: int = 100
    wait_s: float = 60.0
    answer_s: float = 60.0
    longest_s: float = 3600.0
    """The longest duration of an answered call; 0: unlimited."""
    ari_timeout_s: float = 10.0


def app_name(prefix: str, credential: str) -> str:
    """The Stasis application of a credential: two trunks of one Asterisk must not take each other's events."""
    return f"{prefix}-{credential}"


class StasisHandler(Protocol):
    """Serves the channels in the trunk's Stasis application."""

    @property
    def count(self) -> int:
        """The number of calls in the application."""

    def event(self, event: Any) -> None: ...

    def connected(self, again: bool) -> None:
        """Events start; ``again``: after a gap."""

    def close(self, *, leave: bool) -> Deferred[Any]:
        """Take no more channels, and end or leave the calls; fires when the ending ones are done."""


@attrs.define(eq=False, slots=False, repr=False)
class Trunk:
    """Places calls with one credential, and follows them.

    :param tls_options: returns the TLS verification of a host, for ARI's events.
    :param make_stasis: makes the handler of a Stasis application's channels.
    :param now: wall-clock time in UNIX seconds.
    """

    _log = Logger()

    credential: AriCredential
    _limits: TrunkLimits
    _treq_client: Any = attrs.field(kw_only=True)
    _tls_options: Callable[[str], Any] = attrs.field(kw_only=True)
    _make_stasis: Callable[[AriClient, str], StasisHandler] = attrs.field(kw_only=True)
    _reactor: Any = attrs.field(kw_only=True)
    _now: Callable[[], float] = attrs.field(kw_only=True)
    _calls: dict[str, TrackedCall] = attrs.field(init=False, factory=dict)
    """By channel id."""
    _queued: dict[str, Deferred[None]] = attrs.field(init=False, factory=dict)
    """The admissions that calls wait for, by channel id."""
    _background: set[Deferred[Any]] = attrs.field(init=False, factory=set)
    _subscribing: Deferred[Any] = attrs.field(init=False, factory=lambda: succeed(None))
    _stopped = False

    def __attrs_post_init__(self) -> None:
        credential, limits, reactor = self.credential, self._limits, self._reactor
        self.limiter = CallLimiter(calls=limits.calls, rate=limits.rate, queue=limits.queue, reactor=reactor)
        self.ari = AriClient(credential, treq_client=self._treq_client, reactor=reactor, timeout_s=limits.ari_timeout_s)
        url = urlsplit(credential.ari_url)
        self.app = app_name(limits.app, credential.name)
        self.stasis = self._make_stasis(self.ari, self.app)
        tls_options = self._tls_options(url.hostname or "") if url.scheme == "https" else None
        self.events = AriEvents(
            credential, self.app, on_event=self._event, on_connected=self._connected, reactor=reactor,
            tls_options=tls_options,
        )  # fmt: skip
        self._reconciler = Reconciler(self.ari, self._placed, reactor=reactor, now=self._now)

    def __repr__(self) -> str:
        return f"<Trunk {self.credential.name}: {len(self._calls)} calls>"

    @property
    def calls(self) -> list[TrackedCall]:
        """The calls that are not over, queued ones included."""
        return list(self._calls.values())

    @property
    def busy(self) -> bool:
        """Whether it has calls, outbound ones or in its Stasis application."""
        return bool(self._calls) or self.stasis.count > 0

    def _placed(self) -> list[TrackedCall]:
        return [call for call in self._calls.values() if call.placed]

    def start(self) -> None:
        """Connect to Asterisk's events."""
        self.events.startService()
        self._reconciler.start()

    async def stop(self, *, leave: bool = False) -> None:
        """Stop following; the calls continue.

        :param leave: whether the calls in Stasis continue, too, with another process.
        """
        self._stopped = True
        self.limiter.close()
        for call in self.calls:
            call.set_deadline(0)
        self._reconciler.stop()
        for task in list(self._background):
            task.cancel()
        await self.stasis.close(leave=leave)
        await self.events.stopService()

    # Placing

    def follow(self, call: TrackedCall) -> None:
        """Follow a call that an earlier process may have placed."""
        self.limiter.occupy()
        self._calls[call.channel_id] = call
        call.placed = call.admitted = True
        if call.answered:
            self.answered(call)
        else:
            call.set_deadline(self._limits.answer_s + LATE_S, self._overdue)

    async def place(self, call: TrackedCall, endpoint: str, request: OutboundCall, admission: Deferred[None]) -> None:
        """Have Asterisk place a call once it is admitted. If that fails, the call is over.

        :param admission: from :attr:`limiter`.
        :raises CallNotPlaced: Asterisk refused the call, or its response was lost; a channel that comes up later is
            hung up.
        """
        self._calls[call.channel_id] = call
        await self._wait(call, admission)
        timeout_s = request.answer_timeout_s or self._limits.answer_s
        try:
            originating = Deferred.fromCoroutine(self._originate(call, endpoint, request, timeout_s))
            await originating.addTimeout(self._limits.ari_timeout_s, self._reactor)
        except DeferredTimeout:
            message = f"no answer within {self._limits.ari_timeout_s:g} s"
            raise self._not_placed(call, AriUnreachable(self.credential.name, message)) from None
        except AriError as error:
            raise self._not_placed(call, error) from None
        call.placed = True
        call.progressed(CallStatus.INITIATED)
        if call.over:
            return
        if call.cancelled:
            self.hang_up(call)
        if not call.answered:
            call.set_deadline(timeout_s + LATE_S, self._overdue)

    async def _wait(self, call: TrackedCall, admission: Deferred[None]) -> None:
        self._queued[call.channel_id] = admission
        try:
            await admission.addTimeout(self._limits.wait_s, self._reactor)
        except DeferredTimeout:
            why = f"it waited {self._limits.wait_s:g} s in the trunk's queue"
            call.end(CallStatus.FAILED, EndReason.NOT_PLACED, why)
            raise CallNotPlaced(why, context_id=call.context_id, retryable=True) from None
        except CancelledError:
            call.end(CallStatus.CANCELLED, EndReason.CANCELLED, "it was cancelled")
            raise CallNotPlaced("it was cancelled", context_id=call.context_id) from None
        finally:
            del self._queued[call.channel_id]
        call.admitted = True

    async def _originate(self, call: TrackedCall, endpoint: str, request: OutboundCall, timeout_s: float) -> None:
        self._log.info(
            "call {id}: placing it to {endpoint} with credential {credential}, channel {channel}",
            id=call.context_id, endpoint=endpoint, credential=self.credential.name, channel=call.channel_id,
        )  # fmt: skip
        await self.ari.originate(
            endpoint,
            channel_id=call.channel_id,
            variables={**request.variables, "RAPIDA_CONTEXT_ID": call.context_id},
            caller=request.caller,
            answer_timeout_s=max(1, round(timeout_s)),
            context="" if request.stasis else request.context or self._limits.context,
            app=self.app if request.stasis else "",
            app_args=f"outbound,{call.context_id}" if request.stasis else "",
        )

    def _not_placed(self, call: TrackedCall, error: AriError) -> CallNotPlaced:
        if isinstance(error, AriUnreachable) and error.placed is not False:
            self._in_background(self.ari.abandon(call.channel_id), call)
        call.end(CallStatus.FAILED, EndReason.NOT_PLACED, error.message)
        return CallNotPlaced(
            str(error), context_id=call.context_id, refused=isinstance(error, AriRejected), retryable=error.retryable
        )

    def answered(self, call: TrackedCall) -> None:
        """A call was answered: limit its duration."""
        if not self._limits.longest_s:
            call.set_deadline(0)
            return
        duration_s = self._now() - (call.answered_at or self._now())
        call.set_deadline(self._limits.longest_s - duration_s, self._overdue)

    def over(self, call: TrackedCall) -> None:
        """A call is over: release its place."""
        if self._calls.pop(call.channel_id, None) is not None and call.admitted:
            self.limiter.release()

    # Hanging up

    def hang_up(self, call: TrackedCall) -> None:
        """Hang up a call, or cancel it before its answer."""
        call.cancelled = not call.answered
        if not self._cancel_queued(call):
            self._in_background(self.ari.hang_up(call.channel_id), call)

    async def cancel_unanswered(self) -> None:
        """Hang up every outbound call that is not answered yet."""
        hanging_up = []
        for call in self.calls:
            if not call.answered and not self._cancel_queued(call):
                hanging_up.append(Deferred.fromCoroutine(self.ari.hang_up(call.channel_id)))
                call.end(CallStatus.CANCELLED, EndReason.CANCELLED, "the server was stopped")
        await DeferredList(hanging_up, consumeErrors=True)

    def _cancel_queued(self, call: TrackedCall) -> bool:
        """Take a call out of the queue; False: it does not wait there."""
        admission = self._queued.get(call.channel_id)
        if admission is not None:
            admission.cancel()
        return admission is not None

    def _overdue(self, call: TrackedCall) -> None:
        why = f"it lasts longer than {self._limits.longest_s:g} s" if call.answered else "nobody answered it in time"
        self._log.info("call {id}: hanging up: {why}", id=call.context_id, why=why)
        self._in_background(self.ari.hang_up(call.channel_id), call)
        call.set_deadline(HOPELESS_S, lambda call: call.channel_ended(cause_text="Asterisk does not report on it"))

    def _in_background(self, request: Coroutine[Any, Any, Any], call: TrackedCall) -> None:
        """Send a request to ARI without waiting for its response."""

        def failed(failure: Failure) -> None:
            failure.trap(AriError)
            self._log.warn("call {id}: {error}", id=call.context_id, error=failure.getErrorMessage())

        self._spawn(Deferred.fromCoroutine(request).addErrback(failed))

    def _spawn(self, task: Deferred[Any]) -> Deferred[Any]:
        """Run a task until the trunk stops."""
        self._background.add(task)
        task.addErrback(self._broke)
        return task.addBoth(lambda _: self._background.discard(task))

    # Following

    def _event(self, event: dict[str, Any]) -> None:
        update = update_from(event)
        call = self._calls.get(update.channel_id) if update is not None else None
        if update is not None and call is not None:
            call.update(update)
        self.stasis.event(event)

    def _connected(self, again: bool) -> None:
        if self._stopped:
            return
        self.stasis.connected(again)
        self._subscribing.cancel()
        self._subscribing = self._spawn(Deferred.fromCoroutine(self._subscribe()))

    async def _subscribe(self) -> None:
        """Subscribe to the needed events only: each line of each dialplan causes events."""
        for attempt in count():
            try:
                await self.ari.filter_events(self.app, [*EVENTS, *STASIS_EVENTS])
                await self.ari.subscribe_to_channels(self.app)
                break
            except AriError as error:
                if self._stopped:
                    # A request that is cancelled at the last moment may raise an error of its own.
                    return
                self._log.warn("ARI {credential}: {error}", credential=self.credential.name, error=str(error))
                await deferLater(self._reactor, retry_pause_s(attempt))
        # Events between the connection and the subscription are lost.
        self._reconciler.reconcile()

    def _broke(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("trunk {name}: a background task failed", failure, name=self.credential.name)
