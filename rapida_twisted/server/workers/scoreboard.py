"""The scoreboard: counters of all processes in shared memory, for limits that hold for all together.

Each process writes into a row of its own and reads the others' rows, without locks: two processes may both take the
last place at the same moment, so that a limit is exceeded by one.
"""

from __future__ import annotations

import mmap
import os
import time

from rapida_twisted.net.bridge_states import BridgeStates
from rapida_twisted.net.shared_counter import SharedCounter
from rapida_twisted.server.role import ACCEPTING, BEAT

__all__ = ["COLUMNS", "ROWS", "Scoreboard"]

ROWS = 256
"""More than there can be processes: while workers are replaced there are twice as many."""
COLUMNS = (ACCEPTING, "calls", "HTTP", "HTTPS", "AudioSocket", "Admin", BEAT)
_CELLS_SIZE = ROWS * len(COLUMNS) * 8
_SIZE = _CELLS_SIZE + BridgeStates.SIZE


class Scoreboard:
    """The memory.

    :param fd: the memory's file descriptor, made by :meth:`make` in the supervisor.
    :param row: this process's own row.
    """

    def __init__(self, fd: int, row: int = 0) -> None:
        self.fd = fd
        self.row = row
        memory = memoryview(mmap.mmap(fd, _SIZE))
        self._cells = memory[:_CELLS_SIZE].cast("q")
        self.bridges = BridgeStates(memory[_CELLS_SIZE:])
        """See :class:`~rapida_twisted.server.role.ProcessRole`; the process that speaks ARI writes it."""

    @classmethod
    def make(cls) -> Scoreboard:
        """A new scoreboard, in no file system. The worker processes inherit its descriptor."""
        fd = os.memfd_create("rapida-media-board")
        os.ftruncate(fd, _SIZE)
        return cls(fd)

    def counter(self, name: str) -> SharedCounter:
        """The counter of a column, one of :data:`COLUMNS`; any other name gets a counter for this process alone."""
        return _Column(self._column(name), self._column(ACCEPTING), self.row) if name in COLUMNS else SharedCounter()

    def _column(self, name: str) -> memoryview:
        return self._cells[COLUMNS.index(name) :: len(COLUMNS)]

    def silent_s(self, row: int) -> float:
        """How long ago (s) a process had its last heartbeat; 0 before the first."""
        beat_ms = self._column(BEAT)[row]
        return time.monotonic() - beat_ms / 1000 if beat_ms else 0.0

    def wipe(self, row: int) -> None:
        """Clear the row of a process that has ended."""
        for cell in range(row * len(COLUMNS), (row + 1) * len(COLUMNS)):
            self._cells[cell] = 0


class _Column(SharedCounter):
    __slots__ = ("_cells", "_open", "_row")

    def __init__(self, cells: memoryview, opened: memoryview, row: int) -> None:
        self._cells = cells
        self._open = opened
        self._row = row

    def publish(self, count: int) -> None:
        self._cells[self._row] = count

    @property
    def others(self) -> int:
        return sum(self._cells) - self._cells[self._row]

    @property
    def surplus(self) -> int:
        mine = self._cells[self._row]
        return mine - min(
            (count for count, opened in zip(self._cells, self._open, strict=True) if opened), default=mine
        )
