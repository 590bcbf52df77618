"""``record`` and ``record:ASSISTANT``: a stereo WAV file of each call, the caller left, the assistant right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from rapida_twisted.assistants.recordings import GB, RecordingFile, WriterThread, recordings_dir
from rapida_twisted.audio.tones import tone
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantEnvironment, IAssistantMaker, ICallPlumbing, typed
from rapida_twisted.interfaces.typed import Call
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.settings.groups import RecordingSettings

__all__ = ["Beep", "Record", "Recorder", "configure"]

WRITE_EVERY_S = 0.5
LONGEST_LAG_S = 0.2
"""How far (s) the caller's side may lag; older audio is dropped, so that both sides stay in step."""


class Recorder:
    """Joins both sides of a call in step: each frame of 20 ms to the caller takes as much of the caller's audio.

    :param write: called with parts of both sides, of the same length.
    """

    def __init__(self, rate_hz: int, write: Callable[[bytes, bytes], None]) -> None:
        self._rate_hz = rate_hz
        self._write = write
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
            self.flush()

    def flush(self) -> None:
        """Write what has not been written."""
        left, right = bytes(self._left), bytes(self._right)
        self._left.clear()
        self._right.clear()
        self._write(left, right)


class Record(Assistant):
    """Records a call that another assistant answers.

    :param inner: answers the call.
    :param folder: gets the recordings, each named by its contextId.
    :param writer: writes them.
    :param reserve_bytes: the disk must keep this many free.
    """

    _log = Logger()

    def __init__(self, inner: typed.Assistant, folder: Path, writer: WriterThread, reserve_bytes: float = 0) -> None:
        # A recording has one rate; the wire's own may still change with the caller's first packet.
        self.rate_hz = inner.rate_hz or 8000
        self._inner = inner
        self._folder = folder
        self._writer = writer
        self._reserve_bytes = reserve_bytes
        self._recorder: Recorder | None = None
        self._file: RecordingFile | None = None
        self._tap: typed.Tap | None = None
        self._context_id = ""

    async def answer(self, call: Call) -> None:
        self._context_id = call.context.context_id
        self._file = RecordingFile(self._folder / f"{self._context_id}.wav", call.rate_hz, self._reserve_bytes)
        self._recorder = Recorder(call.rate_hz, self._write)
        self._writer.submit(self._file.open, self._give_up)
        if self._recorder is not None:
            self._tap = ICallPlumbing(call).tap(self._recorder.heard, self._recorder.said)
        await self._inner.answer(call)

    def audio_received(self, call: Call, samples: bytes) -> None:
        self._inner.audio_received(call, samples)

    def digit_received(self, call: Call, digit: str) -> None:
        self._inner.digit_received(call, digit)

    def call_ended(self, call: Call, reason: EndReason) -> None:
        if self._recorder is not None:
            self._recorder.flush()
        self._close()
        self._inner.call_ended(call, reason)

    def _write(self, left: bytes, right: bytes) -> None:
        file = self._file
        if file is not None:
            self._writer.submit(lambda: file.write(left, right), self._give_up)

    def _give_up(self, error: Exception) -> None:
        """End the recording, for instance on a full disk; the call goes on."""
        if self._recorder is None:
            return
        if self._tap is not None:
            self._tap.stop()
        self._close()
        self._log.warn(
            "call {id}: cannot write the recording, which ends here: {error}", id=self._context_id, error=str(error)
        )

    def _close(self) -> None:
        self._recorder, file, self._file = None, self._file, None
        if file is not None:
            self._writer.submit(file.close, lambda error: None, always=True)


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
    settings = environment.settings or RecordingSettings()
    return _RecordMaker(make_inner, settings, environment)


@implementer(IAssistantMaker)
class _RecordMaker:
    """Makes :class:`Record` around another maker's assistants."""

    def __init__(self, inner: Any, settings: RecordingSettings, environment: AssistantEnvironment) -> None:
        self._inner = inner
        self._asked = inner if IAssistantMaker.providedBy(inner) else None
        self._folder = recordings_dir(settings, environment.state_dir)
        self._reserve_bytes = settings.reserve_gb * GB
        self._writer = WriterThread(environment.reactor)

    def __call__(self, context: CallContext) -> typed.Assistant:
        return Record(self._inner(context), self._folder, self._writer, self._reserve_bytes)

    async def prepare(self, context: CallContext) -> CallContext:
        prepared: CallContext = await self._asked.prepare(context) if self._asked is not None else context
        return prepared

    def health(self) -> Mapping[str, Any]:
        return self._asked.health() if self._asked is not None else {}

    async def close(self) -> None:
        await self._writer.close()
        if self._asked is not None:
            await self._asked.close()
