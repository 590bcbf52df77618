"""What a call can play: checks it, and cuts it into parts."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rapida_twisted.audio.arrays import array_samples
from rapida_twisted.audio.formats import AudioFormat

__all__ = ["PART_MS", "checked", "pieces"]

PART_MS = 100.0
"""Audio is converted in parts of at most this length, just before they are played."""
_FILE_NAME = re.compile(r".*\.\w{1,5}|[^\s/]*/\S*", re.DOTALL)
"""An extension, or a folder and no space. Other text is taken for a sentence that should be spoken."""


def checked(audio: Any) -> Path | bytes | Iterable[Any] | AsyncIterable[Any]:
    """The audio as a path, as samples, or as an iterable of parts.

    :raises TypeError: it is nothing that can be played; ``ValueError``: it is a text to speak, or has several channels.
    """
    if isinstance(audio, str):
        if not (_FILE_NAME.fullmatch(audio) or os.path.exists(audio)):
            raise ValueError(
                f"call.play() plays sound files and does not synthesise speech: there is no file {audio[:80]!r};"
                " play what your synthesiser returns (bytes, or an async iterable of bytes)"
            )
        return Path(audio)
    if isinstance(audio, os.PathLike):
        return Path(audio)
    if isinstance(audio, list | tuple):
        return b"".join(map(_samples, audio))
    if isinstance(audio, bytes | bytearray | memoryview | np.ndarray):
        return _samples(audio)
    # A Deferred, or a Future, is iterable, too.
    if isinstance(audio, Iterable | AsyncIterable) and not hasattr(audio, "__await__"):
        return audio
    hint = ": await it first, and play what it returns" if hasattr(audio, "__await__") else ""
    raise TypeError(
        "call.play() plays samples (bytes, or a numpy array), a sound file's path, or an iterable of samples,"
        f" not {type(audio).__name__}{hint}"
    )


def pieces(part: Any, source_format: AudioFormat) -> Iterator[bytes]:
    """A part's samples, in pieces of at most PART_MS."""
    samples = _samples(part)
    piece_bytes = source_format.bytes_for(PART_MS)
    for begin in range(0, len(samples), piece_bytes):
        yield samples[begin : begin + piece_bytes]


def _samples(part: Any) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, np.ndarray):
        return array_samples(part)
    if isinstance(part, bytearray | memoryview):
        return bytes(part)
    raise TypeError(f"audio in parts is bytes or numpy arrays, not {type(part).__name__}")
