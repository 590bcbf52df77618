"""Places the calls of ``rapida-phone``, in the place of Asterisk and its dialplan.

Each call is registered over HTTP, opens its media connection with the contextId, sends and receives audio in real time,
and reports its quality. At the end the server's records say how the calls ended there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, gatherResults, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import deferLater, react
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS

from rapida_twisted.bridge.register import register_call
from rapida_twisted.errors import RegistrationRefused
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.net.connection_errors import tls_problem
from rapida_twisted.tools.phone.audiosocket_connection import AudioSocketConnection
from rapida_twisted.tools.phone.call import MediaConnection, PhoneCall, SetUpFailed
from rapida_twisted.tools.phone.figures import Spread
from rapida_twisted.tools.phone.options import PhoneOptions
from rapida_twisted.tools.phone.record import fetch_record
from rapida_twisted.tools.phone.report import CallReport
from rapida_twisted.tools.phone.status_line import StatusLine
from rapida_twisted.tools.phone.websocket_connection import WebSocketConnection, WebSocketServer

__all__ = ["Phone", "run_phone"]

CONNECT_TIMEOUT_S = 5.0
RECORDS_AT_ONCE = 10


class Phone:
    """Places the calls of a command line.

    :param now: a monotonic time in seconds.
    """

    def __init__(self, options: PhoneOptions, reactor: Any, now: Callable[[], float] = time.monotonic) -> None:
        self.calls: list[PhoneCall] = []
        """The calls placed so far."""
        self._options = options
        self._reactor = reactor
        self._now = now
        self._clock = MediaClock(reactor, now, period_s=options.packet_ms / 1000)
        self._queue_clock = MediaClock(reactor, now)
        policy = BrowserLikePolicyForHTTPS(options.trust)
        self._treq = HTTPClient(Agent(reactor, policy, connectTimeout=CONNECT_TIMEOUT_S))
        self._audiosocket = HostnameEndpoint(reactor, *options.audiosocket, timeout=CONNECT_TIMEOUT_S)
        self._websocket = WebSocketServer(
            url=options.websocket_url,
            api_key=options.api_key,
            format=options.format,
            form=options.form,
            trust=options.trust,
        )
        self.interrupted = False
        self._waiting: Deferred[None] = succeed(None)

    async def run(self) -> list[CallReport]:
        """Place all calls, and wait for the end of the last one. Returns their reports, in order."""
        started_s, placed = self._now(), []
        for number in range(1, self._options.calls + 1):
            await self._wait_until(started_s + (number - 1) / self._options.rate)
            if self.interrupted:
                break
            call = self._make_call(number)
            self.calls.append(call)
            placed.append(Deferred.fromCoroutine(call.place()))
        reports = await gatherResults(placed, consumeErrors=True)
        if not self.interrupted and not self._options.bare:
            await self._add_records(reports)
        return reports

    def interrupt(self) -> None:
        """Place no more calls, and end the present ones."""
        self.interrupted = True
        self._waiting.cancel()
        for call in self.calls:
            call.interrupt()

    @property
    def sending_late_ms(self) -> Spread | None:
        """How late this phone itself sent its frames."""
        lateness = self._clock.lateness
        if not sum(lateness.counts):
            return None
        p50, p99 = lateness.percentile_ms(0.5), lateness.percentile_ms(0.99)
        return Spread(round(p50, 2), round(p99, 2), round(lateness.max_s * 1000, 2))

    async def _wait_until(self, at_s: float) -> None:
        """Wait until that time, or until :meth:`interrupt`."""
        self._waiting = deferLater(self._reactor, max(0.0, at_s - self._now()))
        try:
            await self._waiting
        except CancelledError:
            if not self.interrupted:
                raise

    def _make_call(self, number: int) -> PhoneCall:
        return PhoneCall(
            number,
            self._options.plan.numbered(number if self._options.calls > 1 else None),
            clock=self._clock,
            reactor=self._reactor,
            register=self._register,
            dial=self._dial,
            now=self._now,
        )

    async def _register(self) -> str:
        options = self._options
        if options.bare:
            return str(options.bare_uuid or uuid4())
        try:
            return await register_call(
                options.http_url,
                options.assistant_id,
                options.api_key,
                caller=options.caller,
                called=options.called,
                treq_client=self._treq,
                reactor=self._reactor,
            )
        except RegistrationRefused as error:
            if problem := tls_problem(error.__cause__, "--ca"):
                raise SetUpFailed(f"the server {problem}") from error
            raise

    async def _dial(self, call_id: UUID, call: PhoneCall) -> MediaConnection:
        if self._options.transport == "websocket":
            return await WebSocketConnection.dial(self._websocket, call_id, call, self._queue_clock, self._reactor)
        return await AudioSocketConnection.dial(self._audiosocket, call_id, call)

    async def _add_records(self, reports: list[CallReport]) -> None:
        """Add the server's records. A call that failed there has failed, whatever was heard of it."""
        limit = DeferredSemaphore(RECORDS_AT_ONCE)
        up = [report for report in reports if report.connection_ms is not None]
        await gatherResults([limit.run(Deferred.fromCoroutine, self._add_record(report)) for report in up])

    async def _add_record(self, report: CallReport) -> None:
        options = self._options
        url = f"{options.http_url}/v1/calls/{report.context_id}"
        report.record = await fetch_record(url, options.api_key, self._treq, self._reactor)
        if report.record is not None and (problem := report.record.problem):
            report.problem = f"{problem} (the server's record)" + (f"; {report.problem}" if report.problem else "")


def run_phone(options: PhoneOptions) -> tuple[Phone, list[CallReport]]:
    """Place the calls, and show their state meanwhile. Returns when all are over, or after a signal."""
    results: list[tuple[Phone, list[CallReport]]] = []

    async def run(reactor: Any) -> None:
        phone = Phone(options, reactor)
        over: Deferred[None] = Deferred()

        def shutting_down() -> Deferred[None]:
            phone.interrupt()
            return over

        trigger = reactor.addSystemEventTrigger("before", "shutdown", shutting_down)
        status_line = StatusLine(sys.stderr, phone.calls, time.monotonic, reactor)
        try:
            status_line.start()
            results.append((phone, await phone.run()))
            status_line.stop()
        finally:
            if not phone.interrupted:
                reactor.removeSystemEventTrigger(trigger)
            over.callback(None)

    try:
        react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    except SystemExit:
        # react() always ends with it; after an error of this program, which it logged, there is no result.
        if not results:
            raise
    return results[0]
