"""A program that connects to a channel which waits in Asterisk (``WebSocket/INCOMING``), and echoes what it hears.

Run it with the channel's address: ``ws://127.0.0.1:8088/media/<MEDIA_WEBSOCKET_CONNECTION_ID>``.
"""

import sys
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from zope.interface import implementer

from rapida_twisted import (
    CallContext,
    EndReason,
    ICallStarter,
    IMediaSink,
    MediaChannel,
    MediaClientFactory,
    MediaSink,
)


@implementer(IMediaSink)
class Parrot:
    """What comes in goes out; ``#`` hangs up."""

    def __init__(self, channel: MediaChannel) -> None:
        self.channel = channel

    def audio_received(self, payload: bytes) -> None:
        self.channel.send_audio(payload)

    def digit_received(self, digit: str) -> None:
        if digit == "#":
            self.channel.hang_up()
            print("hung up")

    def format_changed(self) -> None:
        pass

    def sending_paused(self, paused: bool) -> None:
        pass

    def media_ended(self, reason: EndReason, detail: str = "") -> None:
        print("the caller is gone:", reason.value)


@implementer(ICallStarter)
class Parrots:
    """Starts the one call that the connection is for."""

    def start(self, context: CallContext, channel: MediaChannel) -> MediaSink:
        print("the call is up:", context.channel_id)
        return Parrot(channel)

    def abandon(self, context: CallContext, reason: EndReason, detail: str = "") -> None:
        print("gone before it began:", detail)


def connect(url: str) -> Deferred:
    """Connect to the channel; fires with the protocol, or fails."""
    now = reactor.seconds()
    context = CallContext(context_id=str(uuid4()), assistant_id="parrot", created_at=now, expires_at=now)
    factory = MediaClientFactory(url, Parrots(), reactor, context)
    return HostnameEndpoint(reactor, factory.host, factory.port).connect(factory)


if __name__ == "__main__":
    connect(sys.argv[1])
    reactor.run()
