"""A whole media server in process for the phone's tests, with assistants that do as they are told, and with TLS."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater

from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.interfaces import ICall, IMediaChannel, IMediaSink
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.server.build import RapidaMedia
from rapida_twisted.settings import Settings
from tests.tools.echo_server import API_KEY, EchoCall, EchoServer

FRAME = b"\x00\x20" * 160


class Heard(Assistant):
    """Echoes, and remembers what it was told. All that were made are in ``made``."""

    made: list[Heard] = []

    def __init__(self, context: CallContext) -> None:
        self.context = context
        self.digits = ""
        self.sizes: list[int] = []
        self.heard = b""
        self.ended: list[EndReason] = []
        self.made.append(self)

    def audio_received(self, call: ICall, samples: bytes) -> None:
        """Back with it."""
        self.sizes.append(len(samples))
        self.heard += samples
        call.write(samples)

    def digit_received(self, call: ICall, digit: str) -> None:
        """Remember it."""
        self.digits += digit

    def call_ended(self, call: ICall, reason: EndReason) -> None:
        """Remember why."""
        self.ended.append(reason)


class HangsUp(Assistant):
    """Says something for half a second, and hangs up."""

    async def answer(self, call: ICall) -> None:
        """Wait for it to be heard."""
        await call.play(FRAME * 25)
        await call.hang_up()


class Silent(Assistant):
    """Hangs up without a word."""

    async def answer(self, call: ICall) -> None:
        """At once."""
        await call.hang_up()


class Pauses(Assistant):
    """Says two things, with 300 ms between them."""

    async def answer(self, call: ICall) -> None:
        """One after the other."""
        await call.play(FRAME * 10)
        await deferLater(call.reactor, 0.3)
        await call.play(FRAME * 10)
        await call.hang_up()


class Stutters(Assistant):
    """Live speech that stops for 300 ms in the middle."""

    async def answer(self, call: ICall) -> None:
        """Two parts."""
        call.write(FRAME * 10)
        await deferLater(call.reactor, 0.5)
        call.write(FRAME * 10)
        await deferLater(call.reactor, 0.5)
        await call.hang_up()


class FloodServer(EchoServer):
    """A reception that says 28 s in a quarter of a second, whatever it is told of flow control."""

    def start(self, context: CallContext, channel: IMediaChannel) -> IMediaSink:
        """All of it, in messages of 200 frames of ulaw, as fast as a socket takes them."""
        for number in range(7):
            self.reactor.callLater(0.04 * number, channel.send_audio, b"\x40" * 160 * 200)
        return EchoCall(self, channel)


def settings_of(state_dir: str, **more: str) -> Settings:
    """Settings of a server on free ports, with one assistant for each of the above."""
    rules = [
        f"{number}=tests.tools.media_server:{kind.__name__}"
        for number, kind in enumerate((Heard, HangsUp, Silent, Pauses, Stutters), 1)
    ]
    return Settings.from_mapping(
        {
            "AUDIOSOCKET__PORT": "0",
            "HTTP__PORT": "0",
            "ADMIN__PORT": "0",
            "STORE__URL": "memory:",
            "STATE_DIR": state_dir,
            "RAPIDA_API_KEY": API_KEY,
            "ASSISTANT": ",".join(rules),
            "DRAIN_S": "0",
            **more,
        }
    )


async def stop(media: RapidaMedia, reactor: Any) -> None:
    """Stop it, and wait for its ends of the connections to close."""
    await media.stopService()
    await deferLater(reactor, 0.05)
