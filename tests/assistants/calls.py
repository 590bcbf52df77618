"""Calls to the assistants under test, in real time's steps but on fake time."""

from __future__ import annotations

from rapida_twisted.testing import FakeCall

__all__ = ["FRAME", "frames_of", "talk"]

FRAME = 320
"""Bytes of 20 ms at 8 kHz."""


def frames_of(samples: bytes, frame_bytes: int = FRAME) -> list[bytes]:
    """Samples, cut into packets."""
    return [samples[begin : begin + frame_bytes] for begin in range(0, len(samples), frame_bytes)]


def talk(call: FakeCall, samples: bytes, packet_ms: int = 20) -> None:
    """The caller says something, in packets, as time goes by."""
    for packet in frames_of(samples, packet_ms * 16):
        call.hear(packet)
        call.advance(packet_ms / 1000)
