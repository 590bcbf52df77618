"""The composition root: makes and connects the components of a server. Nothing is opened here.

Only this module and ``tap.py`` know all settings. Each component is made by a function of its own, from the group of
settings that concerns it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectError, DNSLookupError
from twisted.web.resource import IResource

from rapida_twisted.assistants.environment import make_environment
from rapida_twisted.assistants.registry import Assistants, make_assistants, parse_rules
from rapida_twisted.asterisk.ari.client import AriClient
from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.ari.replies import AriChannel
from rapida_twisted.asterisk.outbound.calls import OutboundCalls
from rapida_twisted.asterisk.outbound.progress_writer import ProgressWriter
from rapida_twisted.asterisk.outbound.trunk import Trunk, TrunkLimits
from rapida_twisted.asterisk.stasis.calls import StasisCalls, StasisKit, StasisMedia
from rapida_twisted.asterisk.vault.vault import open_vault
from rapida_twisted.context import CallContext, CallParameters
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.credentials.masking import keep_out_of_logs
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces.typed import Assistant, CallStore
from rapida_twisted.interfaces.values import EntryKind
from rapida_twisted.media.calls import Calls
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.media.governor import Governor
from rapida_twisted.media.idle import IdleWatch
from rapida_twisted.net.connection_errors import causes_of
from rapida_twisted.net.http_client import make_client
from rapida_twisted.net.tls import tls_options
from rapida_twisted.observe.counted_client import CountedClient
from rapida_twisted.observe.interface import Instant, Metrics
from rapida_twisted.observe.multiprocess import open_metrics
from rapida_twisted.observe.sampler import Sampler
from rapida_twisted.ports.connection_limiter import ConnectionLimits
from rapida_twisted.ports.endpoints import tcp_endpoint
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.ports.server_ports import AUDIOSOCKET, HTTP, HTTPS, PortSpec, ServerPorts
from rapida_twisted.protocols.audiosocket_app import AudioSocketFactory
from rapida_twisted.protocols.chan_websocket_app import MediaServerFactory
from rapida_twisted.server.banner import banner_text, dialplan_values
from rapida_twisted.server.call_control import CallControl
from rapida_twisted.server.components import Components, ServerState
from rapida_twisted.server.lease import Lease, owner_name
from rapida_twisted.server.lifecycle import Lifecycle
from rapida_twisted.server.preflight import Keys, check_start, warn_of_limits
from rapida_twisted.server.reception import Reception
from rapida_twisted.server.registrar import Registrar
from rapida_twisted.server.role import ACCEPTING, STANDALONE, ProcessRole
from rapida_twisted.server.transfers import TransferRules
from rapida_twisted.server.workers.supervisor import WorkerSupervisor
from rapida_twisted.settings import Settings
from rapida_twisted.settings.groups import (
    AriSettings,
    AudioSocketSettings,
    ConnectionSettings,
    HttpSettings,
    LimitSettings,
    OutboundSettings,
    StoreSettings,
    TlsSettings,
    WebhookSettings,
)
from rapida_twisted.store.journal import JournalSink
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.store.observed import observed
from rapida_twisted.store.spool import SpoolingStore
from rapida_twisted.store.url import open_store
from rapida_twisted.web.clock import ClockPage
from rapida_twisted.web.metrics import MetricsPage
from rapida_twisted.web.next_hop import ContextPages
from rapida_twisted.web.parameters import check_assistant
from rapida_twisted.web.proxy import ForwardedOutbound
from rapida_twisted.web.site import RapidaSite, make_root
from rapida_twisted.web.websocket import handshake_gate, websocket_page
from rapida_twisted.webhook.status import StatusWebhook

__all__ = ["RapidaMedia", "check_settings", "make_supervisor", "make_worker"]

_Assistants = Mapping[str, str | Callable[..., Assistant]]


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
        assistants: _Assistants | None = None,
        announce: Callable[[str], None] = lambda text: None,
        role: ProcessRole = STANDALONE,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.settings = settings
        super().__init__(
            _build(settings, reactor, store, assistants, role), reactor, state_dir=settings.process.state_dir,
            drain_s=settings.process.drain_s, keep_s=settings.store.keep_s, announce=announce,
        )  # fmt: skip


def _build(
    settings: Settings, reactor: Any, given_store: CallStore | None, given: _Assistants | None, role: ProcessRole
) -> Components:
    keep_out_of_logs(*settings.secrets)
    state, rejections, clock = ServerState(), RejectionLog(), MediaClock(reactor)
    metrics = open_metrics(reactor)
    transfers = TransferRules(settings.assistants.transfer_allow)
    pages: dict[bytes, IResource] = {}
    journal = JournalSink(lambda: store)
    assistants = _assistants(settings, given, reactor, transfers, metrics, pages, journal)
    metrics.set_rules(assistants.ids)
    http_client, http_pool = _http_client(settings.tls, reactor)
    state_dir = settings.process.state_dir
    plain = given_store
    if plain is None:
        plain = _plain_store(settings.store, settings.tls, state_dir, reactor, owner_name())
    store: CallStore = observed(_spooling(plain, state_dir, reactor, lambda: webhook.wake()), metrics)
    webhook = _webhook(settings.webhook, store, metrics, http_client, reactor)
    registrar = _registrar(settings.limits, store, assistants, state, rejections)
    ports = _ports(port_specs(settings.http, settings.audiosocket, settings.connections), rejections, role, reactor)
    calls = Calls(settings.limits.max_calls, role.counter("calls"))
    vault = open_vault(settings.process.state_dir, settings.vault.environ)

    def make_stasis(ari: AriClient, app: str) -> StasisCalls:
        host = settings.public.host_for(settings.audiosocket.host)
        media = StasisMedia(host, settings.public.audiosocket_port or ports.port_of(AUDIOSOCKET))
        register = partial(_register_from_stasis, registrar)
        kit = StasisKit(
            ari=ari, app=app, store=store, media=media, register=register, bridges=role.bridges, reactor=reactor
        )
        return StasisCalls(kit)

    outbound = OutboundCalls(
        vault=vault,
        store=store,
        writer=ProgressWriter(store, notify=bool(settings.webhook.url), written=webhook.wake, reactor=reactor),
        make_trunk=_trunk_maker(http_client, metrics, settings.tls, make_stasis, reactor),
        limits=_trunk_limits(settings.outbound, settings.ari),
        context_ttl_s=settings.limits.context_ttl_s,
        max_pending=settings.limits.max_waiting,
        reactor=reactor,
        now=time.time,
    )

    def look() -> Instant:
        return Instant(
            draining=state.draining,
            calls_coming=reception.coming,
            ends_unwritten=reception.unwritten + getattr(store, "unsaved", 0),
            audiosocket_waiting=audiosocket.unidentified,
            breakers={rule: str(health["state"]) for rule, health in assistants.health().items() if "state" in health},
        )

    sampler = Sampler(
        metrics, clock=clock, calls=lambda: calls, look=look, refused=lambda: dict(rejections.counts), reactor=reactor
    )
    reception = Reception(
        store, assistants.make, calls, clock, reactor,
        transfers=transfers, lead_ms=settings.media.lead_ms, bridges=role.bridges, watch=sampler,
    )  # fmt: skip
    audiosocket = AudioSocketFactory(
        reception, reactor, settings.audiosocket.uuid_s, settings.audiosocket.waiting, rejections
    )
    control = CallControl(calls, outbound, store.owner)

    def site(keys: ApiKeys) -> RapidaSite:
        websockets = MediaServerFactory(
            reception, reactor, handshake_gate(keys), rejections, settings.media.message_bytes
        )
        extra = {
            **pages,
            b"clock": ClockPage(clock, keys),
            b"talk/asterisk/ctx": ContextPages(store, keys, websocket_page(websockets)),
        }
        if role.ari_socket:
            extra[b"talk/asterisk/outbound"] = ForwardedOutbound(keys, role.ari_socket, reactor)
        root = make_root(
            store=store, keys=keys, registrar=registrar, outbound=outbound, hang_up=control.hang_up,
            draining=lambda: state.draining, assistants=assistants.health, extra=extra,
        )  # fmt: skip
        root.putChild(b"metrics", MetricsPage(metrics, keys, public=settings.http.metrics_public))
        return RapidaSite(root, reactor, settings.http.request_s, settings.http.body_bytes, rejections)

    def check() -> Keys:
        if role.media:
            warn_of_limits(settings.limits, settings.connections)
        return check_start(settings.process.state_dir, settings.keys, vault)

    return Components(
        role=role,
        state=state,
        assistants=assistants,
        store=store,
        lease=Lease(store, control.obey, reactor),
        calls=calls,
        clock=clock,
        governor=Governor(clock, settings.media.polling, reactor),
        idle_watch=IdleWatch(calls, settings.media.idle_s, lambda: rejections.counts.update(["call.idle"])),
        sampler=sampler,
        reception=reception,
        vault=vault,
        outbound=outbound,
        webhook=webhook,
        webhook_enabled=bool(settings.webhook.url),
        control=control,
        rejections=rejections,
        ports=ports,
        audiosocket=audiosocket,
        make_site=site,
        http_pool=http_pool,
        check_start=check,
        banner=partial(_banner, settings, port_of=ports.port_of, assistant_ids=assistants.ids),
    )


def make_supervisor(
    settings: Settings, reactor: Any, announce: Callable[[str], None] = lambda text: None
) -> WorkerSupervisor:
    """The supervisor of several processes that do the work of one :class:`RapidaMedia`.

    :param announce: called once when all workers listen, with the banner. It may contain the API key.
    :raises SettingsError: see :func:`check_settings`.
    """
    assistant_ids = check_settings(settings, reactor)
    vault = open_vault(settings.process.state_dir, settings.vault.environ)
    return WorkerSupervisor(
        reactor,
        settings=settings.values,
        workers=settings.process.workers,
        drain_s=settings.process.drain_s,
        specs=port_specs(settings.http, settings.audiosocket, settings.connections),
        check_start=lambda: check_start(settings.process.state_dir, settings.keys, vault),
        open_store=partial(_plain_store, settings.store, settings.tls, settings.process.state_dir, reactor),
        announce=lambda keys, port_of: announce(_banner(settings, keys, port_of=port_of, assistant_ids=assistant_ids)),
    )


def make_worker(
    values: Mapping[str, Any], *, reactor: Any, announce: Callable[[str], None], role: ProcessRole
) -> RapidaMedia:
    """The server in a worker process.

    :param values: the settings by their environment names.
    :raises SettingsError: see :class:`RapidaMedia`.
    """
    return RapidaMedia(Settings.from_values(values), reactor=reactor, announce=announce, role=role)


def check_settings(settings: Settings, reactor: Any) -> tuple[str, ...]:
    """Check that a server can be made of these settings, without making one. Returns the ids that assistants answer.

    :raises SettingsError: an assistant, the store, a transfer pattern or the TLS authorities can't be used.
    """
    keep_out_of_logs(*settings.secrets)
    transfers = TransferRules(settings.assistants.transfer_allow)
    assistants = _assistants(settings, None, reactor, transfers, Metrics(), {}, lambda *entry: None)
    _http_client(settings.tls, reactor)
    _plain_store(settings.store, settings.tls, settings.process.state_dir, reactor, owner_name())
    return assistants.ids


def port_specs(http: HttpSettings, audiosocket: AudioSocketSettings, limits: ConnectionSettings) -> dict[str, PortSpec]:
    """The ports to listen on, by name."""
    common = ConnectionLimits(
        proxies=limits.proxy_allow,
        connections=limits.max,
        per_address=limits.of_address,
        rate=limits.rate,
        address_rate=limits.address_rate,
    )
    specs = {
        HTTP: PortSpec(http.endpoint or tcp_endpoint(http.host, http.port), common, http.port),
        AUDIOSOCKET: PortSpec(
            audiosocket.endpoint or tcp_endpoint(audiosocket.host, audiosocket.port),
            replace(common, networks=audiosocket.allow),
            audiosocket.port,
        ),
    }
    return specs | ({HTTPS: PortSpec(http.https_endpoint, common)} if http.https_endpoint else {})


def _ports(specs: Mapping[str, PortSpec], rejections: RejectionLog, role: ProcessRole, reactor: Any) -> ServerPorts:
    return ServerPorts(
        specs if role.media else {}, rejections, reactor,
        sockets=role.sockets, elsewhere=role.ports, counter=role.counter, accepting=role.counter(ACCEPTING),
    )  # fmt: skip


def _assistants(
    settings: Settings,
    given: _Assistants | None,
    reactor: Any,
    transfers: TransferRules,
    metrics: Metrics,
    pages: dict[bytes, IResource],
    record: Callable[[str, EntryKind, str], None],
) -> Assistants:
    environment = make_environment(
        reactor, settings.process.state_dir, check_transfer=transfers.check, counters=metrics, pages=pages,
        record=record, ca_file=settings.tls.ca_file,
    )  # fmt: skip
    groups = {"bridge": settings.upstream}
    if given is not None:
        return make_assistants(given, environment, groups)
    return parse_rules(settings.assistants.rules, environment, groups)


def _plain_store(store: StoreSettings, tls: TlsSettings, state_dir: Path, reactor: Any, owner: str) -> CallStore:
    return open_store(store.url, state_dir, reactor, owner, tls.ca_file)


def _spooling(store: CallStore, state_dir: Path, reactor: Any, delivered: Callable[[], None]) -> CallStore:
    """The store with a spool below it, which keeps what the store can't take now; memory takes everything."""
    if isinstance(store, MemoryStore | SpoolingStore):
        return store
    return SpoolingStore(store, state_dir / "spool", reactor, told=delivered)


