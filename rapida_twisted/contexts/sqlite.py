"""Call contexts in an SQLite file: they survive a restart, and several processes may share them."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, execute, fail
from zope.interface import implementer

from rapida_twisted.context import (
    CallContext,
    CallProgress,
    CallStatus,
    ContextStatus,
    Direction,
    EndReason,
    record_of,
)
from rapida_twisted.contexts.sqlite_schema import prepare
from rapida_twisted.contexts.sqlite_thread import SqliteThread
from rapida_twisted.errors import (
    ContextClaimed,
    ContextError,
    ContextExpired,
    TooManyCalls,
    UnknownContext,
)
from rapida_twisted.interfaces import ICallStore, Notice

__all__ = ["SqliteStore"]

_COLUMNS = (
    "context_id", "assistant_id", "created_at", "expires_at", "direction", "status", "caller", "called", "channel_id",
    "variables", "transport", "peer", "claimed_at", "ended_at", "reason", "audio_in_s", "audio_out_s",
    "next_dial", "credential", "call_status", "answered_at", "hung_up_at", "dial_status", "cause", "cause_text",
    "detail", "upstream_id", "key_name",
)  # fmt: skip
_ALL = ", ".join(_COLUMNS)

_INSERT = f"INSERT INTO calls ({_ALL}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_COUNT_WAITING = "SELECT count(*) FROM calls WHERE status = 'pending' AND expires_at > ?"
# The terms of the index stand here word for word: else it is not used.
_COUNT_OF_KEY = """
    SELECT count(*) FROM calls WHERE key_name = ? AND key_name <> '' AND status IN ('pending', 'claimed')
        AND (status = 'claimed' OR expires_at > ?)
    """
_CLAIM = f"""
    UPDATE calls SET status = 'claimed', transport = ?, peer = ?, claimed_at = ?
    WHERE context_id = ? AND status = 'pending' AND expires_at > ? RETURNING {_ALL}
    """
_FINISH = f"""
    UPDATE calls SET status = ?, reason = ?, audio_in_s = ?, audio_out_s = ?, ended_at = ?, detail = ?
    WHERE context_id = ? AND status = 'claimed' RETURNING {_ALL}
    """
_MOVE_ON = f"UPDATE calls SET next_dial = ? WHERE context_id = ? AND status = 'claimed' RETURNING {_ALL}"
_FOLLOW = """
    UPDATE calls SET status = ?, reason = ?, ended_at = ?, call_status = ?, answered_at = ?, hung_up_at = ?,
        dial_status = ?, cause = ?, cause_text = ?
    WHERE context_id = ?
    """
_UNDER_WAY = f"""
    SELECT {_ALL} FROM calls WHERE call_status IN ('new', 'initiated', 'ringing', 'answered') ORDER BY created_at
    """
_EXPIRE = """
    UPDATE calls SET status = 'expired', reason = 'expired', ended_at = ? WHERE status = 'pending' AND expires_at <= ?
    """


@implementer(ICallStore)
class SqliteStore:
    """Keeps contexts in a file, through a thread of its own.

    :param path: the file; made, and its directory too, if not there.
    :param reactor: provides IReactorFromThreads.
    """

    def __init__(self, path: Path, reactor: Any) -> None:
        self.path = path
        self._thread = SqliteThread(path, reactor, lambda connection: prepare(connection, path))

    def open(self) -> Deferred[None]:
        """Open the file. This is done when the call returns, so that a server can refuse to start without it."""
        return execute(self._thread.open)

    def close(self) -> Deferred[None]:
        """Finish what is under way, close the file, end the thread."""
        return self._thread.close()

    def add(self, context: CallContext, max_pending: int) -> Deferred[None]:
        """Keep a new, pending context."""
        if context.status is not ContextStatus.PENDING:
            return fail(ValueError(f"context {context.context_id} is not new and pending"))
        row = _to_row(context)
        return self._thread.write(lambda connection: _add(connection, context, row, max_pending))

    def calls_of_key(self, key_name: str, *, now: float) -> Deferred[int]:
        """Calls of an API key that wait, or are claimed."""
        return self._thread.read(lambda connection: _count_of_key(connection, key_name, now))

    def claim(self, context_id: str, *, transport: str, peer: str, now: float) -> Deferred[CallContext]:
        """Turn a pending context into a claimed one, in one statement."""
        if not _storable(context_id):
            return fail(UnknownContext(context_id))
        return self._thread.write(lambda connection: _claim(connection, context_id, transport, peer, now))

    def finish(
        self, context_id: str, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> Deferred[CallContext]:
        """Turn a claimed context into a completed or failed one."""
        if not _storable(context_id):
            return fail(UnknownContext(context_id))
        status = ContextStatus.FAILED if reason.failed else ContextStatus.COMPLETED
        values = (status.value, reason.value, audio_in_s, audio_out_s, now, detail, context_id)
        return self._thread.write(lambda connection: _change_claimed(connection, context_id, _FINISH, values))

    def move_on(self, context_id: str, *, next_dial: str) -> Deferred[CallContext]:
        """Note where a claimed call goes next."""
        if not _storable(context_id):
            return fail(UnknownContext(context_id))
        values = (next_dial, context_id)
        return self._thread.write(lambda connection: _change_claimed(connection, context_id, _MOVE_ON, values))

    def follow(self, context_id: str, progress: CallProgress, *, notify: bool = False) -> Deferred[CallContext | None]:
        """Note news of an outbound call, and keep a notice of it, in one transaction."""
        if not _storable(context_id):
            return fail(UnknownContext(context_id))
        return self._thread.write(lambda connection: _follow(connection, context_id, progress, notify))

    def under_way(self) -> Deferred[list[CallContext]]:
        """All outbound calls that are not over."""
        return self._thread.read(lambda connection: [_from_row(row) for row in connection.execute(_UNDER_WAY)])

    def notices(self, limit: int, after: int = 0) -> Deferred[list[Notice]]:
        """The oldest notices behind one."""
        return self._thread.read(lambda connection: _notices(connection, max(0, limit), after))

    def drop_notice(self, number: int) -> Deferred[None]:
        """Forget a notice."""
        return self._thread.write(lambda connection: _drop_notice(connection, number))

    def get(self, context_id: str) -> Deferred[CallContext]:
        """The context, or ``UnknownContext``."""
        if not _storable(context_id):
            return fail(UnknownContext(context_id))
        return self._thread.read(lambda connection: _get(connection, context_id))

    def recent(self, limit: int, status: ContextStatus | None = None) -> Deferred[list[CallContext]]:
        """The newest contexts first."""
        return self._thread.read(lambda connection: _recent(connection, max(0, limit), status))

    def sweep(self, *, now: float, forget_before: float) -> Deferred[int]:
        """Expire what waited too long, forget what ended long ago."""
        return self._thread.write(lambda connection: _sweep(connection, now, forget_before))

    def check(self) -> Deferred[None]:
        """Write something small, and read it again."""
        return self._thread.write(_check)


# What is done in the thread, each within a transaction


def _add(connection: sqlite3.Connection, context: CallContext, row: tuple[Any, ...], max_pending: int) -> None:
    waiting = connection.execute(_COUNT_WAITING, (context.created_at,)).fetchone()[0]
    if waiting >= max_pending:
        raise TooManyCalls(f"{waiting} calls wait for their media already")
    try:
        connection.execute(_INSERT, row)
    except sqlite3.IntegrityError as error:
        raise ValueError(f"context {context.context_id} is not new and pending") from error


def _count_of_key(connection: sqlite3.Connection, key_name: str, now: float) -> int:
    count: int = connection.execute(_COUNT_OF_KEY, (key_name, now)).fetchone()[0]
    return count


def _claim(connection: sqlite3.Connection, context_id: str, transport: str, peer: str, now: float) -> CallContext:
    rows = connection.execute(_CLAIM, (transport, peer, now, context_id, now)).fetchall()
    if rows:
        return _from_row(rows[0])
    context = _get(connection, context_id)
    if context.status in (ContextStatus.EXPIRED, ContextStatus.PENDING):
        raise ContextExpired(context_id)
    raise ContextClaimed(context_id, f"by {context.peer}" if context.peer else "")


def _change_claimed(
    connection: sqlite3.Connection, context_id: str, statement: str, values: tuple[Any, ...]
) -> CallContext:
    rows = connection.execute(statement, values).fetchall()
    if rows:
        return _from_row(rows[0])
    raise ContextError(context_id, f"it is {_get(connection, context_id).status.value}, not claimed")


def _follow(
    connection: sqlite3.Connection, context_id: str, progress: CallProgress, notify: bool
) -> CallContext | None:
    # Within one transaction, which was begun for writing: nobody changes the row meanwhile.
    context = _get(connection, context_id)
    changed = context.followed(progress)
    if changed is context or changed.call_status is None:
        return None
    values = (changed.status.value, changed.reason, changed.ended_at, changed.call_status.value, changed.answered_at)
    end = (changed.hung_up_at, changed.dial_status, changed.cause, changed.cause_text)
    connection.execute(_FOLLOW, (*values, *end, context_id))
    if notify:
        connection.execute(
            "INSERT INTO notices (context_id, made_at, record) VALUES (?, ?, ?)",
            (context_id, progress.at, json.dumps(record_of(changed))),
        )
    return changed


def _notices(connection: sqlite3.Connection, limit: int, after: int) -> list[Notice]:
    query = "SELECT number, context_id, made_at, record FROM notices WHERE number > ? ORDER BY number LIMIT ?"
    return [
        Notice(number=number, context_id=context_id, made_at=made_at, record=json.loads(record))
        for number, context_id, made_at, record in connection.execute(query, (after, limit))
    ]


def _drop_notice(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("DELETE FROM notices WHERE number = ?", (number,))


def _get(connection: sqlite3.Connection, context_id: str) -> CallContext:
    row = connection.execute(f"SELECT {_ALL} FROM calls WHERE context_id = ?", (context_id,)).fetchone()
    if row is None:
        raise UnknownContext(context_id)
    return _from_row(row)


def _recent(connection: sqlite3.Connection, limit: int, status: ContextStatus | None) -> list[CallContext]:
    where, values = ("", ()) if status is None else ("WHERE status = ?", (status.value,))
    query = f"SELECT {_ALL} FROM calls {where} ORDER BY created_at DESC, rowid DESC LIMIT ?"
    return [_from_row(row) for row in connection.execute(query, (*values, limit))]


def _sweep(connection: sqlite3.Connection, now: float, forget_before: float) -> int:
    expired = connection.execute(_EXPIRE, (now, now)).rowcount
    connection.execute("DELETE FROM calls WHERE ended_at < ?", (forget_before,))
    return expired


def _check(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE checks SET checked_at = ?", (time.time(),))
    connection.execute(f"SELECT {_ALL} FROM calls LIMIT 1").fetchall()


def _storable(text: str) -> bool:
    """Whether SQLite can hold this text: half a surrogate pair is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _to_row(context: CallContext) -> tuple[Any, ...]:
    values = {name: getattr(context, name) for name in _COLUMNS}
    values["direction"] = context.direction.value
    values["status"] = context.status.value
    values["call_status"] = context.call_status and context.call_status.value
    values["variables"] = json.dumps(dict(context.variables))
    return tuple(values.values())


def _from_row(row: tuple[Any, ...]) -> CallContext:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["direction"] = Direction(values["direction"])
    values["status"] = ContextStatus(values["status"])
    values["call_status"] = CallStatus(values["call_status"]) if values["call_status"] else None
    values["variables"] = MappingProxyType(json.loads(values["variables"]))
    return CallContext(**values)
