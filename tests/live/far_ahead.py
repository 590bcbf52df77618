"""An application that sends Asterisk far more than its queue holds, stopping only when Asterisk says MEDIA_XOFF.

It is the bare protocol, without the server's own pacing: ``python -m tests.live.far_ahead PORT SECONDS``. It takes one
call, says what happens in lines of JSON on standard output, and hangs up when Asterisk has played everything.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from zope.interface import implementer

from rapida_twisted import CallContext, EndReason, IMediaChannel, IMediaSink, IReception
from rapida_twisted.audio.convert import converter
from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.protocols.chan_websocket_app import MediaServerFactory
from tests.live.sounds import noise, pcm

reactor: Any = _reactor
PIECE_MS = 200.0
PAUSE_S = 0.002
"""Between two pieces the reactor may hear an XOFF."""


@implementer(IMediaSink)
class FarAhead:
    """One call."""

    def __init__(self, channel: IMediaChannel, seconds: float) -> None:
        self._channel = channel
        convert = converter(AudioFormat("slin", 8000), channel.format)
        samples = pcm(noise(seconds))
        self._waiting = samples if convert is None else convert(samples) + convert.flush()
        self._paused = False
        self._began = reactor.seconds()
        self._send()

    def _send(self) -> None:
        if self._paused or not self._waiting:
            return
        size = self._channel.format.bytes_for(PIECE_MS)
        piece, self._waiting = self._waiting[:size], self._waiting[size:]
        self._channel.send_audio(piece)
        if self._waiting:
            reactor.callLater(PAUSE_S, self._send)
        else:
            self._tell("sent")
            self._channel.mark(self._played)

    def _played(self) -> None:
        self._tell("played")
        self._channel.hang_up()

    def _tell(self, what: str) -> None:
        left_ms = self._channel.format.ms(len(self._waiting))
        after_s = round(reactor.seconds() - self._began, 3)
        _print({"what": what, "after_s": after_s, "left_s": left_ms / 1000})

    def audio_received(self, payload: bytes) -> None:
        """The caller says nothing of interest."""

    def digit_received(self, digit: str) -> None:
        """Nor does he press a key."""

    def format_changed(self) -> None:
        """It does not change over WebSocket."""

    def sending_paused(self, paused: bool) -> None:
        """Asterisk's queue is full, or not any more."""
        self._tell("xoff" if paused else "xon")
        self._paused = paused
        self._send()

    def media_ended(self, reason: EndReason, detail: str = "") -> None:
        """The call is over."""
        self._tell(reason.value)


@implementer(IReception)
class _Anybody:
    """Takes every call."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def claim(self, context_id: str, transport: str, peer: str) -> Deferred[CallContext]:
        now = reactor.seconds()
        return succeed(CallContext(context_id=context_id, assistant_id="any", created_at=now, expires_at=now))

    def start(self, context: CallContext, channel: IMediaChannel) -> IMediaSink:
        return FarAhead(channel, self._seconds)

    def abandon(self, context: CallContext, reason: EndReason, detail: str = "") -> None:
        _print({"what": "abandoned"})


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(port: int, seconds: float) -> None:
    """Listen, and run until the process is ended."""
    endpoint = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
    endpoint.listen(MediaServerFactory(_Anybody(seconds), reactor))
    reactor.callWhenRunning(_print, {"what": "listening"})
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
