"""Keeps what must reach the store on the local disk while the store is unavailable."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure

from rapida_twisted.context import CallContext, CallProgress, CallStatus, ContextStatus, EndReason
from rapida_twisted.errors import ContextError, StoreUnavailable
from rapida_twisted.interfaces import ICallStore
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.net.backoff import backoff
from rapida_twisted.net.coroutines import returns_deferred
from rapida_twisted.store.spool_file import SpoolFile, SpoolFull

__all__ = ["SpoolingStore"]

retry_pause_s = backoff(0.5, 5.0)
MOST_DOUBTFUL = 10_000
TOGETHER = 100
"""How many entries are told at once."""


class SpoolingStore(proxyForInterface(ICallStore, "_store")):  # type: ignore[misc]
    """A proxy for a store: ends of calls and progress of outbound calls that the store cannot take are kept in a file,
    and delivered in order when it answers again, perhaps by a later process.

    :param directory: of the files of all processes of this machine.
    :param reactor: provides IReactorTime and a thread pool.
    :param told: called after a late delivery.
    """

    _log = Logger()

    def __init__(
        self, store: CallStore, directory: Path, reactor: Any, told: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(store)
        self._reactor = reactor
        self._told = told
        self._file = SpoolFile(
            directory,
            store.owner,
            lambda work, *words: deferToThreadPool(reactor, reactor.getThreadPool(), work, *words),
        )
        self._up: dict[str, CallContext] = {}
        """Calls that this process claimed and that are not over."""
        self._doubtful: dict[str, float] = {}
        """Claims that failed and may have been executed: their times by contextId."""
        self._telling: Deferred[None] | None = None
        self._undoing: Deferred[None] | None = None
        self._gone: list[str] = []
        """Dead processes whose files were found."""
        self._closed = False

    @property
    def waiting(self) -> int:
        """Entries that wait for the store."""
        return len(self._file.entries)

    @property
    def unsaved(self) -> int:
        """Entries that are in memory alone."""
        return len(self._file.unsaved)

    def open(self) -> Deferred[None]:
        """Open the store, and take up what waits. As with the store itself this is done when the call returns, if it is
        there."""
        opening: Deferred[None] = self._store.open()
        return opening.addCallback(self._open)

    def _open(self, _: None) -> None:
        try:
            self._gone = self._file.open()
        except OSError as error:
            self._store.close()
            raise StoreUnavailable(f"{self._file.path.parent} can't be used: {error.strerror or error}") from None
        if self.waiting:
            self._log.info("{count} ends and status changes of calls wait for the store", count=self.waiting)
            self._tell_later()
        else:
            self._end_leases()

    def _end_leases(self) -> None:
        """End the leases of dead processes once their entries are delivered: their other calls are lost."""
        gone, self._gone = self._gone, []
        for owner in gone:
            # Otherwise it expires soon.
            self._store.end_lease(owner).addErrback(lambda failure: failure.trap(StoreUnavailable))

    @returns_deferred
    async def close(self) -> None:
        """Close the store; what waits is told by the next process."""
        self._closed = True
        if self._telling is not None:
            self._telling.cancel()
        try:
            await self._store.close()
        finally:
            # Closing fails what was still being written; that is kept only now.
            if self.waiting:
                self._log.warn("{count} ends and status changes of calls wait for the next start", count=self.waiting)
            try:
                self._file.save()
            except OSError:
                for entry in self._file.unsaved:
                    self._log.error("call {id}: {entry} is lost", id=entry["id"], entry=json.dumps(entry))
            await self._file.close()

    def claim(self, context_id: str, *, transport: str, peer: str, now: float) -> Deferred[CallContext]:
        """Claim it. If nobody knows whether that was done, it is undone later."""
        claiming: Deferred[CallContext] = self._store.claim(context_id, transport=transport, peer=peer, now=now)

        def claimed(context: CallContext) -> CallContext:
            self._up[context_id] = context
            return context

        def failed(failure: Failure) -> Failure:
            if failure.check(StoreUnavailable, CancelledError) and len(self._doubtful) < MOST_DOUBTFUL:
                self._doubtful[context_id] = now
            return failure

        return claiming.addCallbacks(claimed, failed)

    def finish(
        self, context_id: str, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> Deferred[CallContext]:
        """Write down the end of a call, or keep it."""
        words = {
            "reason": reason.value, "audio_in_s": audio_in_s, "audio_out_s": audio_out_s, "now": now, "detail": detail
        }  # fmt: skip
        up = self._up.get(context_id)
        ended = None
        if up is not None:
            ended = up.ended(reason=reason, audio_in_s=audio_in_s, audio_out_s=audio_out_s, now=now, detail=detail)
        finishing = self._say({"do": "finish", "id": context_id, **words}, keep=ended is not None, kept=ended)

        def over(result: CallContext | Failure) -> CallContext | Failure:
            # Nobody tries again: the end is written, kept or lost.
            self._up.pop(context_id, None)
            return result

        return finishing.addBoth(over)

    def follow(self, context_id: str, progress: CallProgress, *, notify: bool = False) -> Deferred[CallContext | None]:
        """Note news of an outbound call, or keep them; they are then taken for none until they are told."""
        news = {"do": "follow", "id": context_id, "notify": notify, "progress": asdict(progress)}
        return self._say(news, keep=True, kept=None)

    def renew(self, *, now: float, until: float) -> Deferred[None]:
        """This process lives; and so does the store, if that can be written: see whether claims are to be undone."""
        renewing: Deferred[None] = self._store.renew(now=now, until=until)
        return renewing.addCallback(self._undo_claims)

    # Keeping

    def _say(self, entry: Mapping[str, Any], *, keep: bool, kept: Any) -> Deferred[Any]:
        """Write to the store, or keep the entry if it does not answer or others wait."""
        if keep and self.waiting and self._keep(entry):
            return succeed(kept)

        def failed(failure: Failure) -> Any:
            if failure.check(StoreUnavailable) and keep and self._keep(entry):
                return kept
            return failure

        return self._do(entry).addErrback(failed)

    def _keep(self, entry: Mapping[str, Any]) -> bool:
        """Keep an entry, in the file if possible; False if too many wait."""
        try:
            self._file.append(entry)
        except SpoolFull:
            self._log.error(
                "call {id}: {entry} cannot be kept: {count} entries wait for the store already",
                id=entry["id"], entry=json.dumps(entry), count=self.waiting,
            )  # fmt: skip
            return False
        except OSError as error:
            self._log.error(
                "call {id}: its entry waits in memory alone, {path} can't be written: {error}",
                id=entry["id"], path=self._file.path, error=str(error),
            )  # fmt: skip
        self._tell_later()
        return True

    def _do(self, entry: Mapping[str, Any]) -> Deferred[Any]:
        store: CallStore = self._store
        arguments = {name: value for name, value in entry.items() if name not in ("do", "id")}
        if entry["do"] == "finish":
            arguments["reason"] = EndReason(arguments["reason"])
            return store.finish(entry["id"], **arguments)
        return store.follow(entry["id"], _progress(arguments["progress"]), notify=arguments["notify"])

    # Telling

    def _tell_later(self) -> None:
        if self._telling is None and not self._closed:
            self._telling = Deferred.fromCoroutine(self._tell())
            self._telling.addErrback(self._broke)
            self._telling.addCallback(self._told_all)

    def _told_all(self, _: Any) -> None:
        self._telling = None
        if self.waiting:
            self._tell_later()

    async def _tell(self) -> None:
        pauses, broken = 0, False
        while self.waiting:
            await deferLater(self._reactor, retry_pause_s(pauses))
            with suppress(OSError):
                self._file.save()
            answered = True
            try:
                while self.waiting and answered:
                    answered = await self._tell_some()
            except Exception:
                if self._closed:
                    raise
                if not broken:
                    self._log.failure("cannot deliver spooled entries to the store: it is tried again")
                broken, answered = True, False
            pauses = 0 if answered else pauses + 1
        self._log.info("the store has all that waited for it")
        self._end_leases()

    async def _tell_some(self) -> bool:
        """Deliver the first entries, those of one call in order; True if the store answered."""
        calls: dict[str, list[Mapping[str, Any]]] = {}
        for entry in islice(self._file.entries, TOGETHER):
            calls.setdefault(entry["id"], []).append(entry)
        settled: list[Mapping[str, Any]] = []
        telling = [Deferred.fromCoroutine(self._tell_of_one(entries, settled)) for entries in calls.values()]
        answered = await gatherResults(telling, consumeErrors=True)
        self._file.settled(settled)
        if settled:
            self._told()
        return all(answered)

    async def _tell_of_one(self, entries: list[Mapping[str, Any]], settled: list[Mapping[str, Any]]) -> bool:
        for entry in entries:
            try:
                await self._do(entry)
            except StoreUnavailable:
                return False
            except CancelledError:
                raise
            except ContextError as error:
                self._log.warn("call {id}: what waited can't be told: {error}", id=entry["id"], error=str(error))
            except Exception:
                self._log.failure("call {id}: what waited can't be told", id=entry["id"])
            settled.append(entry)
        return True

    def _broke(self, failure: Failure) -> None:
        if not self._closed:
            self._log.failure("cannot deliver spooled entries to the store", failure)

    # Claims in doubt

    def _undo_claims(self, _: None) -> None:
        if self._undoing is None and self._doubtful:
            self._undoing = Deferred.fromCoroutine(self._undo_one_by_one())
            self._undoing.addErrback(lambda failure: self._log.failure("cannot undo claims", failure))
            self._undoing.addCallback(self._undone)

    def _undone(self, _: None) -> None:
        self._undoing = None

    async def _undo_one_by_one(self) -> None:
        for context_id, claimed_at in list(self._doubtful.items()):
            try:
                await self._undo_claim(context_id, claimed_at)
            except StoreUnavailable:
                return  # Again at the next renewal.
            except ContextError:
                self._doubtful.pop(context_id, None)

    async def _undo_claim(self, context_id: str, claimed_at: float) -> None:
        context = await self._store.get(context_id)
        if context.status is ContextStatus.PENDING:
            return  # The claim may still be on its way.
        if context.status is ContextStatus.CLAIMED and (context.owner, context.claimed_at) == (self.owner, claimed_at):
            self._log.info("call {id}: its media was refused while the store did not answer", id=context_id)
            await self._store.finish(
                context_id, reason=EndReason.CONNECTION_LOST, audio_in_s=0.0, audio_out_s=0.0, now=claimed_at,
                detail="the store did not answer in time when its media came",
            )  # fmt: skip
        self._doubtful.pop(context_id, None)


def _progress(words: Mapping[str, Any]) -> CallProgress:
    reason = words.get("reason") and EndReason(words["reason"])
    return CallProgress(**{**words, "status": CallStatus(words["status"]), "reason": reason})
