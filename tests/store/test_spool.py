"""What waits for a store that is away, and is told later."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_IMODE
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.python.components import proxyForInterface
from twisted.trial.unittest import TestCase

from rapida_twisted.context import CallProgress, CallStatus, ContextStatus, EndReason
from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.interfaces import ICallStore
from rapida_twisted.net.backoff import backoff
from rapida_twisted.store import spool, spool_file
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.store.spool import SpoolingStore
from tests.store.store_tests import NOW, StoreTests, context, outbound_context


class AwayStore(proxyForInterface(ICallStore, "store")):  # type: ignore[misc]
    """A store that does not answer while it is ``away``; what is asked may be done all the same (``late``)."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.away = False
        self.late = False
        self.asked: list[str] = []

    def _may(self, name: str, words: tuple[Any, ...], named: dict[str, Any]) -> Deferred[Any]:
        self.asked.append(f"{name} {words[0][-2:] if words else ''}".strip())
        if not self.away:
            return getattr(self.store, name)(*words, **named)  # type: ignore[no-any-return]
        if self.late:
            getattr(self.store, name)(*words, **named)
        return fail(StoreUnavailable("away"))

    def close(self) -> Deferred[None]:
        """It keeps what it has."""
        return self.store.end_lease(self.store.owner)  # type: ignore[no-any-return]


def _of(name: str) -> Any:
    return lambda self, *words, **named: self._may(name, words, named)


for _name in ("claim", "finish", "follow", "renew", "get", "move_on", "end_lease"):
    setattr(AwayStore, _name, _of(_name))


