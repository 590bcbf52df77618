"""The tables of the SQLite file, and the migration from each schema version to the next."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.store.sqlite_thread import BUSY_TIMEOUT_S

__all__ = ["SCHEMA_VERSION", "prepare"]

SCHEMA_VERSION = 7

_VERSION_1 = (
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
        audio_out_s REAL NOT NULL
    )
    """,
    "CREATE INDEX calls_by_creation ON calls (created_at)",
    "CREATE INDEX calls_waiting ON calls (expires_at) WHERE status = 'pending'",
    "CREATE INDEX calls_over ON calls (ended_at) WHERE ended_at IS NOT NULL",
    "CREATE TABLE checks (id INTEGER NOT NULL PRIMARY KEY, checked_at REAL NOT NULL)",
    "INSERT INTO checks VALUES (1, 0)",
)
_VERSION_2 = ("ALTER TABLE calls ADD COLUMN next_dial TEXT NOT NULL DEFAULT ''",)
_VERSION_3 = (
    "ALTER TABLE calls ADD COLUMN credential TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN call_status TEXT",
    "ALTER TABLE calls ADD COLUMN answered_at REAL",
    "ALTER TABLE calls ADD COLUMN hung_up_at REAL",
    "ALTER TABLE calls ADD COLUMN dial_status TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN cause INTEGER",
    "ALTER TABLE calls ADD COLUMN cause_text TEXT NOT NULL DEFAULT ''",
    """
    CREATE INDEX calls_under_way ON calls (created_at)
        WHERE call_status IN ('new', 'initiated', 'ringing', 'answered')
    """,
    # AUTOINCREMENT never reuses a number: a receiver recognizes a notice that comes twice by it.
    """
    CREATE TABLE notices (
        number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        context_id TEXT NOT NULL,
        made_at REAL NOT NULL,
        record TEXT NOT NULL
    )
    """,
)
_VERSION_4 = (
    "ALTER TABLE calls ADD COLUMN detail TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN upstream_id TEXT NOT NULL DEFAULT ''",
)
_VERSION_5 = (
    "ALTER TABLE calls ADD COLUMN key_name TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX calls_of_keys ON calls (key_name) WHERE key_name <> '' AND status IN ('pending', 'claimed')",
    "ALTER TABLE calls ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN follower TEXT NOT NULL DEFAULT ''",
    # No process holds that lease: the server that wrote these calls is gone.
    "UPDATE calls SET owner = '(an earlier server)' WHERE status = 'claimed'",
    "CREATE INDEX calls_claimed ON calls (owner) WHERE status = 'claimed'",
    "CREATE TABLE leases (owner TEXT NOT NULL PRIMARY KEY, until REAL NOT NULL)",
    "ALTER TABLE notices ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
    """
    CREATE TABLE orders (
        number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        owner TEXT NOT NULL,
        made_at REAL NOT NULL,
        words TEXT NOT NULL
    )
    """,
)
_VERSION_6 = (
    """
    CREATE TABLE journals (
        context_id TEXT NOT NULL PRIMARY KEY,
        entries INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        newest REAL NOT NULL
    )
    """,
    "CREATE INDEX journals_by_newest ON journals (newest)",
    """
    CREATE TABLE journal_entries (
        context_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        at REAL NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (context_id, number)
    ) WITHOUT ROWID
    """,
)
_VERSION_7 = ("ALTER TABLE calls ADD COLUMN registered_from TEXT NOT NULL DEFAULT ''",)
_STEPS = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6, _VERSION_7)
"""The statements that lead to each version from the one before it; to the first from an empty file."""


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Set up a new connection, and the tables of a new file.

    :raises StoreUnavailable: the file has a newer schema version, or is no call store.
    """
    # One transaction: otherwise another process may create the tables between the two checks.
    with _transaction(connection, "BEGIN"):
        _must_be_known(connection, path)
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    # Takes the write lock first: of several processes that find no tables, one creates them.
    with _transaction(connection, "BEGIN IMMEDIATE"):
        version = _must_be_known(connection, path)
        for step in _STEPS[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _must_be_known(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema version: ours, an older one, or 0 (it is new)."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StoreUnavailable(
            f"the call store {path} is of schema version {version}, and this program knows versions up to"
            f" {SCHEMA_VERSION}: use a newer release, or another file"
        )
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreUnavailable(f"{path} is an SQLite database of something else: use another file")
    return version


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Commits at the end of the block, or rolls back if it raises."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on. SQLite does not wait for another process that does the same, so this retries."""
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)
