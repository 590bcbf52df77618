"""A call without a network and without waiting, to test your own assistants::

call = FakeCall(MyAssistant())
call.start()
call.advance_until(lambda: "menu.wav" in call.said_texts)
call.press("1")
call.advance(2.0)
assert call.transferred_to == "PJSIP/200"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

from twisted.internet import threads
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock, deferLater
from zope.interface import implementer

from rapida_twisted.audio.formats import SLIN, AudioFormat
from rapida_twisted.context import CallContext, ContextStatus, EndReason
from rapida_twisted.interfaces import IMediaChannel, Playable, PlayOutcome, typed
from rapida_twisted.media.call import Call
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.wire.audiosocket import DIGITS

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


class _NotedCall(Call):
    """Notes what was said."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.said_texts: list[str] = []

    def play(self, audio: Playable, rate_hz: int | None = None) -> Deferred[PlayOutcome]:
        text = Path(audio).name if isinstance(audio, str | Path) else getattr(audio, "text", "")

        def note(outcome: PlayOutcome) -> PlayOutcome:
            if text and outcome.heard_ms:
                self.said_texts.append(text)
            return outcome

        return super().play(audio, rate_hz).addCallback(note)


class FakeCall:
    """A call to one assistant, on fake time. Only the network is fake.

    It needs no running reactor. ``call.reactor`` is its clock, so what waits by it waits for :meth:`advance`:
    ``call.wait()``, ``deferLater(call.reactor, ...)``. A function given to ``deferToThread()`` runs at once, and
    the result comes with the next :meth:`advance`.

    :param assistant: answers the call.
    :param variables: of the registration.
    :param rate_hz: the line's rate.
    :raises TypeError: this is a class, and no object of it.
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
        if isinstance(assistant, type):
            name = assistant.__name__
            raise TypeError(f"FakeCall() takes an object, not its class: FakeCall({name}())")
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
        self._started = False
        self.transferred_to: str | None = None
        """The dial string of the transfer that the assistant asked for."""
        self.call = _NotedCall(
            context,
            self.channel,
            assistant,
            clock=MediaClock(self.clock, now=self.clock.seconds),
            reactor=self.clock,
            on_ended=lambda call: None,
            move_on=self._move_on,
        )
        """The object that the assistant gets: an :class:`~rapida_twisted.interfaces.ICall`."""

    def start(self) -> None:
        """Answer the call."""
        self._started = True
        with self._assistant_runs():
            self.call.start()

    def advance(self, seconds: float) -> None:
        """Let time pass, tick by tick."""
        until = self.clock.seconds() + seconds
        with self._assistant_runs():
            while self.clock.seconds() + _STEP_S <= until + 1e-9:
                self.clock.advance(_STEP_S)

    def advance_until(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Let time pass until the condition is true.

        :raises AssertionError: it is not true after ``timeout_s`` of fake time.
        """
        until = self.clock.seconds() + timeout_s
        while not condition():
            if self.clock.seconds() >= until:
                raise AssertionError(f"the condition is not true after {timeout_s:g} s: {self._state}")
            self.advance(_STEP_S)

    def hear(self, samples: bytes) -> None:
        """A packet of the caller's audio arrives: s16le mono at the line's rate."""
        with self._assistant_runs():
            self.call.audio_received(samples)

    def press(self, digits: str) -> None:
        """The caller presses a key, or several, one at once after the other.

        :raises ValueError: one is none of ``0-9 A-D * #``.
        """
        if not digits or not set(digits) <= set(DIGITS):
            raise ValueError(f"press() takes keys of a telephone ({DIGITS}), not {digits!r}")
        with self._assistant_runs():
            for digit in digits:
                self.call.digit_received(digit)

    def end(self, reason: EndReason = EndReason.CALLER_HANGUP) -> None:
        """The caller hangs up, or the call ends for another reason."""
        with self._assistant_runs():
            self.call.media_ended(reason)
            self.clock.advance(0)

    @property
    def said_texts(self) -> list[str]:
        """What the caller heard, wholly or in part, in the order in which it ended: the names of sound files, and the
        attribute ``text`` of iterables that have one."""
        return self.call.said_texts

    @property
    def said_ms(self) -> float:
        """How much audio the caller heard so far (ms), without silence."""
        return self.call.heard_ms

    @property
    def hung_up(self) -> bool:
        """Whether the server ended the call: the assistant hung up, transferred the caller, or failed."""
        return self.channel.closed

    @property
    def ended(self) -> EndReason | None:
        """Why the call ended, such as ``EndReason.ASSISTANT_FAILED``; None while it lasts."""
        return self.call.ended

    @property
    def said(self) -> bytes:
        """All audio that the caller heard so far: s16le mono at the line's rate, silence included."""
        return b"".join(self.channel.sent)

    @property
    def _state(self) -> str:
        if not self._started:
            return "the call was not answered; start() answers it"
        files = f" ({', '.join(self.said_texts)})" if self.said_texts else ""
        detail = f" ({self.call.detail})" if self.call.detail else ""
        state = f"has ended: {self.ended.value}{detail}" if self.ended is not None else "is up"
        return f"the caller heard {self.said_ms:.0f} ms{files}, and the call {state}"

    def _move_on(self, call: Call, dial_string: str) -> Deferred[None]:
        self.transferred_to = dial_string
        return succeed(None)

    @contextmanager
    def _assistant_runs(self) -> Iterator[None]:
        """deferToThread() needs a running reactor, and would finish at a time of its own."""
        with mock.patch.object(threads, "deferToThreadPool", self._run_now):
            yield

    def _run_now(
        self, reactor: object, pool: object, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Deferred[Any]:
        done = maybeDeferred(function, *args, **kwargs)
        return deferLater(self.clock, 0, lambda: done)
