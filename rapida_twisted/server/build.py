"""The composition root: builds every part, starts them in order, stops them in order.

Stopping: registrations are refused (503, so that a load balancer goes elsewhere), calls that were registered before may
still come; the calls that are up have the drain time to end, then each gets a hangup frame; then the ports close, and
the store last, when the ends of all calls are in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from rapida_twisted.assistants.environment import make_environment
from rapida_twisted.assistants.registry import Assistants, parse_rules
from rapida_twisted.asterisk.ari.client import AriClient
from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.ari.replies import AriChannel
from rapida_twisted.asterisk.outbound.calls import OutboundCalls
from rapida_twisted.asterisk.outbound.progress_writer import ProgressWriter
from rapida_twisted.asterisk.outbound.trunk import Trunk, TrunkLimits
from rapida_twisted.asterisk.stasis.calls import StasisCalls, StasisMedia
from rapida_twisted.asterisk.vault.vault import open_vault
from rapida_twisted.context import CallContext, CallParameters, EndReason
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.credentials.masking import keep_out_of_logs
from rapida_twisted.errors import SettingsError, StartError, StoreUnavailable
from rapida_twisted.interfaces import Swept
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.media.calls import Calls
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.media.governor import Governor
from rapida_twisted.media.idle import IdleWatch
from rapida_twisted.net.connection_errors import causes_of
from rapida_twisted.net.http_client import make_client
from rapida_twisted.net.tls import tls_options
from rapida_twisted.observe.counted_client import CountedClient
from rapida_twisted.observe.interface import Instant
from rapida_twisted.observe.multiprocess import open_metrics
from rapida_twisted.observe.sampler import Sampler
from rapida_twisted.ports.connection_limiter import ConnectionLimits
from rapida_twisted.ports.endpoints import outcome_of, tcp_endpoint
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.ports.server_ports import AUDIOSOCKET, HTTP, HTTPS, PortSpec, ServerPorts
from rapida_twisted.protocols.audiosocket_app import AudioSocketFactory
from rapida_twisted.protocols.chan_websocket_app import MediaServerFactory
from rapida_twisted.server.banner import dialplan_values, welcome_text
from rapida_twisted.server.lease import Lease, owner_name
from rapida_twisted.server.preflight import check_start
from rapida_twisted.server.reception import Reception
from rapida_twisted.server.registrar import Registrar
from rapida_twisted.server.role import ACCEPTING, ARI, STANDALONE, ProcessRole
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
from rapida_twisted.web.site import RapidaSite, make_site
from rapida_twisted.web.websocket import handshake_gate, websocket_page
from rapida_twisted.webhook.status import StatusWebhook

__all__ = ["RapidaMedia", "port_specs"]

HOUSEKEEPING_S = 5.0
CONNECT_S = 5.0
"""How long a process that does nothing but speak ARI waits for Asterisk before it says that it is ready."""
MEDIA_FIRST_S = 1.5
"""How long another process that has a call's media has to end it, and say why, before the channel is hung up."""
GOODBYE_S = 2.5
"""How long connections may take to close once their calls got a hangup frame."""


