"""Small secret files: replaced atomically, readable by their owner only, written under a lock."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rapida_twisted.errors import StartError

__all__ = ["file_stamp", "locked", "read_file", "replace_file"]

LARGEST_BYTES = 4 * 1024 * 1024
LOCK_WAIT_S = 10.0
LOCK_POLL_S = 0.02


def file_stamp(path: Path) -> tuple[int, ...]:
    """Changes with the file: its identity, times and size, or the number of the error that keeps it from being read."""
    try:
        status = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def read_file(path: Path, what: str) -> bytes | None:
    """The file's content, or None if it does not exist.

    :param what: names the file in errors.
    :raises StartError: it can't be read or is too large.
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
    """Replace a file atomically: after a crash there is either the old or the new one.

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
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StartError(f"{what} {path} can't be written: {error.strerror}") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the writers' lock of a file. Readers need none.

    The lock is on a second file, since each change replaces the first.

    :raises StartError: another writer holds the lock for 10 s.
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
    """A file with the data in the same directory, mode 0600, synced to the disk."""
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
    """Root gives the file to the directory's owner: the server does not run as root."""
    if os.geteuid() == 0:
        owner = os.stat(directory)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
