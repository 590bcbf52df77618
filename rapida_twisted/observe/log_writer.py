"""Writes log lines in a thread: a log whose reader is slow, such as a full pipe, must not stop calls.

Between the reactor's start and its end lines go through a bounded queue::

    reactor's thread --> queue, at most 4 MB --> thread --> stdout, file, syslog
                           full: dropped and counted

Before and after, they are written at once: twistd logs before it forks, and threads do not survive a fork.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

__all__ = ["LogWriter"]

QUEUE_CHARACTERS = 4_000_000
STOP_S = 5.0
"""How long to wait at the end for a reader that does not read."""

Item = str | Callable[[], object]


class LogWriter:
    """A bounded queue of lines, and the thread that writes them.

    :param write: writes lines. May block.
    :param dropped_line: makes the line about lines that were dropped.
    """

    def __init__(self, write: Callable[[Sequence[str]], object], dropped_line: Callable[[int], str]) -> None:
        self.dropped = 0
        """Lines, since the start."""
        self._write = write
        self._dropped_line = dropped_line
        self._changed = threading.Condition()
        self._items: list[Item] = []
        self._characters = 0
        self._told = 0
        """How many of the dropped lines a line has told of."""
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._is_stuck = False

    def add(self, item: Item) -> None:
        """Write a line, or call a function in the order of the lines."""
        with self._changed:
            if self._thread is not None or self._is_stuck:
                self._queue(item)
                return
        self._process([item])

    def start(self) -> None:
        """Use a thread from now on. Called when the reactor runs."""
        with self._changed:
            self._is_stopping = False
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued, and then at once what comes. Drops it if the reader does not read for 5 s."""
        thread = self._thread
        if thread is None:
            return
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        thread.join(STOP_S)
        with self._changed:
            self._is_stuck = thread.is_alive()
            self._thread = None
            # Added by other threads after the last was written.
            items, self._items = self._items, []
        if items and not self._is_stuck:
            self._process(items)

    def _queue(self, item: Item) -> None:
        size = len(item) if isinstance(item, str) else 0
        if self._is_stuck or self._characters + size > QUEUE_CHARACTERS:
            self.dropped += 1
            return
        self._items.append(item)
        self._characters += size
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._items and not self._is_stopping:
                    self._changed.wait()
                items, self._items, self._characters = self._items, [], 0
            if not items:
                return
            self._process(items)

    def _process(self, items: Sequence[Item]) -> None:
        for is_call, group in groupby(items, callable):
            some: list[Any] = list(group)
            try:
                if is_call:
                    for call in some:
                        call()
                else:
                    self._write(some)
            except Exception:  # A full disk, a closed pipe: there is nowhere to report it.
                self.dropped += len(some)
                return
        if self.dropped > self._told:
            told, self._told = self._told, self.dropped
            self._process([self._dropped_line(self.dropped - told)])
