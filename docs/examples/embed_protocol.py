"""The AudioSocket protocol in an application of your own: no registration, no store; any UUID is welcome.

Run it, and let the dialplan say ``AudioSocket(40325ec2-5efd-4bd3-805f-53576e581d13,127.0.0.1:4573)``.
"""

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from zope.interface import implementer

from rapida_twisted import (
    AudioSocketFactory,
    CallContext,
    EndReason,
    IMediaSink,
    IReception,
    MediaChannel,
    MediaSink,
)


@implementer(IMediaSink)
class Parrot:
    """What comes in goes out, packet by packet."""

    def __init__(self, channel: MediaChannel) -> None:
        self.channel = channel

    def audio_received(self, payload: bytes) -> None:
        self.channel.send_audio(payload)

    def digit_received(self, digit: str) -> None:
        if digit == "#":
            self.channel.hang_up()

    def format_changed(self) -> None:
        pass

    def sending_paused(self, paused: bool) -> None:
        pass

    def media_ended(self, reason: EndReason, detail: str = "") -> None:
        print("the call is over:", reason.value)


@implementer(IReception)
class OpenHouse:
    """Takes every call."""

    def claim(self, context_id: str, transport: str, peer: str) -> Deferred[CallContext]:
        now = reactor.seconds()
        return succeed(CallContext(context_id=context_id, assistant_id="parrot", created_at=now, expires_at=now))

    def start(self, context: CallContext, channel: MediaChannel) -> MediaSink:
        return Parrot(channel)

    def abandon(self, context: CallContext, reason: EndReason, detail: str = "") -> None:
        print("gone before it began:", context.context_id)


def listen(port: int = 4573) -> Deferred:
    """Listen on 127.0.0.1; fires with Twisted's listening port."""
    return TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(AudioSocketFactory(OpenHouse(), reactor))


if __name__ == "__main__":
    listen()
    reactor.run()
