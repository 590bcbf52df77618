"""The store in a Redis: what all stores do, on a real server, and what only a server can do or suffer."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import chain, count
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from benchmarks.harness.authority import Authority
from benchmarks.harness.redis_server import PASSWORD, QUOTED, RedisServer, Sentinel
from rapida_twisted.context import CallProgress, CallStatus, ContextStatus, EndReason
from rapida_twisted.errors import ContextError, StoreUnavailable
from rapida_twisted.interfaces import Swept
from rapida_twisted.store import redis_connection, redis_scripts
from rapida_twisted.store.redis import RedisStore
from rapida_twisted.store.redis_address import RedisAddress
from tests.store.store_tests import NOW, SharedStoreTests, context, outbound_context
from tests.support.claim_race import race

_numbers = count()


@cache
def shared_server() -> RedisServer:
    """A server for all tests that do no harm to it."""
    server = RedisServer(Path("redis").absolute())
    server.start()
    atexit.register(server.kill)
    return server


def later(seconds: float) -> Deferred[None]:
    """Fires after so many seconds."""
    return deferLater(reactor, seconds)  # type: ignore[arg-type]


class RedisStoreTests(SharedStoreTests, TestCase):
    """RedisStore does what every store does."""

    def setUp(self) -> None:
        """A prefix that no other test has, in one server for all."""
        self.server = shared_server()
        self.prefix = f"test{next(_numbers)}:"

    def make_store(self, owner: str = "") -> RedisStore:
        """A new store; all stores of a test share a prefix."""
        return RedisStore(RedisAddress.parse(self.server.url(more=f"/1?prefix={self.prefix}")), reactor, owner)

    async def pass_by(self, store: RedisStore, now: float) -> None:
        """Leases and orders expire by Redis' clock: see that they would, and let them."""
        for kind in ("lease", "orders"):
            key = store._key(kind, store.owner)
            left_ms = await store._client.command("PTTL", key)
            if left_ms != -2:
                self.assertTrue(0 < left_ms <= 60_000, left_ms)
                await store._client.command("DEL", key)

    async def test_lease_expires(self) -> None:
        """A lease that is not renewed is over by Redis' own clock."""
        store = await self.opened("here")
        await store.add(context(), 10)
        await store.renew(now=0.0, until=0.3)
        await self.claim(store)
        self.assertEqual(await store.sweep(now=NOW + 3, forget_before=NOW), Swept(0, 0))
        await later(0.35)
        self.assertEqual(await store.sweep(now=NOW + 3, forget_before=NOW), Swept(0, 1))

    async def test_many_are_swept(self) -> None:
        """What is too much for one step is swept in several, and nothing is left over in any index."""
        self.patch(redis_scripts, "BATCH", 7)
        store = await self.opened("here")
        for number in range(100):
            await store.add(context(number) if number % 2 else outbound_context(number), 1000)
        for number in range(30):
            await self.claim(store, number)
        self.assertEqual(await store.sweep(now=NOW + 9999, forget_before=NOW), Swept(70, 30))
        self.assertEqual(len((await store.adopt(now=NOW)).calls), 50)
        self.assertEqual(await store.sweep(now=NOW + 9999, forget_before=NOW + 99999), Swept(0, 0))
        self.assertEqual(await store.recent(10), [])
        left = await store._client.command("KEYS", f"{{{{{self.prefix}}}}}*".replace("{{", "{").replace("}}", "}"))
        self.assertEqual(sorted(key.rpartition(b"}")[2] for key in left), [b"owners", b"seq"])

    async def test_many_notices_are_adopted(self) -> None:
        """What is too much for one step is taken over in several."""
        self.patch(redis_scripts, "BATCH", 7)
        one, two = await self.opened("one"), await self.opened("two")
        for number in range(20):
            await one.add(outbound_context(number), 100)
            news = CallProgress(status=CallStatus.RINGING, at=NOW + number)
            await one.follow(context(number).context_id, news, notify=True)
        calls, notices = await two.adopt(now=NOW)
        self.assertEqual((len(calls), notices), (20, 20))
        self.assertEqual([notice.made_at - NOW for notice in await two.notices(100)], list(range(20)))

    async def test_followed_at_once(self) -> None:
        """Of the same news told by two processes together, one makes a change and a notice."""
        one, two = await self.opened("one"), await self.opened("two")
        await one.add(outbound_context(), 10)
        news = CallProgress(status=CallStatus.RINGING, at=NOW)
        told = [store.follow(context().context_id, news, notify=True) for store in (one, two) * 5]
        outcomes = await gatherResults(told)
        self.assertEqual(len([outcome for outcome in outcomes if outcome is not None]), 1)
        self.assertEqual(len(await one.notices(10)) + len(await two.notices(10)), 1)

    async def test_scripts_are_forgotten(self) -> None:
        """A Redis that does not know the scripts any more is told them again."""
        store = await self.opened()
        await store.add(context(1), 10)
        await store._client.command("SCRIPT", "FLUSH")
        await store.add(context(2), 10)
        self.assertEqual(len(await store.recent(10)), 2)

    async def test_processes_race(self) -> None:
        """Four processes claim the same contexts: each context is claimed exactly once."""
        contexts = [context(number) for number in range(400)]
        store = await self.opened()
        await gatherResults([store.add(each, 400) for each in contexts])
        won = await race(self.server.url(more=f"/1?prefix={self.prefix}"), NOW + 1, Path(self.mktemp()))
        self.assertEqual(sorted(chain(*won)), [each.context_id for each in contexts])
        # That more than one of them gets some is likely, but up to the machine.

    async def test_close_ends_what_waits(self) -> None:
        """What is asked of a closed store fails at once."""
        store = await self.opened()
        await store.close()
        await self.refused(store.get("x"), StoreUnavailable)


