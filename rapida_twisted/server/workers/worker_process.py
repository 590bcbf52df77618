"""A worker process, as the supervisor sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol, connectionDone
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure

from rapida_twisted.server.workers.control_pipe import NEWS_FD, READY, log_event, order_line

__all__ = ["WorkerProcess"]

LONGEST_LINE = 1 << 20
LAST_WORDS_S = 1.0
"""How long (s) to read the output of a process that has ended."""


class WorkerProcess(ProcessProtocol):
    """The pipes and the end of a worker process.

    :param name: the worker's name in the log.
    :param row: its row of the scoreboard.
    :param first_line: written to it at once.
    :param is_ready: called when it listens.
    :param reactor: provides IReactorTime.
    """

    _log = Logger()
    transport: Any

    def __init__(self, name: str, row: int, first_line: bytes, is_ready: Callable[[], None], reactor: Any) -> None:
        self.name = name
        self.row = row
        self.pid = 0
        self._first_line = first_line
        self._is_ready = is_ready
        self._reactor = reactor
        self._ended: list[Deferred[str]] = []
        self._how = ""
        self._news = b""
        self._said = b""

    def connectionMade(self) -> None:
        self.pid = self.transport.pid
        self.transport.write(self._first_line)

    def order(self, order: str) -> None:
        """Send it an order: see :mod:`~rapida_twisted.server.workers.control_pipe`."""
        self.transport.write(order_line(order))

    def kill(self) -> None:
        """End it at once."""
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            pass

    def when_ended(self) -> Deferred[str]:
        """Fires when it has ended and its output is read, with a description of how it ended."""
        ended: Deferred[str] = Deferred()
        if self._how:
            ended.callback(self._how)
        else:
            self._ended.append(ended)
        return ended

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N802, N803
        if childFD == NEWS_FD:
            *lines, self._news = (self._news + data)[-LONGEST_LINE:].split(b"\n")
            for line in lines:
                self._line_received(line)
        else:
            *lines, self._said = (self._said + data)[-LONGEST_LINE:].split(b"\n")
            for line in lines:
                self._log.warn("{worker} wrote: {text}", worker=self.name, text=line.decode("utf-8", "replace"))

    def _line_received(self, line: bytes) -> None:
        if line + b"\n" == READY:
            self._is_ready()
            return
        try:
            event = log_event(json.loads(line)["log"])
        except (ValueError, LookupError, TypeError):
            self._log.warn("{worker} wrote: {text}", worker=self.name, text=line.decode("utf-8", "replace"))
            return
        level = getattr(event.get("log_level"), "name", "info")
        event["log_system"] = f"{self.name} {event.get('log_namespace', '-')}#{level}"
        globalLogPublisher(event)

    def processExited(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Close the pipes soon: a process that the worker started may hold them open."""
        self._reactor.callLater(LAST_WORDS_S, self._close_pipes)

    def _close_pipes(self) -> None:
        for file in list(self.transport.pipes):
            self.transport.closeChildFD(file)

    def processEnded(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        self._how = "in order" if reason.check(ProcessDone) else str(reason.value).rstrip(".")
        ended, self._ended = self._ended, []
        for each in ended:
            each.callback(self._how)
