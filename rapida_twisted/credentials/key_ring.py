"""The key file: API keys with names and scopes, kept as salted hashes.

A key is ``rpd-<id>-<secret>``: the id finds its entry in the file, the secret (192 random bits) proves it. Such a
secret cannot be guessed, so one round of a salted hash (HMAC-SHA256) protects it as well as a slow hash, and costs
a few microseconds per request (NIST SP 800-63B says so of secrets of 112 bits or more).

Each change replaces the file, and each process reads it again after a change.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapida_twisted.credentials.grant import ALL_SCOPES, Scope
from rapida_twisted.credentials.secret_file import file_stamp, locked, read_file, replace_file
from rapida_twisted.errors import SettingsError, StartError

__all__ = ["ALL_SCOPES", "KEYS_FILE", "KeyEntry", "KeyRing", "Scope", "keys_path", "parse_scopes"]

KEYS_FILE = "keys.json"
VERSION = 1
BOUND_VERSION = 2
"""Of a file with a bound key: a release that knows no bound keys would take it for a key to everything."""
LARGEST_MAX_CALLS = 999_999_999
LONGEST_ASSISTANT_ID = 128

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY = re.compile(r"rpd-([0-9a-f]{12})-([A-Za-z0-9_-]{32})")
_WHAT = "the key file"


@dataclass(frozen=True, kw_only=True)
class KeyEntry:
    """One key of the file, without the key itself."""

    id: str
    name: str
    scopes: frozenset[Scope]
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    made_at: float
    """When it was made (UNIX s)."""
    max_calls: int = 0
    """Maximum calls registered with it that wait or are up; 0: no limit."""
    assistants: frozenset[str] = frozenset()
    """The ids of the assistants that it is bound to; empty: all."""


class KeyRing:
    """The keys of a key file. A missing file has none.

    :param path: the file.
    :param problem: called once for each change that made the file unusable; the previous keys stay valid.
    """

    def __init__(self, path: Path, problem: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self._problem = problem
        self._seen: tuple[int, ...] | None = None
        self._entries: dict[str, KeyEntry] = {}

    def __repr__(self) -> str:
        return f"<KeyRing {self.path}: {len(self._entries)}>"

    def load(self) -> None:
        """Read the file.

        :raises StartError: it can't be read, or is damaged.
        """
        self._seen = file_stamp(self.path)
        self._entries = {entry.id: entry for entry in _read(self.path)}

    def find(self, candidate: str) -> KeyEntry | None:
        """The entry of a key, or None if it is not in the file as it is now."""
        parts = _KEY.fullmatch(candidate)
        if parts is None:
            return None
        self._refresh()
        # The time this takes may reveal whether an id exists: an id is no secret.
        entry = self._entries.get(parts[1])
        if entry is None or not hmac.compare_digest(_digest(entry.salt, parts[2]), entry.digest):
            return None
        return entry

    def entries(self) -> list[KeyEntry]:
        """All keys, the oldest first.

        :raises StartError: the file can't be read, or is damaged.
        """
        return _read(self.path)

    def make(
        self,
        name: str,
        scopes: Collection[Scope],
        *,
        now: float,
        max_calls: int = 0,
        assistants: Collection[str] = (),
    ) -> str:
        """Make a key and return it. It cannot be read again: the file has only its hash.

        :param assistants: the ids of the assistants that it is bound to; empty: all.
        :raises SettingsError: a key has this name, or an argument is invalid.
        :raises StartError: the file can't be read or written.
        """
        _check(name, scopes, max_calls, assistants)
        with locked(self.path):
            entries = _read(self.path)
            if any(entry.name == name for entry in entries):
                raise SettingsError(f"there is a key called {name}: revoke it first, or take another name")
            known = {entry.id for entry in entries}
            key_id = next(made for made in iter(lambda: secrets.token_hex(6), "") if made not in known)
            secret, salt = secrets.token_urlsafe(24), secrets.token_bytes(16)
            entry = KeyEntry(
                id=key_id, name=name, scopes=frozenset(scopes), salt=salt, digest=_digest(salt, secret), made_at=now,
                max_calls=max_calls, assistants=frozenset(assistants),
            )  # fmt: skip
            self._write([*entries, entry])
        return f"rpd-{key_id}-{secret}"

    def revoke(self, name: str) -> None:
        """Remove a key.

        :raises SettingsError: no key has this name.
        :raises StartError: the file can't be read or written.
        """
        with locked(self.path):
            entries = _read(self.path)
            left = [entry for entry in entries if entry.name != name]
            if len(left) == len(entries):
                raise SettingsError(f"there is no key called {name!r}")
            self._write(left)

    def _refresh(self) -> None:
        """Read the file again if it changed. A ``stat()`` costs 2 us, little enough for each request."""
        try:
            stamp = file_stamp(self.path)
            if stamp == self._seen:
                return
            self._seen = stamp
            self._entries = {entry.id: entry for entry in _read(self.path)}
        except StartError as error:
            # The previous keys stay: an error in the file must not refuse every call.
            self._problem(f"{error}; the keys that it held before are used on")

    def _write(self, entries: list[KeyEntry]) -> None:
        version = BOUND_VERSION if any(entry.assistants for entry in entries) else VERSION
        content = {"version": version, "keys": [_to_json(entry) for entry in entries]}
        replace_file(self.path, (json.dumps(content, indent=1) + "\n").encode("ascii"), _WHAT)


def keys_path(named: str, state_dir: Path) -> Path:
    """The path of the key file: ``KEYS_FILE``, or in the state directory."""
    return Path(named).expanduser() if named else state_dir / KEYS_FILE


def parse_scopes(word: str) -> frozenset[Scope]:
    """Parse scopes separated by commas.

    :raises ValueError: a scope is unknown, or there is none.
    """
    words = [part.strip() for part in word.split(",") if part.strip()]
    known = [scope.value for scope in Scope]
    if not words or any(part not in known for part in words):
        raise ValueError(f"scopes are {', '.join(known)}, with commas between them")
    return frozenset(map(Scope, words))


def _check(name: str, scopes: Collection[Scope], max_calls: int, assistants: Collection[str]) -> None:
    if not _NAME.fullmatch(name):
        raise SettingsError("a key's name has letters, digits, '_', '.' and '-', at most 64, a letter or digit first")
    if not scopes:
        raise SettingsError("a key needs a scope")
    if not 0 <= max_calls <= LARGEST_MAX_CALLS:
        raise SettingsError(f"a key's limit is a number of calls from 0 (none) to {LARGEST_MAX_CALLS}")
    if not all(map(_is_assistant_id, assistants)):
        raise SettingsError(
            f"a key is bound to assistants by their ids, of 1 to {LONGEST_ASSISTANT_ID} printable characters, not '*'"
        )


def _is_assistant_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_ASSISTANT_ID and value.isprintable() and value != "*"


def _digest(salt: bytes, secret: str) -> bytes:
    return hmac.digest(salt, secret.encode("ascii"), "sha256")


def _read(path: Path) -> list[KeyEntry]:
    data = read_file(path, _WHAT)
    if data is None:
        return []
    try:
        content = json.loads(data)
        version = content["version"]
        if version not in (VERSION, BOUND_VERSION):
            raise StartError(
                f"{_WHAT} {path} is of version {version}, and this program knows versions up to {BOUND_VERSION}"
            )
        entries = [_from_json(item) for item in content["keys"]]
        distinct = len({entry.id for entry in entries}) == len({entry.name for entry in entries}) == len(entries)
    except (ValueError, KeyError, TypeError, AttributeError):
        distinct = False
    if not distinct:
        # Outside the except block: that error holds what was read.
        raise StartError(f"{_WHAT} {path} is damaged: put a copy in its place, or remove it and make the keys anew")
    return entries


def _to_json(entry: KeyEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "name": entry.name,
        "scopes": [scope.value for scope in Scope if scope in entry.scopes],
        "max_calls": entry.max_calls,
        "made_at": entry.made_at,
        "salt": entry.salt.hex(),
        "digest": entry.digest.hex(),
        **({"assistants": sorted(entry.assistants)} if entry.assistants else {}),
    }


def _from_json(item: Any) -> KeyEntry:
    entry = KeyEntry(
        id=item["id"], name=item["name"], scopes=frozenset(map(Scope, item["scopes"])), max_calls=item["max_calls"],
        salt=bytes.fromhex(item["salt"]), digest=bytes.fromhex(item["digest"]), made_at=float(item["made_at"]),
        assistants=frozenset(item.get("assistants", ())),
    )  # fmt: skip
    whole = type(entry.max_calls) is int and entry.max_calls >= 0 and len(entry.salt) >= 16 and len(entry.digest) == 32
    whole = whole and all(map(_is_assistant_id, entry.assistants))
    if not whole or not re.fullmatch(r"[0-9a-f]{12}", entry.id) or not _NAME.fullmatch(entry.name) or not entry.scopes:
        raise ValueError("no entry")
    return entry
