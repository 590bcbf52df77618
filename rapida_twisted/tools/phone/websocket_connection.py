"""A phone call's WebSocket connection, which works like Asterisk's chan_websocket.

Audio from the server waits in a queue, as in Asterisk, and is heard one frame each 20 ms, on a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure

from rapida_twisted.audio.convert import converter
from rapida_twisted.audio.formats import SLIN, ULAW, AudioFormat
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.net.addresses import host_port_of
from rapida_twisted.net.connection_errors import tls_problem
from rapida_twisted.protocols.chan_websocket_asterisk import AsteriskClientFactory, AsteriskClientProtocol
from rapida_twisted.tools.phone.call import PhoneCall, SetUpFailed, connection_failed
from rapida_twisted.tools.phone.figures import FRAME_S
from rapida_twisted.tools.phone.queue import QueueFigures, QueueMeter
from rapida_twisted.wire.chan_websocket import Command, ControlForm, Event

__all__ = ["WebSocketConnection", "WebSocketServer"]

CONNECT_TIMEOUT_S = 5.0
_ADVICE = {
    "101": "it did not agree to the subprotocol media",
    "401": "set RAPIDA_API_KEY to one of its keys, or name the file that holds one (--key-file)",
    "404": "does this server take calls over WebSocket, and is it the one that registered the call (--http)?",
    "426": "does this server take calls over WebSocket?",
    "503": "it is full, or about to stop: try again, or see its log",
}


@dataclass(frozen=True, kw_only=True)
class WebSocketServer:
    """The server of WebSocket connections.

    :ivar url: of a call, as ws or wss; ``{}`` stands for its contextId.
    :ivar api_key: empty for a program without one.
    :ivar trust: the trust root for wss; None: the system's.
    """

    url: str
    api_key: str
    format: AudioFormat = ULAW
    form: ControlForm = ControlForm.PLAIN
    trust: Any = None

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        host, port = host_port_of(self.url)
        tcp = HostnameEndpoint(reactor, host, port, timeout=CONNECT_TIMEOUT_S)
        if not self.url.startswith("wss:"):
            return tcp
        return wrapClientTLS(optionsForClientTLS(host, trustRoot=self.trust), tcp)


class WebSocketConnection(AsteriskClientProtocol):
    """The channel of a phone call.

    :param clock: plays the queue; its period is 20 ms, as in Asterisk.
    """

    def __init__(self, server: WebSocketServer, call: PhoneCall, clock: MediaClock) -> None:
        self._meter = QueueMeter()
        super().__init__(server.format, server.form, channel_id=f"phone.{id(self):x}", connection_id="rapida-phone")
        self._up: Deferred[None] = Deferred(lambda _: self.abort())
        self._phone_call = call
        self._playback_clock = clock
        self._first_s = 0.0
        self._refusal = ""
        self._is_up = False
        self._linear = server.format.linear()
        self._to_linear = converter(server.format, self._linear)
        self._from_sound = converter(SLIN, server.format)

    @classmethod
    async def dial(
        cls, server: WebSocketServer, call_id: UUID, call: PhoneCall, clock: MediaClock, reactor: Any
    ) -> WebSocketConnection:
        """Connect, and complete the handshake.

        :raises SetUpFailed: the server is unreachable or refuses the call.
        """
        connection = cls(server, call, clock)
        headers = {"x-api-key": server.api_key} if server.api_key else {}
        factory = AsteriskClientFactory(server.url.replace("{}", str(call_id)), connection, reactor, headers)
        try:
            await server.endpoint(reactor).connect(factory)
        except (ConnectError, DNSLookupError) as error:
            raise connection_failed(error, "address (--http, --websocket)") from None
        await connection._up
        return connection

    # From the call

    def send_audio(self, samples: bytes, rate_hz: int = 8000) -> bool:
        """Send one packet (s16le mono, 8 kHz)."""
        payload = samples if self._from_sound is None else self._from_sound(samples)
        if not super().send_audio(payload):
            return False
        self._phone_call.audio_sent(payload if self._to_linear is None else self._to_linear(payload))
        return True

    def abort(self) -> None:
        self.transport.abortConnection()

    def queue_figures(self) -> QueueFigures:
        return self._meter.figures(self.queue.dropped_messages)

    # From the clock

    def tick(self) -> bytes | None:
        """Play one frame of the queue, or silence."""
        waiting = self.queue.frames
        frame = super().tick()
        if frame is None:
            self._meter.silent()
            self._phone_call.silence_received(self._linear.silent_frame, self._linear.rate_hz)
            return None
        if not self._meter.place:
            self._first_s = self._phone_call.now()
        self._meter.heard(waiting)
        samples = frame if self._to_linear is None else self._to_linear(frame)
        # Counted in ticks: the server does not cause this phone's own lateness.
        heard_s = self._first_s + (self._meter.place - 1) * FRAME_S
        self._phone_call.audio_received(samples.ljust(self._linear.frame_bytes, b"\0"), self._linear.rate_hz, heard_s)
        return frame

    # From the server

    def call_started(self) -> None:
        # Autobahn opens even a connection that onConnect just failed, for its subprotocol for instance.
        if self.state == self.STATE_OPEN:
            self._is_up = True
            self._playback_clock.add(self)
            self._up.callback(None)

    def hangup_received(self) -> None:
        self._phone_call.hang_up_received("it sent HANGUP")

    def command_received(self, command: Command) -> None:
        self._meter.command(command)

    def send_event(self, event: Event) -> None:
        self._meter.event(event)
        super().send_event(event)

    def call_ended(self, problem: str) -> None:
        self._playback_clock.remove(self)
        if self._is_up:
            self._phone_call.connection_lost(problem)
        elif not self._up.called:
            self._up.errback(SetUpFailed(self._refusal or problem))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._refusal = _refusal(getattr(self, "http_status_line", ""), reason.value)
        super().connectionLost(reason)


def _refusal(status_line: str, error: BaseException | None) -> str:
    """Why a handshake failed, with advice."""
    if problem := tls_problem(error, "--ca"):
        return f"the server {problem}"
    _, _, status_and_reason = status_line.partition(" ")
    status, _, reason = status_and_reason.partition(" ")
    if not status:
        return f"the server closed the media connection before its handshake ({error}): see the server's log"
    advice = _ADVICE.get(status, "see the server's log")
    return f"the server refused the media connection with {status} ({reason or 'no reason given'}): {advice}"
