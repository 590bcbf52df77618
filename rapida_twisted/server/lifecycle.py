"""Starts a server process, keeps house, drains and stops it.

Stopping: registrations are refused (503, so that a load balancer goes elsewhere), calls that were registered before may
still come; the calls that are up have the drain time to end, then each gets a hangup frame; then the ports close, and
the store last, when the ends of all calls are in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.context import EndReason
from rapida_twisted.errors import StartError, StoreUnavailable
from rapida_twisted.interfaces import Swept
from rapida_twisted.media.calls import Calls
from rapida_twisted.ports.endpoints import outcome_of
from rapida_twisted.ports.server_ports import ADMIN, AUDIOSOCKET, HTTP, HTTPS
from rapida_twisted.server.banner import banner
from rapida_twisted.server.components import Components
from rapida_twisted.server.preflight import Keys, check_start, warn_of_limits
from rapida_twisted.server.role import ARI
from rapida_twisted.web.site import RapidaSite

__all__ = ["Lifecycle"]

HOUSEKEEPING_S = 5.0
CONNECT_S = 5.0
"""How long (s) a process that only speaks ARI waits for Asterisk before it reports that it is ready."""
TIDY_EVERY_S = 60.0
GOODBYE_S = 2.5
"""How long (s) connections may take to close once their calls got a hangup frame."""


class Lifecycle(Service):
    """Runs the components of a server process.

    :param announce: called once when all ports listen, with the banner. It may contain the API key.
    """

    _log = Logger()
    name = "rapida-media"

    def __init__(self, components: Components, announce: Callable[[str], None]) -> None:
        self.components = components
        self.reactor = components.reactor
        self._drain_s = components.settings.process.drain_s
        self._announce = announce
        self._sites: dict[str, RapidaSite] = {}
        self._housekeeping = LoopingCall(self._keep_house)
        self._housekeeping.clock = self.reactor
        self._drained: IDelayedCall | None = None
        self._tidied_s = -TIDY_EVERY_S
        self._tidying = False

    @property
    def calls(self) -> Calls:
        """The calls that are up in this process."""
        return self.components.calls

    @property
    def http_port(self) -> int:
        """The port that HTTP listens on, once started."""
        return self.components.ports.port_of(HTTP)

    @property
    def audiosocket_port(self) -> int:
        """The port that AudioSocket listens on, once started."""
        return self.components.ports.port_of(AUDIOSOCKET)

    @property
    def https_port(self) -> int:
        """The port with TLS, once started; 0 without one."""
        return self.components.ports.port_of(HTTPS)

    @property
    def admin_port(self) -> int:
        """The port for operators, once started; 0 without one."""
        return self.components.ports.port_of(ADMIN)

    # Starting

    def startService(self) -> None:
        """Listen. Any error is raised at once, and nothing stays open.

        :raises StartError: the text is one sentence.
        """
        components = self.components
        keys = self._check()
        outcome_of(components.store.open(), "the call store can't be opened")
        try:
            self._open_ports(components.make_sites(keys.accepted))
        except StartError:
            components.store.close()
            raise
        components.lease.start()
        self._housekeeping.start(HOUSEKEEPING_S, now=True).addErrback(
            self._failed, "the housekeeping failed: calls do not expire any more"
        )
        components.governor.start()
        components.sampler.start()
        components.watch.start()
        super().startService()
        if components.role.ari:
            if components.settings.webhook.url:
                components.webhook.start()
            Deferred.fromCoroutine(components.outbound.start()).addErrback(
                self._failed, "cannot resume tracking outbound calls placed before the restart"
            )
        self._log.info(
            "listening: HTTP on port {http}, AudioSocket on port {audiosocket}; state in {state_dir}",
            http=self.http_port, audiosocket=self.audiosocket_port, state_dir=components.state_dir,
        )  # fmt: skip
        text = banner(components.settings, keys, components.ports.port_of, components.assistants.ids)
        ready = (
            succeed(None) if components.role.media else Deferred.fromCoroutine(components.outbound.connected(CONNECT_S))
        )
        ready.addCallback(lambda _: self.reactor.callWhenRunning(self._announce, text))

    def _check(self) -> Keys:
        components, settings = self.components, self.components.settings
        if components.role.media:
            warn_of_limits(settings.limits, settings.connections)
        return check_start(components.state_dir, settings.keys, components.vault)

    def _open_ports(self, sites: dict[str, RapidaSite]) -> None:
        components = self.components
        if ARI in components.role.sockets:
            components.ports.serve_unix(components.role.sockets[ARI], sites[HTTP])
        components.ports.open({**sites, AUDIOSOCKET: components.audiosocket})
        self._sites = sites

    def _failed(self, failure: Failure, message: str) -> None:
        self._log.failure(message, failure)

    # While running

    def _keep_house(self) -> Deferred[Any]:
        components = self.components
        components.ports.renew_certificates()
        if components.role.ari:
            components.outbound.refresh()
        components.rejections.flush()
        components.idle_watch.check()
        self._tidy_recordings()
        return Deferred.fromCoroutine(self._sweep()).addErrback(self._not_swept)

    def _tidy_recordings(self) -> None:
        """Delete old recordings, in a thread and at most once a minute."""
        recordings, now_s = self.components.recordings, self.reactor.seconds()
        if not recordings.is_limited or not self.components.role.media:
            return
        if 0 <= now_s - self._tidied_s < TIDY_EVERY_S or self._tidying:
            return
        self._tidied_s, self._tidying = now_s, True

        def done(_: Any) -> None:
            self._tidying = False

        tidying = deferToThreadPool(self.reactor, self.reactor.getThreadPool(), recordings.tidy)
        tidying.addErrback(self._failed, "cannot delete old recordings").addCallback(done)

    async def _sweep(self) -> None:
        components = self.components
        now, presume, keep_s = time.time(), components.lease.may_judge(), components.settings.store.keep_s
        self._swept(await components.store.sweep(now=now, forget_before=now - keep_s, presume=presume))
        if components.role.ari and await components.outbound.adopt(presume):
            components.webhook.look_back()

    def _swept(self, swept: Swept) -> None:
        if swept.expired:
            self._log.info("expired calls, registered without media in time: {count}", count=swept.expired)
        if swept.lost:
            self._log.warn("lost calls, whose server process died: {count}", count=swept.lost)

    def _not_swept(self, failure: Failure) -> None:
        # The lease already logs that the store does not answer.
        if not failure.check(StoreUnavailable):
            self._log.failure("cannot sweep the store", failure)

    # Stopping

    def stopService(self) -> Deferred[None]:
        """Drain and stop, in order; fires when all is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def reload(self) -> None:
        """Log that a single process can't be replaced; several workers can."""
        self._log.warn("SIGHUP does nothing to a single process: with WORKERS=2 or more, each is replaced by a new one")

    def leave_ports(self) -> None:
        """Before :meth:`stopService`, where other processes listen on the same ports: accept no more, at once."""
        self.components.ports.close()

    def hand_over(self) -> None:
        """Before :meth:`stopService`, where another process takes this one's place: leave it the ports, and the calls
        that are followed through ARI."""
        self.components.state.handing_over = True
        for site in self._sites.values():
            site.leaving = True
        self.components.ports.close()

    def hurry(self) -> None:
        """Cut the drain time short: hang up the remaining calls now."""
        if self._drained is not None and self._drained.active():
            self._drained.reset(0)

    async def _stop(self) -> None:
        components, state = self.components, self.components.state
        state.draining = True
        if state.handing_over:
            await components.outbound.drain_queues(self._drain_s)
        components.outbound.drain()
        if len(self.calls):
            self._log.info(
                "stopping: {count} calls have {seconds:g} s to end", count=len(self.calls), seconds=self._drain_s
            )
            await self._drain()
        await self._refuse_media()
        await (components.outbound.leave() if state.handing_over else components.outbound.stop())
        await components.ports.close()
        components.governor.stop()
        if self._housekeeping.running:
            self._housekeeping.stop()
        components.sampler.stop()
        components.lease.stop()
        await components.reception.flush(timeout_s=GOODBYE_S)
        await components.webhook.stop()
        await components.store.close()
        await components.assistants.close()
        await components.http_pool.closeCachedConnections()
        components.watch.stop()
        self._log.info("stopped")

    async def _drain(self) -> None:
        """Wait until the last call has ended, or the drain time is over; then hang up."""
        empty = self.calls.when_empty()
        self._drained = self.reactor.callLater(self._drain_s, empty.cancel)
        try:
            await empty
        except CancelledError:
            self._hang_up_all()
            await self.calls.when_empty()
            # The hangup frames are in the sockets; their peers get a moment to take them and close.
            await deferLater(self.reactor, 0.2)
        finally:
            if self._drained.active():
                self._drained.cancel()

    async def _refuse_media(self) -> None:
        """Let no further call come up, and hang up those that came up in the last moment."""
        reception = self.components.reception
        reception.closed = True
        until_s = self.reactor.seconds() + GOODBYE_S
        while (reception.coming or len(self.calls)) and self.reactor.seconds() < until_s:
            self._hang_up_all()
            await deferLater(self.reactor, 0.05)

    def _hang_up_all(self) -> None:
        for call in self.calls:
            call.end(EndReason.SHUTDOWN)
