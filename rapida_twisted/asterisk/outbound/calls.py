"""Outbound calls: registered, placed through ARI with a credential of the vault, followed to their end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import attrs
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.asterisk.ari.client import channel_id_of
from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.outbound.call import TrackedCall
from rapida_twisted.asterisk.outbound.progress_writer import ProgressWriter
from rapida_twisted.asterisk.outbound.trunk import Trunk, TrunkLimits
from rapida_twisted.asterisk.vault.vault import UnknownCredential, Vault
from rapida_twisted.context import CallContext, CallProgress, CallStatus, Direction, EndReason
from rapida_twisted.errors import CallNotPlaced, Draining, RapidaError, SettingsError, StartError
from rapida_twisted.interfaces import IOutbound, OutboundCall
from rapida_twisted.interfaces.typed import CallStore

__all__ = ["OutboundCalls"]

DEFAULT_CREDENTIAL = "default"
CLOSE_TIMEOUT_S = 2.5
POLL_S = 0.1


@implementer(IOutbound)
@attrs.define(eq=False, slots=False, repr=False, kw_only=True)
class OutboundCalls:
    """Places calls, each at most once, and follows them.

    :param vault: the credentials; changes count from the next :meth:`refresh` on.
    :param writer: writes the calls' progress to the store.
    :param make_trunk: makes a trunk from a credential and the limits.
    :param context_ttl_s: how long an answered call may wait for its media.
    :param max_pending: how many calls may wait for their media at once, inbound ones included.
    :param now: wall-clock time in UNIX seconds.
    """

    _log = Logger()

    _vault: Vault
    _store: CallStore
    _writer: ProgressWriter
    _make_trunk: Callable[[AriCredential, TrunkLimits], Trunk]
    _limits: TrunkLimits
    _context_ttl_s: float
    _max_pending: int
    _reactor: Any
    _now: Callable[[], float]
    _trunks: dict[str, Trunk] = attrs.field(init=False, factory=dict)
    """By the credential's name."""
    _calls: dict[str, tuple[Trunk, TrackedCall]] = attrs.field(init=False, factory=dict)
    """By contextId."""
    _hanging_up: dict[str, IDelayedCall] = attrs.field(init=False, factory=dict)
    _stopping: list[Deferred[Any]] = attrs.field(init=False, factory=list)
    _vault_problem = ""
    draining = False

    # Start and stop

    async def start(self) -> None:
        """Connect to each Asterisk, and follow the calls of processes that are gone.

        :raises StoreUnavailable: the store does not list them.
        """
        self.refresh()
        await self.adopt(presume=False)

    async def adopt(self, presume: bool) -> int:
        """Follow the calls of processes that are gone. Called periodically.

        :param presume: whether expired leases may be acted on.
        :return: the number of those processes' notices to deliver.
        :raises StoreUnavailable: the store does not list the calls.
        """
        if self.draining:
            return 0
        adopted = await self._store.adopt(now=self._now(), presume=presume)
        for context in adopted.calls:
            if context.context_id not in self._calls:
                self._resume(context)
        return adopted.notices

    def refresh(self) -> None:
        """Apply changes of the vault. Called periodically."""
        try:
            credentials = {entry.name: self._vault.get(entry.name) for entry in self._vault.list()}
        except (SettingsError, StartError) as error:
            self._log_vault_problem(str(error))
            return
        self._log_vault_problem("")
        for name, trunk in list(self._trunks.items()):
            if credentials.get(name) != trunk.credential and not trunk.busy:
                self._drop(name)
        for credential in credentials.values():
            self._trunk_of(credential)

    async def connected(self, limit_s: float) -> None:
        """Wait until each trunk receives events, or has a problem."""
        events = [trunk.events for trunk in self._trunks.values()]
        await self._until(lambda: all(each.connected or each.problem for each in events), limit_s)

    def drain(self) -> None:
        """Place no more calls, and cancel those in the trunks' queues."""
        self.draining = True
        for trunk, call in list(self._calls.values()):
            if not call.admitted:
                trunk.hang_up(call)

    async def drain_queues(self, limit_s: float) -> None:
        """Take no more calls, and wait until the queued ones are placed. Leaves the calls in Stasis to another process
        at once."""
        self.draining = True
        for trunk in self._trunks.values():
            trunk.stasis.close(leave=True)
        await self._until(lambda: all(call.placed for _, call in self._calls.values()), limit_s)

    async def _until(self, reached: Callable[[], bool], limit_s: float) -> None:
        until_s = self._reactor.seconds() + limit_s
        while not reached() and self._reactor.seconds() < until_s:
            await deferLater(self._reactor, POLL_S)

    async def leave(self) -> None:
        """Leave all calls to another process, which has connected to each Asterisk already."""
        await self._stop(leave=True)

    async def stop(self) -> None:
        """Cancel the unanswered calls, and leave the others: the next start follows them again."""
        await self._stop(leave=False)

    async def _stop(self, *, leave: bool) -> None:
        self.draining = True
        await self._hang_up_pending()
        if not leave:
            await self._limited([trunk.cancel_unanswered() for trunk in self._trunks.values()])
        for name in list(self._trunks):
            self._drop(name, leave=leave)
        await gatherResults(self._stopping)
        await self._writer.flush(CLOSE_TIMEOUT_S)

    async def _limited(self, tasks: list[Any]) -> None:
        """Run coroutines, whether they succeed or not, up to a timeout."""
        done = DeferredList([Deferred.fromCoroutine(task) for task in tasks], consumeErrors=True)
        await done.addTimeout(CLOSE_TIMEOUT_S, self._reactor, onTimeoutCancel=lambda *_: [])

    # Placing and hanging up

    def place(self, call: OutboundCall) -> Deferred[CallContext]:
        """Register a call and have Asterisk place it: see :class:`IOutbound`."""
        outcome: Deferred[CallContext] = Deferred()
        placing = Deferred.fromCoroutine(self._place(call, outcome))
        placing.addErrback(self._broke, outcome)
        return outcome

    def hang_up(self, context_id: str) -> bool:
        """Cancel a call, or hang it up: see :class:`IOutbound`."""
        found = self._calls.get(context_id)
        if found is None:
            return False
        trunk, call = found
        trunk.hang_up(call)
        return True

    def hang_up_later(self, context_id: str, after_s: float) -> None:
        """Hang up a call after some seconds, if it is not over by then."""
        if context_id not in self._hanging_up:
            self._hanging_up[context_id] = self._reactor.callLater(after_s, self._hang_up_now, context_id)

    def _hang_up_now(self, context_id: str) -> None:
        del self._hanging_up[context_id]
        self.hang_up(context_id)

    async def _hang_up_pending(self) -> None:
        """Do at once what :meth:`hang_up_later` has scheduled."""
        hanging_up, self._hanging_up = self._hanging_up, {}
        for delayed in hanging_up.values():
            delayed.cancel()
        calls = [self._calls[context_id] for context_id in hanging_up if context_id in self._calls]
        await self._limited([trunk.ari.hang_up(call.channel_id) for trunk, call in calls])

    async def _place(self, request: OutboundCall, outcome: Deferred[CallContext]) -> None:
        try:
            self._check_draining()
            trunk = self._trunk_of(self._credential(request.credential))
            endpoint = _endpoint(trunk.credential, request.to)
            admission = trunk.limiter.acquire()
        except RapidaError as error:
            outcome.errback(error)
            return
        is_immediate = admission.called
        context = self._context(request, trunk.credential.name)
        try:
            await self._store.add(context, self._max_pending)
        except BaseException as error:
            _release(trunk, admission)
            outcome.errback(error)
            return
        call = self._track(context, trunk)
        try:
            self._check_draining()
        except Draining as error:
            # The stop began during the store's request: its cancelling of the queue missed this call.
            _release(trunk, admission)
            call.end(CallStatus.CANCELLED, EndReason.CANCELLED, "the server is about to stop")
            outcome.errback(error)
            return
        if not is_immediate:
            outcome.callback(context)
        try:
            await trunk.place(call, endpoint, request, admission)
        except CallNotPlaced as error:
            if is_immediate:
                outcome.errback(error)
            return
        if is_immediate:
            outcome.callback(replace(context, call_status=call.status))

    def _check_draining(self) -> None:
        if self.draining:
            raise Draining("the server is about to stop and places no calls")

    def _broke(self, failure: Failure, outcome: Deferred[CallContext]) -> None:
        self._log.failure("cannot place an outbound call", failure)
        if not outcome.called:
            outcome.errback(failure)

    def _context(self, request: OutboundCall, credential: str) -> CallContext:
        now, context_id = self._now(), str(uuid4())
        answer_s = request.answer_timeout_s or self._limits.answer_s
        return CallContext(
            context_id=context_id,
            assistant_id=request.assistant_id,
            created_at=now,
            expires_at=now + self._limits.wait_s + answer_s + self._context_ttl_s,
            direction=Direction.OUTBOUND,
            caller=request.caller,
            called=request.to,
            channel_id=channel_id_of(context_id),
            variables=MappingProxyType(dict(request.variables)),
            key_name=request.key_name,
            credential=credential,
            call_status=CallStatus.NEW,
            follower=self._store.owner,
        )

    def _track(self, context: CallContext, trunk: Trunk) -> TrackedCall:
        def over(call: TrackedCall) -> None:
            self._calls.pop(call.context_id, None)
            trunk.over(call)

        call = TrackedCall(
            context, record=self._writer.record, on_answered=trunk.answered, on_over=over,
            reactor=self._reactor, now=self._now,
        )  # fmt: skip
        self._calls[context.context_id] = trunk, call
        return call

    def _resume(self, context: CallContext) -> None:
        """Follow a call of an earlier process."""
        trunk = self._trunks.get(context.credential)
        if trunk is not None:
            self._log.info(
                "call {id}: {status} when the server ended", id=context.context_id, status=context.call_status
            )
            trunk.follow(self._track(context, trunk))
            return
        why = f"the vault has no credential {context.credential!r} any more"
        end = CallProgress(status=CallStatus.FAILED, at=self._now(), cause_text=why, reason=EndReason.ASTERISK_GONE)
        self._writer.record(context.context_id, end)

    # Credentials and their trunks

    def _credential(self, name: str) -> AriCredential:
        """A credential of the vault.

        :raises CallNotPlaced: the vault has none of this name, or cannot be read.
        """
        try:
            return self._vault.get(name or self._default_name())
        except UnknownCredential as error:
            raise CallNotPlaced(str(error), refused=True) from None
        except (SettingsError, StartError) as error:
            raise CallNotPlaced(f"the vault is unusable: {error}") from None

    def _default_name(self) -> str:
        names = [entry.name for entry in self._vault.list()]
        if len(names) == 1:
            return names[0]
        if DEFAULT_CREDENTIAL in names:
            return DEFAULT_CREDENTIAL
        if not names:
            raise CallNotPlaced("the vault has no credential yet: rapida-media-ctl vault set", refused=True)
        raise CallNotPlaced(f"name a credential, one of {', '.join(names)}", refused=True)

    def _trunk_of(self, credential: AriCredential) -> Trunk:
        """The trunk of a credential, made at its first use. A changed credential waits for the end of its calls."""
        trunk = self._trunks.get(credential.name)
        if trunk is not None and trunk.credential != credential and not trunk.busy:
            self._drop(credential.name)
            trunk = None
        if trunk is None:
            trunk = self._make_trunk(credential, self._limits)
            self._trunks[credential.name] = trunk
            trunk.start()
        return trunk

    def _drop(self, name: str, *, leave: bool = False) -> None:
        stopping = Deferred.fromCoroutine(self._trunks.pop(name).stop(leave=leave))
        self._stopping.append(stopping)
        stopping.addBoth(lambda _: self._stopping.remove(stopping) if stopping in self._stopping else None)

    def _log_vault_problem(self, problem: str) -> None:
        """Log each problem once, since :meth:`refresh` finds it again and again."""
        if problem and problem != self._vault_problem:
            self._log.error("{problem}; the server places no calls with it", problem=problem)
        self._vault_problem = problem


def _endpoint(credential: AriCredential, to: str) -> str:
    try:
        return credential.endpoint(to)
    except ValueError as error:
        raise CallNotPlaced(str(error), refused=True) from None


def _release(trunk: Trunk, admission: Deferred[None]) -> None:
    """Release an admission without a call."""
    if admission.called:
        trunk.limiter.release()
    else:
        admission.addErrback(lambda _: None)
        admission.cancel()
