"""A microphone and a speaker, through PortAudio: the developer's own voice in a call of the phone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from rapida_twisted.audio.convert import Converter, converter
from rapida_twisted.audio.formats import SLIN, AudioFormat

__all__ = ["Headset"]

MICROPHONE_MS = 100
"""The most that waits to be sent: a microphone whose clock is fast loses its oldest packet."""
SPEAKER_START_MS = 60
"""What the speaker collects before it plays, and again after it ran empty: it hides the network's jitter."""
SPEAKER_MS = 300


class Headset:
    """Opens the devices; they run from the first frame to :meth:`close`. PortAudio calls from a thread of its own.

    :param device: the name (or a part of it) or number of the device; empty: the default one.
    :raises ValueError: sounddevice, PortAudio or the device is missing; the text is one sentence.
    """

    length_s: float | None = None

    def __init__(self, device: str, packet_ms: int) -> None:
        self._frame_bytes = SLIN.bytes_for(packet_ms)
        self._said: deque[bytes] = deque(maxlen=max(1, MICROPHONE_MS // packet_ms))
        self._heard = bytearray()
        self._plays = False
        self._lock = threading.Lock()
        self._rate_hz = SLIN.rate_hz
        self._convert: Converter | None = None
        self._stream = self._open(device, packet_ms)

    def _open(self, device: str, packet_ms: int) -> Any:
        try:
            import sounddevice
        except ImportError:
            raise ValueError(
                "--mic needs the library sounddevice: install the extra 'mic', such as pip install '.[mic]'"
            ) from None
        except OSError as error:
            raise ValueError(f"--mic needs PortAudio ({error}); on Debian: apt install libportaudio2") from None
        try:
            return sounddevice.RawStream(
                samplerate=SLIN.rate_hz,
                blocksize=SLIN.rate_hz * packet_ms // 1000,
                device=int(device) if device.isdecimal() else device or None,
                channels=1,
                dtype="int16",
                callback=self._exchange,
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            problem = f"--mic: no microphone and speaker at 8 kHz ({error}); name a device (--mic DEVICE)"
            raise ValueError(problem) from None

    # Sound

    def frames(self) -> Iterator[bytes]:
        self._stream.start()
        silence = bytes(self._frame_bytes)
        while True:
            yield self._said.popleft() if self._said else silence

    # Listener

    def add(self, samples: bytes, rate_hz: int) -> None:
        """Play audio (s16le mono); the oldest is dropped if more than 300 ms wait."""
        if rate_hz != self._rate_hz:
            self._rate_hz, self._convert = rate_hz, converter(AudioFormat("slin", rate_hz), SLIN)
        samples = samples if self._convert is None else self._convert(samples)
        with self._lock:
            self._heard += samples
            del self._heard[: max(0, len(self._heard) - SLIN.bytes_for(SPEAKER_MS))]

    def close(self) -> None:
        self._stream.close()

    # PortAudio's thread

    def _exchange(self, said: Any, heard: Any, frames: int, time: Any, status: Any) -> None:
        self._said.append(bytes(said))
        size = len(heard)
        with self._lock:
            self._plays = len(self._heard) >= (2 if self._plays else SLIN.bytes_for(SPEAKER_START_MS))
            part = bytes(self._heard[:size]) if self._plays else b""
            del self._heard[: len(part)]
        heard[:] = part.ljust(size, b"\0")
