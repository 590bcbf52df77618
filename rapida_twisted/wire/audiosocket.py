"""AudioSocket: encodes and decodes its frames, for both roles. No I/O, no clock.

A frame is a kind (1 byte), a length (2 bytes, network order) and a payload of that length (Asterisk:
``include/asterisk/res_audiosocket.h``, ``res/res_audiosocket.c``). Asterisk, the client, sends a UUID frame first, then
audio and digits. The server sends audio and, to end the call, a hangup frame. Any other frame would make Asterisk hang
up, so :class:`ServerCodec` does not encode it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntFlag
from typing import NamedTuple
from uuid import UUID

from rapida_twisted.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "DIGITS", "HANGUP_BYTES", "MAX_PAYLOAD_BYTES", "AsteriskCodec", "AudioFrame", "DtmfFrame", "ErrorBits",
    "ErrorFrame", "Frame", "HangupFrame", "ServerCodec", "UnknownFrame", "UuidFrame", "audio_header",
]  # fmt: skip

KIND_HANGUP = 0x00
KIND_UUID = 0x01
KIND_DTMF = 0x03
KIND_AUDIO = 0x10
KIND_ERROR = 0xFF

_AUDIO_RATES_HZ = (8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000, 192000)
"""The sample rates of the kinds from 0x10 on."""
_RATE_OF_KIND = dict(enumerate(_AUDIO_RATES_HZ, KIND_AUDIO))
_KIND_OF_RATE = {rate_hz: kind for kind, rate_hz in _RATE_OF_KIND.items()}

HEADER_BYTES = 3
MAX_PAYLOAD_BYTES = 0xFFFF
UUID_BYTES = 16
DIGITS = "0123456789ABCD*#"
HANGUP_BYTES = b"\x00\x00\x00"


class HangupFrame(NamedTuple):
    """Ends the call: Asterisk continues in the dialplan. Asterisk never sends one itself."""


class UuidFrame(NamedTuple):
    """The client's first frame: identifies the call."""

    uuid: UUID


class DtmfFrame(NamedTuple):
    """The caller pressed one of ``0-9 A-D * #``."""

    digit: str


class AudioFrame(NamedTuple):
    """Signed 16-bit little-endian mono samples: one packet, often 20 or 30 ms."""

    samples: bytes
    rate_hz: int = 8000


class ErrorBits(IntFlag):
    """The bits of an error frame's code."""

    HANGUP = 0x01
    FRAME_FORWARDING = 0x02
    MEMORY = 0x04

    @property
    def text(self) -> str:
        """Such as ``0x05 (HANGUP, MEMORY)``."""
        names = ", ".join(bit.name or "" for bit in ErrorBits if bit in self)
        return f"0x{self:02x}{f' ({names})' if names else ''}"


class ErrorFrame(NamedTuple):
    """The peer reports an error."""

    code: ErrorBits


class UnknownFrame(NamedTuple):
    """A frame of a kind that this version does not know, or audio of an odd length. The frames after it are decoded as
    usual."""

    kind: int
    payload: bytes


Frame = HangupFrame | UuidFrame | DtmfFrame | AudioFrame | ErrorFrame | UnknownFrame


def audio_header(byte_count: int, rate_hz: int = 8000) -> bytes:
    """The header of an audio frame.

    :raises LocalProtocolError: Asterisk would refuse the length (zero, odd, over 65,535), or the rate has no kind.
    """
    kind = _KIND_OF_RATE.get(rate_hz)
    if kind is None:
        raise LocalProtocolError(f"AudioSocket has no kind for {rate_hz} Hz; it has {_AUDIO_RATES_HZ}")
    if not 0 < byte_count <= MAX_PAYLOAD_BYTES or byte_count % 2:
        raise LocalProtocolError(f"an audio frame needs an even number of 2 to 65,534 bytes, not {byte_count}")
    return bytes((kind, byte_count >> 8, byte_count & 0xFF))


