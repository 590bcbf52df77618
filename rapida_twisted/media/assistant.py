"""The base class of assistants: override what you need."""

from __future__ import annotations

from zope.interface import implementer

from rapida_twisted.context import EndReason
from rapida_twisted.interfaces import IAssistant
from rapida_twisted.interfaces.typed import Call

__all__ = ["ASSISTANT_ERRORS", "Assistant"]

ASSISTANT_ERRORS = (BaseException,)
"""An assistant's errors end its call, and not the process: also SystemExit, KeyboardInterrupt, GeneratorExit and
asyncio.CancelledError. Ctrl-C never raises here, since Twisted handles its signal."""


@implementer(IAssistant)
class Assistant:
    """An assistant that ignores the caller and plays nothing. Each call gets an instance of its own.

    A method that is not overridden costs nothing: without audio_received(), the call converts no audio.
    """

    rate_hz: int | None = None
    """The sample rate (Hz) in both directions: 8000, 16000, 24000, 48000; None: the wire's own."""
    needs_asyncio: bool = False
    """True: the server refuses to start with this assistant unless it runs on asyncio's reactor."""

    async def answer(self, call: Call) -> None:
        """Runs during the call, and is cancelled at its end. Returning does not end the call."""

    def audio_received(self, call: Call, samples: bytes) -> None:
        """The caller sent a packet of audio: s16le mono at ``rate_hz``, in the packet's own length."""

    def digit_received(self, call: Call, digit: str) -> None:
        """The caller pressed one of ``0-9 A-D * #``."""

    def call_ended(self, call: Call, reason: EndReason) -> None:
        """The call has ended, from either side. Called exactly once."""
