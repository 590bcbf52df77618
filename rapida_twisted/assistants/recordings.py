"""The folder of recordings: files that are written in a thread, and the limits of their age, size and disk.

A call's audio goes to the thread in parts of half a second, since a disk may take seconds for a write. If the disk is
full, or too slow, the recording ends there and its call goes on.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from rapida_twisted.audio.wav import WavWriter
from rapida_twisted.settings.groups import RecordingSettings

__all__ = ["RecordingFile", "RecordingsFolder", "WriterThread", "recordings_dir"]

GB = 1_000_000_000
MAX_WAITING = 2000
"""Maximum parts that wait for the thread: at 8 kHz 32 MB, or with 100 recordings 10 s of a disk that stands still."""
JOIN_S = 5.0
"""How long (s) a stopping server waits for a disk that stands still."""
JUST_WRITTEN_S = 10.0
"""A file that was written to within this time may be a recording that goes on."""

_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.wav")


def recordings_dir(settings: RecordingSettings, state_dir: Path) -> Path:
    """The folder that the settings name, or the one in the state directory."""
    return Path(settings.dir).expanduser() if settings.dir else state_dir / "recordings"


class RecordingFile:
    """A stereo WAV file. Used in the writer's thread alone; all methods may raise OSError.

    :param path: its folder is made if it is not there.
    :param reserve_bytes: the disk must keep this many free.
    """

    def __init__(self, path: Path, rate_hz: int, reserve_bytes: float = 0) -> None:
        self._path = path
        self._rate_hz = rate_hz
        self._reserve_bytes = reserve_bytes
        self._file: WavWriter | None = None

    def open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_reserve()
        self._file = WavWriter(self._path, self._rate_hz, channels=2)

    def write(self, left: bytes, right: bytes) -> None:
        """Append both sides, which are of the same length. Does nothing to a file that could not be opened."""
        if self._file is not None:
            self._check_reserve()
            sides = np.stack([np.frombuffer(side, "<i2") for side in (left, right)], axis=1)
            self._file.write(sides.tobytes())

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _check_reserve(self) -> None:
        disk = os.statvfs(self._path.parent)
        free = disk.f_bavail * disk.f_frsize
        if free < self._reserve_bytes:
            raise OSError(
                errno.ENOSPC,
                f"the disk has {free / GB:.2f} GB free, and RECORDINGS__RESERVE_GB keeps {self._reserve_bytes / GB:g}",
            )


class WriterThread:
    """Runs work, one piece after the other, in a thread that the first one starts.

    :param reactor: without threads of its own, as in tests, the work is done at once.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._has_threads = IReactorFromThreads.providedBy(reactor)
        self._queue: SimpleQueue[tuple[Callable[[], None], Callable[[Exception], None]] | None] = SimpleQueue()
        self._thread: Thread | None = None

    def submit(self, work: Callable[[], None], failed: Callable[[Exception], None], *, always: bool = False) -> None:
        """Do it soon.

        :param failed: called in the reactor's thread with what the work raised.
        :param always: also when too much waits.
        """
        if not self._has_threads:
            try:
                work()
            except Exception as error:
                failed(error)
            return
        if self._queue.qsize() >= MAX_WAITING and not always:
            failed(OSError(errno.EAGAIN, "the disk is too slow"))
            return
        if self._thread is None:
            # Daemonic: a disk that stands still must not keep the process from ending.
            self._thread = Thread(target=self._run, name="recordings", daemon=True)
            self._thread.start()
        self._queue.put((work, failed))

    async def close(self) -> None:
        """Finish the work that waits, for at most JOIN_S."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            await deferToThread(thread.join, JOIN_S)
            if thread.is_alive():
                self._log.error("recordings are lost: their disk stands still")

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, failed = item
            try:
                work()
            except Exception as error:
                self._reactor.callFromThread(failed, error)


class RecordingsFolder:
    """Deletes old recordings.

    :param keep_s: maximum age (s) since the recording's end; 0: none.
    :param max_bytes: maximum size of all, beyond which the oldest go; 0: none.
    :param now: wall-clock time (UNIX s).
    """

    _log = Logger()

    def __init__(self, path: Path, keep_s: float, max_bytes: float, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._now = now

    @property
    def is_limited(self) -> bool:
        return bool(self._keep_s or self._max_bytes)

    def tidy(self) -> None:
        """Delete what is too old, and the oldest of what is too much. Blocks; called each minute, in a thread."""
        now_s, total = self._now(), 0
        found = sorted(self._found(), key=lambda each: each[0], reverse=True)
        deleted = 0
        for ended_s, size, path in found:
            total += size
            too_old = self._keep_s and now_s - ended_s > self._keep_s
            too_much = self._max_bytes and total > self._max_bytes
            if (too_old or too_much) and now_s - ended_s > JUST_WRITTEN_S:
                path.unlink(missing_ok=True)
                deleted += 1
        if deleted:
            self._log.info("deleted {count} recordings: RECORDINGS__KEEP_S, RECORDINGS__MAX_GB", count=deleted)

    def _found(self) -> list[tuple[float, int, Path]]:
        """Time of the last write, size and path of each recording. Other files in the folder are not ours."""
        found = []
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        found.append((status.st_mtime, status.st_blocks * 512, Path(entry.path)))
        except FileNotFoundError:
            pass  # The folder is made by the first recording; another process deletes, too.
        return found
