"""Hypothesis strategies for chan_websocket: its events and commands, and WebSocket frames as they go over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from rapida_twisted.wire.audiosocket import DIGITS
from rapida_twisted.wire.chan_websocket import (
    Answer,
    Command,
    ContinueMedia,
    DtmfEnd,
    ErrorEvent,
    Event,
    FlushMedia,
    GetStatus,
    Hangup,
    MarkMedia,
    MediaBufferingCompleted,
    MediaMarkProcessed,
    MediaStart,
    MediaXoff,
    MediaXon,
    PauseMedia,
    QueueDrained,
    ReportQueueDrained,
    SetMediaDirection,
    StartMediaBuffering,
    Status,
    StopMediaBuffering,
)

# The control messages


def words(min_size: int = 0) -> SearchStrategy[str]:
    """A value in the plain form: no blank in it, since blanks part the values."""
    return st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=min_size, max_size=20)


def correlation_ids() -> SearchStrategy[str]:
    """The argument of a mark: anything without blanks at its end, or none. Short enough for a command."""
    return st.text(st.sampled_from("abcXYZ0189-_: ü"), max_size=20).map(str.strip)


def _error_texts() -> SearchStrategy[str]:
    """Several words; the text stands last in the plain form."""
    return st.lists(words(1), max_size=5).map(" ".join)


def _counts() -> SearchStrategy[int]:
    return st.integers(0, 100_000)


EVENT_STRATEGIES: dict[type[Event], SearchStrategy[Any]] = {
    MediaStart: st.builds(
        MediaStart, channel_id=words(), connection_id=words(), channel=words(), format=words(1),
        optimal_frame_size=_counts(), ptime=_counts(),
    ),
    Status: st.builds(
        Status, channel_id=words(), queue_length=_counts(), xon_level=_counts(), xoff_level=_counts(),
        queue_full=st.booleans(), bulk_media=st.booleans(), media_paused=st.booleans(),
    ),
    DtmfEnd: st.builds(DtmfEnd, channel_id=words(), digit=st.sampled_from(DIGITS)),
    MediaXoff: st.just(MediaXoff()),
    MediaXon: st.just(MediaXon()),
    QueueDrained: st.just(QueueDrained()),
    MediaBufferingCompleted: st.builds(MediaBufferingCompleted, correlation_id=correlation_ids()),
    MediaMarkProcessed: st.builds(MediaMarkProcessed, correlation_id=correlation_ids()),
    ErrorEvent: st.builds(ErrorEvent, channel_id=words(), error_text=_error_texts()),
}  # fmt: skip
"""For each event, instances that both forms can tell. By class, so that a new one without a strategy is missed."""

COMMAND_STRATEGIES: dict[type[Command], SearchStrategy[Any]] = {
    Answer: st.just(Answer()),
    Hangup: st.just(Hangup()),
    StartMediaBuffering: st.just(StartMediaBuffering()),
    StopMediaBuffering: st.builds(StopMediaBuffering, correlation_ids()),
    MarkMedia: st.builds(MarkMedia, correlation_ids()),
    FlushMedia: st.just(FlushMedia()),
    PauseMedia: st.just(PauseMedia()),
    ContinueMedia: st.just(ContinueMedia()),
    GetStatus: st.just(GetStatus()),
    ReportQueueDrained: st.just(ReportQueueDrained()),
    SetMediaDirection: st.builds(SetMediaDirection, st.sampled_from(("both", "in", "out", "sideways", ""))),
}


def json_values() -> SearchStrategy[Any]:
    """Whatever JSON can hold."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    )


def extra_fields() -> SearchStrategy[Mapping[str, Any]]:
    """Fields of a later version, in JSON."""
    names = st.sampled_from(("colour", "codec_delay", "x", "Ü"))
    return st.dictionaries(names, json_values(), max_size=3)


# Frames

BINARY, TEXT, CONTINUATION, CLOSE, PING, PONG = 0x2, 0x1, 0x0, 0x8, 0x9, 0xA
MASK = b"\x9a\x00\x53\xff"


def raw_ws_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    mask: bytes | None = None,
    fin: bool = True,
    reserved: int = 0,
    length_bytes: int | None = None,
    length: int | None = None,
) -> bytes:
    """A frame's bytes, whether they make sense or not.

    :param mask: four bytes, or None for a frame that is not masked.
    :param length_bytes: 0, 2 or 8: how its length is written; None: in the shortest way.
    :param length: what it says of its length; None: the truth.
    """
    size = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size <= 0xFFFF else 8
    first = fin << 7 | reserved << 4 | opcode
    short = size if length_bytes == 0 else 126 if length_bytes == 2 else 127
    header = bytes((first, (mask is not None) << 7 | short)) + size.to_bytes(length_bytes or 1, "big")[:length_bytes]
    if mask is None:
        return header + payload
    return header + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def close_payloads() -> SearchStrategy[bytes]:
    """What stands in a close frame: nothing, a code good or bad, a reason that may be no UTF-8."""
    codes = st.sampled_from((0, 999, 1000, 1001, 1002, 1004, 1005, 1006, 1009, 1011, 2999, 3000, 4999, 5000, 65535))
    reasons = st.sampled_from((b"", b"bye", "tschüß".encode(), b"\xff", b"\xc3")) | st.binary(max_size=20)
    said = st.builds(lambda code, reason: code.to_bytes(2, "big") + reason, codes, reasons)
    return st.one_of(st.just(b""), said, st.binary(max_size=3))


def texts() -> SearchStrategy[bytes]:
    """What stands in a text frame: mostly text."""
    return st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=10)


@st.composite
def good_frames(draw: DrawFn, masked: bool) -> bytes:
    """A frame that breaks no rule by itself: mostly a complete binary message."""
    mask = draw(st.sampled_from((MASK, b"\0\0\0\0")) | st.binary(min_size=4, max_size=4)) if masked else None
    kind = draw(st.sampled_from("bbbbbbbbbbttpPpPffc"))
    if kind == "b":
        return raw_ws_frame(BINARY, draw(payloads()), mask=mask)
    if kind == "t":
        return raw_ws_frame(TEXT, draw(texts()), mask=mask)
    if kind == "c":
        return raw_ws_frame(CLOSE, draw(close_payloads()), mask=mask)
    if kind == "f":
        return draw(fragments(mask))
    return raw_ws_frame(PING if kind == "p" else PONG, draw(st.binary(max_size=125)), mask=mask)


def payloads() -> SearchStrategy[bytes]:
    """Binary payloads: short ones, and of the sizes where something changes (the limit in these tests is 400)."""
    sizes = st.sampled_from((0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 160, 320, 399, 400, 401, 500))
    return st.binary(max_size=20) | sizes.map(lambda size: bytes(at * 7 & 0xFF for at in range(size)))


@st.composite
def fragments(draw: DrawFn, mask: bytes | None) -> bytes:
    """A message in fragments, with control frames between them, perhaps; now and then without an end."""
    opcode = draw(st.sampled_from((BINARY, TEXT)))
    parts = draw(st.lists(texts() if opcode == TEXT else payloads(), min_size=1, max_size=4))
    ends = draw(st.sampled_from((True, True, True, False)))
    out = b""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        out += raw_ws_frame(opcode if number == 0 else CONTINUATION, part, mask=mask, fin=last and ends)
        if not last and draw(st.booleans()):
            out += raw_ws_frame(PING, draw(st.binary(max_size=5)), mask=mask)
    return out


@st.composite
def bad_frames(draw: DrawFn, masked: bool) -> bytes:
    """A frame that breaks some rule, or that may: wrong masks, reserved bits and opcodes, odd lengths."""
    length_bytes = draw(st.sampled_from((None, 0, 2, 8)))
    payload = draw(st.binary(max_size=30))
    if draw(st.booleans()):
        length: int | None = None
    else:
        length = draw(st.sampled_from((0, 1, 125, 126, 400, 401, 0xFFFF, 0x10000, 1 << 62, 1 << 63, (1 << 64) - 1)))
    if length is not None and length_bytes is not None and length >> (8 * length_bytes or 7):
        length_bytes = None
    return raw_ws_frame(
        draw(st.integers(0, 15)),
        payload,
        mask=MASK if draw(st.sampled_from((masked, masked, not masked))) else None,
        fin=draw(st.booleans()),
        reserved=draw(st.sampled_from((0, 0, 1, 2, 4, 7))),
        length_bytes=length_bytes,
        length=length,
    )


@st.composite
def frame_streams(draw: DrawFn, masked: bool) -> bytes:
    """What a peer may send: mostly good frames, some bad ones, garbage at the end."""
    frames = draw(st.lists(good_frames(masked), max_size=8))
    if draw(st.sampled_from((False, False, True))):
        frames.insert(draw(st.integers(0, len(frames))), draw(bad_frames(masked)))
    return b"".join(frames) + draw(st.sampled_from((b"", b"", b"\x82")) | st.binary(max_size=6))
