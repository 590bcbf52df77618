"""``echo``: plays the caller's audio back."""

from __future__ import annotations

from collections.abc import Callable

from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantEnvironment, typed
from rapida_twisted.interfaces.typed import Call
from rapida_twisted.media.assistant import Assistant

__all__ = ["Echo", "configure"]


class Echo(Assistant):
    """Plays each packet of the caller at once."""

    def audio_received(self, call: Call, samples: bytes) -> None:
        call.write(samples)


def configure(argument: str, environment: AssistantEnvironment) -> Callable[[CallContext], typed.Assistant]:
    """It takes no argument."""
    if argument:
        raise SettingsError(f"echo takes no argument, and got {argument!r}")
    return lambda context: Echo()
