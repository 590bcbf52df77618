"""The pipes between the supervisor and its workers: one JSON object a line.

The supervisor writes to the worker's standard input: first a :class:`Start`, then orders. The worker writes to file
descriptor :data:`NEWS_FD`: that it is ready, and its log. The end of the input tells the worker that the supervisor has
died, so that it ends, too.
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from twisted.logger import LogEvent, eventAsJSON, eventFromJSON, formatEvent

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
"""The first socket's file descriptor; the others follow, in the order of :attr:`Start.sockets`."""

STOP = "stop"
"""Let the calls end, then end the process."""
HURRY = "hurry"
"""Hang up the remaining calls now."""
RETIRE = "retire"
"""Leave the ports to the new worker of this slot, let the calls end, then end the process."""

READY = b'{"ready": true}\n'
"""The worker listens."""


@dataclass(frozen=True)
class Start:
    """What a worker needs to start.

    :param number: 0 speaks with Asterisk's ARI; the others, from 1 on, take calls.
    :param row: the worker's row of the scoreboard.
    :param settings: by their environment names: a worker started after an upgrade may know other settings than its
        supervisor.
    :param sockets: the port names of the inherited sockets, such as ``HTTP``, in the order of the file descriptors.
    :param ports: the port numbers, by port name.
    :param ari_socket: the path of the UNIX socket of worker 0.
    :param reactor: the name of the worker's reactor.
    """

    number: int
    row: int
    settings: Mapping[str, Any] = field(repr=False)
    sockets: tuple[str, ...]
    ports: Mapping[str, int]
    ari_socket: str
    reactor: str = "asyncio"

    def line(self) -> bytes:
        """The first line to the worker. It contains secrets: it goes through a pipe, and nowhere else."""
        return base64.b64encode(pickle.dumps(self.__dict__)) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Start:
        """Reverses :meth:`line`. It unpickles: only for the supervisor's own line."""
        return cls(**pickle.loads(base64.b64decode(line)))


def order_line(order: str) -> bytes:
    """An order to a worker: :data:`STOP`, :data:`HURRY` or :data:`RETIRE`."""
    return json.dumps({"order": order}).encode() + b"\n"


def log_line(event: LogEvent) -> bytes:
    """An event of the worker's log: its formatted text, and those of its values that JSON can carry."""
    kept = {name: value for name, value in event.items() if isinstance(value, str | int | float | bool | NoneType)}
    kept |= {"log_format": "{log_text}", "log_text": formatEvent(event), "log_level": event["log_level"]}
    return json.dumps({"log": eventAsJSON(kept)}).encode() + b"\n"


def log_event(text: str) -> dict[str, Any]:
    """The event of a :func:`log_line`."""
    return dict(eventFromJSON(text))
