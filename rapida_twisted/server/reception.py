"""The reception: joins a media connection to its registered call, and records the call's end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.credentials.masking import masked
from rapida_twisted.errors import ContextClaimed, Draining, TransferRefused, UnknownContext
from rapida_twisted.interfaces import IReception, typed
from rapida_twisted.interfaces.typed import CallStore, MediaChannel, MediaSink
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.media.call import ASSISTANT_ERRORS, Call
from rapida_twisted.media.calls import Calls
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.media.pacer import LEAD_MS
from rapida_twisted.net.addresses import host_of, same_network
from rapida_twisted.net.bridge_states import BridgeStates
from rapida_twisted.observe.interface import CallWatch
from rapida_twisted.server.transfers import NO_TRANSFERS, TransferRules

__all__ = ["Reception"]


@implementer(IReception)
@attrs.define(eq=False, repr=False, slots=False)
class Reception:
    """Starts a call for each media connection.

    :param make_assistant: makes the assistant of a context; may raise.
    :param clock: the clock of all calls.
    :param reactor: provides IReactorTime.
    :param now: wall-clock time in UNIX seconds.
    :param transfers: the dial strings that calls may be transferred to.
    :param lead_ms: how far (ms) ahead of playback a channel with a queue of its own is sent.
    :param bridges: calls whose speech waits until Asterisk's bridge has their media.
    :param watch: counts the calls, for the metrics.
    :param same_network: whether a call's media must come from the network that registered it.
    """

    _log = Logger()

    _store: CallStore
    _make_assistant: Callable[[CallContext], typed.Assistant]
    _calls: Calls
    _clock: MediaClock
    _reactor: Any
    _now: Callable[[], float] = time.time
    _transfers: TransferRules = NO_TRANSFERS
    _lead_ms: float = LEAD_MS
    _bridges: BridgeStates = attrs.field(factory=BridgeStates)
    _watch: CallWatch = attrs.field(factory=CallWatch)
    _same_network: bool = False
    closed: bool = attrs.field(default=False, init=False)
    """Whether all further calls are refused."""
    _coming: set[str] = attrs.field(factory=set, init=False)
    _unwritten: dict[str, Deferred[Any]] = attrs.field(factory=dict, init=False)

    @property
    def coming(self) -> int:
        """Calls that are claimed, or being claimed, but not up yet."""
        return len(self._coming)

    @property
    def unwritten(self) -> int:
        """Ends of calls that are being written."""
        return len(self._unwritten)

    def claim(
        self, context_id: str, transport: str, peer: str, assistants: Collection[str] = ()
    ) -> Deferred[CallContext]:
        """Take a registered call for a media connection: see :class:`IReception`."""
        return Deferred.fromCoroutine(self._watched_claim(context_id, transport, peer, assistants))

    async def _watched_claim(
        self, context_id: str, transport: str, peer: str, assistants: Collection[str]
    ) -> CallContext:
        try:
            return await self._claim(context_id, transport, peer, assistants)
        except Exception as error:
            self._watch.call_refused(transport, error)
            raise

    async def _claim(self, context_id: str, transport: str, peer: str, assistants: Collection[str]) -> CallContext:
        if self.closed:
            raise Draining("the server is about to stop")
        # A call counts from its claim on: else too many that come at once would pass the limit.
        self._calls.check_room(len(self._coming))
        if context_id in self._coming:
            raise ContextClaimed(context_id, "by a connection that came just before")
        self._coming.add(context_id)
        try:
            if assistants or self._same_network:
                # Before the claim: a connection that may not have the call must not take it from another one.
                self._check_claim(await self._store.get(context_id), peer, assistants)
            return await self._store.claim(context_id, transport=transport, peer=peer, now=self._now())
        except BaseException:
            self._coming.discard(context_id)
            raise

    def _check_claim(self, context: CallContext, peer: str, assistants: Collection[str]) -> None:
        if assistants and context.assistant_id not in assistants:
            raise UnknownContext(context.context_id)
        if self._same_network and not same_network(context.registered_from, host_of(peer)):
            raise UnknownContext(context.context_id, f"it was registered from {context.registered_from}")

    def start(self, context: CallContext, channel: MediaChannel) -> MediaSink:
        """Start a claimed call. An assistant that can't be made ends it at once."""
        self._coming.discard(context.context_id)
        try:
            assistant = self._make_assistant(context)
            if not callable(getattr(assistant, "answer", None)):
                raise TypeError(f"{type(assistant).__qualname__} is no assistant: it has no answer()")
            call = self._call(context, channel, assistant)
        except ASSISTANT_ERRORS:
            failure = Failure()
            self._log.failure(
                "call {id}: cannot make the assistant of {assistant_id}",
                failure, id=context.context_id, assistant_id=context.assistant_id,
            )  # fmt: skip
            call = self._call(context, channel, Assistant())
            call.end(EndReason.ASSISTANT_FAILED, masked(failure.getErrorMessage()))
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
        self._log.info("call {id}: ended before it started, {detail}", id=context.context_id, detail=detail)
        self._watch.call_abandoned(context, reason)
        self._finish(context.context_id, reason, 0.0, 0.0, detail)

    async def flush(self, timeout_s: float) -> None:
        """At shutdown: wait for the ends that are being written; log those that are not written in time."""
        # A Deferred of our own to wait for: the time-out must not cancel what the store is still about to write.
        written: Deferred[Any] = Deferred()
        DeferredList(list(self._unwritten.values())).addCallback(written.callback)
        await written.addTimeout(timeout_s, self._reactor, onTimeoutCancel=lambda *_: None)
        for context_id in self._unwritten:
            self._log.error("call {id}: its end is not in the store", id=context_id)

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
        self._finish(call.context.context_id, call.ended, call.audio_in_s, call.audio_out_s, call.detail)
        self._calls.remove(call)
        self._watch.call_over(call, call.ended)

    def _finish(self, context_id: str, reason: EndReason, audio_in_s: float, audio_out_s: float, detail: str) -> None:
        """Write an end to the store, which keeps it until it can be written."""

        def written(_: CallContext) -> None:
            del self._unwritten[context_id]

        def not_written(failure: Failure) -> None:
            del self._unwritten[context_id]
            self._log.failure(
                "call {id}: its end is not in the store: {reason}, heard {heard:.3f} s, said {said:.3f} s",
                failure, id=context_id, reason=reason.value, heard=audio_in_s, said=audio_out_s,
            )  # fmt: skip

        finishing = self._store.finish(
            context_id,
            reason=reason,
            audio_in_s=round(audio_in_s, 3),
            audio_out_s=round(audio_out_s, 3),
            now=self._now(),
            detail=masked(detail),
        )
        self._unwritten[context_id] = finishing
        finishing.addCallbacks(written, not_written)
