"""The call store in memory: for tests, and for a server whose calls need not survive it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import wraps
from heapq import nlargest
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute, succeed
from zope.interface import implementer

from rapida_twisted.context import CallContext, CallProgress, ContextStatus, EndReason, record_of
from rapida_twisted.errors import ContextClaimed, ContextError, ContextExpired, TooManyCalls, UnknownContext
from rapida_twisted.interfaces import Adopted, EntryKind, ICallStore, JournalEntry, Notice, Swept
from rapida_twisted.store.journal import MAX_BYTES, MAX_ENTRIES, found, full, stored_text
from rapida_twisted.store.orders import LONGEST_QUEUE, ORDER_S

__all__ = ["MemoryStore"]

_ENDED = -1.0
"""The end of a lease that was ended, not expired."""


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _fired(work: Callable[_P, _T]) -> Callable[_P, Deferred[_T]]:
    """Have a function give a Deferred that has fired with its result or its exception."""
    return wraps(work)(lambda *args, **named: execute(work, *args, **named))


@implementer(ICallStore)
class MemoryStore:
    """Keeps calls in this process. Every Deferred it returns has fired already.

    :param owner: the name of this process.
    """

    def __init__(self, owner: str = "") -> None:
        self.owner = owner
        self._contexts: dict[str, CallContext] = {}
        self._pending: dict[str, CallContext] = {}
        self._notices: dict[int, Notice] = {}
        self._last_notice = 0
        self._leases: dict[str, float] = {}
        self._journals: dict[str, _Journal] = {}
        self._orders: list[tuple[str, float, Mapping[str, str]]] = []

    def open(self) -> Deferred[None]:
        return succeed(None)

    def close(self) -> Deferred[None]:
        for kept in (self._contexts, self._pending, self._notices, self._leases, self._journals, self._orders):
            kept.clear()
        return succeed(None)

    @_fired
    def add(self, context: CallContext, max_pending: int) -> None:
        if context.status is not ContextStatus.PENDING or context.context_id in self._contexts:
            raise ValueError(f"context {context.context_id} is not new and pending")
        # Expired contexts that the sweep has not marked yet do not count.
        if len(self._pending) >= max_pending:
            waiting = sum(pending.expires_at > context.created_at for pending in self._pending.values())
            if waiting >= max_pending:
                raise TooManyCalls(f"{waiting} calls wait for their media already")
        self._put(context)

    def calls_of_key(self, key_name: str, *, now: float) -> Deferred[int]:
        of_key = (context for context in self._contexts.values() if context.key_name == key_name)
        return succeed(sum(_occupies(context, now) for context in of_key))

    @_fired
    def claim(self, context_id: str, *, transport: str, peer: str, now: float) -> CallContext:
        context = self._get(context_id)
        if context.status is ContextStatus.EXPIRED or (
            context.status is ContextStatus.PENDING and context.expires_at <= now
        ):
            raise ContextExpired(context_id)
        if context.status is not ContextStatus.PENDING:
            raise ContextClaimed(context_id, f"by {context.peer}" if context.peer else "")
        return self._put(context.claimed(transport=transport, peer=peer, now=now, owner=self.owner))

    @_fired
    def finish(
        self, context_id: str, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> CallContext:
        context = self._get(context_id)
        if context.has_ended_as(reason, now):
            return context
        ended = self._in_hand(context_id).ended(
            reason=reason, audio_in_s=audio_in_s, audio_out_s=audio_out_s, now=now, detail=detail
        )
        return self._put(ended)

    @_fired
    def move_on(self, context_id: str, *, next_dial: str) -> CallContext:
        return self._put(self._in_hand(context_id).moved_on(next_dial=next_dial))

    @_fired
    def follow(self, context_id: str, progress: CallProgress, *, notify: bool = False) -> CallContext | None:
        context = self._get(context_id)
        changed = context.followed(progress)
        if changed is context:
            return None
        if notify:
            self._last_notice += 1
            self._notices[self._last_notice] = Notice(
                number=self._last_notice, context_id=context_id, made_at=progress.at, record=record_of(changed)
            )
        return self._put(changed)

    def adopt(self, *, now: float, presume: bool = True) -> Deferred[Adopted]:
        """No notices move: this process has them all."""
        found = [
            self._put(replace(context, follower=self.owner))
            for context in list(self._contexts.values())
            if context.call_status and not context.call_status.over and self._unfollowed(context.follower, now, presume)
        ]
        return succeed(Adopted(sorted(found, key=lambda context: context.created_at), 0))

    def notices(self, limit: int, after: int = 0) -> Deferred[list[Notice]]:
        return succeed([notice for notice in self._notices.values() if notice.number > after][: max(0, limit)])

    def drop_notice(self, number: int) -> Deferred[None]:
        self._notices.pop(number, None)
        return succeed(None)

    def get(self, context_id: str) -> Deferred[CallContext]:
        return execute(self._get, context_id)

    def recent(
        self, limit: int, status: ContextStatus | None = None, *, assistants: Collection[str] = ()
    ) -> Deferred[list[CallContext]]:
        numbered = enumerate(
            context
            for context in self._contexts.values()
            if status in (None, context.status) and (not assistants or context.assistant_id in assistants)
        )
        newest = nlargest(limit, numbered, key=lambda pair: (pair[1].created_at, pair[0]))
        return succeed([context for _, context in newest])

    def sweep(
        self, *, now: float, forget_before: float, presume: bool = True, forget_journals_before: float | None = None
    ) -> Deferred[Swept]:
        overdue = [pending for pending in self._pending.values() if pending.expires_at <= now]
        for pending in overdue:
            self._put(pending.expired(now=now))
        lost = [
            context
            for context in self._contexts.values()
            if context.status is ContextStatus.CLAIMED and context.owner and self._is_gone(context.owner, now, presume)
        ]
        for context in lost:
            self._put(context.lost(now=now))
        forgotten = [
            context.context_id
            for context in self._contexts.values()
            if context.ended_at is not None and context.ended_at < forget_before
        ]
        for context_id in forgotten:
            del self._contexts[context_id]
        before = forget_before if forget_journals_before is None else forget_journals_before
        self._journals = {
            context_id: journal
            for context_id, journal in self._journals.items()
            if context_id in self._contexts and journal.entries[-1].at >= before
        }
        return succeed(Swept(len(overdue), len(lost)))

    def renew(self, *, now: float, until: float) -> Deferred[None]:
        self._leases[self.owner] = until
        return succeed(None)

    def end_lease(self, owner: str) -> Deferred[None]:
        self._leases[owner] = _ENDED
        return succeed(None)

    @_fired
    def order(self, owner: str, order: Mapping[str, str], *, now: float) -> None:
        self._orders = [given for given in self._orders if given[1] > now - ORDER_S]
        if sum(given[0] == owner for given in self._orders) >= LONGEST_QUEUE:
            raise TooManyCalls(f"{LONGEST_QUEUE} orders wait for {owner} already")
        self._orders.append((owner, now, dict(order)))

    def orders(self, *, now: float) -> Deferred[list[Mapping[str, str]]]:
        mine = [order for owner, made_at, order in self._orders if owner == self.owner and made_at > now - ORDER_S]
        self._orders = [order for order in self._orders if order[0] != self.owner]
        return succeed(mine)

    @_fired
    def add_entry(self, context_id: str, kind: EntryKind, text: str, *, at: float) -> int:
        self._get(context_id)
        text, size = stored_text(text)
        journal = self._journals.get(context_id) or _Journal()
        number = len(journal.entries) + 1
        if number > MAX_ENTRIES or journal.size + size > MAX_BYTES:
            raise full(context_id)
        journal.entries.append(JournalEntry(context_id=context_id, number=number, kind=kind, at=at, text=text))
        journal.size += size
        self._journals[context_id] = journal
        return number

    def entries(
        self, context_id: str, *, kind: EntryKind | None = None, text: str = "", after: int = 0, limit: int = 100
    ) -> Deferred[list[JournalEntry]]:
        journal = self._journals.get(context_id)
        return succeed(found(journal.entries[max(0, after) :], kind, text, limit) if journal else [])

    def check(self) -> Deferred[None]:
        return succeed(None)

    def _in_hand(self, context_id: str) -> CallContext:
        context = self._get(context_id)
        if not context.in_hand:
            raise ContextError(context_id, f"it is {context.status.value}, not claimed")
        return context

    def _get(self, context_id: str) -> CallContext:
        context = self._contexts.get(context_id)
        if context is None:
            raise UnknownContext(context_id)
        return context

    def _unfollowed(self, follower: str, now: float, presume: bool) -> bool:
        return not follower or (follower != self.owner and self._is_gone(follower, now, presume))

    def _is_gone(self, owner: str, now: float, presume: bool) -> bool:
        until = self._leases.get(owner, 0.0)
        return until == _ENDED or (presume and until <= now)

    def _put(self, context: CallContext) -> CallContext:
        self._contexts[context.context_id] = context
        if context.status is ContextStatus.PENDING:
            self._pending[context.context_id] = context
        else:
            self._pending.pop(context.context_id, None)
        return context


class _Journal:
    """A call's entries, and the bytes of their texts."""

    def __init__(self) -> None:
        self.entries: list[JournalEntry] = []
        self.size = 0


def _occupies(context: CallContext, now: float) -> bool:
    waits = context.status is ContextStatus.PENDING and context.expires_at > now
    return waits or context.status is ContextStatus.CLAIMED
