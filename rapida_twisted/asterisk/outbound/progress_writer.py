"""News of outbound calls on their way into the store: in order for each call, again later when the store is away."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import Logger

from rapida_twisted.context import CallProgress
from rapida_twisted.errors import ContextError, StoreUnavailable
from rapida_twisted.interfaces.typed import CallStore

__all__ = ["ProgressWriter"]

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class ProgressWriter:
    """Writes news down, and tells that it did.

    :param notify: whether each change makes a notice in the store.
    :param noted: called after each change that is in the store.
    :param reactor: provides IReactorTime.
    """

    _log = Logger()

    def __init__(self, store: CallStore, *, notify: bool, noted: Callable[[], None], reactor: Any) -> None:
        self._store = store
        self._notify = notify
        self._noted = noted
        self._reactor = reactor
        self._waiting: dict[str, deque[CallProgress]] = {}
        self._writing: dict[str, Deferred[None]] = {}

    @property
    def waiting(self) -> int:
        """News that the store has not taken yet."""
        return sum(map(len, self._waiting.values()))

    def note(self, context_id: str, progress: CallProgress) -> None:
        """Keep news of a call."""
        if context_id in self._waiting:
            self._waiting[context_id].append(progress)
            return
        self._waiting[context_id] = deque([progress])
        writing = Deferred.fromCoroutine(self._write(context_id))
        writing.addErrback(self._broke, context_id)
        if not writing.called:
            self._writing[context_id] = writing
            writing.addBoth(lambda _: self._writing.pop(context_id, None))

    async def flush(self, timeout_s: float) -> None:
        """Wait until all is written, but no longer than that; log what is lost."""
        written: Deferred[Any] = Deferred()
        DeferredList([_mirror(writing) for writing in self._writing.values()]).addCallback(written.callback)
        await written.addTimeout(timeout_s, self._reactor, onTimeoutCancel=lambda *_: None)
        for writing in list(self._writing.values()):
            writing.cancel()

    async def _write(self, context_id: str) -> None:
        queue, pause_s = self._waiting[context_id], FIRST_PAUSE_S
        try:
            while queue:
                try:
                    changed = await self._store.follow(context_id, queue[0], notify=self._notify)
                except StoreUnavailable as error:
                    self._log.warn(
                        "call {id}: {status} could not be written ({error}); again in {pause:g} s",
                        id=context_id, status=queue[0].status.value, error=str(error), pause=pause_s,
                    )  # fmt: skip
                    await deferLater(self._reactor, pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                    continue
                queue.popleft()
                if changed is not None:
                    self._noted()
        except ContextError as error:
            self._log.warn("call {id}: {error}; its news are lost", id=context_id, error=str(error))
        finally:
            del self._waiting[context_id]

    def _broke(self, failure: Any, context_id: str) -> None:
        self._log.failure("call {id}: its news are not in the store", failure, id=context_id)


def _mirror(writing: Deferred[None]) -> Deferred[None]:
    """A Deferred that fires with another, and may be waited for by somebody else."""
    mirror: Deferred[None] = Deferred()

    def tell(result: Any) -> Any:
        mirror.callback(None)
        return result

    writing.addBoth(tell)
    return mirror
