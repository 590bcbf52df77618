"""``greeter``: plays a welcome, then echoes the caller one second later; answers each digit with its tone."""

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
"""After this long without a packet (s) the telephone is taken to suppress silence."""
_BYTES_PER_S = 8000 * 2


class Greeter(Assistant):
    """Tests a call: the welcome tests the audio to the caller, the echo the audio from it, the tones the digits."""

    rate_hz = 8000

    def __init__(self) -> None:
        self._late: deque[bytes] = deque()
        self._late_bytes = 0
        self._rest: IDelayedCall | None = None

    async def answer(self, call: Call) -> None:
        await call.play(WELCOME)

    def audio_received(self, call: Call, samples: bytes) -> None:
        """Put the packet into a delay line of one second, and play what leaves it."""
        if not samples:  # Only bytes bound the line: packets without any would fill it.
            return
        self._late.append(samples)
        self._late_bytes += len(samples)
        while self._late_bytes > DELAY_S * _BYTES_PER_S:
            oldest = self._late.popleft()
            self._late_bytes -= len(oldest)
            call.write(oldest)
        # Packets that enter move the line. When no more come, a timer empties it once its oldest packet is due.
        rest_s = max(QUIET_S, DELAY_S - self._late_bytes / _BYTES_PER_S)
        if self._rest is not None and self._rest.active():
            self._rest.reset(rest_s)
        else:
            self._rest = call.reactor.callLater(rest_s, self._play_rest, call)

    def digit_received(self, call: Call, digit: str) -> None:
        if digit == "#":
            call.hang_up()
            return
        call.flush()
        call.play(dtmf(digit, DIGIT_MS, 8000))

    def call_ended(self, call: Call, reason: EndReason) -> None:
        if self._rest is not None and self._rest.active():
            self._rest.cancel()

    def _play_rest(self, call: Call) -> None:
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
