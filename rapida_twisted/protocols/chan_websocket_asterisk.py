"""chan_websocket, Asterisk's side: behaves as the channel driver, for far ends, phones and tests.

The application's audio waits in a queue of 1,000 frames, as in Asterisk, and leaves it one frame each 20 ms; flow
control, marks and FLUSH_MEDIA act on that queue (:mod:`rapida_twisted.wire.chan_websocket_queue`).
"""

from __future__ import annotations

from typing import Any

from autobahn.twisted import websocket
from autobahn.websocket.types import ConnectionRequest, ConnectionResponse

from rapida_twisted.audio.formats import FRAME_MS, ULAW, AudioFormat
from rapida_twisted.errors import RemoteProtocolError
from rapida_twisted.net.addresses import bracketed
from rapida_twisted.protocols.quick_websocket import QuickWebSocket, tune_factory
from rapida_twisted.wire import chan_websocket as wire
from rapida_twisted.wire.chan_websocket_queue import MediaQueue
from rapida_twisted.wire.chan_websocket_text import decode_command, encode_event

__all__ = [
    "AsteriskChannel", "AsteriskClientFactory", "AsteriskClientProtocol", "AsteriskServerFactory",
    "AsteriskServerProtocol",
]  # fmt: skip


class AsteriskChannel(QuickWebSocket):
    """A channel of chan_websocket. Override the methods for the events of interest, and call :meth:`tick` each 20 ms.

    :param format: of the audio in both directions.
    :param form: of the control messages.
    :param channel_id: Asterisk's unique id of the channel.
    :param variables: the channel's variables; sent in the JSON form only.
    """

    def __init__(
        self,
        format: AudioFormat = ULAW,
        form: wire.ControlForm = wire.ControlForm.PLAIN,
        *,
        channel_id: str = "1.1",
        connection_id: str = "rapida",
        variables: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.format = format
        self.form = form
        self.channel_id = channel_id
        self.queue = MediaQueue(format.frame_bytes, self.send_event, channel_id=channel_id, form=form)
        self._start = wire.MediaStart(
            connection_id=connection_id,
            channel=f"WebSocket/{connection_id}/{id(self):#x}",
            channel_id=channel_id,
            format=format.asterisk_name,
            optimal_frame_size=format.frame_bytes,
            ptime=FRAME_MS,
            channel_variables=variables or {},
        )
        self._ended = False

    # Events, to be overridden

    def call_started(self) -> None:
        """The handshake is complete and MEDIA_START is sent."""

    def answered(self) -> None:
        """The application answered the channel."""

    def hangup_received(self) -> None:
        """The application hung up. The connection is closing; :meth:`call_ended` follows."""

    def command_received(self, command: wire.Command) -> None:
        """A command of any kind came, after the queue executed it."""

    def call_ended(self, problem: str) -> None:
        """The connection closed. Called once; ``problem`` is empty for an orderly end."""

    # Actions

    def tick(self) -> bytes | None:
        """Another 20 ms have passed: take the frame that the caller hears now, None for silence."""
        return self.queue.take()

    def send_audio(self, payload: bytes) -> bool:
        """Send one packet of the caller; False if it was dropped because the application reads too slowly.

        An application that set its direction to ``out`` gets none.
        """
        return self.queue.direction == "out" or self.send_binary(payload)

    def send_digit(self, digit: str) -> None:
        self.send_event(wire.DtmfEnd(digit=digit, channel_id=self.channel_id))

    def send_event(self, event: wire.Event) -> None:
        if self.state == self.STATE_OPEN:
            self.sendMessage(encode_event(event, self.form).encode("utf-8"))

    def hang_up(self) -> None:
        self.sendClose(1000)

    # From Autobahn

    def onOpen(self) -> None:
        if self.state != self.STATE_OPEN:  # the application chose another subprotocol
            return
        self.send_event(self._start)
        self.call_started()

    def binary_received(self, payload: bytes) -> None:
        self.queue.audio(payload)

    def text_received(self, payload: bytes) -> None:
        if len(payload) > wire.MAX_COMMAND_BYTES:
            return
        try:
            command = decode_command(payload.decode("utf-8"), self.form)
        except RemoteProtocolError:
            self.send_event(wire.ErrorEvent(error_text="Unable to parse JSON command", channel_id=self.channel_id))
            command = wire.UnknownCommand(payload.decode("utf-8"))
        if isinstance(command, wire.Hangup):
            self.sendClose(1000)
            self.hangup_received()
        elif isinstance(command, wire.Answer):
            self.answered()
        else:
            self.queue.command(command)
        self.command_received(command)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N803
        if not self._ended:
            self._ended = True
            orderly = wasClean and code in (1000, 1001, None)
            self.call_ended("" if orderly else f"{reason or 'the connection was lost'} ({code})")


class AsteriskClientProtocol(AsteriskChannel, websocket.WebSocketClientProtocol):
    """The channel of ``Dial(WebSocket/<client>/...)``: connects to the application."""

    def onConnect(self, response: ConnectionResponse) -> None:
        # res_http_websocket.c accepts an answer without a subprotocol. Autobahn refuses one that was not offered.
        if response.protocol not in (wire.SUBPROTOCOL, None):
            self.fail(1002, "the subprotocol must be media")


class AsteriskServerProtocol(AsteriskChannel, websocket.WebSocketServerProtocol):
    """The channel ``WebSocket/INCOMING``: the application connects to it."""

    def onConnect(self, request: ConnectionRequest) -> str:
        return wire.SUBPROTOCOL


class AsteriskClientFactory(websocket.WebSocketClientFactory):
    """Connects one channel to an application.

    :param url: of the application, with the query that ``v()`` adds.
    :param channel: the protocol of the only connection.
    :param headers: further headers of the handshake, such as an API key.
    """

    noisy = False

    def __init__(
        self, url: str, channel: AsteriskClientProtocol, reactor: Any, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(url, protocols=[wire.SUBPROTOCOL], useragent="", headers=headers or {}, reactor=reactor)
        # Autobahn writes it into the Host header as it is.
        self.host: str = bracketed(self.host)
        self.protocol = lambda: channel
        tune_factory(self)
        self.setProtocolOptions(openHandshakeTimeout=5)


class AsteriskServerFactory(websocket.WebSocketServerFactory):
    """Waits for an application to connect to one channel.

    :param channel: the protocol of the only connection.
    """

    noisy = False

    def __init__(self, channel: AsteriskServerProtocol, reactor: Any) -> None:
        super().__init__(protocols=[wire.SUBPROTOCOL], server="", reactor=reactor)
        self.protocol = lambda: channel
        tune_factory(self)
