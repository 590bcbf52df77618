"""``play:FILE``: plays a sound file, then hangs up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rapida_twisted.audio.wav import WavReader
from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantEnvironment, typed
from rapida_twisted.interfaces.typed import Call
from rapida_twisted.media.assistant import Assistant

__all__ = ["Play", "configure"]


class Play(Assistant):
    """Plays one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def answer(self, call: Call) -> None:
        await call.play(self._path)
        await call.hang_up()


def configure(argument: str, environment: AssistantEnvironment) -> Callable[[CallContext], typed.Assistant]:
    """The argument is the file, which must exist and be a sound file.

    :raises SettingsError: it is not.
    """
    if not argument:
        raise SettingsError("play needs a file, as in play:/srv/hello.wav")
    path = Path(argument).expanduser().absolute()
    try:
        WavReader(path).close()
    except (OSError, ValueError) as error:
        raise SettingsError(f"play can't play {argument!r}: {error}") from None
    return lambda context: Play(path)
