"""The audio of a call, in both directions.

The caller's audio goes to the assistant as it arrives, converted once. The assistant's audio goes through the playout
queue, one frame with each tick of the clock. A call with nothing to play sends silence, since Asterisk hangs up an
AudioSocket call after 2 s without a frame from either side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from rapida_twisted.audio.convert import Converter, converter
from rapida_twisted.audio.formats import FRAME_MS, AudioFormat
from rapida_twisted.audio.playout import Playout
from rapida_twisted.context import EndReason
from rapida_twisted.interfaces import IPolledReader, typed
from rapida_twisted.interfaces.typed import MediaChannel
from rapida_twisted.media.assistant import ASSISTANT_ERRORS, Assistant
from rapida_twisted.media.pacer import LEAD_MS, AheadPacer, Pacer, RealtimePacer
from rapida_twisted.media.requests import Requests
from rapida_twisted.media.speech import Speech
from rapida_twisted.media.tap import Listener, Tap
from rapida_twisted.observe.interface import CallFigures

__all__ = ["LIVE_LIMIT_MS", "CallAudio"]

LIVE_LIMIT_MS = 200.0


class CallAudio:
    """The base of a call. A base and no part, since each frame passes here.

    :param requests: the call's.
    :param reactor: provides IReactorTime.

    The other parameters are those of :class:`~rapida_twisted.media.call.Call`.
    """

    ended: EndReason | None = None

    def __init__(
        self,
        channel: MediaChannel,
        assistant: typed.Assistant,
        requests: Requests,
        reactor: Any,
        *,
        live_limit_ms: float = LIVE_LIMIT_MS,
        lead_ms: float = LEAD_MS,
        is_bridged: Callable[[], bool] | None = None,
    ) -> None:
        self._channel = channel
        self._playout = Playout(channel.format, live_limit_ms)
        self._speech = Speech(self._playout, requests, reactor, lambda: self._pacer.flush())
        self._pacer: Pacer
        if channel.paced:  # A channel with a queue of its own never waits for a bridge.
            self._pacer = AheadPacer(self._playout, channel, self._speech.played, lead_ms)
        else:
            self._pacer = RealtimePacer(self._playout, channel, self._speech.played, is_bridged)
        self._taps: tuple[Tap, ...] = ()
        self._earlier_in_ms = 0.0
        self._bytes_in = 0
        self._set_assistant(assistant)

    def _set_assistant(self, assistant: typed.Assistant) -> None:
        self._assistant = assistant
        self._hears = _hears(assistant)
        self._fetch: Callable[[], bytes | None] | None = None
        self._set_formats()

    def _assistant_failed(self, failure: Failure) -> None:
        """The assistant's code raised."""
        raise NotImplementedError

    @property
    def reading(self) -> IPolledReader | None:
        """For the clock: how to read the connection."""
        return getattr(self._channel, "reading", None)

    @property
    def idle(self) -> bool:
        """For the clock: True if nothing is queued."""
        return self._playout.idle

    @property
    def ready(self) -> int:
        """For the clock: whole live frames that could be sent now."""
        return self._playout.ready

    @property
    def audio_in_s(self) -> float:
        """Audio received from the caller so far (s)."""
        return (self._earlier_in_ms + self._channel.format.ms(self._bytes_in)) / 1000

    @property
    def audio_out_s(self) -> float:
        """Audio sent to the caller so far (s), without the silence that keeps the connection alive."""
        return self._pacer.frames_out * FRAME_MS / 1000

    @property
    def silent_frames(self) -> int:
        return self._pacer.silent_frames

    @property
    def figures(self) -> CallFigures:
        return CallFigures(
            frames_in=self.audio_in_s * 1000 / FRAME_MS,
            frames_out=self._pacer.frames_out,
            silent_frames=self._pacer.silent_frames,
            underruns=self._playout.underruns,
            dropped_s=self._playout.live_dropped_ms / 1000,
        )

    # ICall and ICallPlumbing, called by assistants

    @property
    def rate_hz(self) -> int:
        return getattr(self._assistant, "rate_hz", None) or self._channel.format.rate_hz

    @property
    def queued_ms(self) -> float:
        return self._playout.queued_ms

    @property
    def heard_ms(self) -> float:
        return self._playout.heard_ms

    def write(self, samples: bytes) -> None:
        if len(samples) % 2:
            raise ValueError(f"samples have two bytes each; {len(samples)} is an odd number")
        if self.ended is None:
            self._playout.write(samples if self._downward is None else self._downward(samples))

    def fetch(self, source: Callable[[], bytes | None] | None) -> None:
        self._fetch = source
        self._playout.fetch = source if source is None or self._downward is None else self._converted_fetch

    def _converted_fetch(self) -> bytes | None:
        samples = self._fetch() if self._fetch is not None else None
        return samples if samples is None or self._downward is None else self._downward(samples)

    def tap(self, heard: Listener | None = None, said: Listener | None = None, rate_hz: int | None = None) -> Tap:
        tap = Tap(self._channel.format, rate_hz or self.rate_hz, heard, said, self._remove_tap)
        self._taps = (*self._taps, tap)
        return tap

    def _remove_tap(self, stopped: Tap) -> None:
        self._taps = tuple(tap for tap in self._taps if tap is not stopped)

    # IMediaSink, called by the channel

    def format_changed(self) -> None:
        self._earlier_in_ms += self._playout.format.ms(self._bytes_in)
        self._bytes_in = 0
        self._playout.retarget(self._channel.format)
        self._set_formats()
        for tap in self._taps:
            tap.set_format(self._channel.format)

    def sending_paused(self, paused: bool) -> None:
        self._pacer.pause(paused)

    # The clock

    def tick(self) -> None:
        try:
            frame = self._pacer.tick()
            if self._taps and self.ended is None:
                for tap in self._taps:
                    tap.said(frame)
        except ASSISTANT_ERRORS:
            # Audio that is fetched, and taps, run the assistant's code.
            self._assistant_failed(Failure())

    def stalled(self, periods: int) -> None:
        """The clock missed this many periods: a peer with a queue of its own played meanwhile."""
        try:
            for frame in self._pacer.stalled(periods):
                for tap in self._taps:
                    tap.said(frame)
        except ASSISTANT_ERRORS:
            self._assistant_failed(Failure())

    # Formats

    def _set_formats(self) -> None:
        wire, assistant = self._channel.format, AudioFormat("slin", self.rate_hz)
        self._upward: Converter | None = converter(wire, assistant)
        self._downward: Converter | None = converter(assistant, wire)
        self.fetch(self._fetch)


def _hears(assistant: typed.Assistant) -> bool:
    """False if the assistant does not override audio_received(): its call then converts no audio."""
    return getattr(type(assistant), "audio_received", None) is not Assistant.audio_received
