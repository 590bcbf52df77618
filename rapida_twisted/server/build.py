"""Makes the server of its settings: in one process, as the supervisor of several, or as one of these. Nothing is opened
here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rapida_twisted.credentials.masking import keep_out_of_logs
from rapida_twisted.interfaces.typed import Assistant, CallStore
from rapida_twisted.observe.interface import Metrics
from rapida_twisted.server.addresses import port_specs
from rapida_twisted.server.banner import banner
from rapida_twisted.server.components import Components
from rapida_twisted.server.lifecycle import Lifecycle
from rapida_twisted.server.preflight import check_start
from rapida_twisted.server.role import STANDALONE, ProcessRole
from rapida_twisted.server.workers.supervisor import WorkerSupervisor
from rapida_twisted.settings import Settings

ASYNCIO = "asyncio"

__all__ = ["RapidaMedia", "check_settings", "make_supervisor", "make_worker"]


class RapidaMedia(Lifecycle):
    """The whole server: AudioSocket and HTTP listening, calls answered by assistants.

    :param reactor: None: the global one.
    :param store: keeps the calls, in place of the store that the settings name.
    :param assistants: in place of those that the settings name, by the id that each answers (``*``: every other): a
        name as on the command line, an assistant's class, or a function that returns an assistant.
    :param announce: called once when all ports listen, with the banner. It may contain the API key.
    :param role: the share of the work that this process does.
    :raises SettingsError: an assistant or the store named in the settings can't be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        reactor: Any = None,
        store: CallStore | None = None,
        assistants: Mapping[str, str | Callable[..., Assistant]] | None = None,
        announce: Callable[[str], None] = lambda text: None,
        role: ProcessRole = STANDALONE,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.settings = settings
        keep_out_of_logs(*settings.secrets)
        components = Components(settings, reactor, store, assistants, role)
        components.check()
        components.metrics.set_rules(components.assistants.ids)
        super().__init__(components, announce)


def make_supervisor(
    settings: Settings,
    reactor: Any,
    announce: Callable[[str], None] = lambda text: None,
    workers_reactor: str = ASYNCIO,
) -> WorkerSupervisor:
    """The supervisor of several processes that do the work of one :class:`RapidaMedia`.

    :param announce: called once when all workers listen, with the banner. It may contain the API key.
    :param workers_reactor: the reactor of the workers, as ``twistd --reactor`` names it.
    :raises SettingsError: see :func:`check_settings`.
    """
    components = check_settings(settings, reactor, has_asyncio=workers_reactor == ASYNCIO)
    ids = components.assistants.ids
    return WorkerSupervisor(
        reactor,
        settings=settings.values,
        workers=settings.process.workers,
        workers_reactor=workers_reactor,
        drain_s=settings.process.drain_s,
        hung_s=settings.process.hung_s,
        specs=port_specs(settings),
        check_start=lambda: check_start(settings.process.state_dir, settings.keys, components.vault),
        open_store=components.open_store,
        announce=lambda keys, port_of: announce(banner(settings, keys, port_of, ids)),
    )


def make_worker(
    values: Mapping[str, Any], *, reactor: Any, announce: Callable[[str], None], role: ProcessRole
) -> RapidaMedia:
    """The server in a worker process.

    :param values: the settings by their environment names.
    :raises SettingsError: see :class:`RapidaMedia`.
    """
    return RapidaMedia(Settings.from_values(values), reactor=reactor, announce=announce, role=role)


def check_settings(settings: Settings, reactor: Any, *, has_asyncio: bool = True) -> Components:
    """Check that a server can be made of these settings, without making one.

    :param has_asyncio: whether it is to run on asyncio's reactor.
    :raises SettingsError: an assistant, the store, a transfer pattern or the TLS authorities can't be used.
    """
    keep_out_of_logs(*settings.secrets)
    components = Components(settings, reactor, has_asyncio=has_asyncio)
    components.metrics = Metrics()
    components.check()
    return components
