"""The marks of one chan_websocket channel, and what to do where the peer answers none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

__all__ = ["MARGIN_S", "Marks"]

MARGIN_S = 3.0
"""How much later than expected the first mark may be answered before the peer counts as one without marks."""


class Marks:
    """Calls back when the peer has played the audio before each mark.

    A peer older than Asterisk 20.18, 22.8 and 23.2 knows no MARK_MEDIA, and answers none. Once the first mark of a call
    is overdue, the marks are reached when the audio before them should have been played, by its length. An answer ends
    that.

    :param send: sends MARK_MEDIA with this correlation id.
    :param reactor: provides IReactorTime.
    :param missing: called once, when the peer counts as one without marks.
    """

    def __init__(self, send: Callable[[str], None], reactor: Any, missing: Callable[[], None]) -> None:
        self._send = send
        self._reactor = reactor
        self._missing = missing
        self._made = 0
        self._waiting: dict[str, tuple[Callable[[], None], float]] = {}
        """The callbacks, and when the audio before each mark should have been played (reactor's time)."""
        self._answered = False
        self._estimated = False
        self._played_at_s = 0.0
        """When the audio sent so far should have been played."""
        self._timer: IDelayedCall | None = None

    def sent(self, ms: float) -> None:
        """Audio of this length was sent."""
        if not self._answered:
            self._played_at_s = max(self._played_at_s, self._reactor.seconds()) + ms / 1000

    def add(self, reached: Callable[[], None]) -> None:
        """Set a mark behind the audio sent so far."""
        self._made += 1
        name = str(self._made)
        self._waiting[name] = reached, self._played_at_s
        self._send(name)
        if not self._answered and self._timer is None:
            self._set_timer()

    def processed(self, name: str) -> None:
        """The peer answered a mark."""
        self._answered, self._estimated = True, False
        self._cancel()
        waiting = self._waiting.pop(name, None)
        if waiting is not None:
            waiting[0]()

    def clear(self) -> None:
        """The peer dropped its audio, with the marks in it."""
        self._waiting.clear()
        self._played_at_s = 0.0
        self._cancel()

    def _set_timer(self) -> None:
        if self._waiting:
            _, played_at_s = next(iter(self._waiting.values()))
            wait_s = max(0.0, played_at_s - self._reactor.seconds())
            self._timer = self._reactor.callLater(wait_s + (0.0 if self._estimated else MARGIN_S), self._overdue)

    def _overdue(self) -> None:
        self._timer = None
        if not self._estimated:
            self._estimated = True
            self._missing()
        now_s = self._reactor.seconds()
        for name, (reached, played_at_s) in list(self._waiting.items()):
            # A callback may have cleared the marks.
            if played_at_s <= now_s and self._waiting.pop(name, None):
                reached()
        if self._timer is None:
            self._set_timer()

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
