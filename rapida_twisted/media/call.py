"""A call: connects a media channel with an assistant, which know nothing of each other.

:mod:`.call_audio` has its audio. Here are what an assistant asks of its call, and the end: a call ends once, from
either side; the assistant is notified in the reactor's next turn, so that no code is cancelled while it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.audio.tones import tone
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.credentials.masking import masked
from rapida_twisted.errors import CallEnded, PlayoutFull, TransferRefused, UpstreamFailed
from rapida_twisted.interfaces import ICallPlumbing, IMediaSink, Playable, PlayOutcome, typed
from rapida_twisted.interfaces.typed import MediaChannel
from rapida_twisted.interfaces.values import T
from rapida_twisted.media.answering import Coroutines, class_name
from rapida_twisted.media.assistant import ASSISTANT_ERRORS
from rapida_twisted.media.call_audio import LIVE_LIMIT_MS, CallAudio
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.media.digits import Digits
from rapida_twisted.media.pacer import LEAD_MS
from rapida_twisted.media.requests import Request, Requests

__all__ = ["ASSISTANT_ERRORS", "Call", "refuse_transfer"]

QUEUE_LIMIT_MS = 300_000.0
MAX_DETAIL = 500
"""Maximum characters of the detail in a call's record."""
QUEUE_LIMIT_SOURCES = 256
"""Limits the open files: each queued WAV file is open."""


def refuse_transfer(call: Call, dial_string: str) -> Deferred[Any]:
    """The default of ``move_on``: refuses every transfer."""
    return fail(
        TransferRefused(f"call {call.context.context_id} can't be transferred: this server has no way to transfer it")
    )


