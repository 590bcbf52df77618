"""What a parent and its workers say to each other: one JSON object a line, on pipes.

The parent writes to the worker's standard input: first a :class:`Start`, then orders. The worker writes to file
descriptor :data:`NEWS_FD`: that it is ready, and its log. The end of the input tells that the parent is gone, so that
no worker outlives it for long.
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any

from twisted.logger import LogEvent, eventAsJSON, eventFromJSON, formatEvent

from rapida_twisted.settings import Settings

__all__ = [
    "BOARD_FD",
    "FIRST_SOCKET_FD",
    "HURRY",
    "NEWS_FD",
    "READY",
    "RETIRE",
    "STOP",
    "Start",
    "log_event",
    "log_line",
    "order_line",
]

NEWS_FD = 3
BOARD_FD = 4
FIRST_SOCKET_FD = 5
"""The sockets come from here on, in the order of :attr:`Start.sockets`."""

STOP = "stop"
"""Let the calls end, and end."""
HURRY = "hurry"
"""Do so now."""
RETIRE = "retire"
"""Another worker has come in this one's place: leave it the ports, let the calls end, and end."""

READY = b'{"ready": true}\n'
"""A worker listens."""


@dataclass(frozen=True)
class Start:
    """What a worker is to be.

    :param number: 0 speaks with Asterisk's ARI; the others, from 1 on, take calls.
    :param row: its own of the board.
    :param sockets: what listens on the inherited sockets, such as ``HTTP``, in the order of the file descriptors.
    :param ports: where all that listens can be reached.
    :param ari_socket: the path of the UNIX socket of worker 0.
    """

    number: int
    row: int
    settings: Settings
    sockets: tuple[str, ...]
    ports: Mapping[str, int]
    ari_socket: str

    def line(self) -> bytes:
        """As the first line. It holds the secrets of the settings: it goes through a pipe, and nowhere else."""
        # By their names: a worker that is started after an upgrade may know others than its parent.
        settings = {field.name: getattr(self.settings, field.name) for field in fields(self.settings)}
        words = {**self.__dict__, "settings": settings}
        return base64.b64encode(pickle.dumps(words)) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Start:
        """What :meth:`line` made. Only for what one's own parent wrote."""
        words = pickle.loads(base64.b64decode(line))
        known = {field.name for field in fields(Settings)}
        settings = Settings(**{name: value for name, value in words.pop("settings").items() if name in known})
        return cls(settings=settings, **words)


def order_line(word: str) -> bytes:
    """An order to a worker: :data:`STOP`, :data:`HURRY` or :data:`RETIRE`."""
    return json.dumps({"order": word}).encode() + b"\n"


def log_line(event: LogEvent) -> bytes:
    """An event of the worker's log: its words, as they are there, and what of it JSON can carry."""
    kept = {name: value for name, value in event.items() if isinstance(value, str | int | float | bool | NoneType)}
    kept |= {"log_format": "{log_text}", "log_text": formatEvent(event), "log_level": event["log_level"]}
    return json.dumps({"log": eventAsJSON(kept)}).encode() + b"\n"


def log_event(text: str) -> dict[str, Any]:
    """The event that :func:`log_line` was made of."""
    return dict(eventFromJSON(text))
