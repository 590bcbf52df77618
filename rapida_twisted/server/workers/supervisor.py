"""The supervisor of the workers: opens the ports, and starts, restarts, replaces and stops the worker processes."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rapida_twisted.errors import StartError
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.observe.multiprocess import forget_process, prepare_shared
from rapida_twisted.ports.endpoints import outcome_of
from rapida_twisted.ports.server_ports import PortSpec
from rapida_twisted.ports.shared_socket import bind
from rapida_twisted.server.lease import owner_name
from rapida_twisted.server.preflight import Keys
from rapida_twisted.server.role import ARI
from rapida_twisted.server.workers.control_pipe import BOARD_FD, FIRST_SOCKET_FD, HURRY, NEWS_FD, Start
from rapida_twisted.server.workers.scoreboard import ROWS, Scoreboard
from rapida_twisted.server.workers.slot import Slot
from rapida_twisted.server.workers.worker_process import WorkerProcess

__all__ = ["WorkerSupervisor"]

STOP_S = 15.0
"""A worker that has not ended this long (s) after its drain time is killed."""
ARI_BACKLOG = 64
CHECK_S = 1.0
"""How often (s) to look whether the workers respond."""


class WorkerSupervisor(Service):
    """Runs several processes that do the work of one :class:`~rapida_twisted.server.build.RapidaMedia`.

    Workers take calls from ports that they share; one more process speaks with Asterisk's ARI. See
    :func:`~rapida_twisted.server.build.make_supervisor`.

    :param reactor: runs the supervisor, which handles no call.
    :param settings: the workers' settings by their environment names.
    :param workers: how many processes take calls.
    :param workers_reactor: their reactor, as ``twistd --reactor`` names it.
    :param drain_s: how long (s) the workers' calls may take to end.
    :param hung_s: a worker that has not responded for this long (s) is killed.
    :param specs: the ports to open, by name.
    :param check_start: see :func:`~rapida_twisted.server.preflight.check_start`.
    :param open_store: makes the store of a process of this name.
    :param announce: called once when all workers listen, with the API keys and a function that returns a port's number.
    """

    _log = Logger()
    name = "rapida-media"

    def __init__(
        self,
        reactor: Any,
        *,
        settings: Mapping[str, Any],
        workers: int,
        workers_reactor: str,
        drain_s: float,
        hung_s: float,
        specs: Mapping[str, PortSpec],
        check_start: Callable[[], Keys],
        open_store: Callable[[str], CallStore],
        announce: Callable[[Keys, Callable[[str], int]], None],
    ) -> None:
        self.reactor = reactor
        self._settings = settings
        self._workers = workers
        self._workers_reactor = workers_reactor
        self._drain_s = drain_s
        self._hung_s = hung_s
        self._checking = LoopingCall(self._check_workers)
        self._checking.clock = reactor
        self._checked_s = self._trusted_s = 0.0
        self._specs = specs
        self._check_start = check_start
        self._open_store = open_store
        self._announce = announce
        self._sockets: dict[str, socket.socket] = {}
        self._scoreboard = Scoreboard.make()
        self._rows = list(range(ROWS - 1, 0, -1))
        self._folder = Path()
        self._environ: dict[str, str] = {}
        self._slots: list[Slot] = []
        self._coming: set[str] = set()
        self._reloads = 0
        """Requested reloads that are not done."""

    @property
    def processes(self) -> list[WorkerProcess]:
        """All worker processes that run now."""
        return [process for slot in self._slots for process in slot.processes]

    def port_of(self, name: str) -> int:
        """The number of a port, once started, such as ``HTTP``'s."""
        return int(self._sockets[name].getsockname()[1]) if name in self._sockets else 0

    # Starting

    def startService(self) -> None:
        """Listen, and start the workers.

        :raises StartError: the text is one sentence, and nothing stays open.
        """
        keys = self._check_start()
        self._try_store()
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        super().startService()
        names = {0: "the ARI worker"} | {n: f"worker {n}" for n in range(1, self._workers + 1)}
        self._coming = set(names.values())
        for number, name in names.items():
            slot = Slot(name, self._spawner(number, name), self._ready(name, keys), self.reactor)
            self._slots.append(slot)
            try:
                slot.fill()
            except OSError as error:
                self._close()
                raise StartError(f"{name} can't be started: {error}") from None
        self._checking.start(CHECK_S).addErrback(
            lambda failure: self._log.failure("hung workers are no longer replaced", failure)
        )

    def _try_store(self) -> None:
        """Find errors of the store now, and make its tables once."""
        store = self._open_store(f"{owner_name()}-parent")
        outcome_of(store.open(), "the call store can't be opened")
        store.close()

    def _open(self) -> None:
        try:
            self._folder = _make_folder()
            self._environ = prepare_shared(self._folder / "metrics")
            for name, spec in self._specs.items():
                self._sockets[name] = bind(name, spec.endpoint, spec.advice)
            self._sockets[ARI] = self._open_ari()
        except OSError as error:
            raise StartError(f"the workers can't be started: {error}") from None

    def _open_ari(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self._ari_path))
        listening.listen(ARI_BACKLOG)
        listening.setblocking(False)
        return listening

    @property
    def _ari_path(self) -> Path:
        return self._folder / "ari"

    def _ready(self, name: str, keys: Keys) -> Callable[[], None]:
        def ready() -> None:
            self._log.info("{worker} is ready", worker=name)
            if name in self._coming:
                self._coming.discard(name)
                if not self._coming:
                    self._announce(keys, self.port_of)

        return ready

    # Workers

    def _spawner(self, number: int, name: str) -> Callable[[Callable[[], None]], WorkerProcess]:
        sockets = {port: each for port, each in self._sockets.items() if (port == ARI) == (number == 0)}
        ports = {port: self.port_of(port) for port in self._sockets if port != ARI}

        def spawn(ready: Callable[[], None]) -> WorkerProcess:
            if not self._rows:
                raise OSError("too many old workers still wait for their calls to end")
            row = self._rows.pop()
            start = Start(
                number, row, self._settings, tuple(sockets), ports, str(self._ari_path), self._workers_reactor
            )
            process = WorkerProcess(name, row, start.line(), ready, self.reactor)
            files: dict[int, int | str] = {0: "w", 1: "r", 2: "r", NEWS_FD: "r", BOARD_FD: self._scoreboard.fd}
            files |= {FIRST_SOCKET_FD + number: each.fileno() for number, each in enumerate(sockets.values())}
            command = [sys.executable, "-m", "rapida_twisted.server.workers.worker"]
            environ = {**os.environ, **self._environ}
            try:
                self.reactor.spawnProcess(process, sys.executable, command, env=environ, childFDs=files)
            except OSError:
                self._rows.append(row)
                raise
            process.when_ended().addCallback(self._forget, process)
            return process

        return spawn

    def _forget(self, how: str, process: WorkerProcess) -> None:
        """Clear what a process that has ended left in shared memory."""
        self._scoreboard.wipe(process.row)
        self._rows.append(process.row)
        try:
            forget_process(self._folder / "metrics", process.pid)
        except OSError as error:
            self._log.warn("{worker}: its figures could not be removed: {error}", worker=process.name, error=str(error))

    def _check_workers(self) -> None:
        """Kill workers that do not respond. While this process itself was stopped, it could not see them respond."""
        now_s = time.monotonic()
        if now_s - self._checked_s > 3 * CHECK_S:
            self._trusted_s = now_s
        self._checked_s = now_s
        for slot in self._slots:
            slot.kill_hung(lambda row: min(self._scoreboard.silent_s(row), now_s - self._trusted_s), self._hung_s)

    def reload(self) -> None:
        """Replace the workers one after the other, to use a new version of the program. Each new worker listens before
        the old one stops taking calls; that ends with its calls, or after the drain time."""
        self._reloads += 1
        if self._reloads == 1:
            Deferred.fromCoroutine(self._reload()).addErrback(lambda failure: self._log.failure("reload", failure))

    async def _reload(self) -> None:
        while self._reloads:
            self._log.info("replacing the workers, one after the other")
            came = [await slot.replace() for slot in self._slots]
            if all(came):
                self._log.info("replaced the workers; the old ones end with their calls")
            else:
                self._log.error("not all workers could be replaced (see above); the others were")
            # One more round is enough for all reloads requested meanwhile.
            self._reloads = min(1, self._reloads - 1)

    # Stopping

    def hurry(self) -> None:
        """Cut the drain time short."""
        for slot in self._slots:
            slot.order(HURRY)

    def stopService(self) -> Deferred[Any]:
        """Stop the workers in order; fires when all have ended. The one that speaks ARI is the last, since the others
        may send it requests until they have ended."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        longest_s = self._drain_s + STOP_S
        for slot in self._slots:
            slot.close()
        await gatherResults([slot.stop(longest_s) for slot in self._slots[1:]])
        await gatherResults([slot.stop(longest_s) for slot in self._slots[:1]])
        self._close()

    def _close(self) -> None:
        if self._checking.running:
            self._checking.stop()
        for each in self._sockets.values():
            each.close()
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)


def _make_folder() -> Path:
    """A folder, in memory if possible, for the files that the processes share: see :func:`prepare_shared`."""
    shm = Path("/dev/shm")
    parents = (os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0], str(shm) if os.access(shm, os.W_OK) else "")
    return Path(tempfile.mkdtemp(prefix="rapida-media-", dir=next(filter(None, parents), None)))
