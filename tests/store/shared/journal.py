"""A call store and the journal of a call."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults

from rapida_twisted.errors import (
    JournalFull,
    UnknownContext,
)
from rapida_twisted.interfaces import EntryKind, JournalEntry
from rapida_twisted.store.journal import MAX_BYTES, MAX_ENTRIES
from tests.store.shared.case import NOW, StoreTestCase, context


class JournalTests(StoreTestCase):
    """Of one process."""

    async def with_journal(self, *texts: str) -> Any:
        """A store with a call, and a transcript of these texts in its journal."""
        store = await self.opened()
        await store.add(context(), 10)
        for second, text in enumerate(texts):
            await store.add_entry(context().context_id, EntryKind.TRANSCRIPT, text, at=NOW + second)
        return store

    async def texts(self, store: Any, **words: Any) -> list[str]:
        """The texts of a page of that journal."""
        return [entry.text for entry in await store.entries(context().context_id, **words)]

    async def test_journal(self) -> None:
        """Entries come back as they were, in order, with their numbers; each call has a journal of its own."""
        store = await self.with_journal("Grüß Gott 😀", "")
        self.assertEqual(await store.add_entry(context().context_id, EntryKind.TOOL, '{"name": "x"}', at=NOW - 1.5), 3)
        await store.add(context(2), 10)
        self.assertEqual(await store.add_entry(context(2).context_id, EntryKind.LOG, "a line\n", at=NOW), 1)
        entries = [
            JournalEntry(context_id=context().context_id, number=number, kind=kind, at=at, text=text)
            for number, kind, at, text in (
                (1, EntryKind.TRANSCRIPT, NOW, "Grüß Gott 😀"),
                (2, EntryKind.TRANSCRIPT, NOW + 1, ""),
                (3, EntryKind.TOOL, NOW - 1.5, '{"name": "x"}'),
            )
        ]
        self.assertEqual(await store.entries(context().context_id), entries)
        self.assertEqual([entry.text for entry in await store.entries(context(2).context_id)], ["a line\n"])

    async def test_journal_of_an_ended_call(self) -> None:
        """A call that is over still gets entries; the call's record does not show them."""
        store = await self.with_journal("before")
        await self.claim(store)
        ended = await self.finish(store)
        self.assertEqual(await store.add_entry(ended.context_id, EntryKind.TURN, "after", at=NOW), 2)
        self.assertEqual(await store.get(ended.context_id), ended)

    async def test_journal_of_nobody(self) -> None:
        """A call that is not known has no journal, and gets none, whatever text its contextId is."""
        store = await self.opened()
        for stranger in ("", "x", "a'b", "\x00", "\ud800", context().context_id):
            await self.refused(store.add_entry(stranger, EntryKind.LOG, "x", at=NOW), UnknownContext)
            self.assertEqual(await store.entries(stranger), [])

    async def test_journal_pages(self) -> None:
        """A page begins behind the number that was given, and has no more entries than asked for."""
        store = await self.with_journal("a", "b", "c", "d")
        self.assertEqual(await self.texts(store, limit=3), ["a", "b", "c"])
        self.assertEqual(await self.texts(store, limit=3, after=3), ["d"])
        for words in ({"after": 4}, {"after": 99}, {"limit": 0}, {"limit": -1}):
            self.assertEqual(await self.texts(store, **words), [])
        self.assertEqual(await self.texts(store, after=-1), ["a", "b", "c", "d"])

    async def test_journal_search(self) -> None:
        """Entries are found by their kind and by text in them, whatever its case; no character is special."""
        store = await self.with_journal("Straße 5", "100 %", "a_b", "STRASSE 6")
        await store.add_entry(context().context_id, EntryKind.LOG, "the street: strasse", at=NOW)
        self.assertEqual(await self.texts(store, text="strasse"), ["Straße 5", "STRASSE 6", "the street: strasse"])
        self.assertEqual(await self.texts(store, text="strasse", after=1, limit=1), ["STRASSE 6"])
        self.assertEqual(await self.texts(store, text="strasse", kind=EntryKind.LOG), ["the street: strasse"])
        self.assertEqual(await self.texts(store, text="%"), ["100 %"])
        self.assertEqual(await self.texts(store, text="_"), ["a_b"])
        self.assertEqual(await self.texts(store, kind=EntryKind.TURN), [])

    async def test_journal_of_odd_text(self) -> None:
        """Half a surrogate pair, as a stream that was cut may have, is replaced."""
        store = await self.with_journal("cut \ud83d", "nul \x00.")
        self.assertEqual(await self.texts(store), ["cut ?", "nul \x00."])

    async def test_journal_bytes(self) -> None:
        """All texts of a call together are bounded in bytes; other calls have room."""
        store = await self.with_journal("ä" * (MAX_BYTES // 2 - 1))
        add = store.add_entry
        await self.refused(add(context().context_id, EntryKind.LOG, "abc", at=NOW), JournalFull)
        self.assertEqual(await add(context().context_id, EntryKind.LOG, "ab", at=NOW), 2)
        await self.refused(add(context().context_id, EntryKind.LOG, "a", at=NOW), JournalFull)
        await store.add(context(2), 10)
        await self.refused(add(context(2).context_id, EntryKind.LOG, "a" * (MAX_BYTES + 1), at=NOW), JournalFull)
        self.assertEqual(await add(context(2).context_id, EntryKind.LOG, "a", at=NOW), 1)

    async def test_journal_entries(self) -> None:
        """A call has no more than so many entries; the last of them is found."""
        store = await self.with_journal()
        for _ in range(MAX_ENTRIES // 1000):
            await gatherResults(
                [store.add_entry(context().context_id, EntryKind.LOG, "x", at=NOW) for _ in range(999)]
                + [store.add_entry(context().context_id, EntryKind.TURN, "y", at=NOW)]
            )
        await self.refused(store.add_entry(context().context_id, EntryKind.LOG, "x", at=NOW), JournalFull)
        found = await store.entries(context().context_id, kind=EntryKind.TURN, after=MAX_ENTRIES - 1000)
        self.assertEqual([entry.number for entry in found], [MAX_ENTRIES])

    async def test_journal_retention(self) -> None:
        """A journal goes as a whole when its newest entry is older than its own retention; the call stays, and may
        begin another one."""
        store = await self.with_journal("a" * (MAX_BYTES - 1), "b")
        await store.sweep(now=NOW, forget_before=0, forget_journals_before=NOW + 1)
        self.assertEqual(len(await self.texts(store)), 2)
        await store.sweep(now=NOW, forget_before=0, forget_journals_before=NOW + 1.5)
        self.assertEqual(await self.texts(store), [])
        self.assertEqual(await store.get(context().context_id), context())
        self.assertEqual(await store.add_entry(context().context_id, EntryKind.LOG, "again", at=NOW), 1)

    async def test_journal_goes_with_its_call(self) -> None:
        """Whatever its own retention, a journal is forgotten with its call."""
        store = await self.with_journal("a")
        await self.claim(store)
        await self.finish(store)
        await store.sweep(now=NOW + 100, forget_before=NOW + 100, forget_journals_before=0)
        self.assertEqual(await self.texts(store), [])
        await self.refused(store.add_entry(context().context_id, EntryKind.LOG, "x", at=NOW), UnknownContext)
        await store.add(context(), 10)
        self.assertEqual(await store.add_entry(context().context_id, EntryKind.LOG, "x", at=NOW), 1)
