"""One chan_websocket connection to the application's side, in memory and on fake time."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.protocols.chan_websocket_app import (
    MediaServerFactory,
)
from rapida_twisted.wire.chan_websocket import (
    Command,
    ControlForm,
    Event,
)
from rapida_twisted.wire.chan_websocket_text import decode_command, encode_event
from tests.media.fakes import KeptLog
from tests.protocols.fakes import FakeReception
from tests.protocols.websockets import (
    PATH,
    MemoryTransport,
    PausedSink,
    connect,
    handshake,
    on_clock,
    unframed,
)
from tests.support.websocket_strategies import CLOSE, MASK, TEXT, raw_ws_frame

START = (
    "MEDIA_START connection_id:rapida channel:WebSocket/rapida/0x7fbce000af40 channel_id:1795402101.4 format:ulaw"
    " optimal_frame_size:160 ptime:20"
)
JSON_START = (
    '{"event":"MEDIA_START","connection_id":"rapida","channel":"WebSocket/rapida/0x1","channel_id":"1.27",'
    '"format":"slin16","optimal_frame_size":640,"ptime":20,'
    '"channel_variables":{"DIALEDPEERNUMBER":"rapida","tenant":"from the channel"}}'
)
NORMAL = (1000).to_bytes(2, "big")


class MediaTestCase(SynchronousTestCase):
    """One connection to the application's server."""

    path = PATH
    transport: MemoryTransport = None  # type: ignore[assignment]

    def setUp(self) -> None:
        self.clock = on_clock(self)
        self.log = KeptLog(self)
        self.reception = FakeReception(PausedSink)
        self.check_handshake = lambda request: None
        self.connect()

    def connect(self) -> None:
        """Open another connection, which is the one in use from then on. One that was not used is closed."""
        if self.transport is not None and not self.transport.lost:
            self.lose()
        self.factory = MediaServerFactory(self.reception, self.clock, lambda request: self.check_handshake(request))
        self.protocol = self.factory.buildProtocol(None)
        self.transport = connect(self.protocol, self.factory)

    def ask(self, path: str | None = None, **more: Any) -> str:
        """Send a handshake; the first line of the answer."""
        self.protocol.dataReceived(handshake(self.path if path is None else path, **more))
        return self.transport.value().decode().partition("\r\n")[0]

    def start(self, start: str = START) -> PausedSink:
        """Take it to where the call is up; the call."""
        self.assertEqual(self.ask(), "HTTP/1.1 101 Switching Protocols")
        self.text(start)
        self.transport.clear()
        return self.sink

    @property
    def sink(self) -> PausedSink:
        """The one call that was started."""
        sink = self.reception.sink
        assert isinstance(sink, PausedSink)
        return sink

    def feed(self, opcode: int, payload: bytes = b"", **more: Any) -> None:
        """Asterisk sends a frame."""
        self.protocol.dataReceived(raw_ws_frame(opcode, payload, mask=MASK, **more))

    def text(self, *texts: str) -> None:
        """Asterisk sends text messages."""
        for text in texts:
            self.feed(TEXT, text.encode())

    def event(self, event: Event, form: ControlForm = ControlForm.PLAIN) -> None:
        """Asterisk says something."""
        self.text(encode_event(event, form))

    def frames(self) -> list[tuple[int, bytes]]:
        """The frames sent since the last call, as opcodes and payloads."""
        return unframed(self.transport.taken())

    def commands(self, form: ControlForm = ControlForm.PLAIN) -> list[Command]:
        """The commands that were sent, and no audio was."""
        frames = self.frames()
        self.assertEqual({opcode for opcode, _ in frames} - {TEXT, CLOSE}, set())
        return [decode_command(payload.decode(), form) for opcode, payload in frames if opcode == TEXT]

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone."""
        self.transport.lose(error or ConnectionDone())

    def assert_nothing_scheduled(self) -> None:
        """No timer is left behind: neither ours nor Autobahn's."""
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def assert_refused(self, status: int, reason: str) -> None:
        """The handshake was answered with this, and the connection is closed."""
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        self.assertEqual((head.split(b"\r\n")[0].decode(), body), (f"HTTP/1.1 {status} {reason}", b""))
        self.assertTrue(self.transport.settle())
        self.assertEqual((self.reception.sinks, self.reception.abandoned), ([], []))
        self.assert_nothing_scheduled()