@implementer(ICallPlumbing, IMediaSink)
class Call(CallAudio):
    """One call, from the start of its media.

    :param context: the claimed context.
    :param channel: the media connection.
    :param assistant: answers the call.
    :param clock: the clock of all calls.
    :param reactor: provides IReactorTime.
    :param on_ended: called once with this call, after everything else.
    :param move_on: stores the dial string with which the dialplan continues.
    :param live_limit_ms: maximum live audio in the queue; beyond it the oldest is dropped.
    :param queue_limit_ms: play() fails while more than this is queued.
    :param lead_ms: how far ahead of playing audio is sent to a channel with a queue of its own.
    :param is_bridged: see :class:`~rapida_twisted.media.pacer.RealtimePacer`.
    :param flushed: called after each flush with the call, its duration (s) and the audio dropped (s).
    """

    _log = Logger()

    def __init__(
        self,
        context: CallContext,
        channel: MediaChannel,
        assistant: typed.Assistant,
        *,
        clock: MediaClock,
        reactor: Any,
        on_ended: Callable[[Call], None],
        move_on: Callable[[Call, str], Deferred[Any]] = refuse_transfer,
        live_limit_ms: float = LIVE_LIMIT_MS,
        queue_limit_ms: float = QUEUE_LIMIT_MS,
        lead_ms: float = LEAD_MS,
        is_bridged: Callable[[], bool] | None = None,
        flushed: Callable[[Call, float, float], None] = lambda call, took_s, cut_s: None,
    ) -> None:
        self.context = context
        self.reactor = reactor
        self.ended: EndReason | None = None
        self.end_detail = ""
        """Detail of the end beyond its reason; may be empty."""
        self._requests = Requests(reactor, self._unhandled)
        super().__init__(
            channel, assistant, self._requests, reactor, live_limit_ms=live_limit_ms, lead_ms=lead_ms,
            is_bridged=is_bridged,
        )  # fmt: skip
        self._former: list[typed.Assistant] = []
        """Assistants that handed the call over; their call_ended() is called, too."""
        self._notes: list[str] = []
        self._clock = clock
        self._on_ended = on_ended
        self._move_on = move_on
        self._flushed = flushed
        self._queue_limit_ms = queue_limit_ms
        self._digits = Digits(reactor, self._requests)
        self._coroutines = Coroutines(context.context_id, reactor)
        self._until_over: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<Call {self.context.context_id} {self.ended.value if self.ended else 'up'}>"

    def __str__(self) -> str:
        return f"call {self.context.context_id}"

    def start(self) -> None:
        """Start ticking and call the assistant's answer(). Called once."""
        self._clock.add(self)
        self._have_answered(self._assistant)

    def _have_answered(self, assistant: typed.Assistant) -> None:
        self._coroutines.answer(assistant, self).addErrback(self._answer_failed, assistant)

    @property
    def assistant_name(self) -> str:
        """The class of the assistant, with its module."""
        return class_name(self._assistant)

    # ICall and ICallPlumbing, called by assistants

    def play(self, audio: Playable, rate_hz: int | None = None) -> Deferred[PlayOutcome]:
        if self._is_late:
            return self._refuse("play audio")
        if self._playout.queued_ms > self._queue_limit_ms or self._playout.sources >= QUEUE_LIMIT_SOURCES:
            return self._requests.refuse(
                PlayoutFull(
                    f"call {self.context.context_id}: {self._playout.sources} things wait to be heard already, over"
                    f" {self._playout.queued_ms / 1000:.0f} s of speech; wait for what was said before"
                )
            )
        return self._speech.play(audio, self.rate_hz if rate_hz is None else rate_hz)

    def play_tone(self, hz: float, duration_ms: float, level_db: float = -10.0) -> Deferred[PlayOutcome]:
        rate_hz = self.rate_hz
        if not 0 < hz < rate_hz / 2 or duration_ms < 0:
            raise ValueError(f"a tone of {hz:g} Hz and {duration_ms:g} ms can't be played at a rate of {rate_hz} Hz")
        return self.play(tone(hz, duration_ms, rate_hz, level_db), rate_hz)

    def stop(self, playing: Deferred[PlayOutcome]) -> None:
        if not isinstance(playing, Deferred):
            raise TypeError(f"stop() takes what play() returned, not {type(playing).__name__}")
        self._speech.stop(playing)

    def queued(self) -> Deferred[None]:
        return self._speech.queued() if not self._is_late else self._refuse("wait for what is queued")

    def wait(self, seconds: float) -> Deferred[None]:
        return self._requests.wait(seconds) if not self._is_late else self._refuse("wait")

    def hand_over(self, assistant: typed.Assistant) -> None:
        if self.ended is not None:
            raise self._too_late("hand it over")
        self._former.append(self._assistant)
        former = self._assistant
        self._set_assistant(assistant)
        self._coroutines.cancel(former)
        self._digits.interrupt(self._too_late("collect digits"))
        self._have_answered(assistant)

    def note(self, text: str) -> None:
        self._notes.append(text)

    @property
    def detail(self) -> str:
        """All notes, and the detail of the end."""
        return "; ".join(text for text in (*self._notes, self.end_detail) if text)[:MAX_DETAIL]

    def flush(self) -> float | None:
        began_s = time.perf_counter()
        known_ms = self._playout.queued_ms
        rest_ms = self._speech.flush()
        self._flushed(self, time.perf_counter() - began_s, (known_ms if rest_ms is None else rest_ms) / 1000)
        return rest_ms

    def digits(
        self,
        count: int | None = None,
        timeout_s: float = 10.0,
        terminator: str = "#",
        *,
        pattern: str | None = None,
        on_digit: Callable[[str], object] | None = None,
    ) -> Deferred[str]:
        if self._is_late:
            return self._refuse("collect digits")
        return self._digits.collect(count, timeout_s, terminator, pattern, on_digit)

    def hang_up(self) -> Deferred[None]:
        if self._is_late:
            return self._coroutines.respond_late(lambda waiting: waiting.callback(None))
        return self._leave(EndReason.ASSISTANT_HANGUP)

    def transfer(self, dial_string: str) -> Deferred[None]:
        if self._is_late:
            return self._refuse("transfer it")
        transferred: Deferred[None] = Request(lambda _: moving.cancel())
        moving = self._move_on(self, dial_string).addCallbacks(
            lambda _: self._leave(EndReason.TRANSFERRED).chainDeferred(transferred),
            lambda failure: self._requests.fail_later(transferred, failure),
        )
        return transferred

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        if not isinstance(coroutine, Coroutine):
            raise TypeError(f"run() takes a coroutine, as in call.run(work()), not {type(coroutine).__name__}")
        if self._is_late:
            coroutine.close()
            return self._refuse("run a coroutine")
        return self._requests.watch(self._coroutines.run(coroutine, self._assistant))

    # IMediaSink, called by the channel

    def audio_received(self, payload: bytes) -> None:
        self._bytes_in += len(payload)
        if self.ended is not None or not (self._hears or self._taps):
            return
        try:
            for tap in self._taps:
                tap.heard(payload)
            if self._hears:
                self._assistant.audio_received(self, payload if self._upward is None else self._upward(payload))
        except ASSISTANT_ERRORS:
            self._assistant_failed(Failure())

    def digit_received(self, digit: str) -> None:
        if self.ended is not None:
            return
        try:
            self._digits.received(digit)
            self._assistant.digit_received(self, digit)
        except ASSISTANT_ERRORS:
            self._assistant_failed(Failure())

    def media_ended(self, reason: EndReason, detail: str = "") -> None:
        self._mark_end(reason, detail)

    # The end

    def end(self, reason: EndReason, detail: str = "") -> bool:
        """Hang up from our side; False if the call had ended before."""
        first = self._mark_end(reason, detail)
        if first:
            self._channel.hang_up()
        return first

    def _leave(self, reason: EndReason) -> Deferred[None]:
        """End the call; fires when the assistants were notified."""
        over: Deferred[None] = Deferred()
        self._until_over.append(over)
        if not self.end(reason):
            self.reactor.callLater(0, self._notify_over)
        return over

    def _mark_end(self, reason: EndReason, detail: str) -> bool:
        if self.ended is not None:
            return False
        self.ended, self.end_detail = reason, detail
        self._pacer.close()
        self._clock.remove(self)
        self.reactor.callLater(0, self._wind_up)
        return True

    def _wind_up(self) -> None:
        """Notify waiting Deferreds, then the assistants, then the owner."""
        assert self.ended is not None
        self._coroutines.cancel()
        self._speech.flush()
        self._digits.close(self._too_late("collect digits"))
        self._requests.close(self._too_late("wait"))
        for assistant in (*self._former, self._assistant):
            try:
                assistant.call_ended(self, self.ended)
            except ASSISTANT_ERRORS:
                self._log.failure("call {id}: the assistant failed in call_ended", id=self.context.context_id)
        self._notify_over()
        self._on_ended(self)

    def _notify_over(self) -> None:
        over, self._until_over = self._until_over, []
        for waiting in over:
            waiting.callback(None)

    def _answer_failed(self, failure: Failure, assistant: typed.Assistant) -> None:
        cancelled = failure.check(CancelledError)
        # Cancelled code, such as one that awaits a play() that another part of the bot cancels, has not failed.
        if self.ended is None and assistant is self._assistant and not cancelled:
            self._assistant_failed(failure)
        elif not (cancelled or failure.check(CallEnded)):
            # Libraries often turn the cancellation at a call's end into errors of their own.
            self._log.warn(
                "call {id}: answer() failed at the call's end: {error}",
                id=self.context.context_id, error=_text_of(failure),
            )  # fmt: skip

    def _assistant_failed(self, failure: Failure) -> None:
        if failure.check(UpstreamFailed):
            self.end(EndReason.UPSTREAM_FAILED, failure.getErrorMessage())
            return
        self._log.failure(
            "call {id}: the assistant {assistant_id} failed: the call ends",
            failure,
            id=self.context.context_id,
            assistant_id=self.context.assistant_id,
        )
        self.end(EndReason.ASSISTANT_FAILED, _text_of(failure)[:200])

    def _unhandled(self, failure: Failure) -> None:
        """No code handled the failure of something that this call was asked for."""
        if failure.check(CancelledError, CallEnded):
            return
        if self.ended is None:
            self._assistant_failed(failure)
        else:
            self._log.warn(
                "call {id}: failed at the call's end: {error}", id=self.context.context_id, error=_text_of(failure)
            )

    @property
    def _is_late(self) -> bool:
        """Whether the call is over for the code that makes a request now."""
        return self.ended is not None or (bool(self._former) and self._coroutines.is_late)

    def _refuse(self, what: str) -> Deferred[Any]:
        """The response to each request that comes after the end."""
        return self._coroutines.respond_late(lambda waiting: self._requests.fail(waiting, self._too_late(what)))

    def _too_late(self, what: str) -> CallEnded:
        how = f"has ended ({self.ended.value})" if self.ended else "was handed over"
        return CallEnded(f"call {self.context.context_id} {how}: too late to {what}")

def _text_of(failure: Failure) -> str:
    """The error, for the call's record and the log, without secrets that it may quote."""
    return masked(f"{type(failure.value).__name__}: {failure.getErrorMessage()}")
