"""The slot of one worker: keeps a worker process running in it, and restarts or replaces it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from rapida_twisted.net.backoff import backoff
from rapida_twisted.server.workers.control_pipe import RETIRE, STOP
from rapida_twisted.server.workers.worker_process import WorkerProcess

__all__ = ["Slot"]

SHORT_LIFE_S = 60.0
"""A worker that dies sooner is restarted after a pause."""
START_S = 60.0
"""A worker that is not ready within this time (s) is killed."""
LONGEST_PAUSE_S = 60.0
restart_pause_s = backoff(1.0, LONGEST_PAUSE_S)


class Slot:
    """Keeps a worker running.

    :param name: the worker's name in the log.
    :param spawn: starts a process; calls its argument when the process listens.
    :param ready: called when a worker listens: the first, and each that is started after one died.
    :param reactor: provides IReactorTime.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        spawn: Callable[[Callable[[], None]], WorkerProcess],
        ready: Callable[[], None],
        reactor: Any,
    ) -> None:
        self.name = name
        self._spawn = spawn
        self._ready = ready
        self._reactor = reactor
        self._current: WorkerProcess | None = None
        self._coming: WorkerProcess | None = None
        self._leaving: set[WorkerProcess] = set()
        self._stopping = False
        self._short_lives = 0
        self._waiting: IDelayedCall | None = None

    @property
    def processes(self) -> list[WorkerProcess]:
        """The worker, its successor while it starts, and old workers whose calls are ending."""
        return [process for process in (self._current, self._coming, *self._leaving) if process is not None]

    def fill(self) -> None:
        """Start a worker.

        :raises OSError: the process can't be started.
        """
        self._current = self._start(self._ready)

    def _fill_again(self) -> None:
        self._waiting = None
        try:
            self.fill()
        except OSError as error:
            self._start_again(f"the process can't be started: {error}", 0.0)

    def replace(self) -> Deferred[bool]:
        """Start a successor, and retire the worker once the successor listens. Fires with True then, with False if the
        successor fails to start. Without a worker, the next one starts anyway."""
        old, done = self._current, Deferred[bool]()
        if old is None or self._stopping or self._coming is not None:
            done.callback(old is None)
            return done

        def listens() -> None:
            self._coming = None
            # The old worker may have died meanwhile, and another have been started.
            current = self._current
            if current is not None:
                self._leaving.add(current)
                current.order(RETIRE)
            elif self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None
            self._current = new
            self._ready()
            done.callback(True)

        def failed(how: str) -> None:
            if not done.called:
                self._log.error("{worker}: its successor failed to start ({how})", worker=self.name, how=how)
                done.callback(False)

        try:
            self._coming = new = self._start(listens)
        except OSError as error:
            failed(f"the process can't be started: {error}")
        else:
            new.when_ended().addCallback(failed)
        return done

    def kill_hung(self, silent_s: Callable[[int], float], hung_s: float) -> None:
        """Kill the processes that do not respond; like any that dies, they are replaced.

        :param silent_s: how long (s) the process of a row of the scoreboard has not responded.
        """
        for process in self.processes:
            if silent_s(process.row) > hung_s:
                self._log.error(
                    "{worker} has not responded for {hung_s:g} s: killing it", worker=self.name, hung_s=hung_s
                )
                process.kill()

    def order(self, order: str) -> None:
        """Send an order to all processes of this slot."""
        for process in self.processes:
            process.order(order)

    def close(self) -> None:
        """Start no further worker."""
        self._stopping = True
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def stop(self, longest_s: float) -> Deferred[Any]:
        """Stop; fires when all processes have ended. Those that do not end in time are killed."""
        self.close()
        self.order(STOP)
        ended = gatherResults([process.when_ended() for process in self.processes])
        killing = self._reactor.callLater(longest_s, self._kill)
        return ended.addBoth(lambda _: killing.cancel() if killing.active() else None)

    def _kill(self) -> None:
        for process in self.processes:
            self._log.error("{worker} does not end: killing it", worker=self.name)
            process.kill()

    def _start(self, ready: Callable[[], None]) -> WorkerProcess:
        def is_ready() -> None:
            if overdue.active():
                overdue.cancel()
                ready()

        process = self._spawn(is_ready)
        overdue = self._reactor.callLater(START_S, self._overdue, process)
        process.when_ended().addCallback(self._ended, process, self._reactor.seconds(), overdue)
        return process

    def _overdue(self, process: WorkerProcess) -> None:
        self._log.error("{worker} is not ready after {seconds:g} s: killing it", worker=self.name, seconds=START_S)
        process.kill()

    def _ended(self, how: str, process: WorkerProcess, began_s: float, overdue: IDelayedCall) -> str:
        if overdue.active():
            overdue.cancel()
        self._leaving.discard(process)
        if process is self._coming:
            self._coming = None
        elif process is self._current:
            self._current = None
            if not self._stopping:
                self._start_again(how, self._reactor.seconds() - began_s)
        return how

    def _start_again(self, how: str, lived_s: float) -> None:
        pause_s = 0.0
        if lived_s < SHORT_LIFE_S:
            pause_s = restart_pause_s(self._short_lives)
            self._short_lives += 1
        else:
            self._short_lives = 0
        self._log.error(
            "{worker} died after {lived_s:.0f} s ({how}); its calls are lost; restarting in {pause_s:.1f} s",
            worker=self.name, lived_s=lived_s, how=how, pause_s=pause_s,
        )  # fmt: skip
        self._waiting = self._reactor.callLater(pause_s, self._fill_again)
