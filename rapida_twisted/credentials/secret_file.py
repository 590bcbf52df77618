"""Small secret files: written whole or not at all, for their owner alone, by one writer at a time."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rapida_twisted.errors import StartError

__all__ = ["locked", "read_file", "replace_file"]

LARGEST_BYTES = 4 * 1024 * 1024
LOCK_WAIT_S = 10.0
LOCK_POLL_S = 0.02


def read_file(path: Path, what: str) -> bytes | None:
    """What a file holds; None if there is no such file.

    :param what: what it is, for the error's text.
    :raises StartError: it can't be read, or is too large to be what it should be.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"{what} {path} can't be read: {error.strerror}") from None
    if len(data) > LARGEST_BYTES:
        raise StartError(f"{what} {path} is damaged: it is larger than it can be")
    return data


def replace_file(path: Path, data: bytes, what: str) -> None:
    """Put a file in the place of the one that may be there. After a crash there is the old one or the new one, whole.

    :raises StartError: it can't be written; the old one is unchanged.
    """
    path = path.resolve()
    try:
        temporary = _temporary(path, data)
        try:
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise StartError(f"{what} {path} can't be written: {error.strerror}") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only one who changes a file, among all who do so in here. Readers need no lock.

    The lock is on a file beside it, since the file itself is replaced by each change.

    :raises StartError: the lock can't be had; another writer is waited for, for a while.
    """
    beside = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"{beside} can't be opened: {error.strerror}") from None
    try:
        _give_to_owner(descriptor, beside.parent)
        give_up_s = time.monotonic() + LOCK_WAIT_S
        while not _try_lock(descriptor):
            if time.monotonic() >= give_up_s:
                raise StartError(f"another program has had {path} locked for {LOCK_WAIT_S:g} s")
            time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _temporary(path: Path, data: bytes) -> str:
    """A file beside it that holds the data, 0600, safely on the disk."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _give_to_owner(file.fileno(), path.parent)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(name)
        raise
    return name


def _give_to_owner(descriptor: int, directory: Path) -> None:
    """What root makes belongs to the directory's owner: else the server, which is not root, could not read it."""
    if os.geteuid() == 0:
        owner = os.stat(directory)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
