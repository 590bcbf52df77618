"""Outbound calls: registered, placed through ARI by one of the vault's credentials, followed to their end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.asterisk.ari.client import channel_id_of
from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.outbound.call import OutgoingCall
from rapida_twisted.asterisk.outbound.progress_writer import ProgressWriter
from rapida_twisted.asterisk.outbound.trunk import Trunk, TrunkLimits
from rapida_twisted.asterisk.vault.vault import UnknownCredential, Vault
from rapida_twisted.context import CallContext, CallProgress, CallStatus, Direction, EndReason
from rapida_twisted.errors import CallNotPlaced, Draining, RapidaError, SettingsError, StartError
from rapida_twisted.interfaces import IOutbound, OutboundCall
from rapida_twisted.interfaces.typed import CallStore

__all__ = ["OutboundCalls"]

DEFAULT_CREDENTIAL = "default"
GOODBYE_S = 2.5
LOOK_S = 0.1
"""How often to look whether what is waited for is so."""


@implementer(IOutbound)
class OutboundCalls:
    """Places calls, each at most once, and follows them.

    :param vault: where the credentials are; what is changed there counts from the next :meth:`refresh` on.
    :param store: where the contexts go.
    :param notes: takes the news of the calls to the store.
    :param make_trunk: makes the line of a credential; called with it, the rules and ``note``.
    :param rules: what holds for each line.
    :param context_ttl_s: how long an answered call may wait for its media.
    :param max_pending: how many calls may wait for their media at once, inbound ones included.
    :param reactor: provides IReactorTime.
    :param now: wall-clock time in UNIX seconds.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        vault: Vault,
        store: CallStore,
        notes: ProgressWriter,
        make_trunk: Callable[..., Trunk],
        rules: TrunkLimits,
        context_ttl_s: float,
        max_pending: int,
        reactor: Any,
        now: Callable[[], float],
    ) -> None:
        self._vault = vault
        self._store = store
        self._notes = notes
        self._make_trunk = make_trunk
        self._rules = rules
        self._context_ttl_s = context_ttl_s
        self._max_pending = max_pending
        self._reactor = reactor
        self._now = now
        self._trunks: dict[str, Trunk] = {}
        self._calls: dict[str, tuple[Trunk, OutgoingCall]] = {}
        """By contextId."""
        self._hanging_up: dict[str, IDelayedCall] = {}
        self._stopping: list[Deferred[Any]] = []
        self._vault_problem = ""
        self.draining = False

    # Its life

    async def start(self) -> None:
        """Connect to each Asterisk, and follow what processes that are gone had placed.

        :raises StoreUnavailable: the store does not tell what that is.
        """
        self.refresh()
        await self.adopt(presume=False)

    async def adopt(self, presume: bool) -> int:
        """Follow what processes that are gone had placed. Called now and then; gives how many of their notices there
        are to deliver.

        :param presume: whether who did not renew his lease is taken for gone.

        :raises StoreUnavailable: the store does not tell what that is.
        """
        if self.draining:
            return 0
        adopted = await self._store.adopt(now=self._now(), presume=presume)
        for context in adopted.calls:
            if context.context_id not in self._calls:
                self._resume(context)
        return adopted.notices

    def refresh(self) -> None:
        """Take up what was changed in the vault. Called now and then."""
        try:
            names = [entry.name for entry in self._vault.list()]
            credentials = {name: self._vault.get(name) for name in names}
        except (SettingsError, StartError) as error:
            self._tell_vault_problem(str(error))
            return
        self._tell_vault_problem("")
        for name, line in list(self._trunks.items()):
            if credentials.get(name) != line.credential and not line.busy:
                self._drop(name)
        for credential in credentials.values():
            self._trunk_of(credential)

    async def connected(self, limit_s: float) -> None:
        """Wait until each Asterisk tells its events, or why it can't."""
        events = [line.events for line in self._trunks.values()]
        await self._until(lambda: all(each.connected or each.problem for each in events), limit_s)

    def drain(self) -> None:
        """Place no more calls; those that wait for their turn are taken back."""
        self.draining = True
        for line, outgoing in list(self._calls.values()):
            if not outgoing.admitted:
                line.hang_up(outgoing)

    async def wait_for_turns(self, limit_s: float) -> None:
        """Place no more calls, and wait until those have been placed that wait for their turn. What is in Stasis is
        left to another process at once."""
        self.draining = True
        for line in self._trunks.values():
            line.stasis.close(leave=True)
        await self._until(lambda: all(outgoing.placed for _, outgoing in self._calls.values()), limit_s)

    async def _until(self, reached: Callable[[], bool], limit_s: float) -> None:
        until_s = self._reactor.seconds() + limit_s
        while not reached() and self._reactor.seconds() < until_s:
            await deferLater(self._reactor, LOOK_S)

    async def leave(self) -> None:
        """Let go of all calls: another process follows them, which has connected to each Asterisk in our place."""
        self.draining = True
        await self._hang_up_at_once()
        for name in list(self._trunks):
            self._drop(name, leave=True)
        await gatherResults(self._stopping)
        await self._notes.flush(GOODBYE_S)

    async def stop(self) -> None:
        """Take back what nobody has answered, and let go of the rest: after a new start it is followed again."""
        self.draining = True
        await self._hang_up_at_once()
        taking = gatherResults([Deferred.fromCoroutine(line.take_back()) for line in self._trunks.values()])
        await taking.addTimeout(GOODBYE_S, self._reactor, onTimeoutCancel=lambda *_: [])
        for name in list(self._trunks):
            self._drop(name)
        await gatherResults(self._stopping)
        await self._notes.flush(GOODBYE_S)

    # Placing and hanging up

    def place(self, call: OutboundCall) -> Deferred[CallContext]:
        """Register a call and have Asterisk place it: see :class:`IOutbound`."""
        outcome: Deferred[CallContext] = Deferred()
        placing = Deferred.fromCoroutine(self._place(call, outcome))
        placing.addErrback(self._broke, outcome)
        return outcome

    def hang_up(self, context_id: str) -> bool:
        """Take a call back, or hang it up: see :class:`IOutbound`."""
        found = self._calls.get(context_id)
        if found is None:
            return False
        line, outgoing = found
        line.hang_up(outgoing)
        return True

    def hang_up_later(self, context_id: str, after_s: float) -> None:
        """Hang a call up in a while, if it is not over by then."""
        if context_id not in self._hanging_up:
            self._hanging_up[context_id] = self._reactor.callLater(after_s, self._hang_up_now, context_id)

    def _hang_up_now(self, context_id: str) -> None:
        del self._hanging_up[context_id]
        self.hang_up(context_id)

    async def _hang_up_at_once(self) -> None:
        """Those that were to be hung up in a while."""
        hanging_up, self._hanging_up = self._hanging_up, {}
        asking = []
        for context_id, waiting in hanging_up.items():
            waiting.cancel()
            if context_id in self._calls:
                line, outgoing = self._calls[context_id]
                asking.append(Deferred.fromCoroutine(line.ari.hang_up(outgoing.channel_id)))
        asked = DeferredList(asking, consumeErrors=True)
        await asked.addTimeout(GOODBYE_S, self._reactor, onTimeoutCancel=lambda *_: [])

    async def _place(self, call: OutboundCall, outcome: Deferred[CallContext]) -> None:
        try:
            if self.draining:
                raise Draining("the server is about to stop and places no calls")
            line = self._trunk_of(self._credential(call.credential))
            endpoint = _endpoint(line.credential, call.to)
            turn = line.admission.enter()
        except RapidaError as error:
            outcome.errback(error)
            return
        at_once = turn.called
        context = self._context(call, line.credential.name)
        try:
            await self._store.add(context, self._max_pending)
        except BaseException as error:
            _give_back(line, turn)
            outcome.errback(error)
            return
        outgoing = self._outgoing(context, line)
        if self.draining:
            # It began to stop while the store was busy: what waits for its turn was taken back before.
            _give_back(line, turn)
            line.refuse(outgoing, "the server is about to stop")
            outcome.errback(Draining("the server is about to stop and places no calls"))
            return
        if not at_once:
            outcome.callback(context)
        try:
            await line.place(outgoing, endpoint, call, turn)
        except CallNotPlaced as error:
            if at_once:
                outcome.errback(error)
            return
        if at_once:
            outcome.callback(replace(context, call_status=outgoing.status))

    def _broke(self, failure: Failure, outcome: Deferred[CallContext]) -> None:
        self._log.failure("an outbound call could not be placed", failure)
        if not outcome.called:
            outcome.errback(failure)

    def _context(self, call: OutboundCall, credential: str) -> CallContext:
        now, context_id = self._now(), str(uuid4())
        rules = self._rules
        waits_s = rules.wait_s + (call.answer_timeout_s or rules.answer_s) + self._context_ttl_s
        return CallContext(
            context_id=context_id,
            assistant_id=call.assistant_id,
            created_at=now,
            expires_at=now + waits_s,
            direction=Direction.OUTBOUND,
            caller=call.caller,
            called=call.to,
            channel_id=channel_id_of(context_id),
            variables=MappingProxyType(dict(call.variables)),
            key_name=call.key_name,
            credential=credential,
            call_status=CallStatus.NEW,
            follower=self._store.owner,
        )

    def _outgoing(self, context: CallContext, line: Trunk) -> OutgoingCall:
        def over(outgoing: OutgoingCall) -> None:
            self._calls.pop(outgoing.context_id, None)
            line.over(outgoing)

        outgoing = OutgoingCall(
            context,
            note=self._notes.note,
            on_answered=line.answered,
            on_over=over,
            reactor=self._reactor,
            now=self._now,
        )
        self._calls[context.context_id] = line, outgoing
        return outgoing

    def _resume(self, context: CallContext) -> None:
        """Follow a call of an earlier process."""
        line = self._trunks.get(context.credential)
        if line is not None:
            self._log.info(
                "call {id}: {status} when the server ended", id=context.context_id, status=context.call_status
            )
            line.follow(self._outgoing(context, line))
            return
        why = f"the vault has no credential {context.credential!r} any more"
        end = CallProgress(status=CallStatus.FAILED, at=self._now(), cause_text=why, reason=EndReason.ASTERISK_GONE)
        self._notes.note(context.context_id, end)

    # Credentials and their lines

    def _credential(self, name: str) -> AriCredential:
        """A credential of the vault.

        :raises CallNotPlaced: there is none of this name, or the vault can't be read.
        """
        try:
            return self._vault.get(name or self._default_name())
        except UnknownCredential as error:
            raise CallNotPlaced(str(error), refused=True) from None
        except (SettingsError, StartError) as error:
            raise CallNotPlaced(f"the vault can't be used: {error}") from None

    def _default_name(self) -> str:
        names = [entry.name for entry in self._vault.list()]
        if len(names) == 1:
            return names[0]
        if DEFAULT_CREDENTIAL in names:
            return DEFAULT_CREDENTIAL
        if not names:
            raise CallNotPlaced("the vault has no credential yet: rapida-media-ctl vault set", refused=True)
        raise CallNotPlaced(f"a credential must be named, one of {', '.join(names)}", refused=True)

    def _trunk_of(self, credential: AriCredential) -> Trunk:
        """The line of a credential, made at its first use; with calls on it, it stays as it is until they are over."""
        line = self._trunks.get(credential.name)
        if line is not None and line.credential != credential and not line.busy:
            self._drop(credential.name)
            line = None
        if line is None:
            line = self._make_trunk(credential, self._rules, note=self._notes.note)
            self._trunks[credential.name] = line
            line.start()
        return line

    def _drop(self, name: str, *, leave: bool = False) -> None:
        stopping = Deferred.fromCoroutine(self._trunks.pop(name).stop(leave=leave))
        self._stopping.append(stopping)
        stopping.addBoth(lambda _: self._stopping.remove(stopping) if stopping in self._stopping else None)

    def _tell_vault_problem(self, problem: str) -> None:
        """Once each, or a vault that can't be read fills the log."""
        if problem and problem != self._vault_problem:
            self._log.error("{problem}; no calls can be placed by it", problem=problem)
        self._vault_problem = problem


def _endpoint(credential: AriCredential, to: str) -> str:
    try:
        return credential.endpoint(to)
    except ValueError as error:
        raise CallNotPlaced(str(error), refused=True) from None


def _give_back(line: Trunk, turn: Deferred[None]) -> None:
    """A turn that is not needed."""
    if turn.called:
        line.admission.leave()
    else:
        turn.addErrback(lambda _: None)
        turn.cancel()
