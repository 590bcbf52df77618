"""A worker process: ``python -m rapida_twisted.server.workers.worker``. Only the supervisor starts it."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import threading
from typing import Any

from twisted.application.reactors import installReactor
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.credentials.masking import masked
from rapida_twisted.errors import SettingsError, StartError
from rapida_twisted.observe.logs import MaskingObserver
from rapida_twisted.server.build import make_worker
from rapida_twisted.server.monotonic import use_monotonic_time
from rapida_twisted.server.role import ProcessRole
from rapida_twisted.server.workers.control_pipe import (
    BOARD_FD,
    FIRST_SOCKET_FD,
    HURRY,
    NEWS_FD,
    READY,
    RETIRE,
    STOP,
    Start,
    log_line,
)
from rapida_twisted.server.workers.scoreboard import Scoreboard

__all__ = ["main"]

TRY_AGAIN_S = 0.1
_ORPHANED = "orphaned"
"""The order that the end of the supervisor's pipe stands for."""


@implementer(ILogObserver)
class News:
    """Writes whole lines to the supervisor's pipe. While the supervisor does not read, the log has gaps: calls do not
    wait for it.

    :param file: the pipe's descriptor.
    """

    def __init__(self, file: int) -> None:
        os.set_blocking(file, False)
        self._file = file
        self._rest = b""
        self._lost = 0
        self._writing = threading.RLock()
        """Threads log, too."""

    def __call__(self, event: LogEvent) -> None:
        """A log event."""
        with self._writing:
            if self._lost and self.flush():
                self._write(log_line({**event, "log_format": f"{self._lost} lines of the log are lost here"}))
                self._lost = 0
            if not self.say(log_line(event)):
                self._lost += 1

    def say(self, line: bytes) -> bool:
        """Begin to write a line. False if an earlier line is still being written: then this one is dropped."""
        with self._writing:
            if not self.flush():
                return False
            self._write(line)
            return True

    def flush(self) -> bool:
        """Go on writing the current line. True if all of it is written."""
        with self._writing:
            return self._write(self._rest)

    def _write(self, data: bytes) -> bool:
        """Write as much as the pipe takes, and keep the rest. True if nothing is left."""
        self._rest = data[self._written(data) :]
        return not self._rest

    def _written(self, data: bytes) -> int:
        try:
            return os.write(self._file, data) if data else 0
        except BlockingIOError:
            return 0
        except OSError:
            # The supervisor is gone; the end of our input reports it, too.
            return len(data)


class SupervisorProtocol(LineOnlyReceiver):
    """Receives the supervisor's orders."""

    delimiter = b"\n"

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        self._worker.obey(json.loads(line)["order"])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._worker.obey(_ORPHANED)


class Worker:
    """Runs the server in this process.

    :param sockets: the inherited listening sockets, by port name.
    :raises SettingsError: an assistant or the store named in the settings can't be used.
    """

    def __init__(self, start: Start, sockets: dict[str, socket.socket], reactor: Any) -> None:
        self._reactor = reactor
        self._stopping = False
        self._news = News(NEWS_FD)
        # mypy reads the variant for Windows.
        StandardIO(SupervisorProtocol(self), stdin=0, stdout=NEWS_FD, reactor=reactor)  # type: ignore[call-arg]
        globalLogBeginner.beginLoggingTo([MaskingObserver(self._news)], redirectStandardIO=False)
        self._service = make_worker(start.settings, reactor=reactor, announce=self._ready, role=_role(start, sockets))

    def run(self) -> int:
        """Run until stopped; returns the exit code.

        :raises StartError: the server can't start.
        """
        # Before it reports that it is ready.
        self._reactor.callWhenRunning(self._install)
        self._service.startService()
        self._reactor.addSystemEventTrigger("before", "shutdown", self._service.stopService)
        self._reactor.run()
        return 0

    def _install(self) -> None:
        # As in tap.py, of a server without workers.
        gc.collect()
        gc.freeze()
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.callFromThread(self.obey, STOP))
        # A terminal sends these to every process; the supervisor sends orders.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _ready(self, banner: str) -> None:
        # The log may have gaps; this line must arrive.
        if not self._news.say(READY):
            self._reactor.callLater(TRY_AGAIN_S, self._ready, banner)
        self._flush()

    def _flush(self) -> None:
        if not self._news.flush():
            self._reactor.callLater(TRY_AGAIN_S, self._flush)

    def obey(self, order: str) -> None:
        """Carry out an order of the supervisor."""
        if order == HURRY:
            self._service.hurry()
            return
        if order == _ORPHANED:
            # A restarted server needs the ports.
            self._service.leave_ports()
        if self._stopping:
            return
        self._stopping = True
        if order == RETIRE:
            self._service.hand_over()
        self._reactor.callWhenRunning(self._reactor.stop)


def _role(start: Start, sockets: dict[str, socket.socket]) -> ProcessRole:
    is_ari, board = start.number == 0, Scoreboard(BOARD_FD, start.row)
    return ProcessRole(
        ari=is_ari,
        media=not is_ari,
        ari_socket="" if is_ari else start.ari_socket,
        sockets=sockets,
        ports=start.ports,
        counter=board.counter,
        bridges=board.bridges,
    )


def main() -> int:
    """Run a worker; returns the exit code."""
    start = Start.from_line(_first_line())
    sockets = {name: socket.socket(fileno=FIRST_SOCKET_FD + number) for number, name in enumerate(start.sockets)}
    reactor = installReactor(start.reactor)
    use_monotonic_time(reactor)
    try:
        return Worker(start, sockets, reactor).run()
    except (SettingsError, StartError) as error:
        print(f"cannot start: {masked(str(error))}", file=sys.stderr)  # noqa: T201
        return 1


def _first_line() -> bytes:
    """Read the first line and no byte beyond it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit("this program is started by twistd rapida-media --workers")
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
