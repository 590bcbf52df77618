"""The base class of assistants: override what you need."""

from __future__ import annotations

from zope.interface import implementer

from rapida_twisted.context import EndReason
from rapida_twisted.interfaces import IAssistant
from rapida_twisted.interfaces.typed import Call

__all__ = ["Assistant"]


@implementer(IAssistant)
class Assistant:
    """An assistant that listens to nothing and says nothing. One is made for each call.

    What is not overridden costs nothing: a call converts no audio for an assistant that does not hear it.
    """

    rate_hz: int | None = None
    """The rate (Hz) of the samples it hears and speaks: 8000, 16000, 24000, 48000; None: the wire's own."""

    async def answer(self, call: Call) -> None:
        """Runs while the call lasts, and is cancelled when it ends. Its return does not end the call."""

    def audio_received(self, call: Call, samples: bytes) -> None:
        """The caller was heard: s16le mono at ``rate_hz``, as long as the caller's packet."""

    def digit_received(self, call: Call, digit: str) -> None:
        """The caller pressed one of ``0-9 A-D * #``."""

    def call_ended(self, call: Call, reason: EndReason) -> None:
        """The call is over, whoever ended it. Called exactly once."""