def _http_client(tls: TlsSettings, reactor: Any) -> tuple[Any, Any]:
    try:
        return make_client(reactor, tls.ca_file)
    except ValueError as error:
        raise SettingsError(f"TLS__CA_FILE: {error}") from None


def _registrar(
    limits: LimitSettings, store: CallStore, assistants: Assistants, state: ServerState, rejections: RejectionLog
) -> Registrar:
    return Registrar(
        store, assistants.knows, now=time.time, context_ttl_s=limits.context_ttl_s, max_pending=limits.max_waiting,
        draining=lambda: state.refuses_calls, prepare=assistants.prepare,
        key_refused=lambda: rejections.counts.update(["key.too_many_calls"]),
    )  # fmt: skip


def _webhook(
    settings: WebhookSettings, store: CallStore, metrics: Metrics, http_client: Any, reactor: Any
) -> StatusWebhook:
    client = CountedClient(http_client, metrics.webhook, _never_sent)
    return StatusWebhook(store, settings.url, settings.secret, treq_client=client, reactor=reactor)


def _trunk_limits(outbound: OutboundSettings, ari: AriSettings) -> TrunkLimits:
    return TrunkLimits(
        context=outbound.context,
        app=ari.app,
        calls=outbound.calls,
        rate=outbound.rate,
        queue=outbound.queue,
        wait_s=outbound.wait_s,
        answer_s=outbound.answer_s,
        longest_s=outbound.longest_s,
        ari_timeout_s=ari.timeout_s,
    )


