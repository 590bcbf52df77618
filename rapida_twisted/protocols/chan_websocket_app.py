"""chan_websocket, the application's side: a call's audio, marks, flow control, and FLUSH_MEDIA at barge-in.

Either Asterisk connects to us (``Dial(WebSocket/...)``: :class:`MediaServerProtocol`), or we connect to a channel that
waits in Asterisk (``WebSocket/INCOMING``: :class:`MediaClientProtocol`). Then both work alike: MEDIA_START names the
audio format, binary messages carry audio in both directions, text messages carry events and commands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NoReturn

from autobahn.twisted import websocket
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.audio.formats import FRAME_MS, AudioFormat
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import ContextClaimed, ContextError, RapidaError, RemoteProtocolError
from rapida_twisted.interfaces import IMediaChannel, IPolledReader
from rapida_twisted.interfaces.typed import CallStarter, MediaSink, Reception
from rapida_twisted.net.addresses import address_text
from rapida_twisted.net.untrusted_text import printable
from rapida_twisted.ports.limited_accept import count_apart
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.protocols.control_budget import CRUMB_BYTES, CRUMB_MS
from rapida_twisted.protocols.marks import Marks
from rapida_twisted.protocols.polled_reader import make_polled_reader
from rapida_twisted.protocols.quick_websocket import MAX_MESSAGE_BYTES, POLICY_VIOLATION, QuickWebSocket, tune_factory
from rapida_twisted.wire import chan_websocket as wire
from rapida_twisted.wire.audiosocket import DIGITS
from rapida_twisted.wire.chan_websocket_text import decode_event, encode_command

__all__ = ["MediaClientFactory", "MediaClientProtocol", "MediaServerFactory", "MediaServerProtocol"]

START_TIMEOUT_S = 5.0
MAX_SENT_BYTES = 32_000
"""Longer runs of frames are split; Asterisk accepts messages of up to 65,535 bytes."""
MAX_ERROR_TEXT = 200
"""Characters of an ERROR event's text in the log."""
STALLED_S = 5.0
"""The connection is aborted if the peer reads nothing for this long."""
_CLOSE = ("Connection", "close")
_EMPTY = ("Content-Length", "0")


