"""The reception: it joins a media connection to its registered call, and writes down how the call went."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import ContextClaimed, ContextError, Draining, RapidaError, TransferRefused
from rapida_twisted.interfaces import IReception, typed
from rapida_twisted.interfaces.typed import CallStore, MediaChannel, MediaSink
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.media.call import ASSISTANT_ERRORS, Call
from rapida_twisted.media.calls import Calls
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.media.pacer import LEAD_MS
from rapida_twisted.net.bridge_states import BridgeStates
from rapida_twisted.observe.interface import CallWatch
from rapida_twisted.server.transfers import NO_TRANSFERS, TransferRules

__all__ = ["Reception"]

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0


@implementer(IReception)
class Reception:
    """Where media connections arrive.

    :param store: where contexts are claimed and finished.
    :param make_assistant: gives the assistant of a context's assistant id; may raise.
    :param calls: where the calls that are up are kept.
    :param clock: the clock of all calls.
    :param reactor: provides IReactorTime.
    :param now: wall-clock time in UNIX seconds.
    :param transfers: which dial strings calls may be transferred to.
    :param lead_ms: how far ahead of what is heard a channel with a queue of its own is sent.
    :param bridges: calls whose speech waits until Asterisk's bridge has their media.
    :param watch: told of the calls, for the metrics.
    """

    _log = Logger()

    def __init__(
        self,
        store: CallStore,
        make_assistant: Callable[[CallContext], typed.Assistant],
        calls: Calls,
        clock: MediaClock,
        reactor: Any,
        now: Callable[[], float] = time.time,
        transfers: TransferRules = NO_TRANSFERS,
        lead_ms: float = LEAD_MS,
        bridges: BridgeStates | None = None,
        watch: CallWatch | None = None,
    ) -> None:
        self._store = store
        self._make_assistant = make_assistant
        self._calls = calls
        self._clock = clock
        self._reactor = reactor
        self._now = now
        self._transfers = transfers
        self._lead_ms = lead_ms
        self._bridges = bridges if bridges is not None else BridgeStates()
        self._watch = watch if watch is not None else CallWatch()
        self.closed = False
        """Whether no further call is let in."""
        self._coming: set[str] = set()
        self._unwritten: dict[str, _Ending] = {}

    @property
    def coming(self) -> int:
        """Calls that are claimed, or being claimed, and are not up yet."""
        return len(self._coming)

    @property
    def unwritten(self) -> int:
        """Ends of calls that the store has not taken yet."""
        return len(self._unwritten)

    def claim(self, context_id: str, transport: str, peer: str) -> Deferred[CallContext]:
        """Take a registered call for a media connection: see :class:`IReception`."""
        return Deferred.fromCoroutine(self._watched_claim(context_id, transport, peer))

    async def _watched_claim(self, context_id: str, transport: str, peer: str) -> CallContext:
        try:
            return await self._claim(context_id, transport, peer)
        except Exception as error:
            self._watch.call_refused(transport, error)
            raise

    async def _claim(self, context_id: str, transport: str, peer: str) -> CallContext:
        if self.closed:
            raise Draining("the server is about to stop")
        # A call has its place from its claim on, or as many as come at once would all find room.
        self._calls.check_room(len(self._coming))
        if context_id in self._coming:
            raise ContextClaimed(context_id, "by a connection that came just before")
        self._coming.add(context_id)
        try:
            return await self._store.claim(context_id, transport=transport, peer=peer, now=self._now())
        except BaseException:
            self._coming.discard(context_id)
            raise

    def start(self, context: CallContext, channel: MediaChannel) -> MediaSink:
        """Start a claimed call. An assistant that can't be made ends it at once."""
        self._coming.discard(context.context_id)
        try:
            assistant = self._make_assistant(context)
            if not callable(getattr(assistant, "answer", None)):
                raise TypeError(f"{assistant!r} is no assistant: it can't answer")
            call = self._call(context, channel, assistant)
        except ASSISTANT_ERRORS:
            failure = Failure()
            self._log.failure(
                "call {id}: the assistant of {assistant_id} could not be made",
                failure, id=context.context_id, assistant_id=context.assistant_id,
            )  # fmt: skip
            call = self._call(context, channel, Assistant())
            call.end(EndReason.ASSISTANT_FAILED, failure.getErrorMessage())
            return call
        self._log.info(
            "call {id}: up over {transport} from {peer}, caller {caller}, assistant {assistant_id}",
            id=context.context_id, transport=context.transport, peer=context.peer,
            caller=context.caller or "anonymous", assistant_id=context.assistant_id,
        )  # fmt: skip
        call.start()
        return call

    def abandon(self, context: CallContext, reason: EndReason, detail: str = "") -> None:
        """A claimed call whose connection went away before it could start."""
        self._coming.discard(context.context_id)
        self._log.info("call {id}: over before it began, {detail}", id=context.context_id, detail=detail)
        self._watch.call_abandoned(context, reason)
        self._finish(_Ending(context.context_id, reason, 0.0, 0.0, self._now(), detail))

    async def flush(self, timeout_s: float) -> None:
        """At shutdown: try once more to write the ends that the store did not take; log those that stay."""
        endings = list(self._unwritten.values())
        for ending in endings:
            if ending.cancel_retry():
                self._write(ending)
        # A Deferred of our own to wait for: the time-out must not cancel what the store is still about to write.
        tried: Deferred[Any] = Deferred()
        DeferredList([ending.writing for ending in endings]).addCallback(tried.callback)
        await tried.addTimeout(timeout_s, self._reactor, onTimeoutCancel=lambda *_: None)
        for ending in self._unwritten.values():
            ending.cancel_retry()
            self._log.error("call {id}: its end is not in the store: {ending}", id=ending.context_id, ending=ending)

    def _call(self, context: CallContext, channel: MediaChannel, assistant: typed.Assistant) -> Call:
        call = Call(
            context,
            channel,
            assistant,
            clock=self._clock,
            reactor=self._reactor,
            on_ended=self._call_ended,
            move_on=self._move_on,
            lead_ms=self._lead_ms,
            is_bridged=self._is_bridged(context.context_id),
            flushed=self._watch.call_flushed,
        )
        self._calls.add(call)
        self._watch.call_up(call, self._now() - context.created_at)
        return call

    def _is_bridged(self, context_id: str) -> Callable[[], bool] | None:
        """Tells whether this call is bridged, again and again; None if it needs no bridge."""
        bridges = self._bridges
        return None if bridges.get(context_id) is None else lambda: bridges.get(context_id) is not False

    def _move_on(self, call: Call, dial_string: str) -> Deferred[Any]:
        """Note where the dialplan is to send this call; it asks when the media is over."""
        try:
            self._transfers.check(dial_string)
        except TransferRefused as refusal:
            self._log.warn("call {id}: {refusal}", id=call.context.context_id, refusal=str(refusal))
            return fail(refusal)
        self._log.info("call {id}: goes on to {dial}", id=call.context.context_id, dial=dial_string)
        return self._store.move_on(call.context.context_id, next_dial=dial_string)

    def _call_ended(self, call: Call) -> None:
        assert call.ended is not None
        self._log.info(
            "call {id}: over, {reason}{detail}; heard {heard:.1f} s, said {said:.1f} s",
            id=call.context.context_id, reason=call.ended.value,
            detail=f" ({call.detail})" if call.detail else "",
            heard=call.audio_in_s, said=call.audio_out_s,
        )  # fmt: skip
        ended_at = self._now()
        self._finish(
            _Ending(call.context.context_id, call.ended, call.audio_in_s, call.audio_out_s, ended_at, call.detail)
        )
        self._calls.remove(call)
        self._watch.call_over(call, call.ended)

    def _finish(self, ending: _Ending) -> None:
        self._unwritten[ending.context_id] = ending
        self._write(ending)

    def _write(self, ending: _Ending) -> None:
        """Write an end to the store; when the store can't take it now, again later."""
        finishing = self._store.finish(
            ending.context_id,
            reason=ending.reason,
            audio_in_s=round(ending.audio_in_s, 3),
            audio_out_s=round(ending.audio_out_s, 3),
            now=ending.ended_at,
            detail=ending.detail,
        )
        ending.writing = finishing.addCallbacks(
            self._written, self._not_written, callbackArgs=(ending,), errbackArgs=(ending,)
        )

    def _written(self, _: CallContext, ending: _Ending) -> None:
        self._unwritten.pop(ending.context_id, None)

    def _not_written(self, failure: Failure, ending: _Ending) -> None:
        if failure.check(ContextError) or not failure.check(RapidaError):
            self._unwritten.pop(ending.context_id, None)
            self._log.failure("call {id}: its end could not be written", failure, id=ending.context_id)
            return
        delay_s = ending.next_delay_s()
        self._log.warn(
            "call {id}: its end could not be written ({error}); again in {delay:g} s",
            id=ending.context_id, error=failure.getErrorMessage(), delay=delay_s,
        )  # fmt: skip
        ending.retry = self._reactor.callLater(delay_s, self._write, ending)


class _Ending:
    """How one call ended, until the store has it."""

    def __init__(
        self,
        context_id: str,
        reason: EndReason,
        audio_in_s: float,
        audio_out_s: float,
        ended_at: float,
        detail: str,
    ) -> None:
        self.context_id = context_id
        self.reason = reason
        self.audio_in_s = audio_in_s
        self.audio_out_s = audio_out_s
        self.ended_at = ended_at
        self.detail = detail
        self.writing: Deferred[None]
        """The latest try."""
        self.retry: IDelayedCall | None = None
        self._delay_s = FIRST_RETRY_S / 2

    def __str__(self) -> str:
        return f"{self.reason.value}, heard {self.audio_in_s:.3f} s, said {self.audio_out_s:.3f} s"

    def next_delay_s(self) -> float:
        """How long to wait before the next try: twice as long each time."""
        self._delay_s = min(self._delay_s * 2, LONGEST_RETRY_S)
        return self._delay_s

    def cancel_retry(self) -> bool:
        """No further try by itself; whether there would have been one."""
        if self.retry is None or not self.retry.active():
            return False
        self.retry.cancel()
        return True
