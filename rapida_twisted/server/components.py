"""The components of a server process, connected and not started.

Each component is made at its first use, from the group of settings that concerns it, and opens nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.web.resource import IResource

from rapida_twisted import __version__
from rapida_twisted.assistants.environment import make_environment
from rapida_twisted.assistants.recordings import GB, RecordingsFolder, recordings_dir
from rapida_twisted.assistants.registry import Assistants, make_assistants, parse_rules
from rapida_twisted.asterisk.ari.client import AriClient
from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.ari.replies import AriChannel
from rapida_twisted.asterisk.outbound.calls import OutboundCalls
from rapida_twisted.asterisk.outbound.progress_writer import ProgressWriter
from rapida_twisted.asterisk.outbound.trunk import Trunk, TrunkLimits
from rapida_twisted.asterisk.stasis.calls import StasisCalls, StasisKit, StasisMedia
from rapida_twisted.asterisk.vault.vault import Vault, open_vault
from rapida_twisted.context import CallContext, CallParameters
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces.typed import Assistant, CallStore
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
from rapida_twisted.observe.twistd_logging import dropped_lines
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.ports.server_ports import ADMIN, AUDIOSOCKET, HTTP, HTTPS, ServerPorts
from rapida_twisted.ports.turn_budget import TurnBudget
from rapida_twisted.protocols.audiosocket_app import AudioSocketFactory
from rapida_twisted.protocols.chan_websocket_app import MediaServerFactory
from rapida_twisted.server.addresses import addresses, port_specs
from rapida_twisted.server.call_control import CallControl
from rapida_twisted.server.lease import Lease, owner_name
from rapida_twisted.server.reactor_watch import ReactorWatch
from rapida_twisted.server.reception import Reception
from rapida_twisted.server.registrar import Registrar
from rapida_twisted.server.role import ACCEPTING, BEAT, STANDALONE, ProcessRole
from rapida_twisted.server.transfers import TransferRules
from rapida_twisted.settings import Settings
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
from rapida_twisted.web.server import ServerPage
from rapida_twisted.web.site import RapidaSite, make_root, operators_root
from rapida_twisted.web.websocket import assistants_gate, handshake_gate, websocket_page
from rapida_twisted.webhook.status import StatusWebhook

__all__ = ["Components", "ServerState"]


@attrs.define
class ServerState:
    """Whether a server stops, and how."""

    draining: bool = False
    handing_over: bool = False
    """Another process takes the place of this one."""

    @property
    def refuses_calls(self) -> bool:
        """Whether to send new calls elsewhere. While another process has the ports, calls reach this one only over a
        connection that is kept open, and are taken."""
        return self.draining and not self.handing_over


@attrs.define(eq=False, repr=False, slots=False)
class Components:
    """The components of a server process.

    :param given_store: keeps the calls, in place of the store that the settings name.
    :param given_assistants: in place of those that the settings name.
    """

    settings: Settings
    reactor: Any
    given_store: CallStore | None = None
    given_assistants: Mapping[str, str | Callable[..., Assistant]] | None = None
    role: ProcessRole = STANDALONE
    has_asyncio: bool = attrs.field(
        default=attrs.Factory(lambda self: isinstance(self.reactor, AsyncioSelectorReactor), takes_self=True)
    )
    """Whether the server runs on asyncio's reactor."""
    state: ServerState = attrs.field(factory=ServerState, init=False)
    rejections: RejectionLog = attrs.field(factory=RejectionLog, init=False)
    _pages: dict[bytes, IResource] = attrs.field(factory=dict, init=False)
    """The pages of assistants."""

    def check(self) -> None:
        """Make what the settings name.

        :raises SettingsError: an assistant, the store, a transfer pattern, the vault's key or the TLS authorities can't
            be used.
        """
        self.assistants, self._http_client, self._plain_store, self.vault  # noqa: B018

    # Calls and their media

    @cached_property
    def transfers(self) -> TransferRules:
        return TransferRules(self.settings.assistants.transfer_allow)

    @cached_property
    def assistants(self) -> Assistants:
        settings = self.settings
        environment = make_environment(
            self.reactor, self.state_dir, check_transfer=self.transfers.check, counters=self.metrics,
            pages=self._pages, record=JournalSink(lambda: self.store), ca_file=settings.tls.ca_file,
            has_asyncio=self.has_asyncio,
        )  # fmt: skip
        groups = {"bridge": settings.upstream, "record": settings.recordings}
        if self.given_assistants is not None:
            return make_assistants(self.given_assistants, environment, groups)
        return parse_rules(settings.assistants.rules, environment, groups)

    @cached_property
    def recordings(self) -> RecordingsFolder:
        settings = self.settings.recordings
        path = recordings_dir(settings, self.state_dir)
        return RecordingsFolder(path, settings.keep_s, settings.max_gb * GB)

    @cached_property
    def clock(self) -> MediaClock:
        return MediaClock(self.reactor)

    @cached_property
    def governor(self) -> Governor:
        return Governor(self.clock, self.settings.media.polling, self.reactor)

    @cached_property
    def calls(self) -> Calls:
        return Calls(self.settings.limits.max_calls, self.role.counter("calls"))

    @cached_property
    def idle_watch(self) -> IdleWatch:
        return IdleWatch(self.calls, self.settings.media.idle_s, lambda: self.rejections.counts.update(["call.idle"]))

    @cached_property
    def registrar(self) -> Registrar:
        limits = self.settings.limits
        return Registrar(
            self.store, self.assistants.knows, now=time.time, context_ttl_s=limits.context_ttl_s,
            max_pending=limits.max_waiting, draining=lambda: self.state.refuses_calls, prepare=self.assistants.prepare,
            key_refused=lambda: self.rejections.counts.update(["key.too_many_calls"]),
        )  # fmt: skip

    @cached_property
    def reception(self) -> Reception:
        return Reception(
            self.store, self.assistants.make, self.calls, self.clock, self.reactor, transfers=self.transfers,
            lead_ms=self.settings.media.lead_ms, bridges=self.role.bridges, watch=self.sampler,
            same_network=self.settings.limits.same_network,
        )  # fmt: skip

    @cached_property
    def control(self) -> CallControl:
        return CallControl(self.calls, self.outbound, self.store.owner)

    # The store

    @property
    def state_dir(self) -> Path:
        return self.settings.process.state_dir

    def open_store(self, owner: str) -> CallStore:
        """The store that the settings name, for a process of this name."""
        return open_store(self.settings.store.url, self.state_dir, self.reactor, owner, self.settings.tls.ca_file)

    @cached_property
    def _plain_store(self) -> CallStore:
        return self.open_store(owner_name()) if self.given_store is None else self.given_store

    @cached_property
    def store(self) -> CallStore:
        """With a spool below it, which keeps what the store can't take now; memory takes everything."""
        store = self._plain_store
        if not isinstance(store, MemoryStore | SpoolingStore):
            store = SpoolingStore(store, self.state_dir / "spool", self.reactor, told=lambda: self.webhook.wake())
        return observed(store, self.metrics)

    @cached_property
    def lease(self) -> Lease:
        return Lease(self.store, self.control.obey, self.reactor)

    # Metrics

    @cached_property
    def metrics(self) -> Metrics:
        return open_metrics(self.reactor)

    @cached_property
    def sampler(self) -> Sampler:
        return Sampler(
            self.metrics, clock=self.clock, calls=lambda: self.calls, look=self._look,
            refused=lambda: {**self.rejections.counts, "log.dropped": dropped_lines()}, reactor=self.reactor,
        )  # fmt: skip

    @cached_property
    def watch(self) -> ReactorWatch:
        return ReactorWatch(self.metrics.blocked, self.reactor, beat=self.role.counter(BEAT).publish)

    def _look(self) -> Instant:
        health = self.assistants.health()
        return Instant(
            draining=self.state.draining,
            calls_coming=self.reception.coming,
            ends_unwritten=self.reception.unwritten + getattr(self.store, "unsaved", 0),
            audiosocket_waiting=self.audiosocket.unidentified,
            breakers={rule: str(each["state"]) for rule, each in health.items() if "state" in each},
        )

    # Asterisk, and the webhook that reports outbound calls

    @cached_property
    def vault(self) -> Vault:
        return open_vault(self.state_dir, self.settings.vault.environ)

    @cached_property
    def _http_client(self) -> tuple[Any, Any]:
        try:
            return make_client(self.reactor, self.settings.tls.ca_file)
        except ValueError as error:
            raise SettingsError(f"TLS__CA_FILE: {error}") from None

    @property
    def http_pool(self) -> Any:
        """The HTTP client's persistent connections."""
        return self._http_client[1]

    def _counted_client(self, count: Callable[[str], None]) -> CountedClient:
        return CountedClient(self._http_client[0], count, _never_sent)

    @cached_property
    def webhook(self) -> StatusWebhook:
        url, secret = self.settings.webhook.url, self.settings.webhook.secret
        client = self._counted_client(self.metrics.webhook)
        return StatusWebhook(self.store, url, secret, treq_client=client, reactor=self.reactor)

    @cached_property
    def outbound(self) -> OutboundCalls:
        limits, notify = self.settings.limits, bool(self.settings.webhook.url)
        return OutboundCalls(
            vault=self.vault,
            store=self.store,
            writer=ProgressWriter(self.store, notify=notify, written=self.webhook.wake, reactor=self.reactor),
            make_trunk=self._make_trunk,
            limits=self._trunk_limits,
            context_ttl_s=limits.context_ttl_s,
            max_pending=limits.max_waiting,
            reactor=self.reactor,
            now=time.time,
        )

    @property
    def _trunk_limits(self) -> TrunkLimits:
        of, ari = self.settings.outbound, self.settings.ari
        return TrunkLimits(
            context=of.context, app=ari.app, calls=of.calls, rate=of.rate, queue=of.queue, wait_s=of.wait_s,
            answer_s=of.answer_s, longest_s=of.longest_s, ari_timeout_s=ari.timeout_s,
        )  # fmt: skip

    def _make_trunk(self, credential: AriCredential, limits: TrunkLimits) -> Trunk:
        client = self._counted_client(lambda outcome: self.metrics.ari(credential.name, outcome))
        return Trunk(
            credential, limits, treq_client=client, make_stasis=self._make_stasis, reactor=self.reactor,
            tls_options=lambda host: tls_options(host, self.settings.tls.ca_file), now=time.time,
        )  # fmt: skip

    def _make_stasis(self, ari: AriClient, app: str) -> StasisCalls:
        settings = self.settings
        host = settings.public.host_for(settings.audiosocket.host)
        kit = StasisKit(
            ari=ari, app=app, store=self.store, register=self._register_from_stasis, bridges=self.role.bridges,
            media=StasisMedia(host, settings.public.audiosocket_port or self.ports.port_of(AUDIOSOCKET)),
            reactor=self.reactor,
        )  # fmt: skip
        return StasisCalls(kit)

    async def _register_from_stasis(self, assistant_id: str, channel: AriChannel) -> CallContext:
        """Register a call that its dialplan gave to our Stasis application."""
        check_assistant(self.registrar, assistant_id)
        parameters = CallParameters(channel.caller, channel.extension, channel.id, {})
        return await self.registrar.register(assistant_id, parameters)

    # Ports

    @cached_property
    def ports(self) -> ServerPorts:
        role = self.role
        return ServerPorts(
            port_specs(self.settings) if role.media else {}, self.rejections, self.reactor,
            sockets=role.sockets, elsewhere=role.ports, counter=role.counter, accepting=role.counter(ACCEPTING),
        )  # fmt: skip

    @cached_property
    def http_budget(self) -> TurnBudget:
        """Calls come first; without any, HTTP has all the time."""
        return TurnBudget(self.reactor, needed=lambda: len(self.clock) > 0)

    @cached_property
    def audiosocket(self) -> AudioSocketFactory:
        limits = self.settings.audiosocket
        return AudioSocketFactory(self.reception, self.reactor, limits.uuid_s, limits.waiting, self.rejections)

    def make_sites(self, keys: ApiKeys) -> dict[str, RapidaSite]:
        """The site of each port that speaks HTTP."""
        root = make_root(
            store=self.store, keys=keys, registrar=self.registrar, outbound=self.outbound,
            hang_up=self.control.hang_up, draining=lambda: self.state.draining, assistants=self.assistants.health,
            extra=self._more_pages(keys),
        )  # fmt: skip
        root.putChild(b"metrics", MetricsPage(self.metrics, keys, public=self.settings.http.metrics_public))
        http = self.settings.http
        make = partial(
            RapidaSite, reactor=self.reactor, timeout_s=http.request_s, max_body_bytes=http.body_bytes,
            rejections=self.rejections, budget=self.http_budget, proxies=self.settings.connections.proxy_allow,
            first_request_s=http.first_request_s,
        )  # fmt: skip
        public = make(root)
        return {HTTP: public, HTTPS: public, ADMIN: make(operators_root(root))}

    def _more_pages(self, keys: ApiKeys) -> dict[bytes, IResource]:
        """The pages below ``/v1`` beside those that every server has."""
        websockets = MediaServerFactory(
            self.reception, self.reactor, handshake_gate(keys), self.rejections, self.settings.media.message_bytes,
            assistants_gate(keys),
            lambda peer: keys.failed.delay_s(getattr(peer, "host", ""), self.reactor.seconds()),
        )  # fmt: skip
        more = {
            **self._pages,
            b"clock": ClockPage(self.clock, keys),
            b"server": ServerPage(self._describe, keys),
            b"talk/asterisk/ctx": ContextPages(self.store, keys, websocket_page(websockets)),
        }
        if self.role.ari_socket:
            more[b"talk/asterisk/outbound"] = ForwardedOutbound(keys, self.role.ari_socket, self.reactor)
        return more

    def _describe(self) -> dict[str, Any]:
        found = addresses(self.settings, self.ports.port_of, self.assistants.ids)
        return {"version": __version__, **attrs.asdict(found)}


def _never_sent(error: BaseException) -> bool:
    """Whether a request failed before there was a connection."""
    return any(isinstance(cause, ConnectError | DNSLookupError) for cause in causes_of(error))
