"""Opens the metrics, and manages the directory in which the processes of a machine share them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rapida_twisted.errors import SettingsError
from rapida_twisted.observe.interface import Metrics

__all__ = ["SHARED_DIR", "forget_process", "open_metrics", "prepare_shared"]

SHARED_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names it for Prometheus' library."""

_LIVE = "gauge_live*"


def open_metrics(reactor: Any) -> Metrics:
    """Prometheus' metrics if its library is installed, else metrics that count nothing.

    :param reactor: provides IReactorTime.
    :raises SettingsError: the directory for shared figures does not exist.
    """
    shared = os.environ.get(SHARED_DIR, "")
    if shared and not Path(shared).is_dir():
        raise SettingsError(f"{SHARED_DIR}: there is no directory {shared}")
    try:
        # Imported late: the library decides at its import whether figures are shared.
        from rapida_twisted.observe.prometheus import PrometheusMetrics
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        return Metrics()
    return PrometheusMetrics(reactor)


def prepare_shared(path: Path) -> dict[str, str]:
    """Make and empty the directory in which worker processes share their figures. Called by the supervisor.

    It should be in memory (``/run``, ``/dev/shm``): the files are mapped, and a process that writes to one on a full
    disk is killed (SIGBUS).

    :return: what the environment of each worker must have from its start.
    :raises OSError: it can't be made or emptied.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in path.glob("*.db"):
        file.unlink(missing_ok=True)
    return {SHARED_DIR: str(path)}


def forget_process(path: Path, pid: int) -> None:
    """Remove the gauges of a process that has ended, such as its calls; its counters stay.

    The same as :func:`prometheus_client.multiprocess.mark_process_dead`, without that import.

    :raises OSError: a file can't be removed.
    """
    for file in path.glob(f"{_LIVE}_{pid}.db"):
        os.unlink(file)
