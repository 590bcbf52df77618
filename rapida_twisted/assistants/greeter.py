"""``greeter``: says a welcome, then everything back a second later; digits are answered with their own tones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from twisted.plugin import IPlugin
from zope.interface import implementer

from rapida_twisted.audio.tones import dtmf
from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantHouse, IAssistant, IAssistantFactory, ICall
from rapida_twisted.media.assistant import Assistant

__all__ = ["WELCOME", "Greeter", "GreeterFactory"]

WELCOME = Path(__file__).with_name("welcome.wav")
DELAY_S = 1.0
DIGIT_MS = 150.0


class Greeter(Assistant):
    """Shows that a call works: the way out by the welcome, the way in by the delayed echo, digits by their tones."""

    rate_hz = 8000

    def __init__(self) -> None:
        self._late: deque[bytes] = deque()
        self._late_bytes = 0

    async def answer(self, call: ICall) -> None:
        """Say the welcome."""
        await call.say(WELCOME)

    def audio_received(self, call: ICall, samples: bytes) -> None:
        """Put it into a line that is a second long, and say what comes out at its other end."""
        if samples:  # The line is bounded by its bytes, so nothing without any may enter it.
            self._late.append(samples)
        self._late_bytes += len(samples)
        while self._late_bytes > DELAY_S * 8000 * 2:
            oldest = self._late.popleft()
            self._late_bytes -= len(oldest)
            call.write(oldest)

    def digit_received(self, call: ICall, digit: str) -> None:
        """A key interrupts whatever is said, and is answered with its own tone; ``#`` hangs up."""
        if digit == "#":
            call.hangup()
            return
        call.flush()
        call.say(dtmf(digit, DIGIT_MS, 8000))


@implementer(IPlugin, IAssistantFactory)
class GreeterFactory:
    """Makes :class:`Greeter`."""

    name = "greeter"
    usage = "greeter  says a welcome, then all it hears a second later; # hangs up"

    def configure(self, argument: str, house: AssistantHouse) -> Callable[[CallContext], IAssistant]:
        """It takes no argument."""
        if argument:
            raise SettingsError(f"greeter takes no argument, and got {argument!r}")
        return lambda context: Greeter()
