"""The vault: what is needed to speak to each Asterisk, in one file of the state directory, encrypted.

An entry has a plain part (which Asterisk, which user, which trunk), so that a person can see what is there, and a
sealed one, in which are the password and once more the plain part: that somebody changed the plain part, or put one
entry's sealed part beside another's plain part, is noticed. That a whole entry was taken out, or an older file put
back, is not.
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
from rapida_twisted.credentials.secret_file import locked, read_file, replace_file
from rapida_twisted.errors import SettingsError, StartError

__all__ = ["UnknownCredential", "Vault", "VaultEntry", "open_vault"]

PROVIDER = "asterisk"
VERSION = 1

_PROOF = b"rapida-media vault"
_Stamp = tuple[int, int, int, int]


class UnknownCredential(SettingsError):
    """The vault has no credential of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the vault has no credential {name!r}")
        self.name = name


@dataclass(frozen=True, kw_only=True)
class VaultEntry:
    """The plain part of a credential: all but its password."""

    name: str
    provider: str = PROVIDER
    ari_url: str
    ari_user: str
    endpoint_technology: str
    trunk: str


class Vault:
    """The credentials of a state directory. What another process changes in the file counts from then on.

    :param path: the file; it need not be there yet.
    :param master_key: one or several, see :mod:`rapida_twisted.asterisk.vault.master_key`; empty: there is none (yet).
    :param reload_key: gives the master key as it is now, asked when the one at hand does not open the file.
    :raises SettingsError: the master key is none.
    """

    def __init__(self, path: Path, master_key: str, reload_key: Callable[[], str] | None = None) -> None:
        self.path = path
        self._keys = split_master_key(master_key)
        self._reload_key = reload_key
        self._stamp: _Stamp | None = None
        self._entries: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Vault {self.path}>"

    # PolledReader

    def get(self, name: str) -> AriCredential:
        """A credential, with its password.

        :raises UnknownCredential: there is none of this name.
        :raises SettingsError: the master key is not the vault's, or not there.
        :raises StartError: the file can't be read, or this entry or all of it is damaged.
        """
        entries = self._read()
        if name not in entries:
            raise UnknownCredential(name)
        return self._open(name, entries[name])

    def list(self) -> tuple[VaultEntry, ...]:
        """What is in the vault, by name, without secrets. Each entry was found to be whole.

        :raises SettingsError: as :meth:`get`.
        :raises StartError: as :meth:`get`.
        """
        entries = self._read()
        return tuple(_plain_part(self._open(name, entries[name])) for name in sorted(entries))

    def check(self) -> None:
        """Decrypt every entry, so that a server can refuse to start with a vault that it can't use.

        :raises SettingsError: as :meth:`get`.
        :raises StartError: as :meth:`get`.
        """
        self.list()

    # Changing

    def set(self, credential: AriCredential) -> bool:
        """Keep a credential, in the place of the one of the same name; whether there was one.

        :raises SettingsError: the master key is not the vault's, or not there.
        :raises StartError: the file can't be read or written, or is damaged.
        """
        with locked(self.path):
            entries = dict(self._read())
            replaced = credential.name in entries
            entries[credential.name] = self._seal(credential)
            self._write(entries)
        return replaced

    def remove(self, name: str) -> None:
        """Forget a credential. A damaged entry can be removed, too.

        :raises UnknownCredential: there is none of this name.
        :raises SettingsError: the master key is not the vault's, or not there.
        :raises StartError: the file can't be read or written, or is damaged.
        """
        with locked(self.path):
            entries = dict(self._read())
            if name not in entries:
                raise UnknownCredential(name)
            del entries[name]
            self._write(entries)

    def rotate(self, new_master_key: str, store: Callable[[str], None] = lambda text: None) -> None:
        """Encrypt every entry anew.

        :param new_master_key: one key.
        :param store: keeps a master key where it is looked for. It is called with the new one and the old ones before
            the vault is written, and with the new one alone after that: at no moment can the vault not be opened.
        :raises SettingsError: one of the master keys can't be used.
        :raises StartError: the file can't be read or written, or an entry is damaged.
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
        """The entries, as they stand in the file."""
        stamp = _stamp(self.path)
        if stamp is None:
            self._stamp, self._entries = None, {}
        elif stamp != self._stamp:
            self._entries = self._parse()
            self._stamp = stamp
        return self._entries

    def _parse(self) -> dict[str, Any]:
        data = read_file(self.path, "the vault")
        if data is None:
            return {}
        content = _json_object(data)
        if content is None or not isinstance(content.get("entries"), dict) or not isinstance(content.get("key"), str):
            raise StartError(f"the vault {self.path} is damaged: bring a copy of it back, or remove it")
        if content.get("version") != VERSION:
            raise StartError(f"the vault {self.path} is of another version of this program")
        if not self._fits(content["key"]):
            # Somebody may have changed the key since we read it.
            self._keys = split_master_key(self._reload_key()) if self._reload_key is not None else self._keys
            if not self._keys:
                raise missing_key(self.path)
            if not self._fits(content["key"]):
                raise SettingsError(
                    f"the master key does not open the vault {self.path}: it is not the one that it was written with"
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
        """The credential of an entry. No error is raised while another one, that may hold a secret, is handled."""
        credential = self._opened(name, entry)
        if credential is None:
            raise StartError(
                f"the vault {self.path} was damaged or changed by hand: credential {name!r} can't be trusted; set it"
                " again, or remove it"
            )
        return credential

    def _opened(self, name: str, entry: Any) -> AriCredential | None:
        if not isinstance(entry, dict) or not isinstance(entry.get("sealed"), str):
            return None
        plain = {key: value for key, value in entry.items() if key != "sealed"}
        secret = _json_object(self._decrypt(entry["sealed"]) or b"")
        if secret is None or secret.get("plain") != plain or plain.get("name") != name:
            return None
        if plain.pop("provider", None) != PROVIDER:
            return None
        try:
            return AriCredential(**plain, ari_password=secret["ari_password"])
        except (SettingsError, TypeError, ValueError, KeyError):
            return None


def open_vault(state_dir: Path, environ: Mapping[str, str] = os.environ) -> Vault:
    """The vault of a state directory, with its master key from where that is kept. Neither need be there yet.

    :param environ: words such as the process's environment.
    :raises SettingsError: what is there is no master key, or the named file is not there.
    :raises StartError: the master key can't be read.
    """
    place = KeyPlace(state_dir, environ)
    return Vault(place.vault_path, place.read(), place.read)


def _plain_part(credential: AriCredential) -> VaultEntry:
    return VaultEntry(
        name=credential.name,
        ari_url=credential.ari_url,
        ari_user=credential.ari_user,
        endpoint_technology=credential.endpoint_technology,
        trunk=credential.trunk,
    )


def _json_object(data: bytes) -> dict[str, Any] | None:
    """The object that the data are in JSON; None if they are none."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _stamp(path: Path) -> _Stamp | None:
    """What tells a file from the one that was there before; None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"the vault {path} can't be read: {error.strerror}") from None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
