"""Tells systemd that the server is ready, that it is alive, and that it stops (``sd_notify``)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

__all__ = ["SystemdNotifier"]


class SystemdNotifier:
    """Does nothing unless systemd started this process with ``Type=notify``.

    With ``WatchdogSec`` in the unit, systemd restarts a process whose reactor is blocked for that long.

    :param reactor: provides IReactorTime.
    """

    _log = Logger()

    def __init__(self, reactor: Any, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            # An abstract address.
            self._address = "\0" + self._address[1:]
        self._watchdog_s = _watchdog_s(environ)
        self._loop = LoopingCall(self._send, "WATCHDOG=1")
        self._loop.clock = reactor

    def ready(self) -> None:
        """The server listens. Called once."""
        self._send("READY=1")
        if self._watchdog_s and self._address:
            self._loop.start(self._watchdog_s / 3)

    def stopping(self) -> None:
        """The server stops; it stays alive until its calls have ended."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sending:
                sending.sendto(state.encode(), self._address)
        except OSError as error:
            self._log.warn("systemd did not take {state}: {error}", state=state, error=str(error))


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """``WatchdogSec``, if it is for this process; else 0 (sd_watchdog_enabled(3))."""
    try:
        usec, pid = int(environ.get("WATCHDOG_USEC", 0)), int(environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return 0.0
    return usec / 1e6 if pid == os.getpid() else 0.0
