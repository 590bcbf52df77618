"""From a URL to a store."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.contexts.memory import MemoryStore
from rapida_twisted.contexts.sqlite import SqliteStore
from rapida_twisted.contexts.url import open_store
from rapida_twisted.errors import SettingsError


class OpenStoreTests(SynchronousTestCase):
    """open_store() knows three forms and explains all others."""

    def path_of(self, url: str) -> Path:
        """The file of the SQLite store that a URL names."""
        store = open_store(url, Path("/state"), None)
        assert isinstance(store, SqliteStore)
        return store.path

    def test_memory(self) -> None:
        """memory: is a store in memory."""
        self.assertIsInstance(open_store("memory:", Path("/state"), None), MemoryStore)

    def test_sqlite_in_state_directory(self) -> None:
        """sqlite: alone is a file in the state directory, which is not touched yet."""
        self.assertEqual(self.path_of("sqlite:"), Path("/state/calls.sqlite3"))

    def test_sqlite_elsewhere(self) -> None:
        """sqlite: with an absolute path is that file, also in the form with three slashes."""
        self.assertEqual(self.path_of("sqlite:/srv/a b.db"), Path("/srv/a b.db"))
        self.assertEqual(self.path_of("sqlite:///srv/a.db"), Path("/srv/a.db"))

    def test_unknown(self) -> None:
        """Everything else is refused with the known forms in the text."""
        for url in ("", "sqlite", "memory", "memory:x", "sqlite:a.db", "sqlite://host/a", "sqlite:/a/", "redis://h/0"):
            error = self.assertRaises(SettingsError, open_store, url, Path("/state"), None)
            self.assertIn("sqlite:/path/to/file or memory:", str(error))

    def test_no_password_shown(self) -> None:
        """A password in the URL is not repeated."""
        error = self.assertRaises(SettingsError, open_store, "redis://me:secret@host/0", Path("/state"), None)
        self.assertNotIn("secret", str(error))
        self.assertIn("host", str(error))
