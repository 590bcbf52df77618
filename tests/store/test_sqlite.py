"""The store in an SQLite file: what all stores do, and what only a file can do or suffer."""

from __future__ import annotations

import os
import sqlite3
from itertools import chain
from pathlib import Path
from stat import S_IMODE
from threading import Barrier
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rapida_twisted.errors import ContextClaimed, StoreUnavailable, TooManyCalls, UnknownContext
from rapida_twisted.interfaces import EntryKind, Swept
from rapida_twisted.store import sqlite_thread
from rapida_twisted.store.sqlite import SqliteStore
from rapida_twisted.store.sqlite_schema import SCHEMA_VERSION
from tests.store.store_tests import NOW, SharedStoreTests, context
from tests.support.claim_race import race


class SqliteStoreTests(SharedStoreTests, TestCase):
    """SqliteStore does what every store does, and survives what happens to files."""

    def setUp(self) -> None:
        """A file in a directory that is not there yet."""
        self.path = Path(self.mktemp()).absolute() / "state" / "calls.sqlite3"

    def make_store(self, owner: str = "") -> SqliteStore:
        """A new store; all stores of a test share one file."""
        return SqliteStore(self.path, reactor, owner)

    def other_connection(self) -> sqlite3.Connection:
        """A connection as another process would have it."""
        connection = sqlite3.connect(self.path, timeout=0.0, isolation_level=None)
        self.addCleanup(connection.close)
        return connection

    async def pragma(self, store: SqliteStore, name: str) -> Any:
        """What a pragma of the store's own connection says."""
        return await store._thread.read(lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0])

    # The file

    async def test_permissions(self) -> None:
        """The file and those beside it are for the owner alone, and so is a directory that was made."""
        previous = os.umask(0o022)
        self.addCleanup(os.umask, previous)
        store = await self.opened()
        await store.add(context(), 10)
        self.assertEqual(S_IMODE(self.path.parent.stat().st_mode), 0o700)
        modes = {file.name: S_IMODE(file.stat().st_mode) for file in self.path.parent.iterdir()}
        self.assertEqual(modes, {"calls.sqlite3": 0o600, "calls.sqlite3-wal": 0o600, "calls.sqlite3-shm": 0o600})

    async def test_pragmas(self) -> None:
        """Write-ahead log, commits that do not wait for the disk, a busy timeout, the schema's version."""
        store = await self.opened()
        self.assertEqual(await self.pragma(store, "journal_mode"), "wal")
        self.assertEqual(await self.pragma(store, "synchronous"), 1)
        self.assertEqual(await self.pragma(store, "busy_timeout"), 2000)
        self.assertEqual(await self.pragma(store, "user_version"), SCHEMA_VERSION)

    async def test_survives_reopen(self) -> None:
        """What was kept is there after a restart, in whatever state it was."""
        store = await self.opened()
        for number in (1, 2, 3):
            await store.add(context(number, variables={"n": str(number)}), 10)
        await self.claim(store, 2)
        await self.claim(store, 3)
        await self.finish(store, 3)
        before = await store.recent(10)
        await store.close()
        again = await self.opened()
        self.assertEqual(await again.recent(10), before)
        await self.claim(again, 1)
        await self.refused(self.claim(again, 2), ContextClaimed)

    async def test_open_is_immediate(self) -> None:
        """Whether it could be opened is known when open() returns, without a reactor."""
        store = self.make_store()
        opening = store.open()
        self.addCleanup(store.close)
        self.assertTrue(opening.called)

    async def test_directory_is_a_file(self) -> None:
        """A directory that can't be made is told in a sentence."""
        self.path.parent.parent.mkdir(parents=True)
        self.path.parent.write_text("I am a file")
        error = await self.refused(self.make_store().open(), StoreUnavailable)
        self.assertIn("can't be opened", str(error))

    async def test_earlier_schemas(self) -> None:
        """A file of each earlier version is taken over, with what is in it, and works."""
        for version in range(1, SCHEMA_VERSION):
            self.path.unlink(missing_ok=True)
            store = await self.opened()
            await store.add(context(), 10)
            await store.add(context(2), 10)
            await self.claim(store, 2)
            await store.close()
            other = self.other_connection()
            self.take_back(other, version)
            other.close()
            store = await self.opened()
            self.assertEqual(await store.get(context().context_id), context())
            await self.claim(store)
            await store.move_on(context().context_id, next_dial="PJSIP/200")
            self.assertEqual(await store.notices(1), [])
            # Before version 5 nobody was named as a call's owner: one that was up then is lost.
            self.assertEqual(await store.sweep(now=NOW, forget_before=NOW), Swept(0, int(version < 5)))
            self.assertEqual((await store.get(context(2).context_id)).reason, "server_lost" if version < 5 else "")
            self.assertEqual(await store.add_entry(context().context_id, EntryKind.LOG, "kept", at=NOW), 1)
            await store.close()

    def take_back(self, connection: sqlite3.Connection, version: int) -> None:
        """Make a file of an earlier version of one of today's."""
        connection.execute("ALTER TABLE calls DROP COLUMN registered_from")
        if version == 6:
            connection.execute("PRAGMA user_version = 6")
            return
        connection.execute("DROP TABLE journals")
        connection.execute("DROP TABLE journal_entries")
        connection.execute(f"PRAGMA user_version = {version}")
        if version == 5:
            return
        connection.execute("DROP INDEX calls_of_keys")
        connection.execute("DROP INDEX calls_claimed")
        connection.execute("DROP TABLE leases")
        connection.execute("DROP TABLE orders")
        if version > 2:
            connection.execute("ALTER TABLE notices DROP COLUMN owner")
        columns = ["key_name", "owner", "follower"]
        if version < 4:
            columns += ["detail", "upstream_id"]
        if version < 3:
            connection.execute("DROP INDEX calls_under_way")
            connection.execute("DROP TABLE notices")
            columns += ["credential", "call_status", "answered_at", "hung_up_at", "dial_status", "cause", "cause_text"]
        if version < 2:
            columns.append("next_dial")
        for column in columns:
            connection.execute(f"ALTER TABLE calls DROP COLUMN {column}")

    async def test_newer_schema(self) -> None:
        """A file of a newer version is refused, and left as it is."""
        store = await self.opened()
        await store.add(context(), 10)
        await store.close()
        other = self.other_connection()
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        error = await self.refused(self.make_store().open(), StoreUnavailable)
        self.assertIn(f"schema version {SCHEMA_VERSION + 1}", str(error))
        self.assertEqual(other.execute("SELECT count(*) FROM calls").fetchone(), (1,))

    async def test_somebody_elses_database(self) -> None:
        """An SQLite file with other tables is refused, and left as it is."""
        self.path.parent.mkdir(parents=True)
        other = self.other_connection()
        other.execute("CREATE TABLE recipes (name TEXT)")
        error = await self.refused(self.make_store().open(), StoreUnavailable)
        self.assertIn("something else", str(error))
        self.assertEqual(other.execute("SELECT name FROM sqlite_master").fetchall(), [("recipes",)])
        self.assertEqual(other.execute("PRAGMA journal_mode").fetchone(), ("delete",))

    async def test_no_database(self) -> None:
        """A file that is no database at all is refused, and left as it is."""
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(b"Dear diary, " * 1000)
        error = await self.refused(self.make_store().open(), StoreUnavailable)
        self.assertIn("damaged, or no SQLite database", str(error))
        self.assertIsInstance(error.__cause__, sqlite3.DatabaseError)
        self.assertEqual(self.path.read_bytes(), b"Dear diary, " * 1000)

    async def test_corrupt_file(self) -> None:
        """Damage in the middle of the file fails what meets it, with a sentence; the store goes on answering."""
        store = await self.opened()
        for number in range(200):
            await store.add(context(number), 1000)
        await store.close()
        size = self.path.stat().st_size
        with self.path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        again = await self.opened()
        for asked in (again.recent(1000), again.add(context(999), 1000), again.check()):
            error = await self.refused(asked, StoreUnavailable)
            self.assertIn("damaged", str(error))

    # Trouble that passes

    async def test_full_disk(self) -> None:
        """A full disk fails what is added and leaves what is there usable; with room again the store recovers."""
        store = await self.opened()
        await store.add(context(1), 1000)
        pages = await self.pragma(store, "page_count")
        await self.pragma(store, f"max_page_count = {pages}")
        number = 1
        while True:
            number += 1
            adding = store.add(context(number, variables={"long": "x" * 1000}), 1000)
            outcome = await adding.addErrback(lambda failure: failure.value)
            if outcome is not None:
                break
        self.assertIsInstance(outcome, StoreUnavailable)
        self.assertIn("the disk is full", str(outcome))
        self.assertIsInstance(outcome.__cause__, sqlite3.Error)
        await self.claim(store, 1)
        await self.refused(store.get(context(number).context_id), UnknownContext)
        await self.pragma(store, "max_page_count = 1000000")
        await store.add(context(number), 1000)
        await store.check()

    async def test_locked(self) -> None:
        """A locked file fails writes after a bounded time, while reads go on; unlocked again the store recovers."""
        self.patch(sqlite_thread, "BUSY_TIMEOUT_S", 0.1)
        store = await self.opened()
        await store.add(context(1), 10)
        other = self.other_connection()
        other.execute("BEGIN EXCLUSIVE")
        error = await self.refused(store.add(context(2), 10), StoreUnavailable)
        self.assertIn("is locked by another process", str(error))
        await self.refused(store.check(), StoreUnavailable)
        self.assertEqual(await store.get(context(1).context_id), context(1))
        other.execute("ROLLBACK")
        await store.add(context(2), 10)
        await store.check()

    async def test_locked_is_waited_for_once(self) -> None:
        """Whoever waits together for a locked file waits one busy timeout, not one each."""
        self.patch(sqlite_thread, "BUSY_TIMEOUT_S", 0.2)
        store = await self.opened()
        other = self.other_connection()
        other.execute("BEGIN EXCLUSIVE")
        started_s = reactor.seconds()  # type: ignore[attr-defined]
        await gatherResults([self.refused(store.add(context(number), 100), StoreUnavailable) for number in range(50)])
        self.assertLess(reactor.seconds() - started_s, 2.0)  # type: ignore[attr-defined]

    async def test_locked_at_the_start(self) -> None:
        """A file that stays locked can't be opened, and says so."""
        await (await self.opened()).close()
        self.patch(sqlite_thread, "BUSY_TIMEOUT_S", 0.1)
        other = self.other_connection()
        other.execute("BEGIN EXCLUSIVE")
        error = await self.refused(self.make_store().open(), StoreUnavailable)
        self.assertIn("is locked by another process", str(error))

    # Together

    async def test_writes_that_wait_together(self) -> None:
        """Each of many writes that go in one transaction has its own outcome, in the order in which they were asked."""
        store = await self.opened()
        adding = [store.add(context(number), 3).addErrback(lambda failure: failure.type) for number in range(5)]
        claiming = Deferred.fromCoroutine(self.claim(store, 4)).addErrback(lambda failure: failure.type)
        reading = store.get(context(2).context_id)
        self.assertEqual(await gatherResults(adding), [None, None, None, TooManyCalls, TooManyCalls])
        self.assertEqual(await claiming, UnknownContext)
        self.assertEqual(await reading, context(2))

    async def test_one_does_not_spoil_the_others(self) -> None:
        """A write that breaks is rolled back alone; those that waited with it are done."""
        store = await self.opened()
        adding = [store.add(context(number), 10) for number in (0, 1, 2)]
        twice = store.add(context(1), 10)
        adding.append(store.add(context(3), 10))
        await self.refused(twice, ValueError)
        await gatherResults(adding)
        self.assertEqual(len(await store.recent(10)), 4)

    async def test_cancelled_before_its_turn(self) -> None:
        """What is cancelled while it still waits for the thread is not done at all."""
        store = await self.opened()
        first, second = store.add(context(1), 10), store.add(context(2), 10)
        second.cancel()
        await self.refused(second, CancelledError)
        await first
        await self.refused(store.get(context(2).context_id), UnknownContext)

    async def test_close_finishes_what_is_under_way(self) -> None:
        """What was asked before close() is done; what is asked after it is refused."""
        store = await self.opened()
        adding = [store.add(context(number), 100) for number in range(20)]
        closing = store.close()
        await self.refused(store.add(context(99), 100), StoreUnavailable)
        await closing
        self.assertTrue(all(added.called for added in adding))
        await gatherResults(adding)
        again = await self.opened()
        self.assertEqual(len(await again.recent(100)), 20)

    async def test_processes_race(self) -> None:
        """Four processes claim the same contexts: each context is claimed exactly once."""
        count = 400
        store = await self.opened()
        await gatherResults([store.add(context(number), count) for number in range(count)])
        won = await race(f"sqlite:{self.path}", NOW + 1, Path(self.mktemp()))
        self.assertEqual(sorted(chain(*won)), [context(number).context_id for number in range(count)])

    async def test_made_together(self) -> None:
        """Servers that start at the same moment and find no file make one together, and each can use it."""
        for attempt in range(20):
            stores = [SqliteStore(self.path.with_name(f"{attempt}.sqlite3"), reactor) for _ in range(6)]
            barrier = Barrier(len(stores))

            def open_at_once(store: SqliteStore, barrier: Barrier = barrier) -> None:
                barrier.wait(10)
                store._thread.open()

            await gatherResults([deferToThread(open_at_once, store) for store in stores], consumeErrors=True)
            await gatherResults([store.check() for store in stores])
            await gatherResults([store.close() for store in stores])


class NotOpenTests(SynchronousTestCase):
    """A store that was not opened."""

    def test_not_open(self) -> None:
        """It answers nothing and does not wait."""
        store = SqliteStore(Path(self.mktemp()), None)
        self.failureResultOf(store.get("x"), StoreUnavailable)
        self.assertIsNone(self.successResultOf(store.close()))