class SpoolingStoreTests(StoreTests, TestCase):
    """A store with a spool does what every store does, and what waits for one that is away is told later."""

    def setUp(self) -> None:
        """A directory that is not there yet, and short pauses."""
        self.directory = Path(self.mktemp()).absolute() / "spool"
        self.patch(spool, "retry_pause_s", backoff(0.005, 0.02))
        self.told = 0

    def make_store(self, owner: str = "") -> SpoolingStore:
        """A new store in memory, behind a spool."""
        self.behind = AwayStore(MemoryStore(owner))
        return self.before(self.behind)

    def before(self, store: Any) -> SpoolingStore:
        """A spool before a store."""

        def told() -> None:
            self.told += 1

        return SpoolingStore(store, self.directory, reactor, told)

    async def all_told(self, store: SpoolingStore) -> None:
        """Nothing waits any more."""
        for _ in range(400):
            if not store.waiting:
                return
            await deferLater(reactor, 0.005)  # type: ignore[arg-type]
        self.fail(f"{store.waiting} still wait")

    async def up(self, owner: str = "here", count: int = 1) -> SpoolingStore:
        """A store with calls that are up."""
        store: SpoolingStore = await self.opened(owner)
        for number in range(1, count + 1):
            await store.add(context(number), 1000)
            await self.claim(store, number)
        return store

    async def test_finished_while_away(self) -> None:
        """The end of a call is taken while the store is away, and told with its own time when it is back."""
        store = await self.up()
        self.behind.away = True
        ended = await self.finish(store)
        self.assertEqual((ended.status, ended.ended_at, store.waiting), (ContextStatus.COMPLETED, NOW + 60, 1))
        await deferLater(reactor, 0.05)  # type: ignore[arg-type]
        self.assertEqual((store.waiting, self.told), (1, 0))
        self.behind.away = False
        await self.all_told(store)
        self.assertEqual(await store.get(ended.context_id), ended)
        self.assertEqual(self.told, 1)
        self.assertEqual(os.path.getsize(self.directory / "here.jsonl"), 0)

    async def test_told_twice(self) -> None:
        """An end that arrived although nobody heard so is told again, and that changes nothing."""
        store = await self.up()
        self.behind.away = self.behind.late = True
        ended = await self.finish(store)
        self.behind.away = False
        await self.all_told(store)
        self.assertEqual(await store.get(ended.context_id), ended)

    async def test_order(self) -> None:
        """News wait behind those before them, also when the store is back, and are told in order with their notices."""
        store = await self.up()
        await store.add(outbound_context(5), 10)
        self.behind.away = True
        for at, status in enumerate((CallStatus.INITIATED, CallStatus.RINGING)):
            news = CallProgress(status=status, at=NOW + at)
            self.assertEqual(await store.follow(context(5).context_id, news, notify=True), None)
        self.behind.away = False
        busy = CallProgress(status=CallStatus.FAILED, at=NOW + 5, cause=17, reason=EndReason.BUSY)
        self.assertEqual(await store.follow(context(5).context_id, busy, notify=True), None)
        self.assertEqual(store.waiting, 3)
        await self.all_told(store)
        found = await store.get(context(5).context_id)
        self.assertEqual((found.call_status, found.reason, found.cause), (CallStatus.FAILED, "busy", 17))
        self.assertEqual([notice.made_at for notice in await store.notices(10)], [NOW, NOW + 1, NOW + 5])

    async def test_restart(self) -> None:
        """What waits when the process ends is told by the next one, for the lost call with its true end."""
        store = await self.up("first", 3)
        self.behind.away = True
        for number in (1, 2):
            await self.finish(store, number)
        await store.close()
        self.assertEqual(S_IMODE((self.directory / "first.jsonl").stat().st_mode), 0o600)
        self.behind.away = False
        self.behind.store.owner = "second"
        await self.behind.sweep(now=NOW + 100, forget_before=NOW)
        self.assertEqual((await self.behind.get(context(1).context_id)).reason, "server_lost")
        again = self.before(self.behind)
        await again.open()
        self.addCleanup(again.close)
        await self.all_told(again)
        reasons = [(await again.get(context(number).context_id)).reason for number in (1, 2, 3)]
        self.assertEqual(reasons, ["caller_hangup", "caller_hangup", "server_lost"])
        self.assertEqual([path.name for path in self.directory.iterdir()], ["second.jsonl"])

    async def test_killed(self) -> None:
        """A process that was killed leaves a file that nobody has: its lease ends at once. Half a line is nothing."""
        self.directory.mkdir(parents=True)
        whole = b'{"do": "follow", "id": "x", "notify": false, "progress": {"status": "ringing", "at": 1.0}}\n'
        (self.directory / "dead.jsonl").write_bytes(b"garbage\n[]\n" + whole + whole[:30])
        store: SpoolingStore = await self.opened("here")
        self.assertEqual(len(self.flushLoggedErrors()), 0)
        self.assertEqual(store.waiting, 1)
        self.assertFalse((self.directory / "dead.jsonl").exists())
        self.assertEqual((self.directory / "here.jsonl").read_bytes(), whole)
        await self.all_told(store)
        self.assertEqual(self.behind.asked, ["follow x", "end_lease ad"])

    async def test_of_the_living(self) -> None:
        """What a living process has in its file is left alone."""
        one = await self.up("one")
        self.behind.away = True
        await self.finish(one)
        two: SpoolingStore = await self.opened("two")
        self.assertEqual((one.waiting, two.waiting), (1, 0))
        self.assertEqual(sorted(path.name for path in self.directory.iterdir()), ["one.jsonl", "two.jsonl"])

    async def test_nothing_left(self) -> None:
        """A process for which nothing waits leaves no file."""
        store = await self.up()
        await self.finish(store)
        await store.close()
        self.assertEqual(list(self.directory.iterdir()), [])

    async def test_full(self) -> None:
        """When too much waits, what comes fails as without a spool, and is in the log."""
        self.patch(spool_file, "MOST_ENTRIES", 2)
        store = await self.up(count=3)
        self.behind.away = True
        await self.finish(store, 1)
        await self.finish(store, 2)
        await self.refused(self.finish(store, 3), StoreUnavailable)
        self.behind.away = False
        await self.all_told(store)
        self.assertEqual((await self.finish(store, 3)).reason, "caller_hangup")

    async def test_full_disk(self) -> None:
        """When the disk is full, entries are in memory alone, and in the file as soon as there is room."""
        store = await self.up(count=2)
        self.behind.away = True
        real = os.write
        self.patch(spool_file.os, "write", lambda fd, data: real(fd, data[:10]))
        ended = await self.finish(store, 1)
        self.assertEqual((store.waiting, store.unsaved), (1, 1))
        self.assertEqual(os.path.getsize(self.directory / "here.jsonl"), 0)
        self.patch(spool_file.os, "write", real)
        await self.finish(store, 2)
        self.assertEqual((store.waiting, store.unsaved), (2, 0))
        self.assertEqual(len((self.directory / "here.jsonl").read_bytes().splitlines()), 2)
        self.behind.away = False
        await self.all_told(store)
        self.assertEqual(await store.get(ended.context_id), ended)

    async def test_full_disk_gets_room(self) -> None:
        """What is in memory alone is written also when nothing else comes, and told like all else."""
        store = await self.up(count=2)
        self.behind.away = True
        real = os.write
        with self.patched_write(lambda fd, data: real(fd, data[:10])):
            for number in (1, 2):
                await self.finish(store, number)
            self.assertEqual(store.unsaved, 2)
        await deferLater(reactor, 0.1)  # type: ignore[arg-type]
        self.assertEqual((store.waiting, store.unsaved), (2, 0))
        with self.patched_write(lambda fd, data: real(fd, data[:10])):
            store._file.unsaved.extend(store._file.entries)
            self.behind.away = False
            await self.all_told(store)
        self.assertEqual(store.unsaved, 0)

    async def test_full_disk_to_the_end(self) -> None:
        """What is in memory alone at the end is in the log, with all that is needed to write it by hand."""
        store = await self.up()
        self.behind.away = True
        real = os.write
        self.patch(spool_file.os, "write", lambda fd, data: real(fd, data[:10]))
        await self.finish(store)
        with capturedLogs() as events:
            await store.close()
        [text] = [formatEvent(event) for event in events if "is lost" in formatEvent(event)]
        self.assertIn("caller_hangup", text)

    async def test_full_disk_and_an_end_under_way(self) -> None:
        """An end that is being written when the store closes, and that the disk has no room for, is in the log."""
        store = await self.up()
        writing: Deferred[Any] = Deferred()
        self.patch(self.behind, "finish", lambda *words, **named: writing)
        real = os.write
        self.patch(spool_file.os, "write", lambda fd, data: real(fd, data[:10]))
        ended = Deferred.fromCoroutine(self.finish(store))

        def close() -> Deferred[None]:
            writing.errback(StoreUnavailable("the store closes"))
            return succeed(None)

        self.patch(self.behind, "close", close)
        with capturedLogs() as events:
            await store.close()
        await ended
        [text] = [formatEvent(event) for event in events if "is lost" in formatEvent(event)]
        self.assertIn("caller_hangup", text)

    def patched_write(self, write: Any) -> Any:
        """For a while files are written so."""
        return mock.patch.object(spool_file.os, "write", write)

    async def test_directory_is_a_file(self) -> None:
        """A directory that can't be used prevents the start."""
        self.directory.parent.mkdir(parents=True)
        self.directory.write_text("I am a file")
        await self.refused(self.make_store("here").open(), StoreUnavailable)

    async def test_many(self) -> None:
        """More than are told at once."""
        store = await self.up(count=350)
        self.behind.away = True
        for number in range(1, 351):
            await self.finish(store, number)
        self.behind.away = False
        await self.all_told(store)
        self.assertEqual(len(await store.recent(1000, ContextStatus.COMPLETED)), 350)

    async def test_not_known_any_more(self) -> None:
        """What can't be told any more is dropped, and keeps nothing back."""
        store = await self.up(count=2)
        self.behind.away = True
        await self.finish(store, 1)
        await self.finish(store, 2)
        del self.behind.store._contexts[context(1).context_id]
        self.behind.away = False
        await self.all_told(store)
        self.assertEqual((await store.get(context(2).context_id)).reason, "caller_hangup")

    # Claims in doubt

    async def test_unexpected_error(self) -> None:
        """An error that nobody expected is logged once, and what waits is delivered all the same."""
        store = self.make_store("a")
        await store.open()
        await store.add(context(1), 10)
        await store.claim(context(1).context_id, transport="audiosocket", peer="", now=NOW)
        self.behind.away = True
        with mock.patch.object(store._file, "settled", side_effect=ZeroDivisionError("once")) as settled:
            await store.finish(
                context(1).context_id, reason=EndReason.CALLER_HANGUP, audio_in_s=1, audio_out_s=1, now=NOW
            )
            self.behind.away = False
            while settled.call_count < 3:
                await deferLater(reactor, 0.005)
        while store.waiting:
            await deferLater(reactor, 0.005)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await store.close()

    async def test_claim_in_doubt(self) -> None:
        """A claim that was refused since the store did not answer, and was done all the same, is undone."""
        store: SpoolingStore = await self.opened("here")
        await store.add(context(), 10)
        self.behind.away = self.behind.late = True
        await self.refused(self.claim(store), StoreUnavailable)
        await self.refused(store.renew(now=NOW, until=NOW + 30), StoreUnavailable)
        self.behind.away = False
        await store.renew(now=NOW, until=NOW + 30)
        found = await store.get(context().context_id)
        self.assertEqual((found.status, found.reason), (ContextStatus.FAILED, "connection_lost"))
        self.assertIn("did not answer in time", found.detail)

    async def test_claim_on_its_way(self) -> None:
        """A claim that arrives even later is undone, too; one that never arrives is no harm."""
        store: SpoolingStore = await self.opened("here")
        for number in (1, 2):
            await store.add(context(number), 10)
            self.behind.away = True
            await self.refused(self.claim(store, number), StoreUnavailable)
            self.behind.away = False
        await store.renew(now=NOW, until=NOW + 30)
        self.assertEqual((await store.get(context(1).context_id)).status, ContextStatus.PENDING)
        await self.claim(self.behind.store, 1)
        claimed = await self.claim(store, 2, now=NOW + 2.5)
        await store.renew(now=NOW, until=NOW + 30)
        self.assertEqual((await store.get(context(1).context_id)).reason, "connection_lost")
        self.assertEqual(await store.get(context(2).context_id), claimed)
        self.assertEqual(store._doubtful, {})

    async def test_claim_cancelled(self) -> None:
        """So is one that was cancelled: the store may have done it."""
        store: SpoolingStore = await self.opened("here")
        await store.add(context(), 10)
        self.patch(self.behind, "claim", lambda *_, **__: Deferred())
        claiming = store.claim(context().context_id, transport="audiosocket", peer="", now=NOW + 2)
        claiming.cancel()
        await self.assertFailure(claiming, CancelledError)
        await self.claim(self.behind.store)
        await store.renew(now=NOW, until=NOW + 30)
        self.assertEqual((await store.get(context().context_id)).reason, "connection_lost")
