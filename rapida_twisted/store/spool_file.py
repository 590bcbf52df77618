"""A file of entries that wait for the store; it survives the process.

Each process locks a file of its own. A file without a lock belongs to a dead process: the next process that starts
takes its entries over.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

__all__ = ["MOST_ENTRIES", "SpoolFile", "SpoolFull"]

MOST_ENTRIES = 100_000
SAVED_TOGETHER = 100
_ENDING = ".jsonl"


class SpoolFull(Exception):
    """Too many entries wait."""


class SpoolFile:
    """A queue of entries, each a mapping that JSON can hold.

    :param directory: where the files of all processes of this machine are.
    :param owner: the name of this process.
    :param in_thread: runs a function off the reactor, such as ``deferToThreadPool`` with its pool.
    """

    _log = Logger()

    def __init__(self, directory: Path, owner: str, in_thread: Callable[..., Deferred[Any]]) -> None:
        self.path = directory / f"{owner}{_ENDING}"
        self.entries: deque[Mapping[str, Any]] = deque()
        self.unsaved: list[Mapping[str, Any]] = []
        """Entries in memory alone: the disk is full, for example."""
        self._in_thread = in_thread
        self._fd = -1
        self._syncing: Deferred[Any] | None = None
        self._sync_again = False

    def open(self) -> list[str]:
        """Make the file and take over the entries of dead processes; returns their names.

        :raises OSError: the directory can't be written to.
        """
        directory = self.path.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        left = [(path, fd) for path in sorted(directory.glob(f"*{_ENDING}")) if (fd := _locked(path)) is not None]
        # Renamed once it is locked: else a process that starts just now would take it over.
        new = self.path.with_suffix(".new")
        self._fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(self.path)
        for path, fd in left:
            with os.fdopen(fd, "rb") as file:
                self.entries.extend(self._read(file.read(), path))
                self._write(self.entries)
                path.unlink()
        return [path.name.removesuffix(_ENDING) for path, _ in left]

    def append(self, entry: Mapping[str, Any]) -> None:
        """Keep an entry. It is in the file when this returns, and synced soon after.

        :raises SpoolFull: too many entries wait; this one is not kept.
        :raises OSError: it is in memory alone until :meth:`save` succeeds.
        """
        if len(self.entries) >= MOST_ENTRIES:
            raise SpoolFull
        self.entries.append(entry)
        self.unsaved.append(entry)
        self.save()

    def save(self) -> None:
        """Write the entries that are in memory alone.

        :raises OSError: some of them still are.
        """
        while self.unsaved:
            end = os.lseek(self._fd, 0, os.SEEK_END)
            lines = b"".join(map(_line, self.unsaved[:SAVED_TOGETHER]))
            try:
                if os.write(self._fd, lines) < len(lines):
                    raise OSError("the disk is full")
            except OSError:
                os.ftruncate(self._fd, end)
                raise
            del self.unsaved[:SAVED_TOGETHER]
            self._sync()

    def settled(self, entries: list[Mapping[str, Any]]) -> None:
        """Remove delivered entries. The file is truncated when none is left.

        After a crash, entries that the file still has are delivered again.
        """
        gone = {id(entry) for entry in entries}
        self.unsaved = [entry for entry in self.unsaved if id(entry) not in gone]
        kept = []
        while gone:
            entry = self.entries.popleft()
            if id(entry) in gone:
                gone.remove(id(entry))
            else:
                kept.append(entry)
        self.entries.extendleft(reversed(kept))
        if not self.entries:
            os.ftruncate(self._fd, 0)

    def close(self) -> Deferred[Any]:
        """Close the file, and remove it if there is nothing in it."""
        if self._fd < 0:
            return succeed(None)
        self._sync_again = False
        return (self._syncing or succeed(None)).addCallback(self._close)

    def _close(self, _: Any) -> None:
        fd, self._fd = self._fd, -1
        if not self.entries:
            self.path.unlink(missing_ok=True)
        os.close(fd)

    def _write(self, entries: deque[Mapping[str, Any]]) -> None:
        """Rewrite the file and sync it."""
        os.ftruncate(self._fd, 0)
        with os.fdopen(os.dup(self._fd), "wb") as file:
            file.writelines(map(_line, entries))
        os.fsync(self._fd)

    def _read(self, data: bytes, path: Path) -> list[Mapping[str, Any]]:
        entries: list[Mapping[str, Any]] = []
        # A last line without its newline was not written completely.
        for line in data.split(b"\n")[:-1]:
            try:
                entry = json.loads(line)
                entries.append({**entry, "id": str(entry["id"]), "do": str(entry["do"])})
            except (ValueError, TypeError, KeyError):
                self._log.error("{path}: skipped an unreadable line", path=path)
        return entries

    def _sync(self) -> None:
        """Sync off the reactor's thread; one sync serves all entries that come meanwhile."""
        if self._syncing is not None:
            self._sync_again = True
            return
        self._sync_again = False
        self._syncing = self._in_thread(os.fdatasync, self._fd)
        self._syncing.addErrback(lambda failure: self._log.failure("{path} can't be synced", failure, path=self.path))
        self._syncing.addCallback(self._synced)

    def _synced(self, _: Any) -> None:
        self._syncing = None
        if self._sync_again:
            self._sync()


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _locked(path: Path) -> int | None:
    """The file, opened and locked, unless another process holds it or it is gone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(fd).st_ino:
            return fd
    except OSError:
        pass
    os.close(fd)
    return None
