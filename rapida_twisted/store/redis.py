"""The call store in a Redis (or Valkey), which servers on many machines share."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
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
from rapida_twisted.net.coroutines import returns_deferred
from rapida_twisted.net.tls import tls_options
from rapida_twisted.store import redis_scripts as scripts
from rapida_twisted.store.journal import found, full, stored_text
from rapida_twisted.store.orders import LONGEST_QUEUE
from rapida_twisted.store.records import context_of, storable
from rapida_twisted.store.redis_address import RedisAddress
from rapida_twisted.store.redis_client import RedisClient, Script
from rapida_twisted.store.redis_connection import check_redis

__all__ = ["RedisStore"]

MOST_SEARCHED = 10_000
"""Calls among which those of some assistants are found."""
_FIELDS = {known.name: known.default for known in fields(CallContext)}
_NUMBERS = frozenset(
    ("created_at", "expires_at", "claimed_at", "ended_at", "audio_in_s", "audio_out_s", "answered_at", "hung_up_at")
)
_SCRIPTED = ("status", "created_at", "expires_at", "follower")
"""Fields of their own from the start, since scripts read them; the others begin in ``body``."""
_TRIES = 10
_LEAST_LEASE_MS = 1


@implementer(ICallStore)
class RedisStore:
    """Keeps calls in a Redis, through one connection.

    :param reactor: provides IReactorTime and IReactorTCP.
    :param owner: the name of this process among those that share the store.
    :param ca_file: the authorities that the server's certificate is verified against, in the place of the public ones.
    """

    def __init__(self, address: RedisAddress, reactor: Any, owner: str = "", ca_file: str = "") -> None:
        self.address = address
        self.owner = owner
        self._prefix = f"{{{address.prefix}}}"
        self._tls_options = partial(tls_options, ca_file=ca_file)
        self._client = RedisClient(address, reactor, self._tls_options)

    def __repr__(self) -> str:
        return f"<RedisStore {self.address.where}>"

    def open(self) -> Deferred[None]:
        """Checks Redis for at most 5 s before it returns, so that a server can refuse to start without it; then
        connects."""
        checking = check_redis(self.address, self._tls_options)
        return checking.addCallbacks(lambda _: self._client.start(), self._not_there)

    @returns_deferred
    async def close(self) -> None:
        try:
            if self.owner:
                await self.end_lease(self.owner)
        except StoreUnavailable:
            pass  # It expires soon.
        await self._client.stop()

    def add(self, context: CallContext, max_pending: int) -> Deferred[None]:
        if context.status is not ContextStatus.PENDING:
            return fail(ValueError(f"context {context.context_id} is not new and pending"))
        follower = "-" if context.call_status is None else context.follower
        words = (context.context_id, repr(context.created_at), repr(context.expires_at), str(max_pending), follower)
        adding = self._run(scripts.ADD, context.context_id, *words, context.key_name, *_new_fields(context))
        return adding.addCallback(_added, context.context_id)

    def calls_of_key(self, key_name: str, *, now: float) -> Deferred[int]:
        if not key_name:
            return succeed(0)
        return self._client.command("ZCOUNT", self._key("key", key_name), f"({now!r}", "+inf")

    def claim(self, context_id: str, *, transport: str, peer: str, now: float) -> Deferred[CallContext]:
        changed = {"status": "claimed", "transport": transport, "peer": peer, "claimed_at": now}
        claiming = self._run(scripts.CLAIM, context_id, context_id, repr(now), self.owner, *_changed_fields(changed))
        return claiming.addCallback(_claimed, context_id)

    def finish(
        self, context_id: str, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> Deferred[CallContext]:
        status = (ContextStatus.FAILED if reason.failed else ContextStatus.COMPLETED).value
        changed = {
            "status": status, "reason": reason.value, "ended_at": now,
            "audio_in_s": audio_in_s, "audio_out_s": audio_out_s, "detail": detail,
        }  # fmt: skip
        words = (context_id, reason.value, repr(float(now)), status)
        finishing = self._run(scripts.FINISH, context_id, *words, *_changed_fields(changed))
        return finishing.addCallback(_in_hand, context_id)

    def move_on(self, context_id: str, *, next_dial: str) -> Deferred[CallContext]:
        return self._run(scripts.MOVE_ON, context_id, next_dial).addCallback(_in_hand, context_id)

    @returns_deferred
    async def follow(self, context_id: str, progress: CallProgress, *, notify: bool = False) -> CallContext | None:
        for _ in range(_TRIES):
            context, version = await self._read(context_id)
            changed = context.followed(progress)
            if changed is context or changed.call_status is None:
                return None
            notice = json.dumps([context_id, progress.at, record_of(changed)]) if notify else ""
            over = "1" if changed.call_status.over else "0"
            words = (over, changed.status.value, repr(changed.ended_at), self.owner, notice)
            names = (
                name for name in _FIELDS if name != "variables" and getattr(changed, name) != getattr(context, name)
            )
            followed = _changed_fields({name: getattr(changed, name) for name in names})
            if await self._run(scripts.FOLLOW, context_id, context_id, version.decode(), *words, *followed):
                return changed
        raise StoreUnavailable(f"context {context_id} keeps being changed by other processes")

    @returns_deferred
    async def adopt(self, *, now: float, presume: bool = True) -> Adopted:
        calls: dict[str, CallContext] = {}
        notices = 0
        while True:
            moved, found = await self._run(scripts.ADOPT, "", self.owner, str(scripts.BATCH), str(int(presume)))
            notices += moved
            known = len(calls)
            calls.update((context.context_id, context) for context in map(_context, filter(None, found)))
            if moved < scripts.BATCH and (len(found) < scripts.BATCH or len(calls) == known):
                break
        under_way = [context for context in calls.values() if context.call_status and not context.call_status.over]
        return Adopted(sorted(under_way, key=lambda context: context.created_at), notices)

    def notices(self, limit: int, after: int = 0) -> Deferred[list[Notice]]:
        key = self._key("notices", self.owner)
        asking = self._client.command("ZRANGEBYSCORE", key, f"({after}", "+inf", "LIMIT", "0", str(max(0, limit)))
        return asking.addCallback(lambda found: [_notice(member) for member in found])

    def drop_notice(self, number: int) -> Deferred[None]:
        dropping = self._client.command("ZREMRANGEBYSCORE", self._key("notices", self.owner), str(number), str(number))
        return dropping.addCallback(_nothing)

    def get(self, context_id: str) -> Deferred[CallContext]:
        return self._read(context_id).addCallback(lambda found: found[0])

    @returns_deferred
    async def recent(
        self, limit: int, status: ContextStatus | None = None, *, assistants: Collection[str] = ()
    ) -> list[CallContext]:
        """Of some assistants: those among the newest ``MOST_SEARCHED`` calls."""
        where = "created" if status is None else f"status:{status.value}"
        if not assistants:
            return await self._page(where, 0, limit) if limit > 0 else []
        found: list[CallContext] = []
        for first in range(0, MOST_SEARCHED, scripts.BATCH):
            page = await self._page(where, first, scripts.BATCH) if len(found) < limit else []
            found += [context for context in page if context.assistant_id in assistants]
            if len(page) < scripts.BATCH:
                break
        return found[: max(0, limit)]

    async def _page(self, where: str, first: int, count: int) -> list[CallContext]:
        """Contexts of an index, the newest first."""
        page = await self._run(scripts.RECENT, "", where, str(first), str(first + count - 1))
        return [_context(flat) for flat in page if flat]

    @returns_deferred
    async def sweep(
        self, *, now: float, forget_before: float, presume: bool = True, forget_journals_before: float | None = None
    ) -> Swept:
        """In steps of at most ``BATCH`` contexts, between which Redis serves others."""
        journals_before = forget_before if forget_journals_before is None else forget_journals_before
        swept, more = Swept(0, 0), True
        while more:
            expired, lost = await self._run(scripts.SWEEP, "", repr(now), str(scripts.BATCH), str(int(presume)))
            swept = Swept(swept.expired + expired, swept.lost + lost)
            more = expired + lost >= scripts.BATCH
        for script, before in ((scripts.FORGET, forget_before), (scripts.FORGET_JOURNALS, journals_before)):
            while await self._run(script, "", repr(before), str(scripts.BATCH)) >= scripts.BATCH:
                pass
        return swept

    def renew(self, *, now: float, until: float) -> Deferred[None]:
        """Redis counts the time of the lease, since the clocks of machines may differ."""
        for_ms = max(_LEAST_LEASE_MS, int((until - now) * 1000))
        key = self._key("lease", self.owner)
        return self._client.run(scripts.RENEW, key, self._prefix, self.owner, str(for_ms)).addCallback(_nothing)

    def end_lease(self, owner: str) -> Deferred[None]:
        ending = self._client.run(scripts.END_LEASE, self._key("lease", owner), self._prefix, owner)
        return ending.addCallback(_nothing)

    def order(self, owner: str, order: Mapping[str, str], *, now: float) -> Deferred[None]:

        def given(taken: int) -> None:
            if not taken:
                raise TooManyCalls(f"{LONGEST_QUEUE} orders wait for {owner} already")

        ordering = self._client.run(scripts.ORDER, self._key("orders", owner), self._prefix, json.dumps(dict(order)))
        return ordering.addCallback(given)

    def orders(self, *, now: float) -> Deferred[list[Mapping[str, str]]]:
        taking = self._client.run(scripts.ORDERS, self._key("orders", self.owner), self._prefix)
        return taking.addCallback(lambda found: [json.loads(order) for order in found])

    def add_entry(self, context_id: str, kind: EntryKind, text: str, *, at: float) -> Deferred[int]:

        def added(number: int) -> int:
            if number < 0:
                raise UnknownContext(context_id)
            if not number:
                raise full(context_id)
            return number

        text, size = stored_text(text)
        entry = json.dumps([kind.value, at, text], ensure_ascii=False)
        adding = self._run(scripts.ADD_ENTRY, context_id, context_id, repr(at), str(size), entry)
        return adding.addCallback(added)

    @returns_deferred
    async def entries(
        self, context_id: str, *, kind: EntryKind | None = None, text: str = "", after: int = 0, limit: int = 100
    ) -> list[JournalEntry]:
        after = max(0, after)
        page: list[JournalEntry] = []
        more = storable(context_id)
        while more and len(page) < limit:
            batch = ("LRANGE", self._key("journal", context_id), str(after), str(after + scripts.BATCH - 1))
            members = await self._client.command(*batch)
            entries = [_entry(context_id, number, member) for number, member in enumerate(members, after + 1)]
            page += found(entries, kind, text, limit - len(page))
            after += len(members)
            more = len(members) == scripts.BATCH
        return page

    def check(self) -> Deferred[None]:
        return self._client.command("SET", self._prefix + "check", "1").addCallback(_nothing)

    # Inside

    def _not_there(self, failure: Failure) -> None:
        raise StoreUnavailable(f"the call store does not answer at {failure.getErrorMessage()}")

    def _key(self, kind: str, name: str) -> str:
        return f"{self._prefix}{kind}:{name}"

    def _run(self, script: Script, context_id: str, *words: str) -> Deferred[Any]:
        if not storable(context_id):
            return fail(UnknownContext(context_id))
        return self._client.run(script, self._key("call", context_id), self._prefix, *words)

    def _read(self, context_id: str) -> Deferred[tuple[CallContext, bytes]]:
        """The context and its version, which grows with each change; or ``UnknownContext``."""
        if not storable(context_id):
            return fail(UnknownContext(context_id))

        def found(flat: list[bytes]) -> tuple[CallContext, bytes]:
            if not flat:
                raise UnknownContext(context_id)
            return _context(flat), flat[flat.index(b"v") + 1]

        return self._client.command("HGETALL", self._key("call", context_id)).addCallback(found)


# The replies of scripts, and the form of contexts in Redis


def _nothing(_: Any) -> None:
    """Drop the reply of a command."""


def _added(answer: int, context_id: str) -> None:
    if answer == -1:
        raise ValueError(f"context {context_id} is not new and pending")
    if answer >= 0:
        raise TooManyCalls(f"{answer} calls wait for their media already")


def _claimed(answer: bytes | list[bytes], context_id: str) -> CallContext:
    if isinstance(answer, list):
        return _context(answer)
    if answer == b"unknown":
        raise UnknownContext(context_id)
    if answer == b"expired":
        raise ContextExpired(context_id)
    peer = answer.decode().partition(" ")[2]
    raise ContextClaimed(context_id, f"by {peer}" if peer else "")


def _in_hand(answer: bytes | list[bytes], context_id: str) -> CallContext:
    if isinstance(answer, list):
        return _context(answer)
    if answer == b"unknown":
        raise UnknownContext(context_id)
    raise ContextError(context_id, f"it is {answer.decode()}, not claimed")


def _notice(member: bytes) -> Notice:
    number, _, content = member.partition(b" ")
    context_id, made_at, record = json.loads(content)
    return Notice(number=int(number), context_id=context_id, made_at=made_at, record=record)


def _entry(context_id: str, number: int, member: bytes) -> JournalEntry:
    kind, at, text = json.loads(member)
    return JournalEntry(context_id=context_id, number=number, kind=EntryKind(kind), at=at, text=text)


def _new_fields(context: CallContext) -> list[str]:
    """A new context: a field for each value that scripts read, ``body`` for all others that are not the default."""
    body = {
        name: getattr(context, name)
        for name, usual in _FIELDS.items()
        if name not in _SCRIPTED and getattr(context, name) != usual
    }
    body["variables"] = dict(context.variables)
    scripted = _changed_fields({name: getattr(context, name) for name in _SCRIPTED})
    return ["body", json.dumps(body, separators=(",", ":")), *scripted]


def _changed_fields(changed: Mapping[str, Any]) -> list[str]:
    """Names and values in turn. None is an empty text."""
    flat: list[str] = []
    for name, value in changed.items():
        number = name in _NUMBERS and value is not None
        flat += [name, repr(float(value)) if number else "" if value is None else str(value)]
    return flat


def _context(flat: list[bytes]) -> CallContext:
    words = dict(zip(flat[::2], flat[1::2], strict=True))
    values: dict[str, Any] = json.loads(words.pop(b"body"))
    for key, word in words.items():
        name, value = key.decode(), word.decode()
        if name in _NUMBERS:
            values[name] = float(value) if value else None
        elif name in _FIELDS:
            values[name] = value
    values["cause"] = int(values["cause"]) if values.get("cause") not in (None, "") else None
    return context_of(values)
