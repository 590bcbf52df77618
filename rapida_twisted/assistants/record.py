"""``record`` and ``record:ASSISTANT``: a stereo WAV file of each call, the caller left, the assistant right."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from twisted.logger import Logger
from zope.interface import implementer

from rapida_twisted.audio.tones import tone
from rapida_twisted.audio.wav import WavWriter
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantEnvironment, IAssistantMaker, ICallPlumbing, typed
from rapida_twisted.interfaces.typed import Call
from rapida_twisted.media.assistant import Assistant

__all__ = ["Beep", "Record", "Recorder", "configure"]

WRITE_EVERY_S = 0.5
LONGEST_LAG_S = 0.2
"""How far (s) the caller's side may lag; older audio is dropped, so that both sides stay in step."""


class Recorder:
    """Writes both sides of a call in step: each frame of 20 ms to the caller takes as much of the caller's audio.

    :param path: the file.
    :raises OSError: it can't be written; so may :meth:`said` and :meth:`close`.
    """

    def __init__(self, path: Path, rate_hz: int) -> None:
        self._writer = WavWriter(path, rate_hz, channels=2)
        self._rate_hz = rate_hz
        self._heard = bytearray()
        self._left = bytearray()
        self._right = bytearray()

    def heard(self, samples: bytes) -> None:
        """Add a packet of the caller: the left side."""
        self._heard += samples
        excess = len(self._heard) - int(LONGEST_LAG_S * self._rate_hz) * 2
        if excess > 0:
            del self._heard[:excess]

    def said(self, samples: bytes) -> None:
        """Add a frame to the caller: the right side."""
        count = len(samples)
        self._right += samples
        self._left += bytes(self._heard[:count]).ljust(count, b"\0")
        del self._heard[:count]
        if len(self._right) >= WRITE_EVERY_S * self._rate_hz * 2:
            self._write()

    def close(self) -> None:
        try:
            self._write()
        finally:
            self._writer.close()

    def _write(self) -> None:
        sides = np.stack([np.frombuffer(bytes(side), "<i2") for side in (self._left, self._right)], axis=1)
        self._left.clear()
        self._right.clear()
        self._writer.write(sides.tobytes())


class Record(Assistant):
    """Records a call that another assistant answers.

    :param inner: answers the call.
    :param folder: gets the recordings, each named by its contextId.
    """

    _log = Logger()

    def __init__(self, inner: typed.Assistant, folder: Path) -> None:
        # A recording has one rate; the wire's own may still change with the caller's first packet.
        self.rate_hz = inner.rate_hz or 8000
        self._inner = inner
        self._folder = folder
        self._recorder: Recorder | None = None
        self._tap: typed.Tap | None = None

    async def answer(self, call: Call) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._recorder = Recorder(self._folder / f"{call.context.context_id}.wav", call.rate_hz)
            self._tap = ICallPlumbing(call).tap(self._recorder.heard, lambda samples: self._said(call, samples))
        except OSError as error:
            self._give_up(call, error)
        await self._inner.answer(call)

    def audio_received(self, call: Call, samples: bytes) -> None:
        self._inner.audio_received(call, samples)

    def digit_received(self, call: Call, digit: str) -> None:
        self._inner.digit_received(call, digit)

    def call_ended(self, call: Call, reason: EndReason) -> None:
        if self._recorder is not None:
            try:
                self._recorder.close()
            except OSError as error:
                self._give_up(call, error)
        self._inner.call_ended(call, reason)

    def _said(self, call: Call, samples: bytes) -> None:
        if self._recorder is not None:
            try:
                self._recorder.said(samples)
            except OSError as error:
                self._give_up(call, error)

    def _give_up(self, call: Call, error: OSError) -> None:
        """End the recording, for instance on a full disk; the call goes on."""
        if self._tap is not None:
            self._tap.stop()
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            with suppress(OSError):
                recorder.close()
        self._log.error(
            "call {id}: cannot write the recording, which ends here: {error}",
            id=call.context.context_id, error=error,
        )  # fmt: skip


class Beep(Assistant):
    """Announces the recording."""

    rate_hz = 8000

    async def answer(self, call: Call) -> None:
        await call.play(tone(1000, 200, 8000))


def configure(argument: str, environment: AssistantEnvironment) -> Callable[[CallContext], typed.Assistant]:
    """The argument is another assistant, as on the command line.

    :raises SettingsError: it is not known.
    """
    if argument.partition(":")[0] == "record":
        raise SettingsError("record can't record itself")
    make_inner = environment.assistant(argument) if argument else lambda context: Beep()
    folder = environment.state_dir / "recordings"
    if IAssistantMaker.providedBy(make_inner):
        return _RecordMaker(make_inner, folder)
    return lambda context: Record(make_inner(context), folder)


@implementer(IAssistantMaker)
class _RecordMaker:
    """Makes :class:`Record` around assistants whose maker also prepares calls or reports health."""

    def __init__(self, inner: Any, folder: Path) -> None:
        self._inner = inner
        self._folder = folder
        self.prepare = inner.prepare
        self.health = inner.health
        self.close = inner.close

    def __call__(self, context: CallContext) -> typed.Assistant:
        return Record(self._inner(context), self._folder)
