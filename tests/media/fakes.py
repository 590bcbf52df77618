"""A fake channel that records what it is sent, fake assistants, and a call between them."""

from __future__ import annotations

import wave
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from rapida_twisted.audio.formats import SLIN, AudioFormat
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.interfaces import IAssistant, ICall, IMediaChannel
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.media.call import Call
from rapida_twisted.media.clock import MediaClock

FRAME_S = 0.020


@implementer(ILogObserver)
class KeptLog:
    """All that is logged in the course of one test."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self)
        test.addCleanup(globalLogPublisher.removeObserver, self)

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)

    def at(self, level: object) -> list[LogEvent]:
        """What was logged at this level."""
        return [event for event in self.events if event["log_level"] is level]

    @property
    def failures(self) -> list[LogEvent]:
        """What was logged with a traceback."""
        return [event for event in self.events if "log_failure" in event]


@implementer(IMediaChannel)
class FakeChannel:
    """A media connection that keeps what it is sent."""

    transport_name = "audiosocket"
    reading = None
    peer = "192.0.2.1:4573"

    def __init__(self, format: AudioFormat = SLIN, paced: bool = False) -> None:
        self.format = format
        self.paced = paced
        self.sent: list[bytes] = []
        self.flushes = 0
        self.hangups = 0
        self.aborts = 0
        self.sent_after_hangup = 0
        self.marks: list[Callable[[], None]] = []
        self.on_send: Callable[[], None] = lambda: None
        """Called from within each send_audio()."""

    def send_audio(self, payload: bytes) -> None:
        """Keep it."""
        self.sent.append(payload)
        self.sent_after_hangup += bool(self.hangups)
        self.on_send()

    def flush(self) -> None:
        """Count it."""
        self.flushes += 1

    def mark(self, reached: Callable[[], None]) -> None:
        """What was sent is heard at once, unless the peer times the playing itself."""
        if self.paced:
            self.marks.append(reached)
        else:
            reached()

    def hang_up(self) -> None:
        """Count it."""
        self.hangups += 1

    def abort(self) -> None:
        """Count it."""
        self.aborts += 1

    @property
    def silence(self) -> bytes:
        """One frame in which nothing is heard."""
        return self.format.silent_frame

    @property
    def voiced(self) -> bytes:
        """All that was sent but whole frames of silence."""
        return b"".join(frame for frame in self.sent if frame != self.silence)


async def _listen_only(call: ICall) -> None:
    """An answer that says nothing."""


class FakeAssistant(Assistant):
    """Records its events, and answers with the given coroutine function."""

    def __init__(self, answer: Callable[[ICall], Awaitable[None]] = _listen_only, rate_hz: int | None = None) -> None:
        self.rate_hz = rate_hz
        self.heard: list[bytes] = []
        self.digits: list[str] = []
        self.ended: list[EndReason] = []
        self.on_audio: Callable[[ICall], object] = lambda call: None
        self.on_digit: Callable[[ICall], object] = lambda call: None
        self.on_ended: Callable[[ICall], object] = lambda call: None
        self._answer = answer

    async def answer(self, call: ICall) -> None:
        await self._answer(call)

    def audio_received(self, call: ICall, samples: bytes) -> None:
        self.heard.append(samples)
        self.on_audio(call)

    def digit_received(self, call: ICall, digit: str) -> None:
        self.digits.append(digit)
        self.on_digit(call)

    def call_ended(self, call: ICall, reason: EndReason) -> None:
        self.ended.append(reason)
        self.on_ended(call)


class CallOnFakes:
    """A call on fake time, between a fake channel and an assistant. It is up at once unless ``start`` is False."""

    def __init__(
        self,
        assistant: IAssistant | None = None,
        channel: FakeChannel | None = None,
        *,
        reactor: Clock | None = None,
        clock: MediaClock | None = None,
        context_id: str = "6b0e2a52-8f4c-4a53-9c3e-3d3b6d7c0f11",
        context: CallContext | None = None,
        live_limit_ms: float = 200.0,
        queue_limit_ms: float = 300_000.0,
        start: bool = True,
    ) -> None:
        self.reactor = Clock() if reactor is None else reactor
        self.clock = MediaClock(self.reactor, now=self.reactor.seconds) if clock is None else clock
        self.channel = FakeChannel() if channel is None else channel
        self.over: list[Call] = []
        self.call = Call(
            context or make_context(context_id), self.channel, FakeAssistant() if assistant is None else assistant,
            clock=self.clock, reactor=self.reactor, on_ended=self.over.append,
            live_limit_ms=live_limit_ms, queue_limit_ms=queue_limit_ms,
        )  # fmt: skip
        if start:
            self.call.start()
            # A little after the deadlines, so that the rounding of floats moves no frame to the next tick.
            self.reactor.advance(FRAME_S / 20)

    def tick(self, frames: int = 1) -> list[bytes]:
        """Let several periods pass; returns the frames sent meanwhile."""
        before = len(self.channel.sent)
        self.reactor.pump([FRAME_S] * frames)
        return self.channel.sent[before:]

    def turn(self) -> None:
        """One turn of the reactor in which no time goes by."""
        self.reactor.advance(0)


def make_context(context_id: str = "6b0e2a52-8f4c-4a53-9c3e-3d3b6d7c0f11", assistant_id: str = "123") -> CallContext:
    """A pending context that was registered at 0 and expires at 300."""
    return CallContext(context_id=context_id, assistant_id=assistant_id, created_at=0.0, expires_at=300.0)


def counted(frames: int, first: int = 1, frame_bytes: int = 320) -> bytes:
    """Several frames: each sample of the first is ``first``, of the second one more, and so on."""
    return b"".join(
        (number % 30000).to_bytes(2, "little") * (frame_bytes // 2) for number in range(first, first + frames)
    )


def ramp(samples: int, first: int = 1) -> bytes:
    """Several samples, each one more than the one before."""
    return array("h", [(first + number) % 30000 + 1 for number in range(samples)]).tobytes()


def write_wav(path: str | Path, samples: bytes, rate_hz: int = 8000) -> str:
    """A mono WAV file of 16 bits; its path."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(samples)
    return str(path)
