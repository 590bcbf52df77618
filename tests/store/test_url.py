"""From a URL to a store."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import SettingsError
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.store.redis_address import RedisAddress
from rapida_twisted.store.sqlite import SqliteStore
from rapida_twisted.store.url import open_store


class OpenStoreTests(SynchronousTestCase):
    """open_store() knows a few forms and explains all others."""

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
        for url in ("", "sqlite", "memory", "memory:x", "sqlite:a.db", "sqlite://host/a", "sqlite:/a/"):
            error = self.assertRaises(SettingsError, open_store, url, Path("/state"), None)
            self.assertIn("sqlite:/path/to/file or memory:", str(error))

    def test_no_password_shown(self) -> None:
        """A password in the URL is not repeated."""
        error = self.assertRaises(SettingsError, open_store, "mysql://me:secret@host/0", Path("/state"), None)
        self.assertNotIn("secret", str(error))
        self.assertIn("host", str(error))

    def test_redis(self) -> None:
        """A Redis is not connected to yet."""
        store = open_store("redis://:secret@host/3", Path("/state"), None, "here")
        self.assertEqual(
            (type(store).__name__, store.owner, repr(store)), ("RedisStore", "here", "<RedisStore host:6379>")
        )

    def test_redis_without_its_library(self) -> None:
        """Without txredisapi it says how to get it."""
        missing = patch.dict(sys.modules, {"rapida_twisted.store.redis": None})
        with missing, self.assertRaisesRegex(SettingsError, r"extra 'redis'"):
            open_store("redis://host", Path("/state"), None)


class RedisAddressTests(SynchronousTestCase):
    """RedisAddress reads URLs."""

    def test_parts(self) -> None:
        """All parts of a URL, and what they are when they are not there."""
        address = RedisAddress.parse("rediss://me:a%2Fb%40@redis.example.com:7000/5?prefix=my:&timeout=0.5")
        self.assertEqual(
            (address.hosts, address.tls, address.username, address.password, address.database),
            ((("redis.example.com", 7000),), True, "me", "a/b@", 5),
        )
        self.assertEqual((address.prefix, address.timeout_s, address.service), ("my:", 0.5, ""))
        usual = RedisAddress.parse("redis://[::1]")
        self.assertEqual((usual.hosts, usual.tls, usual.username, usual.password), ((("::1", 6379),), False, "", ""))
        self.assertEqual((usual.database, usual.prefix, usual.timeout_s), (0, "rapida:", 2.0))
        self.assertEqual(usual.where, "[::1]:6379")

    def test_sentinels(self) -> None:
        """Several addresses, and the name of the service."""
        address = RedisAddress.parse("redis+sentinel://:pw@a,b:5,[::1]:6/calls/2")
        self.assertEqual(address.hosts, (("a", 26379), ("b", 5), ("::1", 6)))
        self.assertEqual((address.service, address.database, address.password), ("calls", 2, "pw"))
        self.assertEqual(address.where, "'calls' of the sentinels a:26379,b:5,[::1]:6")

    def test_unusable(self) -> None:
        """What can't be used is refused, and nothing of it is repeated."""
        for url in (
            "redis://", "redis://:secret@", "redis://secret@h", "redis://h:0", "redis://h:70000", "redis://h:x",
            "redis://:se/cret@h", "redis://:secret@h/x", "redis://secret:secret", "redis://:secret@h,i",
            "redis://h?secret=1", "redis://h?prefix=", "redis://h?prefix=secret%20secret", "redis://h?timeout=99",
            "redis+sentinel://:secret@h", "redis+sentinel://h/s/secret", "redis://:secret?secret@h",
        ):  # fmt: skip
            error = self.assertRaises(SettingsError, RedisAddress.parse, url)
            self.assertNotIn("secret", str(error), url)
            self.assertIn("STORE__URL", str(error))

    def test_password_not_shown(self) -> None:
        """Neither user nor password is in the address's repr."""
        self.assertNotIn("secret", repr(RedisAddress.parse("redis://secretary:secret@host")))
