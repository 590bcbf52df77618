"""The vault's master key: what it looks like, and where it is kept.

It is looked for in the environment (``VAULT__MASTER_KEY``), then in the file that ``VAULT__MASTER_KEY_FILE`` names,
then in ``vault-key`` in the state directory, which is made when the first credential is put into the vault.

Where a key stands there may be several, with commas or white space between them: the first one encrypts, all of them
decrypt. So a key can be changed without a moment at which the vault can't be opened.
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
    """A new one: 32 random bytes in URL-safe base64."""
    return Fernet.generate_key().decode("ascii")


def split_master_key(text: str, where: str = "the master key") -> tuple[str, ...]:
    """The keys that a text holds, the one that encrypts first; none for an empty one.

    :param where: what the text is, for the error's text, in which no key is.
    :raises SettingsError: it holds something else.
    """
    words = [word for word in re.split(r"[\s,]+", text) if word]
    keys = tuple(word.translate(_URL_SAFE) for word in words)
    keep_out_of_logs(*words, *keys)
    if not all(_KEY.fullmatch(key) for key in keys):
        raise SettingsError(
            f"{where} is no master key: one is 32 random bytes in base64, 44 characters, as"
            " 'openssl rand -base64 32' prints"
        )
    return keys


_URL_SAFE = str.maketrans("+/", "-_")


@dataclass(frozen=True)
class KeyPlace:
    """Where the master key of a state directory's vault is. Nothing is read until it is asked for.

    :param state_dir: the state directory, in which the vault is.
    :param environ: words such as the process's environment.
    """

    state_dir: Path
    environ: Mapping[str, str] = field(repr=False)

    @property
    def path(self) -> Path | None:
        """The file that it is in; None: it is in the environment."""
        if self.environ.get(MASTER_KEY_ENV):
            return None
        named = self.environ.get(MASTER_KEY_FILE_ENV)
        return Path(named).expanduser() if named else self.state_dir / VAULT_KEY_FILE

    @property
    def vault_path(self) -> Path:
        """The vault that it belongs to."""
        return self.state_dir / VAULT_FILE

    @property
    def _is_own(self) -> bool:
        """Whether it is the file of the state directory, which we may make."""
        return not self.environ.get(MASTER_KEY_ENV) and not self.environ.get(MASTER_KEY_FILE_ENV)

    def __str__(self) -> str:
        return f"${MASTER_KEY_ENV}" if self.path is None else str(self.path)

    def read(self) -> str:
        """The master key, as it stands there; empty if there is none in the state directory.

        :raises SettingsError: there is something else, or the named file is not there.
        :raises StartError: the file can't be read.
        """
        path = self.path
        if path is None:
            text = self.environ[MASTER_KEY_ENV]
        else:
            data = read_file(path, "the master key file")
            if data is None and self._is_own:
                return ""
            if data is None:
                raise SettingsError(f"the master key file {path}, which {MASTER_KEY_FILE_ENV} names, is not there")
            # No key has such characters, and no error may have them.
            text = data.decode("ascii", "replace")
        if not split_master_key(text, str(self)):
            raise SettingsError(f"{self} holds no master key")
        return text

    def read_or_make(self) -> str:
        """The master key; it is made if there is neither one in the state directory nor a vault that needs one.

        :raises SettingsError: as :meth:`read`; or there is a vault, and its key is lost.
        :raises StartError: it can't be read or written.
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
        """Keep a master key in the file, in the place of the one that is there.

        :raises SettingsError: it is in the environment, which can't be changed from here.
        :raises StartError: the file can't be written.
        """
        if self.path is None:
            raise SettingsError(f"the master key is in {MASTER_KEY_ENV}, which can't be changed from here")
        replace_file(self.path, f"{text}\n".encode("ascii"), "the master key file")


def missing_key(vault_path: Path) -> SettingsError:
    """The error that a vault is there, and its key is not."""
    return SettingsError(
        f"the vault {vault_path} is there, but its master key is not: bring {VAULT_KEY_FILE} back, or set"
        f" {MASTER_KEY_ENV} or {MASTER_KEY_FILE_ENV}; if it is lost, remove {VAULT_FILE} and set the credentials anew"
    )