@implementer(IMediaChannel)
class _MediaChannel(QuickWebSocket):
    """A WebSocket as a call's media channel, whichever side connected."""

    _log = Logger()

    transport_name = "websocket"
    paced = True

    def __init__(self, starter: CallStarter, reactor: Any) -> None:
        super().__init__()
        self.peer: str = ""
        self.reading: IPolledReader | None = None
        self.format = AudioFormat("slin", 8000)
        self._sample_bytes = 1
        self.context_id = ""
        """The contextId from the handshake."""
        self.channel = ""
        """Asterisk's name of the channel, from MEDIA_START."""
        self.errors = 0
        """ERROR events that Asterisk sent."""
        self._starter = starter
        self._reactor = reactor
        self._context: CallContext | None = None
        self._start_problem = ""
        """Why the MEDIA_START that came can't be used."""
        self._sink: MediaSink | None = None
        self._form = wire.ControlForm.PLAIN
        self._deadline: IDelayedCall | None = None
        self._marks = Marks(self._send_mark, reactor, self._marks_missing)
        self._xoff = False
        self._paused = False
        self._warned = False

    # IMediaChannel, called by the call

    def send_audio(self, payload: bytes) -> None:
        """Send whole frames in the channel's format: all of them, or none if the peer reads too slowly."""
        step = MAX_SENT_BYTES // self.format.frame_bytes * self.format.frame_bytes
        self._marks.sent(self.format.ms(len(payload)))
        if len(payload) <= step:
            self.send_binary(payload)
        else:
            self.send_binary(*(payload[begin : begin + step] for begin in range(0, len(payload), step)))
        if self.writer.full:
            self._update_paused()

    def flush(self) -> None:
        """Barge-in: FLUSH_MEDIA discards the audio that Asterisk has not played, and the marks in it."""
        self._marks.clear()
        self._command(wire.FlushMedia())

    def mark(self, reached: Callable[[], None]) -> None:
        """Call back when Asterisk has played the audio sent so far."""
        self._marks.add(reached)

    def hang_up(self) -> None:
        self._sink = None
        self._marks.clear()
        self._command(wire.Hangup())
        self.sendClose(1000)

    def abort(self) -> None:
        self._sink = None
        self._marks.clear()
        self.writer.abort()

    # Events from Asterisk

    def binary_received(self, payload: bytes) -> None:
        if len(payload) % self._sample_bytes:
            text = "WebSocket {peer} sent {size} bytes of audio, no whole number of samples: dropped"
            self._reject("half_sample", text, size=len(payload))
        elif self._sink is not None:
            self._sink.audio_received(payload)

    def text_received(self, payload: bytes) -> None:
        text = payload.decode("utf-8")
        try:
            event, form = decode_event(text)
        except RemoteProtocolError as error:
            self._warn_once(str(error))
            self._start_problem = f"MEDIA_START can't be read: {error}" if "MEDIA_START" in text else ""
            return
        if isinstance(event, wire.MediaStart):
            self._form = form
            self._media_started(event)
        elif self._sink is not None:
            self._event(event, self._sink)

    def onOpen(self) -> None:
        count_apart(self.transport)
        self._set_deadline(START_TIMEOUT_S, self._start_overdue)
        self.writer.drained = self._update_paused
        self.reading = make_polled_reader(self.transport, self.dataReceived)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N803
        self._set_deadline(None)
        if getattr(self, "localCloseCode", None) in (1002, 1007, POLICY_VIOLATION, 1009):
            # Our own code decides: the peer may well answer it with 1000.
            cause: bytes = getattr(self, "localCloseReason", None) or b""
            end, detail = EndReason.PROTOCOL_ERROR, cause.decode("utf-8", "replace")
            self._reject(
                "too_long" if self.localCloseCode == 1009 else "garbage",
                "WebSocket {peer} broke the protocol: {error}", error=detail,
            )  # fmt: skip
        elif wasClean and code in (1000, 1001, None):
            end, detail = EndReason.CALLER_HANGUP, ""
        else:
            end, detail = EndReason.CONNECTION_LOST, str(reason or "")
        self._report_end(end, detail)
        if self._context is not None:
            self._abandon(end, self._start_problem or f"the WebSocket closed before MEDIA_START {detail}".rstrip())

    def _media_started(self, event: wire.MediaStart) -> None:
        if self._context is None:
            self._warn_once("a second MEDIA_START")
            return
        self._set_deadline(None)
        try:
            self.format = AudioFormat.from_asterisk(event.format)
            if event.optimal_frame_size != self.format.frame_bytes:
                raise ValueError(f"{event.format} in frames of {event.optimal_frame_size} bytes is not supported")
        except ValueError as error:
            self._reject("bad_format", "WebSocket {peer} rejected: {error}", error=str(error))
            self._abandon(EndReason.PROTOCOL_ERROR, str(error))
            self.hang_up()
            return
        self._sample_bytes = self.format.sample_bytes
        self.crumb_bytes = max(CRUMB_BYTES, min(126, self.format.frame_bytes * CRUMB_MS // FRAME_MS))
        self.channel, self.peer = event.channel, self._peer_text()
        context, self._context = self._context, None
        # The registration's variables win over the channel's own.
        context = replace(
            context,
            channel_id=context.channel_id or event.channel_id,
            variables=MappingProxyType({**event.channel_variables, **context.variables}),
        )
        self._sink = self._starter.start(context, self)

    def _event(self, event: wire.Event, sink: MediaSink) -> None:
        match event:
            case wire.DtmfEnd(digit=digit) if len(digit) == 1 and digit in DIGITS:
                sink.digit_received(digit)
            case wire.DtmfEnd(digit=digit):
                self._warn_once(f"the digit {digit[:80]!r}")
            case wire.MediaMarkProcessed(correlation_id=name):
                self._marks.processed(name)
            case wire.MediaXoff() | wire.MediaXon():
                self._xoff = isinstance(event, wire.MediaXoff)
                self._update_paused()
            case wire.ErrorEvent(error_text=text):
                self._error_received(text)
            case wire.UnknownEvent(text=text):
                self._warn_once(f"an unknown event {text[:80]!r}")

    def _error_received(self, text: str) -> None:
        """Log the first error that Asterisk reports."""
        self.errors += 1
        if self.errors == 1:
            self._log.warn(
                "WebSocket {peer}: Asterisk reports {text}; this call logs no further error",
                peer=self._peer_text(), text=printable(text, MAX_ERROR_TEXT), id=self.context_id,
            )  # fmt: skip

    def cut_off(self, problem: str) -> None:
        self._report_end(EndReason.PROTOCOL_ERROR, problem)
        self._abandon(EndReason.PROTOCOL_ERROR, problem)

    def _update_paused(self) -> None:
        """Pause the call's audio while Asterisk's queue or our send buffer is full; otherwise resume it."""
        if self._sink is None:
            return
        if not self.writer.full:
            self._set_deadline(None)
        elif self._deadline is None:
            self._set_deadline(STALLED_S, self._stalled)
        paused = self._xoff or self.writer.full
        if paused != self._paused:
            self._paused = paused
            self._sink.sending_paused(paused)

    def _warn_once(self, content: str) -> None:
        """Log the first ignored message of a call."""
        if not self._warned:
            self._warned = True
            self._log.warn(
                "WebSocket {peer} sent {content}: ignored; this call logs no further one",
                peer=self._peer_text(), content=content, id=self.context_id,
            )  # fmt: skip

    def _start_overdue(self) -> None:
        text = "WebSocket {peer} sent no MEDIA_START within {seconds} s: closed"
        self._reject("start_overdue", text, seconds=START_TIMEOUT_S)
        self._abandon(EndReason.PROTOCOL_ERROR, self._start_problem or "no MEDIA_START came")
        self.sendClose(1000)

    def _stalled(self) -> None:
        self._report_end(EndReason.PEER_STALLED, f"the peer read nothing for {STALLED_S:g} s")
        self.abort()

    def _abandon(self, reason: EndReason, detail: str) -> None:
        """End a call that is claimed and cannot start."""
        context, self._context = self._context, None
        if context is not None:
            self._starter.abandon(context, reason, detail)

    def _report_end(self, reason: EndReason, detail: str = "") -> None:
        self._marks.clear()
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.media_ended(reason, detail)

    def _send_mark(self, name: str) -> None:
        self._command(wire.MarkMedia(name))

    def _marks_missing(self) -> None:
        self._log.warn(
            "WebSocket {peer} answers no MARK_MEDIA: this call estimates from the length of audio when it was heard;"
            " Asterisk has marks since 20.18, 22.8 and 23.2",
            peer=self._peer_text(), id=self.context_id,
        )  # fmt: skip

    def _command(self, command: wire.Command) -> None:
        if self.state == self.STATE_OPEN:
            self.sendMessage(encode_command(command, self._form).encode("utf-8"))

    def _reject(self, cause: str, text: str, **values: Any) -> None:
        peer = self.transport.getPeer()
        self.factory.rejections.add(
            f"websocket.{cause}", peer, self._log, text, peer=address_text(peer), id=self.context_id, **values
        )

    def _peer_text(self) -> str:
        return address_text(self.transport.getPeer())

    def _set_deadline(self, delay_s: float | None, overdue: Callable[[], None] = lambda: None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if delay_s is not None:
            self._deadline = self._reactor.callLater(delay_s, overdue)


class MediaServerProtocol(_MediaChannel, websocket.WebSocketServerProtocol):
    """Asterisk connects to us: we claim the call that the handshake names before we answer the handshake."""

    factory: MediaServerFactory

    def __init__(self, reception: Reception, reactor: Any) -> None:
        super().__init__(reception, reactor)
        self._reception = reception
        self._connecting = False

    def onConnect(self, request: ConnectionRequest) -> Deferred[str]:
        """Check the handshake and claim the call.

        :raises ConnectionDeny: the HTTP status and reason of a rejected handshake.
        """
        if self._connecting:
            raise self._denied(400, "a second handshake before the first was answered")
        self._connecting = True
        problem = self.factory.check_handshake(request)
        if problem is not None:
            return self._denied_later(*problem)
        if wire.SUBPROTOCOL not in request.protocols:
            raise self._denied(400, "the subprotocol must be media")
        context_id = _context_id(request)
        if not context_id:
            raise self._denied(400, "no contextId in the path or the query")
        self.context_id = context_id
        assistants = self.factory.assistants_of(request)
        # A reception of an embedding program need not know bound keys.
        bound = (assistants,) if assistants else ()
        claim = self._reception.claim(context_id, self.transport_name, self._peer_text(), *bound)
        return claim.addCallbacks(self._claimed, self._claim_failed)

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:  # noqa: N802, N803
        """Autobahn's reason may quote the peer at length, and its own log has no limit."""
        reason = printable(reason.encode("ascii", "replace").decode(), MAX_ERROR_TEXT)
        if not self._connecting:
            self._reject("handshake", "WebSocket {peer} rejected: {status} {reason}", status=code, reason=reason)
        super().failHandshake(reason, code, [*(responseHeaders or ()), ("X-Rapida-Error", reason), _CLOSE, _EMPTY])

    def _claimed(self, context: CallContext) -> str:
        self._context = context
        if self.state != self.STATE_CONNECTING:
            self._abandon(EndReason.CALLER_HANGUP, "the connection closed while the call was claimed")
            # Otherwise Autobahn would answer the handshake on the closed connection.
            raise ConnectionDeny(503, "closed")
        return wire.SUBPROTOCOL

    def _claim_failed(self, failure: Failure) -> NoReturn:
        error = failure.value
        if not isinstance(error, RapidaError):
            self._log.failure(
                "WebSocket {peer}: cannot claim the call", failure, peer=self._peer_text(), id=self.context_id
            )
            raise self._denied(500, "the call could not be claimed")
        status = 503
        if isinstance(error, ContextError):
            status = 409 if isinstance(error, ContextClaimed) else 404
        raise self._denied(status, str(error))

    def _denied_later(self, status: int, reason: str) -> Deferred[str]:
        """Refuse after the time that wrong keys of this address have to wait."""
        wait_s = self.factory.refusal_delay_s(self.transport.getPeer()) if status == 401 else 0.0
        if not wait_s:
            raise self._denied(status, reason)

        def deny(_: None) -> NoReturn:
            raise self._denied(status, reason)

        return deferLater(self._reactor, wait_s).addCallback(deny)

    def _denied(self, status: int, reason: str) -> ConnectionDeny:
        self._reject(str(status), "WebSocket {peer} rejected: {status} {reason}", status=status, reason=reason)
        # The reason becomes part of the HTTP status line and may quote the peer.
        return ConnectionDeny(status, reason if reason.isprintable() and reason.isascii() else "refused")


class MediaClientProtocol(_MediaChannel, websocket.WebSocketClientProtocol):
    """We connect to a channel that waits in Asterisk (``WebSocket/INCOMING``), for a call already claimed."""

    def __init__(self, starter: CallStarter, reactor: Any, context: CallContext) -> None:
        super().__init__(starter, reactor)
        self._context = context
        self.context_id = context.context_id


class MediaServerFactory(websocket.WebSocketServerFactory):
    """Makes a :class:`MediaServerProtocol` for each connection. Serve it alone, or under a Site by WebSocketResource.

    :param check_handshake: checks API keys, for instance: returns None to accept, (status, reason) to reject.
    :param rejections: counts and logs rejected connections.
    :param message_bytes: the maximum size of a message.
    :param assistants_of: returns the ids of the assistants whose calls a handshake may take; empty: all.
    :param refusal_delay_s: counts a wrong key of an address, and returns how long (s) its refusal is to wait.
    """

    noisy = False

    def __init__(
        self,
        reception: Reception,
        reactor: Any,
        check_handshake: Callable[[ConnectionRequest], tuple[int, str] | None] = lambda request: None,
        rejections: RejectionLog | None = None,
        message_bytes: int = MAX_MESSAGE_BYTES,
        assistants_of: Callable[[ConnectionRequest], Collection[str]] = lambda request: (),
        refusal_delay_s: Callable[[Any], float] = lambda peer: 0.0,
    ) -> None:
        super().__init__(protocols=[wire.SUBPROTOCOL], server="", reactor=reactor)
        self.check_handshake = check_handshake
        self.assistants_of = assistants_of
        self.refusal_delay_s = refusal_delay_s
        self.rejections = rejections if rejections is not None else RejectionLog()
        self.protocol = lambda: MediaServerProtocol(reception, reactor)
        tune_factory(self)
        self.setProtocolOptions(
            webStatus=False,
            openHandshakeTimeout=START_TIMEOUT_S,
            maxFramePayloadSize=message_bytes,
            maxMessagePayloadSize=message_bytes,
        )


class MediaClientFactory(websocket.WebSocketClientFactory):
    """Makes the only :class:`MediaClientProtocol` of a call.

    :param starter: starts the call when its media is up.
    :param url: such as ``ws://asterisk:8088/media/<MEDIA_WEBSOCKET_CONNECTION_ID>``.
    :param context: the call, already claimed.
    """

    noisy = False

    def __init__(self, url: str, starter: CallStarter, reactor: Any, context: CallContext) -> None:
        super().__init__(url, protocols=[wire.SUBPROTOCOL], useragent="", reactor=reactor)
        self.protocol = lambda: MediaClientProtocol(starter, reactor, context)
        self.rejections = RejectionLog()
        tune_factory(self)
        self.setProtocolOptions(openHandshakeTimeout=START_TIMEOUT_S)


def _context_id(request: ConnectionRequest) -> str:
    """The contextId of a handshake: ``.../ctx/{contextId}``, or ``.../ctx?contextId=...``."""
    last: str = request.path.rstrip("/").rpartition("/")[2]
    in_query: str = request.params.get("contextId", [""])[0]
    return in_query if last in ("", "ctx") else last
