"""Calls to the assistants under test, in real time's steps but on fake time."""

from __future__ import annotations

from rapida_twisted.context import CallContext
from rapida_twisted.testing import FakeCall

__all__ = ["CONTEXT", "FRAME", "frames_of", "talk"]

CONTEXT = CallContext(
    context_id="00000000-0000-4000-8000-000000000002", assistant_id="123", created_at=0.0, expires_at=300.0
)
"""For what makes an assistant and looks at no context, or at little of it."""
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
