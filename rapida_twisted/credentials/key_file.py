"""The API key that the server makes at its first start and keeps in the state directory."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from rapida_twisted.errors import StartError

__all__ = ["KEY_FILE", "is_open_to_others", "load_or_make_key", "make_state_dir"]

KEY_FILE = "api-key"


def make_state_dir(path: Path) -> None:
    """Make the state directory, mode 0700, if it does not exist.

    :raises StartError: it can't be made or written to, or every user of the machine can write to it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"the state directory {path} can't be made: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise StartError(f"the state directory {path} can't be written to by this user")
    if path.stat().st_mode & stat.S_IWOTH:
        raise StartError(f"every user can write to the state directory {path}, with its API keys: chmod 700 {path}")


def is_open_to_others(state_dir: Path) -> bool:
    """Whether other users may enter or write to the state directory, which has calls, recordings and keys."""
    return bool(state_dir.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP))


def load_or_make_key(state_dir: Path) -> tuple[str, bool]:
    """The API key in the state directory, and whether this call made it.

    :raises StartError: the file can't be read or written, or is empty.
    """
    path = state_dir / KEY_FILE
    try:
        return _read_key(path), False
    except FileNotFoundError:
        key = "rpd-" + secrets.token_urlsafe(24)
    try:
        return (key, True) if _write_once(path, key + "\n") else (_read_key(path), False)
    except OSError as error:
        raise StartError(f"the API key can't be kept in {path}: {error.strerror}") from None


def _write_once(path: Path, text: str) -> bool:
    """Make a file atomically; False if another process made it first."""
    draft = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _read_key(path: Path) -> str:
    try:
        key = path.read_text("ascii").strip()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StartError(f"the API key in {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"the API key in {path} can't be read: it is no text") from None
    if not key:
        raise StartError(f"the API key file {path} is empty; remove it, and a new key is made")
    return key
