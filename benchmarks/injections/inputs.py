"""Any bytes through the codecs."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from itertools import islice

from benchmarks.harness.server import REPOSITORY
from benchmarks.injections.scene import Scene, fault
from rapida_twisted.errors import LocalProtocolError, RemoteProtocolError
from rapida_twisted.wire.audiosocket import AsteriskCodec, ServerCodec, UuidFrame, audio_header
from rapida_twisted.wire.chan_websocket import ControlForm, Event
from rapida_twisted.wire.chan_websocket_text import decode_command, decode_event, encode_event

__all__ = ["feed"]

MOST_UNREAD = 65_538
FORMS = list(ControlForm)


def feed(data: bytes) -> None:
    """One input: its first byte says which codec, the second how it is cut; whatever else is raised is a defect."""
    if len(data) < 2:
        return
    (_server, _asterisk, _event, _command)[data[0] % 4](data[2:], data[1] or 256)


def _server(data: bytes, cut: int) -> None:
    _audiosocket(ServerCodec, data, cut)


def _asterisk(data: bytes, cut: int) -> None:
    _audiosocket(AsteriskCodec, data, cut)


def _audiosocket(make: type[ServerCodec] | type[AsteriskCodec], data: bytes, cut: int) -> None:
    whole = _frames(make(), [data])
    pieces = _frames(make(), [data[at : at + cut] for at in range(0, len(data), cut)])
    # However it is cut, the same is heard, and the same is wrong.
    assert whole == pieces, (whole, pieces)


def _frames(codec: ServerCodec | AsteriskCodec, pieces: list[bytes]) -> list[object]:
    frames: list[object] = []
    try:
        for piece in pieces:
            # One by one: those before what is wrong count.
            for frame in codec.receive_data(piece):
                frames.append(frame)
            assert len(codec._unread) <= MOST_UNREAD
    except RemoteProtocolError as error:
        frames.append(str(error))
    return frames


def _event(data: bytes, cut: int) -> None:
    text = data.decode("utf-8", "replace")
    try:
        event, form = decode_event(text)
    except RemoteProtocolError:
        return
    assert isinstance(event, Event)
    try:
        again = decode_event(encode_event(event, form))
    except LocalProtocolError:
        return
    assert again == (event, form) or form is not ControlForm.JSON, (event, again)


def _command(data: bytes, cut: int) -> None:
    try:
        decode_command(data.decode("utf-8", "replace"), FORMS[cut % len(FORMS)])
    except RemoteProtocolError:
        pass


# From a generator

_WORDS = [
    b"MEDIA_START connection_id:x channel:WebSocket/x channel_id:1.1 format:slin optimal_frame_size:320 ptime:20",
    b"DTMF_END channel_id:1.1 digit:5 duration_ms:40", b"MEDIA_XOFF channel_id:1.1", b"STATUS queue_length:3",
    b'{"event":"MEDIA_START","format":"ulaw","optimal_frame_size":160,"channel_variables":{"a":"b"}}',
    b'{"event":"DTMF_END","digit":"5"}', b'{"command":"MARK_MEDIA","correlation_id":"7"}', b"MARK_MEDIA 7",
]  # fmt: skip


def inputs(chance: random.Random) -> Callable[[], bytes]:
    """Makes inputs: such as are right, and then bent."""

    def make() -> bytes:
        kind = chance.randrange(4)
        data = _stream(chance) if kind < 2 else chance.choice(_WORDS)
        for _ in range(chance.choice((0, 0, 1, 1, 2, 5))):
            at, end = sorted((chance.randint(0, len(data)), chance.randint(0, len(data))))
            end = min(end, at + 8)
            data = (
                data[:at] + chance.choice((b"", chance.randbytes(chance.randint(1, 6)), data[at:end] * 2)) + data[end:]
            )
        return bytes((kind, chance.randrange(256))) + data

    return make


def _stream(chance: random.Random) -> bytes:
    frames = [AsteriskCodec().send(UuidFrame(uuid.UUID(bytes=chance.randbytes(16))))]
    for _ in range(chance.randrange(5)):
        count = 2 * chance.randint(1, 20)
        frame = audio_header(count, chance.choice((8000, 16000, 48000))) + chance.randbytes(count)
        frames.append(chance.choice((frame, b"\x03\x00\x015", b"\x00\x00\x00", b"\xff\x00\x01\x02", b"\x00\x01\x00")))
    return b"".join(frames)


@fault(
    "a million inputs for the codecs of AudioSocket and chan_websocket: half of them mutated by a generator, half from"
    " atheris, which looks for new paths through the code",
    "the codec parses or refuses each, however it is cut into pieces; it raises nothing else",
)
def any_input(scene: Scene) -> None:
    """See above."""
    half = scene.scale.inputs // 2
    make = inputs(random.Random(5))
    for data in islice(iter(make, None), half):
        try:
            feed(data)
        except Exception as error:
            scene.wrong.append(f"{data!r}: {type(error).__name__}: {error}"[:300])
            break
    scene.found.append(f"{half:,} from the generator")
    if half < 100_000:
        return
    words = [sys.executable, str(REPOSITORY / "benchmarks" / "fuzz"), f"-runs={half}", "-max_len=4096", "-seed=3"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=scene.place)
    scene.expect(done.returncode == 0, f"atheris ended with {done.returncode}: {done.stderr[-300:]!r}")
    told = re.findall(r"Done (\d+) runs in (\d+) second", done.stderr)
    scene.found.append("atheris: " + ", ".join(f"{int(runs):,} in {seconds} s" for runs, seconds in told))
