"""``greeter``: says a welcome, then everything back a second later; digits are answered with their own tones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from twisted.internet.interfaces import IDelayedCall

from rapida_twisted.audio.tones import dtmf
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantEnvironment, typed
from rapida_twisted.interfaces.typed import Call
from rapida_twisted.media.assistant import Assistant

__all__ = ["WELCOME", "Greeter", "configure"]

WELCOME = Path(__file__).with_name("welcome.wav")
DELAY_S = 1.0
DIGIT_MS = 150.0
QUIET_S = 0.1
"""A telephone that sent nothing for so long sends nothing because nobody speaks."""
_BYTES_PER_S = 8000 * 2


class Greeter(Assistant):
    """Shows that a call works: the way out by the welcome, the way in by the delayed echo, digits by their tones."""

    rate_hz = 8000

    def __init__(self) -> None:
        self._late: deque[bytes] = deque()
        self._late_bytes = 0
        self._rest: IDelayedCall | None = None

    async def answer(self, call: Call) -> None:
        """Say the welcome."""
        await call.play(WELCOME)

    def audio_received(self, call: Call, samples: bytes) -> None:
        """Put it into a line that is a second long, and say what comes out at its other end."""
        if not samples:  # The line is bounded by its bytes, so nothing without any may enter it.
            return
        self._late.append(samples)
        self._late_bytes += len(samples)
        while self._late_bytes > DELAY_S * _BYTES_PER_S:
            oldest = self._late.popleft()
            self._late_bytes -= len(oldest)
            call.write(oldest)
        # The line moves with what comes into it. If nothing comes any more, a timer empties it when its first is due.
        rest_s = max(QUIET_S, DELAY_S - self._late_bytes / _BYTES_PER_S)
        if self._rest is not None and self._rest.active():
            self._rest.reset(rest_s)
        else:
            self._rest = call.reactor.callLater(rest_s, self._say_rest, call)

    def digit_received(self, call: Call, digit: str) -> None:
        """A key interrupts whatever is said, and is answered with its own tone; ``#`` hangs up."""
        if digit == "#":
            call.hang_up()
            return
        call.flush()
        call.play(dtmf(digit, DIGIT_MS, 8000))

    def call_ended(self, call: Call, reason: EndReason) -> None:
        """Forget what was heard last."""
        if self._rest is not None and self._rest.active():
            self._rest.cancel()

    def _say_rest(self, call: Call) -> None:
        rest = b"".join(self._late)
        self._late.clear()
        self._late_bytes = 0
        if call.ended is None:
            call.play(rest)


def configure(argument: str, environment: AssistantEnvironment) -> Callable[[CallContext], typed.Assistant]:
    """It takes no argument."""
    if argument:
        raise SettingsError(f"greeter takes no argument, and got {argument!r}")
    return lambda context: Greeter()
