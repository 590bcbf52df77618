"""A call without a network and without waiting, to test your own assistants::

call = FakeCall(MyAssistant())
call.start()
call.press("1")
call.advance(2.0)
assert call.hung_up
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from twisted.internet.task import Clock
from zope.interface import implementer

from rapida_twisted.audio.formats import SLIN, AudioFormat
from rapida_twisted.context import CallContext, ContextStatus, EndReason
from rapida_twisted.interfaces import IMediaChannel, typed
from rapida_twisted.media.call import Call
from rapida_twisted.media.clock import MediaClock

__all__ = ["FakeCall", "FakeChannel"]

_STEP_S = 0.005


@implementer(IMediaChannel)
class FakeChannel:
    """A media channel that keeps the audio sent to it."""

    transport_name = "fake"
    reading = None
    peer = "192.0.2.1:1"
    paced = False

    def __init__(self, format: AudioFormat = SLIN) -> None:
        self.format = format
        self.sent: list[bytes] = []
        """Frames of 20 ms that were sent to the caller, silence included."""
        self.closed = False

    def send_audio(self, payload: bytes) -> None:
        self.sent.append(payload)

    def flush(self) -> None:
        """Does nothing: no audio is queued here."""

    def mark(self, reached: Callable[[], None]) -> None:
        """Reached at once: all audio counts as heard when it is sent."""
        reached()

    def hang_up(self) -> None:
        self.closed = True

    abort = hang_up


class FakeCall:
    """A call to one assistant, on fake time. Only the network is fake.

    :param assistant: answers the call.
    :param variables: of the registration.
    :param rate_hz: the line's rate.
    """

    def __init__(
        self,
        assistant: typed.Assistant,
        *,
        caller: str = "+4930123456",
        called: str = "100",
        variables: Mapping[str, str] | None = None,
        rate_hz: int = 8000,
    ) -> None:
        self.clock = Clock()
        self.channel = FakeChannel(AudioFormat("slin", rate_hz))
        context = CallContext(
            context_id="00000000-0000-4000-8000-000000000001",
            assistant_id="123456789",
            created_at=0.0,
            expires_at=300.0,
            status=ContextStatus.CLAIMED,
            caller=caller,
            called=called,
            variables=MappingProxyType(dict(variables or {})),
            transport="fake",
            claimed_at=0.0,
        )
        self.call = Call(
            context,
            self.channel,
            assistant,
            clock=MediaClock(self.clock, now=self.clock.seconds),
            reactor=self.clock,
            on_ended=lambda call: None,
        )
        """The object that the assistant gets: an :class:`~rapida_twisted.interfaces.ICall`."""

    def start(self) -> None:
        """Answer the call."""
        self.call.start()

    def advance(self, seconds: float) -> None:
        """Let time pass, tick by tick."""
        until = self.clock.seconds() + seconds
        while self.clock.seconds() + _STEP_S <= until + 1e-9:
            self.clock.advance(_STEP_S)

    def hear(self, samples: bytes) -> None:
        """A packet of the caller's audio arrives: s16le mono at the line's rate."""
        self.call.audio_received(samples)

    def press(self, digit: str) -> None:
        """The caller presses a key."""
        self.call.digit_received(digit)

    def end(self, reason: EndReason = EndReason.CALLER_HANGUP) -> None:
        """The caller hangs up, or the call ends for another reason."""
        self.call.media_ended(reason)
        self.clock.advance(0)

    @property
    def hung_up(self) -> bool:
        """Whether the assistant hung up or failed."""
        return self.channel.closed

    @property
    def said(self) -> bytes:
        """All audio that the caller heard so far: s16le mono at the line's rate, silence included."""
        return b"".join(self.channel.sent)