class RedisDoorTests(TestCase):
    """Getting in: passwords, TLS, and what refuses to start."""

    def server(self, **words: Any) -> RedisServer:
        """A server of this test's own."""
        server = RedisServer(Path(self.mktemp()), **words)
        server.start()
        self.addCleanup(server.kill)
        return server

    async def refused(self, url: str, ca_file: str = "") -> str:
        """The store can't be opened; gives why. The password is not in it, nor in the traceback."""
        store = RedisStore(RedisAddress.parse(url), reactor, "here", ca_file)
        opening = store.open()
        self.assertTrue(opening.called)
        told: list[str] = []
        opening.addErrback(lambda failure: told.extend((failure.getErrorMessage(), failure.getTraceback())))
        await opening
        await store.close()
        text, traceback = told
        for shown in (text, traceback, repr(store), repr(store.address), repr(store._client)):
            self.assertNotIn(PASSWORD, shown)
            self.assertNotIn(QUOTED, shown)
        self.assertNotIn("\n", text)
        return text

    async def works(self, store: RedisStore) -> None:
        """The store can be used."""
        await store.open()
        self.addCleanup(store.close)
        await store.add(context(), 10)
        self.assertEqual(await store.get(context().context_id), context())
        named = {"context_id": context().context_id}
        await store.claim(**named, transport="audiosocket", peer="", now=NOW)
        await store.move_on(**named, next_dial="PJSIP/200")
        await store.finish(**named, reason=EndReason.SHUTDOWN, audio_in_s=0, audio_out_s=0, now=NOW)
        await store.add(replace(outbound_context(2), follower="there"), 10)
        await store.follow(context(2).context_id, CallProgress(status=CallStatus.RINGING, at=NOW), notify=True)
        await store.renew(now=NOW, until=NOW + 30)
        await store.order("here", {}, now=NOW)
        self.assertEqual(await store.orders(now=NOW), [{}])
        self.assertEqual(len((await store.adopt(now=NOW)).calls), 1)
        [notice] = await store.notices(10)
        await store.drop_notice(notice.number)
        self.assertEqual(len(await store.recent(10, ContextStatus.COMPLETED)), 1)
        await store.end_lease("there")
        self.assertEqual(await store.sweep(now=NOW + 999, forget_before=NOW + 1), Swept(1, 0))
        await store.check()

    async def test_password(self) -> None:
        """A wrong password is told as such; a user of the access list gets in with the rights that it needs."""
        server = self.server(
            words=("--user", "rapida", "on", f">{PASSWORD}", "~{rapida:}*", "-@all", "+@read", "+@write", "+@scripting",
                   "+@connection", "+role"),
        )  # fmt: skip
        self.assertIn("WRONGPASS", await self.refused(server.url(password="wrong")))
        self.assertIn("NOAUTH", await self.refused(f"redis://127.0.0.1:{server.port}"))
        url = f"redis://rapida:{QUOTED}@127.0.0.1:{server.port}"
        await self.works(RedisStore(RedisAddress.parse(url), reactor, "here"))

    async def test_tls(self) -> None:
        """A server's certificate is verified; one of another authority, or none, is refused with a sentence."""
        authority, stranger = (Authority(Path(self.mktemp()).absolute()) for _ in range(2))
        authority.certify("127.0.0.1")
        server = self.server(authority=authority)
        self.assertIn("not trusted", await self.refused(server.url(), str(stranger.authority)))
        self.assertIn("not trusted", await self.refused(server.url()))
        plain = f"redis://:{QUOTED}@127.0.0.1:{server.port}"
        self.assertRegex(await self.refused(plain), "closed|reset")
        await self.works(RedisStore(RedisAddress.parse(server.url()), reactor, "here", str(authority.authority)))

    async def test_tls_wanted(self) -> None:
        """A server without TLS is not spoken to by one that wants it."""
        server = self.server()
        self.patch(redis_connection, "CHECK_S", 0.5)
        self.assertIn("does it speak TLS?", await self.refused(f"rediss://:{QUOTED}@127.0.0.1:{server.port}"))

    async def test_nobody_there(self) -> None:
        """Nobody listens, or nobody answers: told within a bounded time."""
        server = self.server()
        self.patch(redis_connection, "CHECK_S", 0.5)
        server.hold_up()
        self.assertIn("no answer within 0.5 s", await self.refused(server.url()))
        server.kill()
        self.assertIn("Connection refused", await self.refused(server.url()))

    async def test_replica(self) -> None:
        """A replica can't be written to, and is refused."""
        server = self.server()
        replica = self.server(words=("--replicaof", f"127.0.0.1 {server.port}", "--masterauth", PASSWORD))
        self.assertIn("it is a slave", await self.refused(replica.url()))