def _trunk_maker(
    http_client: Any,
    metrics: Metrics,
    tls: TlsSettings,
    make_stasis: Callable[[AriClient, str], StasisCalls],
    reactor: Any,
) -> Callable[[AriCredential, TrunkLimits], Trunk]:
    def make_trunk(credential: AriCredential, limits: TrunkLimits) -> Trunk:
        client = CountedClient(http_client, lambda outcome: metrics.ari(credential.name, outcome), _never_sent)
        return Trunk(
            credential, limits, treq_client=client, make_stasis=make_stasis, reactor=reactor,
            tls_options=lambda host: tls_options(host, tls.ca_file), now=time.time,
        )  # fmt: skip

    return make_trunk


async def _register_from_stasis(registrar: Registrar, assistant_id: str, channel: AriChannel) -> CallContext:
    """Register a call that its dialplan gave to our Stasis application."""
    check_assistant(registrar, assistant_id)
    parameters = CallParameters(channel.caller, channel.extension, channel.id, {})
    return await registrar.register(assistant_id, parameters)


def _banner(settings: Settings, keys: Keys, *, port_of: Callable[[str], int], assistant_ids: tuple[str, ...]) -> str:
    values = dialplan_values(
        settings.http, settings.audiosocket, settings.public,
        api_key=keys.first, port_of=port_of, assistant_ids=assistant_ids,
    )  # fmt: skip
    return banner_text(
        values, settings.process.state_dir, key_is_new=keys.is_new, key_is_set=bool(settings.keys.api_keys)
    )


def _never_sent(error: BaseException) -> bool:
    """Whether a request failed before there was a connection."""
    return any(isinstance(cause, ConnectError | DNSLookupError) for cause in causes_of(error))
