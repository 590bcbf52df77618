"""Call contexts in an SQLite file: they survive a restart, and several processes may share them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, execute, fail
from zope.interface import implementer

from rapida_twisted.context import CallContext, ContextStatus, Direction, EndReason
from rapida_twisted.contexts.sqlite_thread import BUSY_TIMEOUT_S, SqliteThread
from rapida_twisted.errors import (
    ContextClaimed,
    ContextError,
    ContextExpired,
    StoreUnavailable,
    TooManyCalls,
    UnknownContext,
)
from rapida_twisted.interfaces import ICallStore

__all__ = ["SCHEMA_VERSION", "SqliteStore"]

SCHEMA_VERSION = 2

_COLUMNS = (
    "context_id", "assistant_id", "created_at", "expires_at", "direction", "status", "caller", "called", "channel_id",
    "variables", "transport", "peer", "claimed_at", "ended_at", "reason", "audio_in_s", "audio_out_s",
    "next_dial",
)  # fmt: skip
_ALL = ", ".join(_COLUMNS)

_SCHEMA = (
    """
    CREATE TABLE calls (
        context_id TEXT NOT NULL PRIMARY KEY,
        assistant_id TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        direction TEXT NOT NULL,
        status TEXT NOT NULL,
        caller TEXT NOT NULL,
        called TEXT NOT NULL,
        channel_id TEXT NOT NULL,
        variables TEXT NOT NULL,
        transport TEXT NOT NULL,
        peer TEXT NOT NULL,
        claimed_at REAL,
        ended_at REAL,
        reason TEXT NOT NULL,
        audio_in_s REAL NOT NULL,
        audio_out_s REAL NOT NULL,
        next_dial TEXT NOT NULL DEFAULT ''
    )
    """,
    "CREATE INDEX calls_by_creation ON calls (created_at)",
    "CREATE INDEX calls_waiting ON calls (expires_at) WHERE status = 'pending'",
    "CREATE INDEX calls_over ON calls (ended_at) WHERE ended_at IS NOT NULL",
    "CREATE TABLE checks (id INTEGER NOT NULL PRIMARY KEY, checked_at REAL NOT NULL)",
    "INSERT INTO checks VALUES (1, 0)",
)

_FROM_VERSION_1 = "ALTER TABLE calls ADD COLUMN next_dial TEXT NOT NULL DEFAULT ''"

_INSERT = f"INSERT INTO calls ({_ALL}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_COUNT_WAITING = "SELECT count(*) FROM calls WHERE status = 'pending' AND expires_at > ?"
_CLAIM = f"""
    UPDATE calls SET status = 'claimed', transport = ?, peer = ?, claimed_at = ?
    WHERE context_id = ? AND status = 'pending' AND expires_at > ? RETURNING {_ALL}
    """
_FINISH = f"""
    UPDATE calls SET status = ?, reason = ?, audio_in_s = ?, audio_out_s = ?, ended_at = ?
    WHERE context_id = ? AND status = 'claimed' RETURNING {_ALL}
    """
_MOVE_ON = f"UPDATE calls SET next_dial = ? WHERE context_id = ? AND status = 'claimed' RETURNING {_ALL}"
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
        self._thread = SqliteThread(path, reactor, self._prepare)

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

    def claim(self, context_id: str, *, transport: str, peer: str, now: float) -> Deferred[CallContext]:
        """Turn a pending context into a claimed one, in one statement."""
        if not _storable(context_id):
            return fail(UnknownContext(context_id))
        return self._thread.write(lambda connection: _claim(connection, context_id, transport, peer, now))

    def finish(
        self, context_id: str, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float
    ) -> Deferred[CallContext]:
        """Turn a claimed context into a completed or failed one."""
        if not _storable(context_id):
            return fail(UnknownContext(context_id))
        status = ContextStatus.FAILED if reason.failed else ContextStatus.COMPLETED
        values = (status.value, reason.value, audio_in_s, audio_out_s, now, context_id)
        return self._thread.write(lambda connection: _change_claimed(connection, context_id, _FINISH, values))

    def move_on(self, context_id: str, *, next_dial: str) -> Deferred[CallContext]:
        """Note where a claimed call goes next."""
        if not _storable(context_id):
            return fail(UnknownContext(context_id))
        values = (next_dial, context_id)
        return self._thread.write(lambda connection: _change_claimed(connection, context_id, _MOVE_ON, values))

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

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Set up a new connection, and the tables of a new file.

        :raises StoreUnavailable: the file is of a newer version, or of somebody else.
        """
        # One transaction: else another process may make the tables between the looks at the version and at the tables.
        with _transaction(connection, "BEGIN"):
            self._must_be_known(connection)
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        # The lock is taken first: of several processes that find no tables, one makes them.
        with _transaction(connection, "BEGIN IMMEDIATE"):
            version = self._must_be_known(connection)
            for statement in _SCHEMA if version == 0 else (_FROM_VERSION_1,) if version == 1 else ():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _must_be_known(self, connection: sqlite3.Connection) -> int:
        """The file's schema version: ours, an older one, or 0 (it is new)."""
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreUnavailable(
                f"the call store {self.path} is of schema version {version}, and this program knows versions up to"
                f" {SCHEMA_VERSION}: use a newer release, or another file"
            )
        if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreUnavailable(f"{self.path} is an SQLite database of something else: use another file")
        return version


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """All that is done within, or nothing of it."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on. Unlike all else, this does not wait for another process that does the same."""
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)


# What is done in the thread, each within a transaction


def _add(connection: sqlite3.Connection, context: CallContext, row: tuple[Any, ...], max_pending: int) -> None:
    waiting = connection.execute(_COUNT_WAITING, (context.created_at,)).fetchone()[0]
    if waiting >= max_pending:
        raise TooManyCalls(f"{waiting} calls wait for their media already")
    try:
        connection.execute(_INSERT, row)
    except sqlite3.IntegrityError as error:
        raise ValueError(f"context {context.context_id} is not new and pending") from error


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
    values["variables"] = json.dumps(dict(context.variables))
    return tuple(values.values())


def _from_row(row: tuple[Any, ...]) -> CallContext:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["direction"] = Direction(values["direction"])
    values["status"] = ContextStatus(values["status"])
    values["variables"] = MappingProxyType(json.loads(values["variables"]))
    return CallContext(**values)
