"""``rapida-phone``: a telephone without an Asterisk.

It takes the place of Asterisk and its dialplan: registers a call over HTTP, opens the media connection with the
contextId, sends and receives audio in real time, and reports the quality of the call.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
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
from rapida_twisted.tools.phone.options import PhoneOptions, parse_options
from rapida_twisted.tools.phone.report import CallReport, summary_object, summary_text
from rapida_twisted.tools.phone.status_line import StatusLine
from rapida_twisted.tools.phone.websocket_connection import WebSocketConnection, WebSocketServer

__all__ = ["Phone", "main"]

CONNECT_TIMEOUT_S = 5.0


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
            http_url=options.http_url,
            api_key=options.api_key,
            format=options.format,
            form=options.form,
            trust=options.trust,
        )
        self._interrupted = False
        self._waiting: Deferred[None] = succeed(None)

    async def run(self) -> list[CallReport]:
        """Place all calls, and wait for the end of the last one. Returns their reports, in order."""
        started_s, placed = self._now(), []
        for number in range(1, self._options.calls + 1):
            await self._wait_until(started_s + (number - 1) / self._options.rate)
            if self._interrupted:
                break
            call = self._make_call(number)
            self.calls.append(call)
            placed.append(Deferred.fromCoroutine(call.place()))
        return await gatherResults(placed, consumeErrors=True)

    def interrupt(self) -> None:
        """Place no more calls, and end the present ones."""
        self._interrupted = True
        self._waiting.cancel()
        for call in self.calls:
            call.hang_up("interrupted")

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
            if not self._interrupted:
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


async def _run(reactor: Any, options: PhoneOptions) -> None:
    """Place the calls, show their state, and print the summary; exits with code 1 if a call failed."""
    phone = Phone(options, reactor)
    printed: Deferred[None] = Deferred()

    def shutting_down() -> Deferred[None]:
        phone.interrupt()
        return printed

    reactor.addSystemEventTrigger("before", "shutdown", shutting_down)
    status_line = StatusLine(sys.stderr, phone.calls, time.monotonic, reactor)
    try:
        status_line.start()
        reports = await phone.run()
        status_line.stop()
        _print_summary(reports, phone.sending_late_ms, options.as_json)
    finally:
        printed.callback(None)
    if not reports or not all(report.ok for report in reports):
        raise SystemExit(1)


def _print_summary(reports: list[CallReport], sending_late_ms: Spread | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary_object(reports, sending_late_ms)))
    elif reports:
        print(summary_text(reports, sending_late_ms))
    else:
        print("interrupted before any call was placed")


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(sys.argv[1:] if argv is None else argv)
    react(lambda reactor: Deferred.fromCoroutine(_run(reactor, options)))
