"""Where the metrics come from, and the directory in which several processes of one machine share them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rapida_twisted.errors import SettingsError
from rapida_twisted.observe.interface import Metrics

__all__ = ["SHARED_DIR", "forget_process", "open_metrics", "prepare_shared"]

SHARED_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The environment's name for the directory, which Prometheus' library gave it."""

_LIVE = "gauge_live*"


def open_metrics(reactor: Any) -> Metrics:
    """Prometheus' metrics, if its library is installed; else such as count nothing.

    :param reactor: provides IReactorTime.
    :raises SettingsError: figures are to be shared in a directory that is not there.
    """
    shared = os.environ.get(SHARED_DIR, "")
    if shared and not Path(shared).is_dir():
        raise SettingsError(f"{SHARED_DIR}: there is no directory {shared}")
    try:
        # Not before it is needed: at its import the library decides whether figures are shared with other processes.
        from rapida_twisted.observe.prometheus import PrometheusMetrics
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        return Metrics()
    return PrometheusMetrics(reactor)


def prepare_shared(path: Path) -> dict[str, str]:
    """Make the directory in which the processes to come share their figures, and empty it: for their parent.

    It should be in memory (``/run``, ``/dev/shm``), and not where recordings or calls are kept: the files are mapped,
    and whoever writes to one on a full disk is killed (SIGBUS).

    :return: what the environment of each of them must have, from its start on.
    :raises OSError: it can't be made or emptied.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in path.glob("*.db"):
        file.unlink(missing_ok=True)
    return {SHARED_DIR: str(path)}


def forget_process(path: Path, pid: int) -> None:
    """A process has ended: what was true of it is true no more, such as its calls. What it has counted stays.

    What :func:`prometheus_client.multiprocess.mark_process_dead` does, for a parent that need not import it.

    :raises OSError: a file can't be removed.
    """
    for file in path.glob(f"{_LIVE}_{pid}.db"):
        os.unlink(file)
