"""The AudioSocket codec alone: no reactor, no socket. Bytes in, frames out, split anywhere."""

from collections.abc import Iterable

from rapida_twisted.errors import RemoteProtocolError
from rapida_twisted.wire.audiosocket import AudioFrame, DtmfFrame, ServerCodec, UuidFrame


def describe(chunks: Iterable[bytes]) -> str:
    """What an Asterisk said, as one line: its chunks as they came from a socket or a capture."""
    codec = ServerCodec()
    call, digits, audio_ms = "nobody", "", 0.0
    try:
        for chunk in chunks:
            for frame in codec.receive_data(chunk):
                match frame:
                    case UuidFrame(uuid):
                        call = str(uuid)
                    case DtmfFrame(digit):
                        digits += digit
                    case AudioFrame(samples, rate_hz):
                        audio_ms += len(samples) / 2 * 1000 / rate_hz
    except RemoteProtocolError as error:
        return f"call {call}: {error}"
    return f"call {call}: {audio_ms:g} ms of audio, digits {digits or 'none'}"
