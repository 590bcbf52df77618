"""A phone's line over a WebSocket: Asterisk's chan_websocket at work.

What the server sends waits in a queue, as in Asterisk, and is heard one frame each 20 ms, on a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from rapida_twisted.tools.phone.call import PhoneCall, SetUpFailed
from rapida_twisted.tools.phone.figures import FRAME_S
from rapida_twisted.tools.phone.queue import QueueFigures, QueueWatch
from rapida_twisted.wire.chan_websocket import Command, ControlForm, Event

__all__ = ["WebSocketLine", "WebSocketServer"]

CONNECT_TIMEOUT_S = 5.0
PATH = "/v1/talk/asterisk/ctx/"


@dataclass(frozen=True, kw_only=True)
class WebSocketServer:
    """Where WebSocket lines lead.

    :ivar http_url: the server, as for registration: http becomes ws, https becomes wss.
    :ivar trust: the trust root for wss; None: the system's.
    """

    http_url: str
    api_key: str
    format: AudioFormat = ULAW
    form: ControlForm = ControlForm.PLAIN
    trust: Any = None

    def url(self, call_id: UUID) -> str:
        """The address of a call."""
        return f"ws{self.http_url.removeprefix('http')}{PATH}{call_id}"

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """How to get there."""
        host, port = host_port_of(self.http_url)
        tcp = HostnameEndpoint(reactor, host, port, timeout=CONNECT_TIMEOUT_S)
        if not self.http_url.startswith("https:"):
            return tcp
        return wrapClientTLS(optionsForClientTLS(host, trustRoot=self.trust), tcp)


class WebSocketLine:
    """A WebSocket as a phone call's line.

    :param clock: of 20 ms: Asterisk's.
    """

    def __init__(self, server: WebSocketServer, call: PhoneCall, clock: MediaClock) -> None:
        self.opened: Deferred[None] = Deferred(lambda _: self.abort())
        """Fires when the server let the call in; fails with SetUpFailed."""
        self.channel = _Channel(self, server.format, server.form)
        self._call = call
        self._clock = clock
        self._watch = QueueWatch()
        self._first_s = 0.0
        self._started = False
        self._hears, self._speaks = server.format.linear(), server.format
        self._to_linear = converter(self._speaks, self._hears)
        self._from_sound = converter(SLIN, self._speaks)

    @classmethod
    async def dial(
        cls, server: WebSocketServer, call_id: UUID, call: PhoneCall, clock: MediaClock, reactor: Any
    ) -> WebSocketLine:
        """Connect, and wait until the server let the call in.

        :raises SetUpFailed: it did not.
        """
        line = cls(server, call, clock)
        headers: Mapping[str, str] = {"x-api-key": server.api_key}
        factory = AsteriskClientFactory(server.url(call_id), line.channel, reactor, dict(headers))
        try:
            await server.endpoint(reactor).connect(factory)
        except (ConnectError, DNSLookupError) as error:
            raise SetUpFailed(
                f"the media connection failed ({str(error).rstrip('.')}): is the server running, and is this its"
                " address (--http)?"
            ) from None
        await line.opened
        return line

    # What the call asks for

    def send_audio(self, samples: bytes, rate_hz: int = 8000) -> bool:
        """Say one packet (s16le mono, 8 kHz)."""
        payload = samples if self._from_sound is None else self._from_sound(samples)
        if not self.channel.send_audio(payload):
            return False
        self._call.line_said(payload if self._to_linear is None else self._to_linear(payload))
        return True

    def send_digit(self, digit: str) -> None:
        """Press a key."""
        self.channel.send_digit(digit)

    def hang_up(self) -> None:
        """Hang up as Asterisk does: close."""
        self.channel.hang_up()

    def abort(self) -> None:
        """Close at once."""
        self.channel.transport.abortConnection()

    def queue_figures(self) -> QueueFigures:
        """How the queue went."""
        return self._watch.figures(self.channel.queue.dropped_messages)

    # What the clock says

    def tick(self) -> None:
        """Hear one frame, or none."""
        waiting = self.channel.queue.frames
        frame = self.channel.tick()
        if frame is None:
            self._watch.silent()
            self._call.line_silent(self._hears.silent_frame, self._hears.rate_hz)
            return
        if not self._watch.place:
            self._first_s = self._call.now()
        self._watch.heard(waiting)
        samples = frame if self._to_linear is None else self._to_linear(frame)
        # Ticks are the time here: how late this phone is with one is not the server's doing.
        heard_s = self._first_s + (self._watch.place - 1) * FRAME_S
        self._call.line_heard(samples.ljust(self._hears.frame_bytes, b"\0"), self._hears.rate_hz, heard_s)

    # What the channel says

    def started(self) -> None:
        """The server let the call in."""
        self._started = True
        self._clock.add(self)
        self.opened.callback(None)

    def event(self, event: Event) -> None:
        """The server is told something."""
        self._watch.event(event)

    def command(self, command: Command) -> None:
        """The server asks for something."""
        self._watch.command(command)

    def hung_up(self) -> None:
        """The server hung up."""
        self._call.line_hung_up("it said HANGUP")

    def gone(self, problem: str) -> None:
        """The channel is no more."""
        self._clock.remove(self)
        if self._started:
            self._call.line_gone(problem)
        elif not self.opened.called:
            self.opened.errback(SetUpFailed(self.channel.refusal or problem))


class _Channel(AsteriskClientProtocol):
    """The WebSocket of a line."""

    def __init__(self, line: WebSocketLine, format: AudioFormat, form: ControlForm) -> None:
        self._line = line
        super().__init__(format, form, channel_id=f"phone.{id(line):x}", connection_id="rapida-phone")
        self.refusal = ""
        """Why the server did not let the call in, if it did not."""

    def call_started(self) -> None:
        # Autobahn opens even what was just failed, for its subprotocol for instance.
        if self.state == self.STATE_OPEN:
            self._line.started()

    def hangup_received(self) -> None:
        self._line.hung_up()

    def command_received(self, command: Command) -> None:
        self._line.command(command)

    def call_ended(self, problem: str) -> None:
        self._line.gone(problem)

    def send_event(self, event: Event) -> None:
        self._line.event(event)
        super().send_event(event)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.refusal = _refusal(getattr(self, "http_status_line", ""), reason.value)
        super().connectionLost(reason)


def _refusal(status_line: str, error: BaseException | None) -> str:
    """Why a handshake failed, and what can be done."""
    if problem := tls_problem(error, "--ca"):
        return f"the server {problem}"
    _, _, answer = status_line.partition(" ")
    status, _, said = answer.partition(" ")
    if not status:
        return f"the server closed the media connection before its handshake ({error}): see the server's log"
    advice = _ADVICE.get(status, "see the server's log")
    return f"the server refused the media connection with {status} ({said or 'no reason given'}): {advice}"


_ADVICE = {
    "101": "it did not agree to the subprotocol media",
    "401": "set RAPIDA_API_KEY to one of its keys, or name the file that holds one (--key-file)",
    "404": "does this server take calls over WebSocket, and is it the one that registered the call (--http)?",
    "426": "does this server take calls over WebSocket?",
    "503": "it is full, or about to stop: try again, or see its log",
}
