"""Audio formats: encoding and sample rate, and the arithmetic between bytes, samples and ms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

__all__ = ["ALAW", "FRAME_MS", "SLIN", "SLIN_RATES_HZ", "ULAW", "AudioFormat"]

FRAME_MS = 20
"""The packet time: the server sends each call one frame every 20 ms."""

SLIN_RATES_HZ = (8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000, 192000)
"""The rates that Asterisk names slin, slin12 ... slin192."""

_RATE_OF_SLIN = {"slin" if hz == 8000 else f"slin{hz // 1000}": hz for hz in SLIN_RATES_HZ}
_SAMPLE_BYTES = {"slin": 2, "ulaw": 1, "alaw": 1}
_SILENT_BYTE = {"slin": b"\x00", "ulaw": b"\xff", "alaw": b"\xd5"}


@dataclass(frozen=True)
class AudioFormat:
    """An encoding (``"slin"``: signed 16-bit little-endian mono; ``"ulaw"``, ``"alaw"``: G.711) at a rate in Hz."""

    encoding: str
    rate_hz: int

    def __post_init__(self) -> None:
        if self.encoding not in _SAMPLE_BYTES:
            raise ValueError(f"unknown audio encoding {self.encoding!r}: known are {', '.join(_SAMPLE_BYTES)}")
        if self.rate_hz <= 0:
            raise ValueError(f"a rate must be positive, not {self.rate_hz} Hz")

    @cached_property
    def sample_bytes(self) -> int:
        return _SAMPLE_BYTES[self.encoding]

    @cached_property
    def bytes_per_s(self) -> int:
        return self.rate_hz * self.sample_bytes

    @cached_property
    def frame_bytes(self) -> int:
        """Bytes of 20 ms, in whole samples."""
        return self.rate_hz * FRAME_MS // 1000 * self.sample_bytes

    @cached_property
    def silent_frame(self) -> bytes:
        """20 ms of silence."""
        return _SILENT_BYTE[self.encoding] * self.frame_bytes

    @cached_property
    def is_linear(self) -> bool:
        """True for signed 16-bit samples."""
        return self.encoding == "slin"

    def ms(self, byte_count: int) -> float:
        """The duration of this many bytes (ms)."""
        return byte_count * 1000 / self.bytes_per_s

    def bytes_for(self, duration_ms: float) -> int:
        """The bytes of a duration, in whole samples."""
        return int(self.rate_hz * duration_ms / 1000) * self.sample_bytes

    def linear(self) -> AudioFormat:
        """The slin format of the same rate."""
        return self if self.is_linear else AudioFormat("slin", self.rate_hz)

    @classmethod
    def from_asterisk(cls, name: str) -> AudioFormat:
        """The format with Asterisk's name: ``ulaw``, ``alaw``, ``slin`` (8 kHz), ``slin12`` ... ``slin192``.

        :raises ValueError: a codec without support here, such as opus.
        """
        rate_hz = _RATE_OF_SLIN.get(name)
        if rate_hz is not None:
            return cls("slin", rate_hz)
        if name in ("ulaw", "alaw"):
            return cls(name, 8000)
        raise ValueError(f"codec {name!r} is not supported: dial with c(ulaw), c(alaw), c(slin) or c(slin16)")

    @cached_property
    def asterisk_name(self) -> str:
        """Asterisk's name of this format."""
        if not self.is_linear:
            return self.encoding
        return next(name for name, rate_hz in _RATE_OF_SLIN.items() if rate_hz == self.rate_hz)

    def __str__(self) -> str:
        return f"{self.encoding}@{self.rate_hz}"


SLIN = AudioFormat("slin", 8000)
ULAW = AudioFormat("ulaw", 8000)
ALAW = AudioFormat("alaw", 8000)
