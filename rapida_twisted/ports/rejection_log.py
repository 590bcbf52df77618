"""Counts every rejected connection, and logs a few of each kind.

A flood of connections must not become a flood of log lines, which would fill the disk and hide everything else. Each
kind gets three lines, and then one every 20 seconds, for each of loopback, private and public addresses; the next line
of the kind says how many were omitted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
from twisted.logger import Logger, LogLevel

from rapida_twisted.net.addresses import address_of, kind_of
from rapida_twisted.net.token_bucket import TokenBucket

__all__ = ["RejectionLog"]

BURST = 3
PAUSE_S = 20.0


@attrs.define
class _Kind:
    bucket: TokenBucket
    log: Logger
    seen_s: float
    omitted: int = 0


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
        :param text: the log line's format, for ``values``; a value may be a function that is called if the line is
            written.
        """
        self.counts[name] += 1
        self.tell(name, peer, log, text, level, **values)

    def tell(self, name: str, peer: Any, log: Logger, text: str, /, level: Any = LogLevel.info, **values: Any) -> None:
        """Log what a stranger caused, unless much of its kind was logged just now. See :meth:`add`."""
        key = name, kind_of(address_of(str(getattr(peer, "host", ""))))
        now_s = self._seconds()
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(TokenBucket(1 / PAUSE_S, now_s, BURST), log, now_s)
        kind.seen_s = now_s
        if not kind.bucket.take(now_s):
            kind.omitted += 1
            return
        more = f" ({kind.omitted} more of this kind since the last such line)" if kind.omitted else ""
        kind.omitted = 0
        values = {name: value() if callable(value) else value for name, value in values.items()}
        log.emit(level, text + "{more}", more=more, **values)

    def flush(self) -> None:
        """Log how many lines of past floods were omitted. Call it periodically."""
        now_s = self._seconds()
        for (name, where), kind in list(self._kinds.items()):
            if kind.omitted and kind.bucket.take(now_s):
                kind.log.warn(
                    "rejected {count} more from {where} addresses: {name}",
                    count=kind.omitted, where=where, name=name,
                )  # fmt: skip
                kind.omitted = 0
            elif now_s - kind.seen_s > BURST * PAUSE_S:
                del self._kinds[name, where]
