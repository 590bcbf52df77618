"""A small server for the phone's tests: registration over HTTP, and an echo over AudioSocket with faults to order."""

from __future__ import annotations

import time
import uuid
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import UnknownContext
from rapida_twisted.interfaces import IMediaChannel, IMediaSink, IReception
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.protocols.audiosocket_app import AudioSocketFactory

API_KEY = "rpd-test-key"
ASSISTANT_ID = "123456789"
FRAME_BYTES = 320


@implementer(IMediaSink)
class EchoCall:
    """Sends back what it hears, a frame of 20 ms a tick, silence when there is nothing."""

    def __init__(self, server: EchoServer, channel: IMediaChannel) -> None:
        self.started_s = time.monotonic()
        self.digits: list[tuple[float, str]] = []
        self.heard = b""
        self.sizes: list[int] = []
        self.ended: list[EndReason] = []
        self.ticks = 0
        self._server = server
        self._channel = channel
        self._waiting = bytearray()

    def tick(self) -> None:
        """Send one frame, or do what was ordered for this one."""
        self.ticks += 1
        frame = bytes(self._waiting[:FRAME_BYTES]).ljust(FRAME_BYTES, b"\0")
        del self._waiting[:FRAME_BYTES]
        if self.ticks == self._server.hang_up_at:
            self._server.clock.remove(self)
            self._channel.hang_up()
        elif self.ticks not in self._server.skip:
            self._channel.send_audio(frame)

    def audio_received(self, payload: bytes) -> None:
        """Keep it for the ticks."""
        self.heard += payload
        self.sizes.append(len(payload))
        self._waiting += payload

    def digit_received(self, digit: str) -> None:
        """Remember when."""
        self.digits.append((time.monotonic() - self.started_s, digit))

    def format_changed(self) -> None:
        """Never here."""

    def sending_paused(self, paused: bool) -> None:
        """Never here."""

    def media_ended(self, reason: EndReason, detail: str = "") -> None:
        """Say no more."""
        self.ended.append(reason)
        self._server.clock.remove(self)


@implementer(IReception)
class EchoServer:
    """Registration and AudioSocket on loopback.

    :ivar skip: the ticks in which a call sends nothing.
    :ivar hang_up_at: the tick in which a call is hung up; 0: never.
    :ivar silent: whether calls never send anything.
    :ivar delay_s: how long a registration takes.
    """

    def __init__(self, reactor: Any) -> None:
        self.calls: list[EchoCall] = []
        self.requests: list[dict[str, str]] = []
        self.skip: frozenset[int] = frozenset()
        self.hang_up_at = 0
        self.silent = False
        self.delay_s = 0.0
        self.clock = MediaClock(reactor)
        self._registered: dict[str, str] = {}
        self._ports: list[Any] = []
        self.reactor = reactor

    def listen(self) -> None:
        """Open the ports."""
        site = Site(_Registration(self))
        self._ports = [
            self.reactor.listenTCP(0, site, interface="127.0.0.1"),
            self.reactor.listenTCP(0, AudioSocketFactory(self, self.reactor), interface="127.0.0.1"),
        ]

    @property
    def arguments(self) -> list[str]:
        """The phone's options that lead here."""
        http, audiosocket = (port.getHost().port for port in self._ports)
        return ["--http", f"http://127.0.0.1:{http}", "--audiosocket", f"127.0.0.1:{audiosocket}"]

    async def stop(self) -> None:
        """Close the ports."""
        for port in self._ports:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped

    def register(self) -> str:
        """A new contextId."""
        context_id = str(uuid.uuid4())
        self._registered[context_id] = ASSISTANT_ID
        return context_id

    # IReception

    def claim(self, context_id: str, transport: str, peer: str) -> Deferred[CallContext]:
        """Take a registered call, once."""
        assistant_id = self._registered.pop(context_id, None)
        if assistant_id is None:
            return fail(UnknownContext(context_id))
        return succeed(CallContext(context_id=context_id, assistant_id=assistant_id, created_at=0, expires_at=0))

    def start(self, context: CallContext, channel: IMediaChannel) -> IMediaSink:
        """Start a claimed call."""
        call = EchoCall(self, channel)
        self.calls.append(call)
        if not self.silent:
            self.clock.add(call)
        elif self.hang_up_at:
            self.reactor.callLater(self.hang_up_at * 0.02, channel.hang_up)
        return call

    def abandon(self, context: CallContext, reason: EndReason, detail: str = "") -> None:
        """Nothing to do."""


class _Registration(Resource):
    """``/v1/talk/asterisk/call/{assistant}`` by GET or POST."""

    isLeaf = True

    def __init__(self, server: EchoServer) -> None:
        super().__init__()
        self._server = server

    def render(self, request: Request) -> bytes | int:
        """Answer as the real one does: the contextId as text, errors with an empty body."""
        arguments = {name.decode(): values[0].decode() for name, values in request.args.items()}
        key = request.getHeader("x-api-key") or arguments.get("x-api-key", "")
        self._server.requests.append(arguments)
        request.setHeader("content-type", "text/plain")
        if key != API_KEY:
            request.setResponseCode(401)
        elif request.path != f"/v1/talk/asterisk/call/{ASSISTANT_ID}".encode():
            request.setResponseCode(404)
        else:
            return self._answer(request, self._server.register().encode())
        return b""

    def _answer(self, request: Request, body: bytes) -> bytes | int:
        if not self._server.delay_s:
            return body
        gone = request.notifyFinish()
        later = deferLater(self._server.reactor, self._server.delay_s, request.write, body)
        later.addCallback(lambda _: request.finish())
        gone.addErrback(lambda _: later.cancel())
        later.addErrback(lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET
