"""Hypothesis strategies for what goes over the wire: one function for each type, and for how bytes are cut up."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from rapida_twisted.wire.audiosocket import (
    DIGITS,
    AudioFrame,
    DtmfFrame,
    ErrorBits,
    ErrorFrame,
    Frame,
    HangupFrame,
    UnknownFrame,
    UuidFrame,
)

RATES_HZ = (8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000, 192000)
"""The rates of the kinds 0x10 to 0x18."""

KNOWN_KINDS = (0x00, 0x01, 0x03, *range(0x10, 0x19), 0xFF)


def hangup_frames() -> SearchStrategy[HangupFrame]:
    """Kind 0x00: no payload."""
    return st.just(HangupFrame())


def uuid_frames() -> SearchStrategy[UuidFrame]:
    """Kind 0x01: the 16 bytes of a UUID of any version."""
    return st.builds(UuidFrame, st.uuids())


def dtmf_frames() -> SearchStrategy[DtmfFrame]:
    """Kind 0x03: one ASCII digit."""
    return st.builds(DtmfFrame, st.sampled_from(DIGITS))


def audio_frames(max_bytes: int = 700) -> SearchStrategy[AudioFrame]:
    """Kinds 0x10 to 0x18: an even number of bytes, at least two."""
    samples = st.binary(min_size=1, max_size=max_bytes // 2).map(lambda half: half + half)
    return st.builds(AudioFrame, samples, st.sampled_from(RATES_HZ))


def error_frames() -> SearchStrategy[ErrorFrame]:
    """Kind 0xff: one byte, of which three bits have a meaning."""
    return st.builds(ErrorFrame, st.integers(0, 255).map(ErrorBits))


def unknown_frames() -> SearchStrategy[UnknownFrame]:
    """Any other kind, of any length."""
    kinds = st.integers(0, 255).filter(lambda kind: kind not in KNOWN_KINDS)
    return st.builds(UnknownFrame, kinds, st.binary(max_size=64))


def asterisk_frames() -> SearchStrategy[Frame]:
    """What Asterisk's codec encodes once the UUID frame is sent."""
    return st.one_of(audio_frames(), dtmf_frames(), hangup_frames(), error_frames())


def server_frames() -> SearchStrategy[Frame]:
    """What the server's codec encodes."""
    return st.one_of(audio_frames(), hangup_frames())


def raw_frame(kind: int, payload: bytes) -> bytes:
    """A frame's bytes, whether they make sense or not."""
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload


def raw_frames() -> SearchStrategy[bytes]:
    """One well-framed frame of any kind, most often a known one, with a payload that may be wrong for its kind."""
    kinds = st.one_of(st.sampled_from(KNOWN_KINDS), st.integers(0, 255))
    return st.builds(raw_frame, kinds, st.one_of(st.sampled_from((b"", b"5", b"\x01")), st.binary(max_size=40)))


@st.composite
def streams(draw: DrawFn) -> bytes:
    """What a client may send: mostly a UUID frame and then frames good and bad; cut off, or garbage."""
    frames = draw(st.lists(st.one_of(raw_frames(), audio_frames().map(_raw_audio)), max_size=8))
    begin = draw(st.one_of(uuid_frames().map(lambda frame: raw_frame(0x01, frame.uuid.bytes)), st.binary(max_size=4)))
    return begin + b"".join(frames) + draw(st.binary(max_size=4))


@st.composite
def cut_up(draw: DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces, as a network may deliver them."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=12)))
    edges = [0, *(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


def _raw_audio(frame: AudioFrame) -> bytes:
    return raw_frame(0x10 + RATES_HZ.index(frame.rate_hz), frame.samples)
