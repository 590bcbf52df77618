"""The parent of the workers: it has the ports, starts workers, starts them again, replaces them, and stops them."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from rapida_twisted.errors import StartError
from rapida_twisted.observe.multiprocess import forget_process, prepare_shared
from rapida_twisted.ports.endpoints import outcome_of
from rapida_twisted.ports.shared_socket import bind
from rapida_twisted.server.banner import dialplan_values, welcome_text
from rapida_twisted.server.build import RapidaMedia, port_specs
from rapida_twisted.server.lease import owner_name
from rapida_twisted.server.preflight import Keys, check_start
from rapida_twisted.server.role import ARI
from rapida_twisted.server.workers.control_pipe import BOARD_FD, FIRST_SOCKET_FD, HURRY, NEWS_FD, Start
from rapida_twisted.server.workers.scoreboard import ROWS, Scoreboard
from rapida_twisted.server.workers.slot import Slot
from rapida_twisted.server.workers.worker_process import WorkerProcess
from rapida_twisted.settings import Settings
from rapida_twisted.store.url import open_store

__all__ = ["WorkerSupervisor"]

STOP_S = 15.0
"""A worker that has not ended so long after its drain time is killed."""
ARI_BACKLOG = 64


class WorkerSupervisor(Service):
    """Runs several processes that do the work of one :class:`~rapida_twisted.server.build.RapidaMedia`.

    Workers take calls from ports that they share; one more process speaks with Asterisk's ARI.

    :param settings: theirs; ``workers`` of them take calls.
    :param reactor: runs the parent, which handles no call.
    :param announce: called once when all listen, with what a person needs next. It may hold the API key.
    :raises SettingsError: an assistant or the store named in the settings can't be used.
    """

    _log = Logger()
    name = "rapida-media"

    def __init__(self, settings: Settings, reactor: Any, announce: Callable[[str], None] = lambda text: None) -> None:
        self.reactor = reactor
        self._settings = settings
        self._announce = announce
        # Whatever is wrong with the settings is to be told by this process, at its start.
        self._pattern = RapidaMedia(settings, reactor)
        self._keys: Keys | None = None
        self._sockets: dict[str, socket.socket] = {}
        self._scoreboard = Scoreboard.make()
        self._rows = list(range(ROWS - 1, 0, -1))
        self._folder = Path()
        self._environ: dict[str, str] = {}
        self._slots: list[Slot] = []
        self._coming: set[str] = set()
        self._reloads = 0
        """How often a reload was asked for that is not done."""

    @property
    def processes(self) -> list[WorkerProcess]:
        """All workers that there are now."""
        return [process for place in self._slots for process in place.processes]

    def port_of(self, what: str) -> int:
        """The port that is listened on, once started, such as ``HTTP``'s."""
        return int(self._sockets[what].getsockname()[1]) if what in self._sockets else 0

    # Starting

    def startService(self) -> None:
        """Listen, and start the workers.

        :raises StartError: something prevents it; the text is one sentence, and nothing stays open.
        """
        self._keys = check_start(self._settings, self._pattern.vault, self._keys_broke)
        self._try_store()
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        super().startService()
        names = {0: "the ARI worker"} | {n: f"worker {n}" for n in range(1, self._settings.workers + 1)}
        self._coming = set(names.values())
        for number, name in names.items():
            place = Slot(name, self._spawner(number, name), self._ready(name), self.reactor)
            self._slots.append(place)
            try:
                place.fill()
            except OSError as error:
                self._close()
                raise StartError(f"{name} can't be started: {error}") from None

    def _try_store(self) -> None:
        """What is wrong with the store is told now, and its tables are made once."""
        settings = self._settings
        name = f"{owner_name()}-parent"
        store = open_store(settings.store_url, settings.state_dir, self.reactor, name, settings.tls_ca_file)
        outcome_of(store.open(), "the call store can't be opened")
        store.close()

    def _open(self) -> None:
        try:
            self._folder = _make_folder()
            self._environ = prepare_shared(self._folder / "metrics")
            for name, spec in port_specs(self._settings).items():
                self._sockets[name] = bind(name, spec.endpoint)
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

    def _keys_broke(self, problem: str) -> None:
        """Each worker tells it."""

    def _ready(self, name: str) -> Callable[[], None]:
        def ready() -> None:
            self._log.info("{worker} is ready", worker=name)
            if name in self._coming:
                self._coming.discard(name)
                if not self._coming:
                    self._welcome()

        return ready

    def _welcome(self) -> None:
        assert self._keys is not None
        ids = self._pattern.assistants.ids
        values = dialplan_values(self._settings, self._keys.plain[0], self.port_of, ids)
        self._announce(welcome_text(self._settings, values, self._keys.is_new))

    # WorkerSupervisor

    def _spawner(self, number: int, name: str) -> Callable[[Callable[[], None]], WorkerProcess]:
        sockets = {what: each for what, each in self._sockets.items() if (what == ARI) == (number == 0)}
        ports = {what: self.port_of(what) for what in self._sockets if what != ARI}

        def spawn(ready: Callable[[], None]) -> WorkerProcess:
            if not self._rows:
                raise OSError("there are too many processes, which end with their calls")
            row = self._rows.pop()
            start = Start(number, row, self._settings, tuple(sockets), ports, str(self._ari_path))
            process = WorkerProcess(name, row, start.line(), ready, self.reactor)
            files: dict[int, int | str] = {0: "w", 1: "r", 2: "r", NEWS_FD: "r", BOARD_FD: self._scoreboard.fd}
            files |= {FIRST_SOCKET_FD + place: each.fileno() for place, each in enumerate(sockets.values())}
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
        """What was true of a process that is gone is true no more."""
        self._scoreboard.wipe(process.row)
        self._rows.append(process.row)
        try:
            forget_process(self._folder / "metrics", process.pid)
        except OSError as error:
            self._log.warn("{worker}: its figures could not be removed: {error}", worker=process.name, error=str(error))

    def reload(self) -> None:
        """Replace the workers, one after the other: each new one listens before the old one stops taking calls, and
        that ends once its calls have, or after the drain time. So a new version of the program comes into use."""
        self._reloads += 1
        if self._reloads == 1:
            Deferred.fromCoroutine(self._reload()).addErrback(lambda failure: self._log.failure("reload", failure))

    async def _reload(self) -> None:
        while self._reloads:
            self._log.info("the workers are replaced, one after the other")
            came = [await place.replace() for place in self._slots]
            if all(came):
                self._log.info("the workers were replaced; the old ones end with their calls")
            else:
                self._log.error("not all workers could be replaced: see above; the others were")
            # Whatever was asked for meanwhile, one more time does.
            self._reloads = min(1, self._reloads - 1)

    # Stopping

    def hurry(self) -> None:
        """Cut the drain time short."""
        for place in self._slots:
            place.order(HURRY)

    def stopService(self) -> Deferred[Any]:
        """Stop the workers in order; fires when all are gone. The one that speaks ARI goes last, for others may ask
        something of it until they are gone."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        longest_s = self._settings.drain_s + STOP_S
        for place in self._slots:
            place.close()
        await gatherResults([place.stop(longest_s) for place in self._slots[1:]])
        await gatherResults([place.stop(longest_s) for place in self._slots[:1]])
        self._close()

    def _close(self) -> None:
        for each in self._sockets.values():
            each.close()
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)


def _make_folder() -> Path:
    """For what the processes share while they run, in memory: see :func:`prepare_shared`."""
    shm = Path("/dev/shm")
    places = (os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0], str(shm) if os.access(shm, os.W_OK) else "")
    return Path(tempfile.mkdtemp(prefix="rapida-media-", dir=next(filter(None, places), None)))
