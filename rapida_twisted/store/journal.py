"""The limits of a call's journal, which hold in every store, and a sink for those who don't wait for the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice

from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.errors import JournalFull
from rapida_twisted.interfaces.typed import CallJournal
from rapida_twisted.interfaces.values import EntryKind, JournalEntry

__all__ = ["MAX_BYTES", "MAX_ENTRIES", "JournalSink", "found", "full", "stored_text"]

MAX_ENTRIES = 5_000
"""Entries of a call."""
MAX_BYTES = 1_048_576
"""Bytes of all texts of a call (UTF-8)."""


def stored_text(text: str) -> tuple[str, int]:
    """The text as every store can keep it, half a surrogate pair replaced by ``?``, and its length in bytes."""
    data = text.encode("utf-8", "replace")
    return data.decode("utf-8"), len(data)


def full(context_id: str) -> JournalFull:
    """The error for an entry that is too much."""
    return JournalFull(f"the journal of call {context_id} is full: {MAX_ENTRIES} entries or {MAX_BYTES} bytes")


def found(entries: Iterable[JournalEntry], kind: EntryKind | None, text: str, limit: int) -> list[JournalEntry]:
    """The first entries of this kind that contain the text, whatever its case."""
    wanted = text.casefold()
    matching = (entry for entry in entries if kind in (None, entry.kind) and wanted in entry.text.casefold())
    return list(islice(matching, max(0, limit)))


class JournalSink:
    """Adds entries without waiting for the store. An entry that can't be added is lost.

    Of failures in a row only the first is logged.
    """

    _log = Logger()

    def __init__(self, journal: Callable[[], CallJournal], now: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._now = now
        self._failing = False

    def __call__(self, context_id: str, kind: EntryKind, text: str) -> None:
        """Add an entry to a call's journal. Never raises."""
        adding = self._journal().add_entry(context_id, kind, text, at=self._now())
        adding.addCallbacks(self._added, self._failed, errbackArgs=(context_id,))

    def _added(self, _: int) -> None:
        self._failing = False

    def _failed(self, failure: Failure, context_id: str) -> None:
        if not self._failing:
            self._log.warn(
                "call {id}: cannot add to its journal: {error}", id=context_id, error=failure.getErrorMessage()
            )
        self._failing = True