class RedisOutageTests(TestCase):
    """The server goes away, and comes back."""

    def setUp(self) -> None:
        """A server that keeps what it has, and a store with little patience."""
        self.server = RedisServer(Path(self.mktemp()), keeps=True)
        self.server.start()
        self.addCleanup(self.server.kill)

    async def opened(self) -> RedisStore:
        """An open store."""
        store = RedisStore(RedisAddress.parse(self.server.url(more="?timeout=0.3")), reactor, "here")
        await store.open()
        self.addCleanup(store.close)
        return store

    async def unavailable(self, asked: Any) -> str:
        """What was asked fails as unavailable, in time; gives the text."""
        began_s = reactor.seconds()  # type: ignore[attr-defined]
        error = await self.assertFailure(asked, StoreUnavailable)
        self.assertLess(reactor.seconds() - began_s, 0.6)  # type: ignore[attr-defined]
        self.assertNotIn(PASSWORD, str(error))
        return str(error)

    async def comes_back(self, store: RedisStore, within_s: float) -> None:
        """It answers again, soon."""
        for _ in range(int(within_s / 0.05)):
            try:
                await store.check()
                return
            except StoreUnavailable:
                await later(0.05)
        self.fail(f"it did not answer within {within_s} s")

    async def test_killed(self) -> None:
        """Killed and started again: commands fail in time meanwhile, then everything is there."""
        store = await self.opened()
        await store.add(context(), 10)
        self.server.kill()
        await self.unavailable(store.check())
        for _ in range(3):
            await self.unavailable(store.get(context().context_id))
            await later(0.2)
        self.server.start()
        await self.comes_back(store, 4)
        self.assertEqual(await store.get(context().context_id), context())

    async def test_held_up(self) -> None:
        """A server that does not answer, and goes on later: what waits fails in time, and the store is back after."""
        store = await self.opened()
        await store.add(context(1), 10)
        self.server.hold_up()
        asked = [store.add(context(number), 10) for number in range(2, 9)]
        for each in asked:
            await self.unavailable(each)
        for _ in range(10):
            await self.unavailable(store.check())
            await later(0.1)
        self.server.go_on()
        await self.comes_back(store, 8)
        self.assertEqual((await store.get(context(1).context_id)).status, ContextStatus.PENDING)

    async def test_many_at_once_while_down(self) -> None:
        """A flood of commands while there is no connection fails, each in time, and nothing is left of it."""
        store = await self.opened()
        self.server.kill()
        await later(0.05)
        outcomes = await gatherResults([self.assertFailure(store.check(), StoreUnavailable) for _ in range(5000)])
        self.assertEqual(len(outcomes), 5000)
        self.assertEqual(store._client._waiting, 0)

    async def test_closed_while_down(self) -> None:
        """A store is closed in a bounded time also when its server is gone, or does not answer."""
        for go_away in (self.server.hold_up, self.server.kill):
            store = await self.opened()
            go_away()
            began_s = reactor.seconds()  # type: ignore[attr-defined]
            await store.close()
            self.assertLess(reactor.seconds() - began_s, 2.0)  # type: ignore[attr-defined]
            if go_away == self.server.hold_up:
                self.server.go_on()

    async def test_lost_data(self) -> None:
        """A server that forgot everything: calls are unknown, and new ones are kept."""
        store = await self.opened()
        await store.add(context(1), 10)
        await store._client.command("FLUSHALL")
        await self.assertFailure(store.get(context(1).context_id), ContextError)
        await store.add(context(2), 10)

    async def test_read_only(self) -> None:
        """A master that becomes a replica is left, and used again when it is a master."""
        store = await self.opened()
        await store._client.command("REPLICAOF", "127.0.0.1", "1")
        await self.unavailable(store.add(context(1), 10))
        await store_command(self.server, "REPLICAOF", "NO", "ONE")
        await self.comes_back(store, 4)
        await store.add(context(1), 10)

    async def test_full(self) -> None:
        """A Redis without memory takes nothing new, says so, and recovers."""
        store = await self.opened()
        await store.add(context(1), 10)
        await store._client.command("CONFIG", "SET", "maxmemory", "1")
        self.assertIn("OOM", await self.unavailable(store.add(context(2), 10)))
        self.assertEqual(await store.get(context(1).context_id), context(1))
        await store._client.command("CONFIG", "SET", "maxmemory", "0")
        await store.add(context(2), 10)


