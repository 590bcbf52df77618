"""Counts every rejected connection, and logs a few of each kind.

A flood of connections must not become a flood of log lines, which would fill the disk and hide everything else. Each
kind gets at most one line per second for each of loopback, private and public addresses; the next line of the kind
says how many were omitted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
from twisted.logger import Logger, LogLevel

from rapida_twisted.net.addresses import address_of, kind_of

__all__ = ["RejectionLog"]

PAUSE_S = 1.0


@attrs.define
class _Kind:
    logged_s: float
    """The time of the last line."""
    omitted: int
    log: Logger


@attrs.define(eq=False, repr=False)
class RejectionLog:
    """The rejections of all ports of a server.

    :param seconds: a monotonic clock.
    """

    _seconds: Callable[[], float] = time.monotonic
    counts: Counter[str] = attrs.field(factory=Counter, init=False)
    """Rejections since the start, by name."""
    _kinds: dict[tuple[str, str], _Kind] = attrs.field(factory=dict, init=False)

    def add(self, name: str, peer: Any, log: Logger, text: str, /, level: Any = LogLevel.warn, **values: Any) -> None:
        """Count a rejection, and log it unless its kind was logged less than a second ago.

        :param name: port and cause, such as ``http.too_many``: from a fixed set, never from a peer's text.
        :param peer: the peer's address, an object of Twisted.
        :param text: the log line's format, for ``values``.
        """
        self.counts[name] += 1
        key = name, kind_of(address_of(str(getattr(peer, "host", ""))))
        now_s, kind = self._seconds(), self._kinds.get(key)
        if kind is not None and now_s - kind.logged_s < PAUSE_S:
            kind.omitted += 1
            return
        self._kinds[key] = _Kind(now_s, 0, log)
        more = f" ({kind.omitted} more of this kind since the last such line)" if kind and kind.omitted else ""
        log.emit(level, text + "{more}", more=more, **values)

    def flush(self) -> None:
        """Log how many lines of past floods were omitted. Call it periodically."""
        now_s = self._seconds()
        for (name, where), kind in list(self._kinds.items()):
            if now_s - kind.logged_s < PAUSE_S:
                continue
            del self._kinds[name, where]
            if kind.omitted:
                kind.log.warn(
                    "rejected {count} more from {where} addresses: {name}",
                    count=kind.omitted, where=where, name=name,
                )  # fmt: skip
