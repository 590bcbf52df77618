"""Assistants of the live suite's own, for a server's ``--assistant ID=tests.live.assistants:Class``."""

from __future__ import annotations

import random
import time

from twisted.internet.task import deferLater
from twisted.logger import Logger

from rapida_twisted import Assistant
from rapida_twisted.context import CallContext
from rapida_twisted.errors import TransferRefused
from rapida_twisted.interfaces import ICall, ICallPlumbing
from tests.live.recordings import Recording
from tests.live.sounds import noise, pcm

__all__ = [
    "CutOften", "EchoUntilDigit", "HangsUp", "HearsItself", "Interrupted", "LongSpeech", "Mover", "RatedEcho",
]  # fmt: skip

SPEECH_HZ = 620.0
SPEECH_S = 10.0
CUT_PAUSE_MS = 300
"""The silence that is played after each cut."""


class Interrupted(Assistant):
    """Says ten seconds of a tone, in two parts; a digit cuts it short."""

    rate_hz = 8000

    async def answer(self, call: ICall) -> None:
        """Say it."""
        # The first part's end and the second's beginning leave together.
        call.play(pcm(Recording.tone(SPEECH_HZ, 1.03)))
        await call.play(pcm(Recording.tone(SPEECH_HZ, SPEECH_S - 1.03)))

    def digit_received(self, call: ICall, digit: str) -> None:
        """Be quiet."""
        call.flush()


class CutOften(Assistant):
    """Says a tone as often as the dialled number, cuts it after a random time, and logs how much was heard."""

    _log = Logger()
    rate_hz = 8000

    def __init__(self, context: CallContext) -> None:
        self._times = int(context.called)
        self._chance = random.Random(context.context_id)

    async def answer(self, call: ICall) -> None:
        """Say it again and again."""
        tone = pcm(Recording.tone(SPEECH_HZ, 2.0))
        await call.wait(1.0)
        for _ in range(self._times):
            playing = call.play(tone)
            await call.wait(self._chance.uniform(0.05, 1.2))
            rest_ms = call.flush()
            outcome = await playing
            self._log.info("cut: heard {heard:.1f} ms, rest {rest:.1f} ms", heard=outcome.heard_ms, rest=rest_ms)
            # Asterisk sends nothing while it has nothing to play, and Record() leaves that out.
            await call.play(bytes(CUT_PAUSE_MS * 16))
        self._log.info("in all: heard {heard:.1f} ms", heard=call.heard_ms)
        await call.hang_up()


class LongSpeech(Assistant):
    """Queues a long speech at once, as long as the dialled number in seconds, and hangs up when all was heard."""

    rate_hz = 8000

    def __init__(self, context: CallContext) -> None:
        self._seconds = float(context.called)

    async def answer(self, call: ICall) -> None:
        """Say it."""
        await call.play(pcm(noise(self._seconds)))
        await call.hang_up()


class RatedEcho(Assistant):
    """Echoes, and adds the caller's rate to the call's record."""

    def __init__(self) -> None:
        self._noted = False

    def audio_received(self, call: ICall, samples: bytes) -> None:
        """Echo it."""
        if not self._noted:
            self._noted = True
            ICallPlumbing(call).note(f"heard at {call.rate_hz} Hz")
        call.write(samples)


class Mover(Assistant):
    """Hands the caller over to extension 300, after it was refused another that is not allowed."""

    async def answer(self, call: ICall) -> None:
        """Transfer."""
        try:
            await call.transfer("Local/900@party")
        except TransferRefused:
            await call.transfer("Local/300@party")


class HangsUp(Assistant):
    """Hangs up on the first digit."""

    def digit_received(self, call: ICall, digit: str) -> None:
        """Hang up."""
        call.hang_up()


class HearsItself(Assistant):
    """Says a tone to a caller who says everything back, logs after how long it hears it, and hangs up."""

    _log = Logger()
    rate_hz = 8000

    def __init__(self) -> None:
        self._said_at = 0.0

    async def answer(self, call: ICall) -> None:
        """Say it, once all is calm."""
        await deferLater(call.reactor, 1.0)
        self._said_at = time.monotonic()
        await call.play(pcm(Recording.tone(SPEECH_HZ, 0.2)))
        await deferLater(call.reactor, 2.0)

    def audio_received(self, call: ICall, samples: bytes) -> None:
        """Listen."""
        if self._said_at and max(memoryview(samples).cast("h")) > 1000:
            self._log.info("heard itself after {ms:.0f} ms", ms=1000 * (time.monotonic() - self._said_at))
            self._said_at = 0.0
            call.hang_up()


class EchoUntilDigit(HangsUp):
    """Says back what it hears, until a digit; the log tells the names of the call's variables."""

    _log = Logger()

    async def answer(self, call: ICall) -> None:
        """Tell what Asterisk told."""
        self._log.info("{to} was told {names}", to=call.context.called, names=sorted(call.context.variables))

    def audio_received(self, call: ICall, samples: bytes) -> None:
        """Say it back."""
        call.write(samples)
