"""The call store, in concerns: a program that needs one of them takes that interface alone.

All times are UNIX seconds, given by the caller. Every Deferred may fail with
:class:`~rapida_twisted.errors.StoreUnavailable`, within a bounded time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from rapida_twisted.context import CallContext, CallProgress, ContextStatus, EndReason
from rapida_twisted.interfaces.values import Adopted, EntryKind, JournalEntry, Notice, Swept

__all__ = ["ICallJournal", "ICallStore", "IContextStore", "ILeaseStore", "INoticeStore", "IOrderStore"]


class IContextStore(Interface):
    """Keeps call contexts, from registration until they are forgotten."""

    def add(context: CallContext, max_pending: int) -> Deferred[None]:
        """Keep a new, pending context.

        :raises TooManyCalls: (through the Deferred) ``max_pending`` contexts are pending already.
        """

    def calls_of_key(key_name: str, *, now: float) -> Deferred[int]:
        """How many calls that an API key registered are claimed, or pending and not expired."""

    def claim(context_id: str, *, transport: str, peer: str, now: float) -> Deferred[CallContext]:
        """Turn a pending context into a claimed one, atomically: of many claims exactly one succeeds.

        Fails with ``UnknownContext``, ``ContextExpired`` (also before a sweep has marked it) or ``ContextClaimed``
        (claimed, or already over).
        """

    def finish(
        context_id: str, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> Deferred[CallContext]:
        """Turn a claimed context into a completed or failed one. Fails with ``UnknownContext``, and with
        ``ContextError`` when it is not claimed.

        The true end of a call that was taken for lost replaces that; repeating the same end changes nothing.
        """

    def move_on(context_id: str, *, next_dial: str) -> Deferred[CallContext]:
        """Keep where the dialplan is to send a claimed call next. Fails as :meth:`finish` does."""

    def follow(context_id: str, progress: CallProgress, *, notify: bool = False) -> Deferred[CallContext | None]:
        """Apply progress of an outbound call, see :meth:`~rapida_twisted.context.CallContext.followed`. Fires with the
        changed context, or None if the progress is not new. Fails with ``UnknownContext``.

        :param notify: whether a change makes a :class:`Notice`, in the same step.
        """

    def get(context_id: str) -> Deferred[CallContext]:
        """The context, or ``UnknownContext``."""

    def recent(
        limit: int, status: ContextStatus | None = None, *, assistants: Collection[str] = ()
    ) -> Deferred[list[CallContext]]:
        """The newest contexts first (by creation), of one status or of all, of some assistants or (empty) of all."""


class INoticeStore(Interface):
    """Keeps each process's undelivered notices."""

    def notices(limit: int, after: int = 0) -> Deferred[list[Notice]]:
        """This process's oldest notices with a higher number than ``after``, in the order in which they were made."""

    def drop_notice(number: int) -> Deferred[None]:
        """Forget a notice of this process: it was delivered, or given up."""


class ILeaseStore(Interface):
    """Knows which of the processes that share the store are alive.

    Each has a name, under which it claims calls, and a lease, which it renews. When the lease is over the process
    counts as gone: its calls are ended by :meth:`sweep` or taken over by :meth:`adopt`.
    """

    owner: str = Attribute(
        "The name of this process among those that share the store. Empty: there are no others, and what is claimed"
        " without a name is never taken for lost."
    )

    def renew(*, now: float, until: float) -> Deferred[None]:
        """Extend this process's lease."""

    def end_lease(owner: str) -> Deferred[None]:
        """End a lease now: that process is known to be gone."""

    def adopt(*, now: float, presume: bool = True) -> Deferred[Adopted]:
        """Take over all outbound calls that are not over and have no living follower, and the notices of processes
        that are gone. Of several processes that ask, exactly one gets each.

        :param presume: whether a process with an expired lease counts as gone; else only one whose lease was ended.
        """

    def sweep(
        *, now: float, forget_before: float, presume: bool = True, forget_journals_before: float | None = None
    ) -> Deferred[Swept]:
        """Mark pending contexts whose time is over as expired, and claimed ones whose owner is gone as failed
        (``server_lost``); forget those that ended (completed, failed, expired) before ``forget_before``.

        :param presume: as for :meth:`adopt`.
        :param forget_journals_before: journals whose newest entry is older are removed; by default ``forget_before``.
        """


class IOrderStore(Interface):
    """Passes orders between the processes that share the store."""

    def order(owner: str, order: Mapping[str, str], *, now: float) -> Deferred[None]:
        """Leave an order for another process, for at most a minute.

        :raises TooManyCalls: (through the Deferred) 1,000 orders wait for it already.
        """

    def orders(*, now: float) -> Deferred[list[Mapping[str, str]]]:
        """Take the orders for this process, in the order in which they were given."""


class ICallJournal(Interface):
    """Keeps what happened in each call: entries are added and read, never changed.

    A call has at most 5,000 entries, and 1 MiB (1,048,576 bytes) of text in UTF-8. :meth:`ILeaseStore.sweep` removes a
    journal as a whole: by its own retention, and with its call at the latest.
    """

    def add_entry(context_id: str, kind: EntryKind, text: str, *, at: float) -> Deferred[int]:
        """Add an entry to the journal of a call, also after the call's end. Fires with the entry's number.

        Fails with ``UnknownContext`` if the store has no such call, with
        :class:`~rapida_twisted.errors.JournalFull` beyond the limits, and with ``StoreUnavailable``: the entry may have
        been added nevertheless.

        :param text: half a surrogate pair in it is kept as ``?``.
        :param at: when it happened (UNIX s).
        """

    def entries(
        context_id: str, *, kind: EntryKind | None = None, text: str = "", after: int = 0, limit: int = 100
    ) -> Deferred[list[JournalEntry]]:
        """The entries of a call in the order in which they were added; none of a call that has no journal.

        :param kind: only entries of this kind.
        :param text: only entries that contain this text, whatever its case.
        :param after: only entries with a higher number: that of the last entry of the page before.
        :param limit: entries of a page.
        """


class ICallStore(IContextStore, INoticeStore, ILeaseStore, IOrderStore, ICallJournal):
    """A whole call store, which the server needs. Several processes may share one."""

    def open() -> Deferred[None]:
        """Get ready; called once, before anything else."""

    def close() -> Deferred[None]:
        """Finish what is under way and release everything, this process's lease included."""

    def check() -> Deferred[None]:
        """Fires if the store can be read and written right now."""