class RapidaMedia(Service):
    """The whole server: AudioSocket and HTTP listening, calls answered by assistants.

    :param settings: what it was told.
    :param reactor: listens, and provides the time.
    :param announce: called once when all is listening, with what a person needs next. It may hold the API key.
    :param role: what of it this process is.
    :raises SettingsError: an assistant or the store named in the settings can't be used.
    """

    _log = Logger()
    name = "rapida-media"

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        announce: Callable[[str], None] = lambda text: None,
        role: ProcessRole = STANDALONE,
    ) -> None:
        self.settings = settings
        self._role = role
        keep_out_of_logs(*settings.secrets)
        self.reactor = reactor
        self.draining = False
        transfers = TransferRules(settings.transfer_allow)
        self.metrics = open_metrics(reactor)
        self._assistant_pages: dict[bytes, IResource] = {}
        environment = make_environment(
            reactor, settings.state_dir, check_transfer=transfers.check, counters=self.metrics,
            pages=self._assistant_pages, record=JournalSink(lambda: self.store), ca_file=settings.tls_ca_file,
        )  # fmt: skip
        self.assistants: Assistants = parse_rules(settings.assistant, environment, {"bridge": settings})
        self.metrics.set_rules(self.assistants.ids)
        self.store: CallStore = observed(self._make_store(), self.metrics)
        self.lease = Lease(self.store, self._obey, reactor)
        self.clock = MediaClock(reactor)
        self.governor = Governor(self.clock, settings.polling, reactor)
        self.calls = Calls(settings.max_calls, role.counter("calls"))
        self.rejections = RejectionLog()
        """What was refused, by name: ``rejections.counts``."""
        self._idle_watch = IdleWatch(self.calls, settings.idle_s, lambda: self._count("call.idle"))
        self._watch = Sampler(
            self.metrics, clock=self.clock, calls=lambda: self.calls, look=self._instant, refused=self._refused,
            reactor=reactor,
        )  # fmt: skip
        self.reception = Reception(
            self.store, self.assistants.make, self.calls, self.clock, reactor,
            transfers=transfers, lead_ms=settings.lead_ms, bridges=role.bridges, watch=self._watch,
        )  # fmt: skip
        self.registrar = Registrar(
            self.store, self.assistants.knows, now=time.time, context_ttl_s=settings.context_ttl_s,
            max_pending=settings.max_waiting, draining=self._refuses_calls, prepare=self.assistants.prepare,
            key_refused=lambda: self._count("key.too_many_calls"),
        )  # fmt: skip
        try:
            self._http_client, self._http_pool = make_client(reactor, settings.tls_ca_file)
        except ValueError as error:
            raise SettingsError(f"TLS__CA_FILE: {error}") from None
        self.vault = open_vault(settings.state_dir, settings.vault_key_settings)
        self.webhook = StatusWebhook(
            self.store, settings.status_webhook_url, settings.status_webhook_secret,
            treq_client=CountedClient(self._http_client, self.metrics.webhook, _never_sent), reactor=reactor,
        )  # fmt: skip
        self.outbound = self._make_outbound()
        self._audiosocket: AudioSocketFactory | None = None
        self._site_open: RapidaSite | None = None
        self._ports = ServerPorts(
            port_specs(settings) if role.media else {}, self.rejections, reactor,
            sockets=role.sockets, elsewhere=role.ports, counter=role.counter, accepting=role.counter(ACCEPTING),
        )  # fmt: skip
        self._announce = announce
        self._housekeeping = LoopingCall(self._keep_house)
        self._housekeeping.clock = reactor
        self._drained: IDelayedCall | None = None
        self._handing_over = False

    def _make_store(self) -> CallStore:
        settings = self.settings
        store = open_store(settings.store_url, settings.state_dir, self.reactor, owner_name(), settings.tls_ca_file)
        if isinstance(store, MemoryStore):
            return store
        return SpoolingStore(store, settings.state_dir / "spool", self.reactor, told=lambda: self.webhook.wake())

    def _make_outbound(self) -> OutboundCalls:
        settings = self.settings
        notify = bool(settings.status_webhook_url)
        return OutboundCalls(
            vault=self.vault,
            store=self.store,
            writer=ProgressWriter(self.store, notify=notify, written=self.webhook.wake, reactor=self.reactor),
            make_trunk=self._make_trunk,
            limits=TrunkLimits(
                context=settings.outbound_context,
                app=settings.ari_app,
                calls=settings.outbound_calls,
                rate=settings.outbound_rate,
                queue=settings.outbound_queue,
                wait_s=settings.outbound_wait_s,
                answer_s=settings.outbound_answer_s,
                longest_s=settings.outbound_longest_s,
                ari_timeout_s=settings.ari_timeout_s,
            ),
            context_ttl_s=settings.context_ttl_s,
            max_pending=settings.max_waiting,
            reactor=self.reactor,
            now=time.time,
        )

    def _make_trunk(self, credential: AriCredential, limits: TrunkLimits, **more: Any) -> Trunk:
        client = CountedClient(
            self._http_client, lambda outcome: self.metrics.ari(credential.name, outcome), _never_sent
        )
        return Trunk(
            credential, limits, treq_client=client, make_stasis=self._make_stasis, reactor=self.reactor,
            tls_options=lambda host: tls_options(host, self.settings.tls_ca_file), now=time.time, **more,
        )  # fmt: skip

    def _make_stasis(self, ari: AriClient, app: str) -> StasisCalls:
        host = self.settings.public_host(self.settings.audiosocket_host)
        port = self.settings.public_audiosocket_port or self.audiosocket_port
        return StasisCalls(
            ari, app, store=self.store, media=StasisMedia(host, port),
            register=self._register_from_stasis, bridges=self._role.bridges, reactor=self.reactor,
        )  # fmt: skip

    async def _register_from_stasis(self, assistant_id: str, channel: AriChannel) -> CallContext:
        """Register a call that its dialplan gave to our Stasis application."""
        check_assistant(self.registrar, assistant_id)
        parameters = CallParameters(channel.caller, channel.extension, channel.id, {})
        return await self.registrar.register(assistant_id, parameters)

    # Starting

    def startService(self) -> None:
        """Listen. Whatever prevents it is raised at once, and nothing stays open.

        :raises StartError: the text is one sentence.
        """
        keys = check_start(self.settings, self.vault, self._keys_broke)
        outcome_of(self.store.open(), "the call store can't be opened")
        try:
            self._open_entrance(ApiKeys(keys.plain, keys.ring))
        except StartError:
            self.store.close()
            raise
        self.lease.start()
        self._housekeeping.start(HOUSEKEEPING_S, now=True).addErrback(self._housekeeping_broke)
        self.governor.start()
        self._watch.start()
        super().startService()
        if self._role.ari:
            if self.settings.status_webhook_url:
                self.webhook.start()
            Deferred.fromCoroutine(self.outbound.start()).addErrback(self._outbound_broke)
        self._log.info(
            "listening: HTTP on port {http}, AudioSocket on port {audiosocket}; state in {state_dir}",
            http=self.http_port, audiosocket=self.audiosocket_port, state_dir=self.settings.state_dir,
        )  # fmt: skip
        values = dialplan_values(self.settings, keys.plain[0], self._ports.port_of, self.assistants.ids)
        text = welcome_text(self.settings, values, keys.is_new)
        ready = succeed(None) if self._role.media else Deferred.fromCoroutine(self.outbound.connected(CONNECT_S))
        ready.addCallback(lambda _: self.reactor.callWhenRunning(self._announce, text))

    def _keys_broke(self, problem: str) -> None:
        self._log.error("{problem}", problem=problem)

    def _outbound_broke(self, failure: Failure) -> None:
        self._log.failure("the outbound calls of before can't be followed", failure)

    @property
    def http_port(self) -> int:
        """The port that HTTP listens on, once started."""
        return self._ports.port_of(HTTP)

    @property
    def audiosocket_port(self) -> int:
        """The port that AudioSocket listens on, once started."""
        return self._ports.port_of(AUDIOSOCKET)

    @property
    def https_port(self) -> int:
        """The port with TLS, once started; 0 without one."""
        return self._ports.port_of(HTTPS)

    def _open_entrance(self, keys: ApiKeys) -> None:
        settings, site = self.settings, self._site(keys)
        site.resource.putChild(b"metrics", MetricsPage(self.metrics, keys, public=settings.metrics_public))
        self._audiosocket = AudioSocketFactory(
            self.reception, self.reactor, settings.audiosocket_uuid_s, settings.audiosocket_waiting, self.rejections
        )
        if ARI in self._role.sockets:
            self._ports.serve_unix(self._role.sockets[ARI], site)
        self._ports.open(site, self._audiosocket)
        if self._role.media:
            self._compare_limits()
        self._site_open = site

    def _compare_limits(self) -> None:
        """One Asterisk may bring all the calls there may be, if there may be as many connections."""
        settings, most = self.settings, min(self.settings.connections, self.settings.connections_of_address)
        if settings.max_calls > most:
            self._log.warn(
                "MAX_CALLS is {calls}, but CONNECTIONS__MAX and CONNECTIONS__OF_ADDRESS let one address make {most}"
                " connections",
                calls=settings.max_calls, most=most,
            )  # fmt: skip

    def _refuses_calls(self) -> bool:
        """Whether calls that come now had better go elsewhere; where another process has the ports, they came to us
        alone for an old connection's sake."""
        return self.draining and not self._handing_over

    def _count(self, name: str) -> None:
        self.rejections.counts[name] += 1

    def _site(self, keys: ApiKeys) -> RapidaSite:
        return make_site(
            store=self.store,
            keys=keys,
            registrar=self.registrar,
            outbound=self.outbound,
            hang_up=self.hang_up,
            draining=lambda: self.draining,
            assistants=self.assistants.health,
            extra=self._pages(keys),
            reactor=self.reactor,
            rejections=self.rejections,
            max_body_bytes=self.settings.http_body_bytes,
            request_timeout_s=self.settings.http_request_s,
        )

    def _pages(self, keys: ApiKeys) -> dict[bytes, IResource]:
        pages: dict[bytes, IResource] = {
            **self._assistant_pages,
            b"clock": ClockPage(self.clock, keys),
            b"talk/asterisk/ctx": ContextPages(self.store, keys, websocket_page(self._websockets(keys))),
        }
        if self._role.ari_socket:
            pages[b"talk/asterisk/outbound"] = ForwardedOutbound(keys, self._role.ari_socket, self.reactor)
        return pages

    def _websockets(self, keys: ApiKeys) -> MediaServerFactory:
        return MediaServerFactory(
            self.reception, self.reactor, handshake_gate(keys), self.rejections, self.settings.message_bytes
        )

    # While running

    def hang_up(self, context_id: str) -> bool:
        """Hang up the call of this context, for an operator, whatever it is at; whether it was here."""
        call = self.calls.get(context_id)
        hung_up = call is not None and call.end(EndReason.OPERATOR_HANGUP)
        return self.outbound.hang_up(context_id) or hung_up

    def _instant(self) -> Instant:
        """What is true just now, for the metrics."""
        audiosocket = self._audiosocket
        health = self.assistants.health()
        return Instant(
            draining=self.draining,
            calls_coming=self.reception.coming,
            ends_unwritten=self.reception.unwritten + getattr(self.store, "unsaved", 0),
            audiosocket_waiting=audiosocket.unidentified if audiosocket is not None else 0,
            breakers={rule: str(told["state"]) for rule, told in health.items() if "state" in told},
        )

    def _refused(self) -> dict[str, int]:
        """What limits have refused so far, by their names."""
        return dict(self.rejections.counts)

    def _obey(self, words: Mapping[str, str]) -> None:
        """An order of another process that shares the store."""
        context_id = words.get("hangup", "")
        if context_id and words.get("media", self.store.owner) not in ("", self.store.owner):
            self.outbound.hang_up_later(context_id, MEDIA_FIRST_S)
        elif context_id and not self.hang_up(context_id):
            self._log.info("call {id}: another server wants it hung up, and it is not up here", id=context_id)

    def _keep_house(self) -> Deferred[Any]:
        self._ports.renew_certificates()
        if self._role.ari:
            self.outbound.refresh()
        self.rejections.flush()
        self._idle_watch.check()
        return Deferred.fromCoroutine(self._sweep()).addErrback(self._not_swept)

    async def _sweep(self) -> None:
        now, presume = time.time(), self.lease.may_judge()
        self._swept(await self.store.sweep(now=now, forget_before=now - self.settings.keep_s, presume=presume))
        if self._role.ari and await self.outbound.adopt(presume):
            self.webhook.look_back()

    def _swept(self, swept: Swept) -> None:
        if swept.expired:
            self._log.info("{count} calls expired: registered, but their media never came", count=swept.expired)
        if swept.lost:
            self._log.warn("{count} calls are lost, with the server process that had them", count=swept.lost)

    def _not_swept(self, failure: Failure) -> None:
        # That the store does not answer is told by the lease.
        if not failure.check(StoreUnavailable):
            self._log.failure("the store could not be swept", failure)

    def _housekeeping_broke(self, failure: Failure) -> None:
        self._log.failure("the housekeeping broke: calls do not expire any more", failure)

    # Stopping

    def stopService(self) -> Deferred[None]:
        """Drain and stop, in order; fires when all is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def reload(self) -> None:
        """What several workers would do, one process can't."""
        self._log.warn("SIGHUP does nothing to a single process: with WORKERS=2 or more, each is replaced by a new one")

    def leave_ports(self) -> None:
        """Before :meth:`stopService`, where others listen on the same ports: accept nothing more at once."""
        self._ports.close()

    def hand_over(self) -> None:
        """Before :meth:`stopService`, where another process takes this one's place: leave the ports to it, and the
        calls that are followed through ARI."""
        self._handing_over = True
        if self._site_open is not None:
            self._site_open.leaving = True
        self._ports.close()

    def hurry(self) -> None:
        """Cut the drain time short: the calls that are left get their hangup frame now."""
        if self._drained is not None and self._drained.active():
            self._drained.reset(0)

    async def _stop(self) -> None:
        self.draining = True
        if self._handing_over:
            await self.outbound.drain_queues(self.settings.drain_s)
        self.outbound.drain()
        if len(self.calls):
            self._log.info(
                "stopping: {count} calls have {seconds:g} s to end",
                count=len(self.calls), seconds=self.settings.drain_s,
            )  # fmt: skip
            await self._drain()
        await self._close_the_door()
        await (self.outbound.leave() if self._handing_over else self.outbound.stop())
        await self._ports.close()
        self.governor.stop()
        if self._housekeeping.running:
            self._housekeeping.stop()
        self._watch.stop()
        self.lease.stop()
        await self.reception.flush(timeout_s=GOODBYE_S)
        await self.webhook.stop()
        await self.store.close()
        await self.assistants.close()
        await self._http_pool.closeCachedConnections()
        self._log.info("stopped")

    async def _close_the_door(self) -> None:
        """Let no further call in, and hang up those that came up in the last moment."""
        self.reception.closed = True
        until_s = self.reactor.seconds() + GOODBYE_S
        while (self.reception.coming or len(self.calls)) and self.reactor.seconds() < until_s:
            for call in self.calls:
                call.end(EndReason.SHUTDOWN)
            await deferLater(self.reactor, 0.05)

    async def _drain(self) -> None:
        """Wait until the last call ended by itself, or the time is over; then hang up."""
        empty = self.calls.when_empty()
        self._drained = self.reactor.callLater(self.settings.drain_s, empty.cancel)
        try:
            await empty
        except CancelledError:
            for call in self.calls:
                call.end(EndReason.SHUTDOWN)
            await self.calls.when_empty()
            # The hangup frames are in the sockets; their peers get a moment to take them and close.
            await deferLater(self.reactor, 0.2)
        finally:
            if self._drained.active():
                self._drained.cancel()


def port_specs(settings: Settings) -> dict[str, PortSpec]:
    """The ports to listen on, by name."""
    limits = ConnectionLimits(
        proxies=settings.proxy_allow,
        connections=settings.connections,
        per_address=settings.connections_of_address,
        rate=settings.connections_rate,
        address_rate=settings.connections_address_rate,
    )
    http = settings.http_endpoint or tcp_endpoint(settings.http_host, settings.http_port)
    audiosocket = settings.audiosocket_endpoint or tcp_endpoint(settings.audiosocket_host, settings.audiosocket_port)
    specs = {
        HTTP: PortSpec(http, limits, settings.http_port),
        AUDIOSOCKET: PortSpec(
            audiosocket, replace(limits, networks=settings.audiosocket_allow), settings.audiosocket_port
        ),
    }
    return specs | ({HTTPS: PortSpec(settings.https_endpoint, limits)} if settings.https_endpoint else {})


def _never_sent(error: BaseException) -> bool:
    """Whether a request ended before there was a connection."""
    return any(isinstance(cause, ConnectError | DNSLookupError) for cause in causes_of(error))
