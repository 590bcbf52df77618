"""The sink for entries of a journal that nobody waits for; what stores keep is in ``store_tests``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.interfaces import EntryKind
from rapida_twisted.store.journal import JournalSink
from rapida_twisted.store.memory import MemoryStore
from tests.media.fakes import KeptLog
from tests.store.store_tests import NOW, context


class SinkTests(SynchronousTestCase):
    def test_adds(self) -> None:
        """An entry goes to its call's journal, with the time."""
        store = MemoryStore()
        store.add(context(), 10)
        JournalSink(lambda: store, now=lambda: NOW)(context().context_id, EntryKind.TOOL, "weather")
        (entry,) = self.successResultOf(store.entries(context().context_id))
        self.assertEqual((entry.kind, entry.at, entry.text), (EntryKind.TOOL, NOW, "weather"))

    def test_fails(self) -> None:
        """A store that is away costs one line in the log, until it has taken an entry again."""
        store = MemoryStore()
        store.add(context(), 10)
        outcomes: list[Any] = [True, False, False, True, False]

        def add_entry(*words: Any, **named: Any) -> Deferred[int]:
            works = outcomes.pop(0)
            return MemoryStore.add_entry(store, *words, **named) if works else fail(StoreUnavailable("it is away"))

        self.patch(store, "add_entry", add_entry)
        sink = JournalSink(lambda: store)
        log = KeptLog(self)
        while outcomes:
            sink(context().context_id, EntryKind.LOG, "x")
        lines = [formatEvent(event) for event in log.at(LogLevel.warn)]
        self.assertEqual(lines, [f"call {context().context_id}: cannot add to its journal: it is away"] * 2)
