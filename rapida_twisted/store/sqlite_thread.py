"""One SQLite connection in a worker thread, so that the reactor does not wait for the disk.

Work that arrives while the thread is busy is batched into one transaction, which shares the cost of the commit and of
the thread switches.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from rapida_twisted.errors import RapidaError, StoreUnavailable

__all__ = ["SqliteThread", "Work"]

Work = Callable[[sqlite3.Connection], Any]
"""Work with the connection, in the thread and within a transaction. It may raise a RapidaError before it changes
anything; the caller gets it."""

BUSY_TIMEOUT_S = 2.0


class SqliteThread:
    """A connection and its thread.

    :param path: the database's file.
    :param reactor: provides IReactorFromThreads.
    :param prepare: called with the new connection, in the thread that calls :meth:`open`.
    """

    def __init__(self, path: Path, reactor: Any, prepare: Work) -> None:
        self._path = path
        self._reactor = reactor
        self._prepare = prepare
        self._connection: sqlite3.Connection | None = None
        self._pool = ThreadPool(0, 1, f"sqlite {path.name}")
        # Daemonic: a program that fails to start can end without a reactor that would fire close()'s Deferred.
        self._pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]
        self._waiting: list[_Waiting] = []
        self._busy = False
        self._idle: Deferred[None] | None = None

    def open(self) -> None:
        """Open the file, making it (0600) and its directory (0700) if need be. Blocks, for at most some seconds.

        :raises StoreUnavailable: it can't be opened; the text is one sentence.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite would make the file with the umask's permissions; its other files take theirs from this one.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreUnavailable(f"the call store {self._path} can't be opened: {error.strerror}") from error
        connection = None
        try:
            connection = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._prepare(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                raise self._explained(error) from error
            raise
        self._connection = connection
        self._pool.start()

    def write(self, work: Work) -> Deferred[Any]:
        """Do work that changes something; fires with its result when it is committed."""
        return self._submit(_Waiting(work, True))

    def read(self, work: Work) -> Deferred[Any]:
        """Do work that changes nothing; fires with its result."""
        return self._submit(_Waiting(work, False))

    def close(self) -> Deferred[None]:
        """Finish what was asked for, then close the file and end the thread."""
        if self._connection is None:
            return succeed(None)
        connection, self._connection = self._connection, None
        return Deferred.fromCoroutine(self._close(connection))

    async def _close(self, connection: sqlite3.Connection) -> None:
        if self._busy:
            self._idle = Deferred()
            await self._idle
        try:
            await deferToThreadPool(self._reactor, self._pool, connection.close)
        finally:
            self._pool.stop()

    # In the reactor's thread

    def _submit(self, waiting: _Waiting) -> Deferred[Any]:
        if self._connection is None:
            return fail(StoreUnavailable("the call store is not open"))
        self._waiting.append(waiting)
        if not self._busy:
            self._start(self._connection)
        return waiting.done

    def _start(self, connection: sqlite3.Connection) -> None:
        """Send all that waits to the thread, but what was cancelled meanwhile."""
        batch = [waiting for waiting in self._waiting if not waiting.done.called]
        self._waiting = []
        self._busy = True
        running = deferToThreadPool(self._reactor, self._pool, self._run, connection, batch)
        running.addBoth(self._ran, connection, batch)

    def _ran(self, result: Failure | None, connection: sqlite3.Connection, batch: list[_Waiting]) -> None:
        self._busy = False
        if self._waiting:
            self._start(connection)
        for waiting in batch:
            waiting.done.callback(result if result is not None else waiting.outcome)
        if not self._busy and self._idle is not None:
            self._idle.callback(None)

    # In the worker thread

    def _run(self, connection: sqlite3.Connection, batch: list[_Waiting]) -> None:
        # Writes first: whoever writes and then reads finds what was written.
        self._run_group(connection, "BEGIN IMMEDIATE", [waiting for waiting in batch if waiting.writes])
        self._run_group(connection, "BEGIN", [waiting for waiting in batch if not waiting.writes])

    def _run_group(self, connection: sqlite3.Connection, begin: str, group: list[_Waiting]) -> None:
        """Run them in one transaction; if that fails, each in its own, so that one can't spoil it for the others."""
        error = self._transact(connection, begin, group)
        for waiting in group if error is not None else ():
            # A locked file was waited for once; nobody waits for it again.
            if len(group) > 1 and not _is_busy(error):
                error = self._transact(connection, begin, [waiting])
            if error is not None:
                waiting.outcome = Failure(self._explained(error))

    def _transact(self, connection: sqlite3.Connection, begin: str, group: list[_Waiting]) -> Exception | None:
        """Run them in one transaction, all or none; gives what went wrong."""
        if not group:
            return None
        try:
            connection.execute(begin)
            for waiting in group:
                waiting.run(connection)
            connection.execute("COMMIT")
        except Exception as error:
            if connection.in_transaction:
                try:
                    connection.execute("ROLLBACK")
                except sqlite3.Error:
                    pass
            return error
        return None

    def _explained(self, error: Exception) -> Exception:
        """What to tell: SQLite's errors in a sentence, others as they are."""
        if not isinstance(error, sqlite3.Error):
            return error
        explained = StoreUnavailable(f"the call store {self._path} {_what_is_wrong(error)}")
        explained.__cause__ = error
        return explained


class _Waiting:
    """One piece of work, and what became of it."""

    def __init__(self, work: Work, writes: bool) -> None:
        self.work = work
        self.writes = writes
        self.done: Deferred[Any] = Deferred()
        self.outcome: Any = None

    def run(self, connection: sqlite3.Connection) -> None:
        try:
            self.outcome = self.work(connection)
        except RapidaError:
            self.outcome = Failure()


def _primary_code(error: Exception | None) -> int:
    """SQLite's result code without its extension; 0 for what is no error of SQLite's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_busy(error: Exception | None) -> bool:
    return _primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _what_is_wrong(error: sqlite3.Error) -> str:
    match _primary_code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"is locked by another process for more than {BUSY_TIMEOUT_S:g} s"
        case sqlite3.SQLITE_FULL:
            return "can't grow: the disk is full"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return f"can't be written to: {error}"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return f"is damaged, or no SQLite database: {error}"
    return f"does not work: {error}"