class _Codec:
    """The framing of both roles."""

    def __init__(self) -> None:
        self._unread = b""
        self._error: RemoteProtocolError | None = None

    def receive_data(self, data: bytes) -> Iterator[Frame]:
        """Decode received bytes, split anywhere, into the frames that are complete now.

        Consume the iterator before the next call. The codec buffers at most one incomplete frame (65,538 bytes).

        :raises RemoteProtocolError: the peer broke the protocol; raised again by each further call.
        """
        if self._error is not None:
            raise self._error
        unread = self._unread + data if self._unread else data
        size = len(unread)
        at = 0
        rates = _RATE_OF_KIND
        try:
            while size - at >= HEADER_BYTES:
                kind = unread[at]
                begin = at + HEADER_BYTES
                end = begin + (unread[at + 1] << 8 | unread[at + 2])
                rate_hz = rates.get(kind)
                if rate_hz is None:
                    self._check_header(kind, end - begin)
                elif not self._check_audio(end - begin):
                    rate_hz = None
                if end > size:
                    break
                at, payload = end, unread[begin:end]
                yield self._frame(kind, payload) if rate_hz is None else AudioFrame(payload, rate_hz)
        except RemoteProtocolError as error:
            self._error = error
            raise
        finally:
            self._unread = b"" if self._error is not None else unread[at:]

    def _check_audio(self, length: int) -> bool:
        """Reject an audio frame by its length, before its payload arrives. False: it is skipped as an unknown frame."""
        raise NotImplementedError

    def _check_header(self, kind: int, length: int) -> None:
        """Reject any other frame by its kind and length, before its payload arrives: here, by what both roles check."""
        if kind == KIND_DTMF and length != 1:
            raise RemoteProtocolError(f"a DTMF frame of {length} bytes came; a digit has one")
        if kind == KIND_HANGUP and length:
            raise RemoteProtocolError(f"a hangup frame of {length} bytes came; it must be empty")
        if kind == KIND_ERROR and length > 1:
            raise RemoteProtocolError(f"an error frame of {length} bytes came; its code has one")

    def _frame(self, kind: int, payload: bytes) -> Frame:
        """Decode a complete frame other than audio: here, those that both roles may receive."""
        if kind == KIND_HANGUP:
            return HangupFrame()
        if kind == KIND_ERROR:
            return ErrorFrame(ErrorBits(payload[0] if payload else 0))
        if kind == KIND_DTMF:
            digit = payload.decode("latin-1")
            if digit not in DIGITS:
                raise RemoteProtocolError(f"DTMF digit {payload!r} came; valid are {DIGITS}")
            return DtmfFrame(digit)
        return UnknownFrame(kind, payload)


class ServerCodec(_Codec):
    """The application's side."""

    def __init__(self) -> None:
        super().__init__()
        self.uuid: UUID | None = None
        """The call's UUID, after its frame."""

    def send(self, frame: Frame) -> bytes:
        """Encode a frame to Asterisk.

        :raises LocalProtocolError: Asterisk would hang up on this frame.
        """
        match frame:
            case AudioFrame(samples, rate_hz):
                return audio_header(len(samples), rate_hz) + samples
            case HangupFrame():
                return HANGUP_BYTES
        raise LocalProtocolError(f"Asterisk accepts audio and hangup frames only, not {type(frame).__name__}")

    def _check_audio(self, length: int) -> bool:
        if self.uuid is None:
            raise RemoteProtocolError("audio came before the UUID frame")
        return not length % 2

    def _check_header(self, kind: int, length: int) -> None:
        if kind == KIND_UUID:
            if self.uuid is not None:
                raise RemoteProtocolError("a second UUID frame came; a connection carries one call")
            if length != UUID_BYTES:
                raise RemoteProtocolError(f"a UUID frame of {length} bytes came; a UUID has {UUID_BYTES}")
        elif self.uuid is None and kind not in (KIND_HANGUP, KIND_ERROR):
            raise RemoteProtocolError(f"a frame of kind 0x{kind:02x} came before the UUID frame")
        super()._check_header(kind, length)

    def _frame(self, kind: int, payload: bytes) -> Frame:
        if kind == KIND_UUID:
            self.uuid = UUID(bytes=payload)
            return UuidFrame(self.uuid)
        return super()._frame(kind, payload)


class AsteriskCodec(_Codec):
    """Asterisk's side."""

    def __init__(self) -> None:
        super().__init__()
        self._identified = False

    def send(self, frame: Frame) -> bytes:
        """Encode a frame to the server: first the UUID frame, then audio and digits.

        :raises LocalProtocolError: Asterisk would not send this frame, or not now.
        """
        if isinstance(frame, UuidFrame):
            if self._identified:
                raise LocalProtocolError("the UUID frame was already sent; a connection carries one call")
            self._identified = True
            return bytes((KIND_UUID, 0, UUID_BYTES)) + frame.uuid.bytes
        if not self._identified:
            raise LocalProtocolError(f"the UUID frame comes first, not {type(frame).__name__}")
        match frame:
            case AudioFrame(samples, rate_hz):
                return audio_header(len(samples), rate_hz) + samples
            case DtmfFrame(digit):
                if len(digit) != 1 or digit not in DIGITS:
                    raise LocalProtocolError(f"a digit is one of {DIGITS}, not {digit!r}")
                return bytes((KIND_DTMF, 0, 1)) + digit.encode("ascii")
            case HangupFrame():
                return HANGUP_BYTES
            case ErrorFrame(code):
                if not 0 <= code <= 0xFF:
                    raise LocalProtocolError(f"an error's code is one byte, not {int(code)}")
                return bytes((KIND_ERROR, 0, 1, int(code)))
        raise LocalProtocolError(f"{type(frame).__name__} is not sent to a server")

    def _check_audio(self, length: int) -> bool:
        if length == 0 or length % 2:
            raise RemoteProtocolError(f"an audio frame of {length} bytes came; Asterisk hangs up on it")
        return True

    def _check_header(self, kind: int, length: int) -> None:
        if kind in (KIND_UUID, KIND_DTMF):
            raise RemoteProtocolError(f"a server sent a frame of kind 0x{kind:02x}; Asterisk hangs up on it")
        super()._check_header(kind, length)
