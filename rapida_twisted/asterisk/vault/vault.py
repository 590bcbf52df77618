"""The vault: the credentials of each Asterisk, encrypted, in one file of the state directory.

An entry has a plain part (URL, user, trunk), which a person can read, and a sealed part with the password and a copy of
the plain part. So the vault detects a changed plain part, and a sealed part of another entry. It does not detect a
removed entry, nor an older file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.vault.master_key import KeyPlace, missing_key, split_master_key
from rapida_twisted.credentials.secret_file import file_stamp, locked, read_file, replace_file
from rapida_twisted.errors import SettingsError, StartError
from rapida_twisted.net.untrusted_text import json_object

__all__ = ["UnknownCredential", "Vault", "VaultEntry", "open_vault"]

PROVIDER = "asterisk"
VERSION = 1

_PROOF = b"rapida-media vault"


class UnknownCredential(SettingsError):
    """The vault has no credential of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the vault has no credential {name!r}")
        self.name = name


@dataclass(frozen=True, kw_only=True)
class VaultEntry:
    """The plain part of a credential: everything except its password."""

    name: str
    provider: str = PROVIDER
    ari_url: str
    ari_user: str
    endpoint_technology: str
    trunk: str


class Vault:
    """The credentials of a state directory. It reads another process's changes of the file at once.

    :param path: the file; it need not exist yet.
    :param master_key: see :mod:`rapida_twisted.asterisk.vault.master_key`; empty: there is none (yet).
    :param reload_key: reads the master key again when the present one does not open the file.
    :raises SettingsError: the master key is not valid.
    """

    def __init__(self, path: Path, master_key: str, reload_key: Callable[[], str] | None = None) -> None:
        self.path = path
        self._keys = split_master_key(master_key)
        self._reload_key = reload_key
        self._stamp: tuple[int, ...] | None = None
        self._entries: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Vault {self.path}>"

    # Reading

    def get(self, name: str) -> AriCredential:
        """A credential, with its password.

        :raises UnknownCredential: there is none of this name.
        :raises SettingsError: the master key is missing, or not the vault's.
        :raises StartError: the file cannot be read, or the entry or the file is damaged.
        """
        entries = self._read()
        if name not in entries:
            raise UnknownCredential(name)
        return self._open(name, entries[name])

    def list(self) -> tuple[VaultEntry, ...]:
        """The plain parts of all entries, sorted by name. Decrypts each entry, and raises as :meth:`get`."""
        entries = self._read()
        return tuple(_plain_part(self._open(name, entries[name])) for name in sorted(entries))

    # Changing

    def set(self, credential: AriCredential) -> bool:
        """Add or replace a credential; returns whether it replaced one.

        :raises SettingsError: the master key is missing, or not the vault's.
        :raises StartError: the file cannot be read or written, or is damaged.
        """
        with locked(self.path):
            entries = dict(self._read())
            replaced = credential.name in entries
            entries[credential.name] = self._seal(credential)
            self._write(entries)
        return replaced

    def remove(self, name: str) -> None:
        """Remove a credential, also a damaged one.

        :raises UnknownCredential: there is none of this name.
        :raises SettingsError: as :meth:`set`.
        :raises StartError: as :meth:`set`.
        """
        with locked(self.path):
            entries = dict(self._read())
            if name not in entries:
                raise UnknownCredential(name)
            del entries[name]
            self._write(entries)

    def rotate(self, new_master_key: str, store: Callable[[str], None] = lambda text: None) -> None:
        """Encrypt every entry with a new key.

        :param new_master_key: one key.
        :param store: writes a master key to its place: first the new and the old keys, then, once the vault is written,
            the new one only. So the vault can be opened at every moment.
        :raises SettingsError: a master key is not valid.
        :raises StartError: the file cannot be read or written, or an entry is damaged.
        """
        new_keys = split_master_key(new_master_key, "the new master key")
        if len(new_keys) != 1:
            raise SettingsError("the new master key must be one key")
        with locked(self.path):
            entries = self._read()
            credentials = [self._open(name, entries[name]) for name in entries]
            self._keys = tuple(dict.fromkeys((*new_keys, *self._keys)))
            store("\n".join(self._keys))
            self._write({credential.name: self._seal(credential) for credential in credentials})
            self._keys = new_keys
            store(new_keys[0])

    # The file

    def _read(self) -> Mapping[str, Any]:
        stamp = file_stamp(self.path)
        if stamp != self._stamp:
            self._entries = self._parse()
            self._stamp = stamp
        return self._entries

    def _parse(self) -> dict[str, Any]:
        data = read_file(self.path, "the vault")
        if data is None:
            return {}
        content = json_object(data)
        if content is None or not isinstance(content.get("entries"), dict) or not isinstance(content.get("key"), str):
            raise StartError(f"the vault {self.path} is damaged: restore a copy, or remove it")
        if content.get("version") != VERSION:
            raise StartError(f"another version of this program wrote the vault {self.path}")
        if not self._fits(content["key"]):
            # The key may have changed since it was read.
            self._keys = split_master_key(self._reload_key()) if self._reload_key is not None else self._keys
            if not self._keys:
                raise missing_key(self.path)
            if not self._fits(content["key"]):
                raise SettingsError(
                    f"the master key does not open the vault {self.path}, which was written with another key"
                )
        entries: dict[str, Any] = content["entries"]
        return entries

    def _fits(self, token: str) -> bool:
        return bool(self._keys) and self._decrypt(token) == _PROOF

    def _write(self, entries: Mapping[str, Any]) -> None:
        content = {"version": VERSION, "key": self._cipher.encrypt(_PROOF).decode("ascii"), "entries": entries}
        data = json.dumps(content, indent=2, sort_keys=True).encode("ascii")
        replace_file(self.path, data + b"\n", "the vault")
        self._stamp = None

    # Entries

    @property
    def _cipher(self) -> MultiFernet:
        if not self._keys:
            raise SettingsError(f"there is no master key for the vault {self.path}")
        return MultiFernet([Fernet(key) for key in self._keys])

    def _decrypt(self, token: str) -> bytes | None:
        try:
            return self._cipher.decrypt(token.encode("utf-8", "surrogatepass"))
        except InvalidToken:
            return None

    def _seal(self, credential: AriCredential) -> dict[str, str]:
        plain = asdict(_plain_part(credential))
        secret = {"plain": plain, "ari_password": credential.ari_password}
        sealed = self._cipher.encrypt(json.dumps(secret).encode("ascii"))
        return {**plain, "sealed": sealed.decode("ascii")}

    def _open(self, name: str, entry: Any) -> AriCredential:
        """The credential of an entry."""
        # Raised outside any except block: another error's context may hold a secret.
        credential = self._decrypted(name, entry)
        if credential is None:
            raise StartError(
                f"the vault {self.path} was damaged or edited: credential {name!r} is not valid; set it again, or"
                " remove it"
            )
        return credential

    def _decrypted(self, name: str, entry: Any) -> AriCredential | None:
        if not isinstance(entry, dict) or not isinstance(entry.get("sealed"), str):
            return None
        plain = {key: value for key, value in entry.items() if key != "sealed"}
        secret = json_object(self._decrypt(entry["sealed"]) or b"")
        if secret is None or secret.get("plain") != plain or plain.get("name") != name:
            return None
        if plain.pop("provider", None) != PROVIDER:
            return None
        try:
            return AriCredential(**plain, ari_password=secret["ari_password"])
        except (SettingsError, TypeError, ValueError, KeyError):
            return None


def open_vault(state_dir: Path, environ: Mapping[str, str] = os.environ) -> Vault:
    """The vault of a state directory, with its master key. Neither need exist yet.

    :param environ: such as the process's environment.
    :raises SettingsError: the master key is not valid, or the named file does not exist.
    :raises StartError: the master key cannot be read.
    """
    place = KeyPlace(state_dir, environ)
    return Vault(place.vault_path, place.read(), place.read)


def _plain_part(credential: AriCredential) -> VaultEntry:
    values = asdict(credential)
    del values["ari_password"]
    return VaultEntry(**values)
