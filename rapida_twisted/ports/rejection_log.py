"""What is told of strangers who are refused: every one is counted, and few make a line in the log.

A flood of connections must not become a flood of lines, which fills the disk and hides all else. So of each kind there
is one line a second at the most, for each of loopback, private and public addresses, and the next line says how many
there were between.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger, LogLevel

from rapida_twisted.net.limits import Refused, address_of, kind_of

__all__ = ["RejectionLog"]

PAUSE_S = 1.0


@dataclass
class _Kind:
    told_s: float
    """When the last line was."""
    left_out: int
    log: Logger


class RejectionLog:
    """Counts and tells. One for a whole server, whatever its ports.

    :param seconds: a clock that never goes back.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self.counts: Refused = Refused()
        """How often what was refused since the start, by name."""
        self._seconds = seconds
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def add(self, name: str, peer: Any, log: Logger, text: str, /, level: Any = LogLevel.warn, **values: Any) -> None:
        """Something was refused.

        :param name: where and why, such as ``http.too_many``: one of a few dozens, never made of what a stranger sent.
        :param peer: their address, as Twisted has it.
        :param log: where the line goes, if there is one.
        :param text: the line, in the logger's format, for ``values``.
        :param level: its level.
        """
        self.counts[name] += 1
        key = name, kind_of(address_of(str(getattr(peer, "host", ""))))
        now_s, kind = self._seconds(), self._kinds.get(key)
        if kind is not None and now_s - kind.told_s < PAUSE_S:
            kind.left_out += 1
            return
        self._kinds[key] = _Kind(now_s, 0, log)
        more = f" ({kind.left_out} more of this kind since the last such line)" if kind and kind.left_out else ""
        log.emit(level, text + "{more}", more=more, **values)

    def flush(self) -> None:
        """Tell how many lines were left out by floods that are over. To be called from time to time."""
        now_s = self._seconds()
        for (name, where), kind in list(self._kinds.items()):
            if now_s - kind.told_s < PAUSE_S:
                continue
            del self._kinds[name, where]
            if kind.left_out:
                kind.log.warn(
                    "{count} more were refused from {where} addresses: {name}",
                    count=kind.left_out, where=where, name=name,
                )  # fmt: skip
