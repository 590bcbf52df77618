"""The call store in an SQLite file: calls survive a restart, and several processes may share the file."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.context import CallContext, CallProgress, ContextStatus, EndReason, record_of
from rapida_twisted.errors import (
    ContextClaimed,
    ContextError,
    ContextExpired,
    StoreUnavailable,
    TooManyCalls,
    UnknownContext,
)
from rapida_twisted.interfaces import Adopted, EntryKind, ICallStore, JournalEntry, Notice, Swept
from rapida_twisted.store.journal import MAX_BYTES, MAX_ENTRIES, found, full, stored_text
from rapida_twisted.store.orders import LONGEST_QUEUE, ORDER_S
from rapida_twisted.store.records import context_of, storable
from rapida_twisted.store.sqlite_schema import prepare
from rapida_twisted.store.sqlite_thread import SqliteThread, Work

__all__ = ["SqliteStore"]

_COLUMNS = (
    "context_id", "assistant_id", "created_at", "expires_at", "direction", "status", "caller", "called", "channel_id",
    "variables", "transport", "peer", "claimed_at", "ended_at", "reason", "audio_in_s", "audio_out_s",
    "next_dial", "credential", "call_status", "answered_at", "hung_up_at", "dial_status", "cause", "cause_text",
    "detail", "upstream_id", "key_name", "owner", "follower",
    "registered_from",
)  # fmt: skip
_ALL = ", ".join(_COLUMNS)
FORGET_LEASE_S = 86_400.0

_INSERT = f"INSERT INTO calls ({_ALL}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_COUNT_WAITING = "SELECT count(*) FROM calls WHERE status = 'pending' AND expires_at > ?"
# SQLite uses the partial index only if the query repeats the index's conditions literally.
_COUNT_OF_KEY = """
    SELECT count(*) FROM calls WHERE key_name = ? AND key_name <> '' AND status IN ('pending', 'claimed')
        AND (status = 'claimed' OR expires_at > ?)
    """
_IN_HAND = "(status = 'claimed' OR status = 'failed' AND reason = 'server_lost')"
_CLAIM = f"""
    UPDATE calls SET status = 'claimed', transport = ?, peer = ?, claimed_at = ?, owner = ?
    WHERE context_id = ? AND status = 'pending' AND expires_at > ? RETURNING {_ALL}
    """
_FINISH = f"""
    UPDATE calls SET status = ?, reason = ?, audio_in_s = ?, audio_out_s = ?, ended_at = ?, detail = ?
    WHERE context_id = ? AND {_IN_HAND} RETURNING {_ALL}
    """
_MOVE_ON = f"UPDATE calls SET next_dial = ? WHERE context_id = ? AND {_IN_HAND} RETURNING {_ALL}"
_FOLLOW = """
    UPDATE calls SET status = ?, reason = ?, ended_at = ?, call_status = ?, answered_at = ?, hung_up_at = ?,
        dial_status = ?, cause = ?, cause_text = ?
    WHERE context_id = ?
    """
# A negative ``until`` is the time at which the lease was ended.
_GONE = """(
        {0} IN (SELECT owner FROM leases WHERE until < 0)
        OR :presume AND {0} NOT IN (SELECT owner FROM leases WHERE until > :now)
    )"""
_ADOPT = f"""
    UPDATE calls SET follower = :me
    WHERE call_status IN ('new', 'initiated', 'ringing', 'answered')
        AND (follower = '' OR follower != :me AND {_GONE.format("follower")})
    RETURNING {_ALL}
    """
_ADOPT_NOTICES = f"""
    UPDATE notices SET owner = :me WHERE owner != :me AND (owner = '' OR {_GONE.format("notices.owner")})
    """
_EXPIRE = """
    UPDATE calls SET status = 'expired', reason = 'expired', ended_at = ? WHERE status = 'pending' AND expires_at <= ?
    """
_LOSE = f"""
    UPDATE calls SET status = 'failed', reason = 'server_lost', ended_at = :now
    WHERE status = 'claimed' AND owner != '' AND {_GONE.format("calls.owner")}
    """
_COUNT_ENTRY = f"""
    INSERT INTO journals SELECT context_id, 1, :size, :at FROM calls WHERE context_id = :id AND :size <= {MAX_BYTES}
    ON CONFLICT (context_id) DO UPDATE SET entries = entries + 1, bytes = bytes + :size, newest = :at
        WHERE entries < {MAX_ENTRIES} AND bytes + :size <= {MAX_BYTES}
    RETURNING entries
    """
_ENTRIES = "SELECT number, kind, at, text FROM journal_entries WHERE context_id = ? AND number > ? ORDER BY number"
_FORGOTTEN_JOURNALS = """
    SELECT context_id FROM journals
    WHERE newest < ? OR context_id IN (SELECT context_id FROM calls WHERE ended_at < ?)
    """


@implementer(ICallStore)
class SqliteStore:
    """Keeps calls in a file, through a thread of its own.

    :param path: the file; made, and its directory too, if not there.
    :param reactor: provides IReactorFromThreads.
    :param owner: the name of this process among those that share the file.
    """

    def __init__(self, path: Path, reactor: Any, owner: str = "") -> None:
        self.path = path
        self.owner = owner
        self._thread = SqliteThread(path, reactor, lambda connection: prepare(connection, path))

    def open(self) -> Deferred[None]:
        """Opens the file before it returns, so that a server can refuse to start without it."""
        return execute(self._thread.open)

    def close(self) -> Deferred[None]:
        if self.owner:
            self.end_lease(self.owner).addErrback(_expires)
        return self._thread.close()

    def add(self, context: CallContext, max_pending: int) -> Deferred[None]:
        if context.status is not ContextStatus.PENDING:
            return fail(ValueError(f"context {context.context_id} is not new and pending"))
        row = _to_row(context)
        return self._thread.write(lambda connection: _add(connection, context, row, max_pending))

    def calls_of_key(self, key_name: str, *, now: float) -> Deferred[int]:
        return self._thread.read(lambda connection: connection.execute(_COUNT_OF_KEY, (key_name, now)).fetchone()[0])

    def claim(self, context_id: str, *, transport: str, peer: str, now: float) -> Deferred[CallContext]:
        values = (transport, peer, now, self.owner, context_id, now)
        return self._change(context_id, lambda connection: _claim(connection, context_id, values))

    def finish(
        self, context_id: str, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> Deferred[CallContext]:
        status = ContextStatus.FAILED if reason.failed else ContextStatus.COMPLETED
        values = (status.value, reason.value, audio_in_s, audio_out_s, now, detail, context_id)
        return self._change(context_id, lambda connection: _finish(connection, context_id, reason, now, values))

    def move_on(self, context_id: str, *, next_dial: str) -> Deferred[CallContext]:
        values = (next_dial, context_id)
        return self._change(context_id, lambda connection: _change_in_hand(connection, context_id, _MOVE_ON, values))

    def follow(self, context_id: str, progress: CallProgress, *, notify: bool = False) -> Deferred[CallContext | None]:
        owner = self.owner if notify else None
        return self._change(context_id, lambda connection: _follow(connection, context_id, progress, owner))

    def adopt(self, *, now: float, presume: bool = True) -> Deferred[Adopted]:
        values = {"me": self.owner, "now": now, "presume": presume}
        return self._thread.write(lambda connection: _adopt(connection, values))

    def notices(self, limit: int, after: int = 0) -> Deferred[list[Notice]]:
        return self._thread.read(lambda connection: _notices(connection, self.owner, max(0, limit), after))

    def drop_notice(self, number: int) -> Deferred[None]:
        return self._execute("DELETE FROM notices WHERE number = ? AND owner = ?", number, self.owner)

    def get(self, context_id: str) -> Deferred[CallContext]:
        if not storable(context_id):
            return fail(UnknownContext(context_id))
        return self._thread.read(lambda connection: _get(connection, context_id))

    def recent(
        self, limit: int, status: ContextStatus | None = None, *, assistants: Collection[str] = ()
    ) -> Deferred[list[CallContext]]:
        return self._thread.read(lambda connection: _recent(connection, max(0, limit), status, tuple(assistants)))

    def sweep(
        self, *, now: float, forget_before: float, presume: bool = True, forget_journals_before: float | None = None
    ) -> Deferred[Swept]:
        journals = forget_before if forget_journals_before is None else forget_journals_before
        return self._thread.write(lambda connection: _sweep(connection, now, forget_before, presume, journals))

    def renew(self, *, now: float, until: float) -> Deferred[None]:
        return self._execute("INSERT OR REPLACE INTO leases VALUES (?, ?)", self.owner, until)

    def end_lease(self, owner: str) -> Deferred[None]:
        return self._execute("INSERT OR REPLACE INTO leases VALUES (?, ?)", owner, -time.time())

    def order(self, owner: str, order: Mapping[str, str], *, now: float) -> Deferred[None]:
        return self._thread.write(lambda connection: _order(connection, owner, json.dumps(dict(order)), now))

    def orders(self, *, now: float) -> Deferred[list[Mapping[str, str]]]:
        """Writes to the file only when there are orders."""
        look = "SELECT 1 FROM orders WHERE owner = ? LIMIT 1"
        looking = self._thread.read(lambda connection: connection.execute(look, (self.owner,)).fetchone())

        def take(has_orders: Any) -> Any:
            if not has_orders:
                return []
            return self._thread.write(lambda connection: _take_orders(connection, self.owner, now))

        return looking.addCallback(take)

    def add_entry(self, context_id: str, kind: EntryKind, text: str, *, at: float) -> Deferred[int]:
        return self._change(context_id, lambda connection: _add_entry(connection, context_id, kind, text, at))

    def entries(
        self, context_id: str, *, kind: EntryKind | None = None, text: str = "", after: int = 0, limit: int = 100
    ) -> Deferred[list[JournalEntry]]:
        if not storable(context_id):
            return succeed([])
        return self._thread.read(lambda connection: found(_entries(connection, context_id, after), kind, text, limit))

    def check(self) -> Deferred[None]:
        """Writes one row, and reads the calls table."""
        return self._thread.write(_check)

    def _execute(self, statement: str, *values: Any) -> Deferred[None]:
        return self._thread.write(lambda connection: connection.execute(statement, values) and None)

    def _change(self, context_id: str, work: Work) -> Deferred[Any]:
        return self._thread.write(work) if storable(context_id) else fail(UnknownContext(context_id))


# In the worker thread, each within a transaction


def _add(connection: sqlite3.Connection, context: CallContext, row: tuple[Any, ...], max_pending: int) -> None:
    waiting = connection.execute(_COUNT_WAITING, (context.created_at,)).fetchone()[0]
    if waiting >= max_pending:
        raise TooManyCalls(f"{waiting} calls wait for their media already")
    try:
        connection.execute(_INSERT, row)
    except sqlite3.IntegrityError as error:
        raise ValueError(f"context {context.context_id} is not new and pending") from error


def _claim(connection: sqlite3.Connection, context_id: str, values: tuple[Any, ...]) -> CallContext:
    rows = connection.execute(_CLAIM, values).fetchall()
    if rows:
        return _from_row(rows[0])
    context = _get(connection, context_id)
    if context.status in (ContextStatus.EXPIRED, ContextStatus.PENDING):
        raise ContextExpired(context_id)
    raise ContextClaimed(context_id, f"by {context.peer}" if context.peer else "")


def _finish(
    connection: sqlite3.Connection, context_id: str, reason: EndReason, now: float, values: tuple[Any, ...]
) -> CallContext:
    try:
        return _change_in_hand(connection, context_id, _FINISH, values)
    except ContextError:
        context = _get(connection, context_id)
        if context.has_ended_as(reason, now):
            return context
        raise


def _change_in_hand(
    connection: sqlite3.Connection, context_id: str, statement: str, values: tuple[Any, ...]
) -> CallContext:
    rows = connection.execute(statement, values).fetchall()
    if rows:
        return _from_row(rows[0])
    raise ContextError(context_id, f"it is {_get(connection, context_id).status.value}, not claimed")


def _follow(
    connection: sqlite3.Connection, context_id: str, progress: CallProgress, owner: str | None
) -> CallContext | None:
    # The transaction began with the write lock: no other process changes the row between the read and the write.
    context = _get(connection, context_id)
    changed = context.followed(progress)
    if changed is context or changed.call_status is None:
        return None
    values = (changed.status.value, changed.reason, changed.ended_at, changed.call_status.value, changed.answered_at)
    end = (changed.hung_up_at, changed.dial_status, changed.cause, changed.cause_text)
    connection.execute(_FOLLOW, (*values, *end, context_id))
    if owner is not None:
        connection.execute(
            "INSERT INTO notices (context_id, made_at, record, owner) VALUES (?, ?, ?, ?)",
            (context_id, progress.at, json.dumps(record_of(changed)), owner),
        )
    return changed


def _adopt(connection: sqlite3.Connection, values: Mapping[str, Any]) -> Adopted:
    notices = connection.execute(_ADOPT_NOTICES, values).rowcount
    calls = [_from_row(row) for row in connection.execute(_ADOPT, values).fetchall()]
    return Adopted(sorted(calls, key=lambda context: context.created_at), notices)


def _notices(connection: sqlite3.Connection, owner: str, limit: int, after: int) -> list[Notice]:
    query = """
        SELECT number, context_id, made_at, record FROM notices WHERE number > ? AND owner = ? ORDER BY number LIMIT ?
        """
    return [
        Notice(number=number, context_id=context_id, made_at=made_at, record=json.loads(record))
        for number, context_id, made_at, record in connection.execute(query, (after, owner, limit))
    ]


def _get(connection: sqlite3.Connection, context_id: str) -> CallContext:
    row = connection.execute(f"SELECT {_ALL} FROM calls WHERE context_id = ?", (context_id,)).fetchone()
    if row is None:
        raise UnknownContext(context_id)
    return _from_row(row)


def _recent(
    connection: sqlite3.Connection, limit: int, status: ContextStatus | None, assistants: tuple[str, ...]
) -> list[CallContext]:
    where, values = "TRUE", assistants
    if assistants:
        where = f"assistant_id IN ({', '.join('?' * len(assistants))})"
    if status is not None:
        where, values = f"{where} AND status = ?", (*values, status.value)
    query = f"SELECT {_ALL} FROM calls WHERE {where} ORDER BY created_at DESC, rowid DESC LIMIT ?"
    return [_from_row(row) for row in connection.execute(query, (*values, limit))]


def _sweep(
    connection: sqlite3.Connection, now: float, forget_before: float, presume: bool, journals_before: float
) -> Swept:
    expired = connection.execute(_EXPIRE, (now, now)).rowcount
    lost = connection.execute(_LOSE, {"now": now, "presume": presume}).rowcount
    journals = connection.execute(_FORGOTTEN_JOURNALS, (journals_before, forget_before)).fetchall()
    for table in ("journals", "journal_entries"):
        connection.executemany(f"DELETE FROM {table} WHERE context_id = ?", journals)
    connection.execute("DELETE FROM calls WHERE ended_at < ?", (forget_before,))
    connection.execute("DELETE FROM orders WHERE made_at < ?", (now - ORDER_S,))
    connection.execute("DELETE FROM leases WHERE abs(until) < ?", (now - FORGET_LEASE_S,))
    return Swept(expired, lost)


def _order(connection: sqlite3.Connection, owner: str, words: str, now: float) -> None:
    count = "SELECT count(*) FROM orders WHERE owner = ? AND made_at > ?"
    if connection.execute(count, (owner, now - ORDER_S)).fetchone()[0] >= LONGEST_QUEUE:
        raise TooManyCalls(f"{LONGEST_QUEUE} orders wait for {owner} already")
    connection.execute("INSERT INTO orders (owner, made_at, words) VALUES (?, ?, ?)", (owner, now, words))


def _take_orders(connection: sqlite3.Connection, owner: str, now: float) -> list[Mapping[str, str]]:
    taken = connection.execute("DELETE FROM orders WHERE owner = ? RETURNING number, made_at, words", (owner,))
    return [json.loads(words) for _, made_at, words in sorted(taken.fetchall()) if made_at > now - ORDER_S]


def _add_entry(connection: sqlite3.Connection, context_id: str, kind: EntryKind, text: str, at: float) -> int:
    text, size = stored_text(text)
    counted = connection.execute(_COUNT_ENTRY, {"id": context_id, "size": size, "at": at}).fetchone()
    if counted is None:
        _get(connection, context_id)
        raise full(context_id)
    number: int = counted[0]
    connection.execute("INSERT INTO journal_entries VALUES (?, ?, ?, ?, ?)", (context_id, number, kind.value, at, text))
    return number


def _entries(connection: sqlite3.Connection, context_id: str, after: int) -> Iterator[JournalEntry]:
    for number, kind, at, text in connection.execute(_ENTRIES, (context_id, after)):
        yield JournalEntry(context_id=context_id, number=number, kind=EntryKind(kind), at=at, text=text)


def _check(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE checks SET checked_at = ?", (time.time(),))
    connection.execute(f"SELECT {_ALL} FROM calls LIMIT 1").fetchall()


def _expires(failure: Failure) -> None:
    """The lease could not be ended; it expires soon."""
    failure.trap(StoreUnavailable)


def _to_row(context: CallContext) -> tuple[Any, ...]:
    values = {name: getattr(context, name) for name in _COLUMNS}
    values["direction"] = context.direction.value
    values["status"] = context.status.value
    values["call_status"] = context.call_status and context.call_status.value
    values["variables"] = json.dumps(dict(context.variables))
    return tuple(values.values())


def _from_row(row: tuple[Any, ...]) -> CallContext:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["variables"] = json.loads(values["variables"])
    return context_of(values)