async def store_command(server: RedisServer, *words: str) -> Any:
    """Say something to a server on a connection of its own; gives the answer."""
    connector = redis_connection.RedisConnector(RedisAddress.parse(server.url()), reactor, lambda host: None)
    protocol = await connector._open("127.0.0.1", server.port)
    try:
        await protocol.execute_command("AUTH", PASSWORD)
        return await protocol.execute_command(*words)
    finally:
        protocol.transport.abortConnection()


class SentinelTests(TestCase):
    """Two servers and a sentinel that knows which of them is the master."""

    async def test_failover(self) -> None:
        """The master is found by its sentinel; when it dies, the store goes over to the one that takes its place."""
        master, replica = [RedisServer(Path(self.mktemp())) for _ in range(2)]
        for server in (master, replica):
            server.start()
            self.addCleanup(server.kill)
        await store_command(master, "CONFIG", "SET", "masterauth", PASSWORD)
        await store_command(master, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
        await store_command(replica, "CONFIG", "SET", "masterauth", PASSWORD)
        await store_command(replica, "REPLICAOF", "127.0.0.1", str(master.port))
        sentinel = Sentinel(Path(self.mktemp()), master)
        sentinel.start()
        self.addCleanup(sentinel.kill)
        url = f"redis+sentinel://:{QUOTED}@127.0.0.1:1,127.0.0.1:{sentinel.port}/calls?timeout=0.5"
        store = RedisStore(RedisAddress.parse(url), reactor, "here")
        await store.open()
        self.addCleanup(store.close)
        await store.add(context(1), 10)
        await until(lambda: sentinel.knows_a_replica, 12)
        # What the replica did not get yet would be lost with the master.
        while await store_command(replica, "DBSIZE") != await store_command(master, "DBSIZE"):
            await later(0.1)
        master.kill()
        added = False
        for _ in range(100):
            try:
                await store.add(context(2), 10)
                added = True
                break
            except StoreUnavailable:
                await later(0.2)
        self.assertTrue(added, "no new master within 20 s")
        self.assertEqual(await store.get(context(1).context_id), context(1))

    async def test_nobody_knows(self) -> None:
        """Sentinels that are not there, or do not know the service: told at the start."""
        server = RedisServer(Path(self.mktemp()))
        server.start()
        self.addCleanup(server.kill)
        sentinel = Sentinel(Path(self.mktemp()), server)
        sentinel.start()
        self.addCleanup(sentinel.kill)
        url = f"redis+sentinel://:{QUOTED}@127.0.0.1:1,127.0.0.1:{sentinel.port}/others"
        store = RedisStore(RedisAddress.parse(url), reactor, "here")
        error = await self.assertFailure(store.open(), StoreUnavailable)
        self.assertIn("127.0.0.1:1: Connection refused", str(error))
        self.assertIn("this sentinel does not know 'others'", str(error))


async def until(what: Callable[[], bool], within_s: float) -> None:
    """Wait until it is so."""
    for _ in range(int(within_s / 0.1)):
        if what():
            return
        await later(0.1)
    raise AssertionError(f"not within {within_s} s")
