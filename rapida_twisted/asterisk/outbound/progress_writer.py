"""Writes the progress of outbound calls to the store, in order for each call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from rapida_twisted.context import CallProgress
from rapida_twisted.errors import ContextError, StoreUnavailable
from rapida_twisted.interfaces.typed import CallStore

__all__ = ["ProgressWriter"]


class ProgressWriter:
    """Writes progress, and reports each change.

    :param notify: whether each change makes a notice in the store.
    :param written: called after each change in the store.
    """

    _log = Logger()

    def __init__(self, store: CallStore, *, notify: bool, written: Callable[[], None], reactor: Any) -> None:
        self._store = store
        self._notify = notify
        self._written = written
        self._reactor = reactor
        self._waiting: dict[str, deque[CallProgress]] = {}
        self._writing: dict[str, Deferred[None]] = {}

    @property
    def waiting(self) -> int:
        """The number of changes that are not in the store yet."""
        return sum(map(len, self._waiting.values()))

    def record(self, context_id: str, progress: CallProgress) -> None:
        if context_id in self._waiting:
            self._waiting[context_id].append(progress)
            return
        self._waiting[context_id] = deque([progress])
        writing = Deferred.fromCoroutine(self._write(context_id))
        writing.addErrback(self._broke, context_id)
        if not writing.called:
            self._writing[context_id] = writing
            writing.addBoth(self._wrote, context_id)

    def _wrote(self, _: None, context_id: str) -> None:
        # A callback that returned the Deferred itself would keep flush() waiting for ever.
        del self._writing[context_id]

    async def flush(self, timeout_s: float) -> None:
        """Wait until all is written, up to the timeout; the rest is lost, and logged."""
        # The timeout cancels what is still being written.
        writing = DeferredList(list(self._writing.values()))
        await writing.addTimeout(timeout_s, self._reactor, onTimeoutCancel=lambda *_: None)

    async def _write(self, context_id: str) -> None:
        queue = self._waiting[context_id]
        try:
            while queue:
                try:
                    changed = await self._store.follow(context_id, queue[0], notify=self._notify)
                    if changed is not None:
                        self._written()
                except (ContextError, StoreUnavailable) as error:
                    self._log.error(
                        "call {id}: its status {status} is lost: {error}",
                        id=context_id, status=queue[0].status.value, error=str(error),
                    )  # fmt: skip
                queue.popleft()
        finally:
            del self._waiting[context_id]

    def _broke(self, failure: Any, context_id: str) -> None:
        self._log.failure("call {id}: its progress is not in the store", failure, id=context_id)
