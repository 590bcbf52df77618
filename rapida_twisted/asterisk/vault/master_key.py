"""The vault's master key: its form, and its place.

It is read from the environment (``VAULT__MASTER_KEY``), else from the file that ``VAULT__MASTER_KEY_FILE`` names, else
from ``vault-key`` in the state directory, which the vault's first credential makes.

Each place may hold several keys, separated by commas or white space: the first one encrypts, all of them decrypt. So
the vault can be opened at every moment of a key's change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.fernet import Fernet

from rapida_twisted.credentials.key_file import make_state_dir
from rapida_twisted.credentials.masking import keep_out_of_logs
from rapida_twisted.credentials.secret_file import locked, read_file, replace_file
from rapida_twisted.errors import SettingsError

__all__ = ["VAULT_FILE", "VAULT_KEY_FILE", "KeyPlace", "make_master_key", "missing_key", "split_master_key"]

VAULT_FILE = "vault.json"
VAULT_KEY_FILE = "vault-key"
MASTER_KEY_ENV = "VAULT__MASTER_KEY"
MASTER_KEY_FILE_ENV = "VAULT__MASTER_KEY_FILE"

_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")


def make_master_key() -> str:
    """32 random bytes in URL-safe base64."""
    return Fernet.generate_key().decode("ascii")


def split_master_key(text: str, where: str = "the master key") -> tuple[str, ...]:
    """The keys in a text, the encrypting one first; none for an empty text.

    :param where: names the text in an error, which holds no key.
    :raises SettingsError: the text holds something else.
    """
    parts = [part for part in re.split(r"[\s,]+", text) if part]
    keys = tuple(part.translate(_URL_SAFE) for part in parts)
    keep_out_of_logs(*parts, *keys)
    if not all(_KEY.fullmatch(key) for key in keys):
        raise SettingsError(
            f"{where} is no master key: a master key is 32 random bytes in base64, 44 characters, as"
            " 'openssl rand -base64 32' prints"
        )
    return keys


_URL_SAFE = str.maketrans("+/", "-_")


@dataclass(frozen=True)
class KeyPlace:
    """The place of the master key of a state directory's vault. Reads nothing by itself.

    :param environ: such as the process's environment.
    """

    state_dir: Path
    environ: Mapping[str, str] = field(repr=False)

    @property
    def path(self) -> Path | None:
        """The key's file; None: the environment holds the key."""
        if self.environ.get(MASTER_KEY_ENV):
            return None
        named = self.environ.get(MASTER_KEY_FILE_ENV)
        return Path(named).expanduser() if named else self.state_dir / VAULT_KEY_FILE

    @property
    def vault_path(self) -> Path:
        return self.state_dir / VAULT_FILE

    @property
    def _is_own(self) -> bool:
        """Whether the place is the state directory's file, which this program may make."""
        return not self.environ.get(MASTER_KEY_ENV) and not self.environ.get(MASTER_KEY_FILE_ENV)

    def __str__(self) -> str:
        return f"${MASTER_KEY_ENV}" if self.path is None else str(self.path)

    def read(self) -> str:
        """The place's text; empty if the state directory has no key.

        :raises SettingsError: the text is no key, or the named file does not exist.
        :raises StartError: the file cannot be read.
        """
        path = self.path
        if path is None:
            text = self.environ[MASTER_KEY_ENV]
        else:
            data = read_file(path, "the master key file")
            if data is None and self._is_own:
                return ""
            if data is None:
                raise SettingsError(f"the master key file {path}, which {MASTER_KEY_FILE_ENV} names, does not exist")
            # A strict decoder's error would hold the bytes.
            text = data.decode("ascii", "replace")
        if not split_master_key(text, str(self)):
            raise SettingsError(f"{self} holds no master key")
        return text

    def read_or_make(self) -> str:
        """The master key, made if the state directory has neither a key nor a vault.

        :raises SettingsError: as :meth:`read`; or the key of an existing vault is lost.
        :raises StartError: the file cannot be read or written.
        """
        make_state_dir(self.state_dir)
        with locked(self.vault_path):
            text = self.read()
            if text:
                return text
            if self.vault_path.exists():
                raise missing_key(self.vault_path)
            made = make_master_key()
            self.store(made)
            return made

    def store(self, text: str) -> None:
        """Replace the file's master key.

        :raises SettingsError: the key is in the environment.
        :raises StartError: the file cannot be written.
        """
        if self.path is None:
            raise SettingsError(f"the master key is in {MASTER_KEY_ENV}, which this program cannot change")
        replace_file(self.path, f"{text}\n".encode("ascii"), "the master key file")


def missing_key(vault_path: Path) -> SettingsError:
    """The error for a vault without its key."""
    return SettingsError(
        f"the vault {vault_path} has no master key: restore {VAULT_KEY_FILE}, or set {MASTER_KEY_ENV} or"
        f" {MASTER_KEY_FILE_ENV}; if the key is lost, remove {VAULT_FILE} and set the credentials again"
    )
