"""Makes the call store that a URL names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.store.redis_address import FORMS, SCHEMES, RedisAddress
from rapida_twisted.store.sqlite import SqliteStore

__all__ = ["STORE_FILE", "open_store"]

STORE_FILE = "calls.sqlite3"


def open_store(url: str, state_dir: Path, reactor: Any, owner: str = "", ca_file: str = "") -> CallStore:
    """Make the store that a URL names. Nothing is touched before the store's own ``open()``.

    :param url: ``sqlite:`` (a file in the state directory), ``sqlite:/path/to/file``, ``memory:``,
        or a Redis: see :class:`~rapida_twisted.store.redis_address.RedisAddress`.
    :param reactor: provides IReactorFromThreads, and for a Redis IReactorTime and IReactorTCP.
    :param owner: the name of this process among those that share the store.
    :param ca_file: the authorities that a Redis with TLS is verified against, in the place of the public ones.
    :raises SettingsError: the URL is none of these, or can't be used.
    """
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "memory" and not rest:
        return MemoryStore(owner)
    if colon and scheme == "sqlite" and not rest:
        return SqliteStore(state_dir / STORE_FILE, reactor, owner)
    if colon and scheme == "sqlite" and _is_file_path(rest):
        return SqliteStore(Path(rest), reactor, owner)
    if scheme in SCHEMES:
        return _redis_store(url, reactor, owner, ca_file)
    raise SettingsError(
        f"the call store {_without_password(url)!r} is not known: use sqlite: (a file in the state directory),"
        f" sqlite:/path/to/file or memory:, or {FORMS}"
    )


def _redis_store(url: str, reactor: Any, owner: str, ca_file: str) -> CallStore:
    address = RedisAddress.parse(url)
    try:
        # Not before it is needed: txredisapi imports the reactor.
        from rapida_twisted.store.redis import RedisStore
    except ImportError as error:
        raise SettingsError(
            f"for a call store in Redis {error.name} is missing: install this package with its extra 'redis'"
        ) from None
    return RedisStore(address, reactor, owner, ca_file)


def _is_file_path(text: str) -> bool:
    """True for an absolute path. Two slashes would begin a host."""
    host_named = text.startswith("//") and not text.startswith("///")
    return text.startswith("/") and not host_named and not text.endswith("/") and "\x00" not in text


def _without_password(url: str) -> str:
    """The URL for an error text, without what precedes an ``@``."""
    before, at, after = url.rpartition("@")
    return f"{before.partition(':')[0]}://...@{after}" if at else url
