"""The AudioSocket codec of both roles: its rules by example, and properties for arbitrary bytes."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import LocalProtocolError, RemoteProtocolError
from rapida_twisted.wire.audiosocket import (
    DIGITS,
    AsteriskCodec,
    AudioFrame,
    DtmfFrame,
    ErrorBits,
    ErrorFrame,
    Frame,
    HangupFrame,
    ServerCodec,
    UnknownFrame,
    UuidFrame,
    audio_header,
)
from tests.support.strategies import (
    RATES_HZ,
    asterisk_frames,
    cut_up,
    raw_frame,
    raw_frames,
    server_frames,
    streams,
    unknown_frames,
    uuid_frames,
)

CALL = UUID("6b0e2a52-8f4c-4a53-9c3e-3d3b6d7c0f11")
IDENTIFY = raw_frame(0x01, CALL.bytes)
Codec = ServerCodec | AsteriskCodec


def read(codec: Codec, *chunks: bytes) -> tuple[list[Frame], str, int]:
    """What a codec makes of these chunks: the frames, the error's text, and how many chunks it took (-1: no error)."""
    frames: list[Frame] = []
    for number, chunk in enumerate(chunks):
        try:
            for frame in codec.receive_data(chunk):
                frames.append(frame)
        except RemoteProtocolError as error:
            return frames, str(error), number
    return frames, "", -1


def held_bytes(codec: Codec) -> int:
    """The bytes that a codec keeps for later."""
    return sum(len(value) for value in vars(codec).values() if isinstance(value, bytes | bytearray))


def in_single_bytes(data: bytes) -> list[bytes]:
    """The bytes one by one."""
    return [data[at : at + 1] for at in range(len(data))]


class DecodingTests(SynchronousTestCase):
    """What each kind of frame becomes."""

    def test_asterisks_first_frame(self) -> None:
        """The bytes that a real Asterisk sends first are the call's UUID."""
        codec = ServerCodec()
        self.assertEqual(read(codec, b"\x01\x00\x10" + CALL.bytes), ([UuidFrame(CALL)], "", -1))
        self.assertEqual(codec.uuid, CALL)

    def test_every_rate(self) -> None:
        """The kinds 0x10 to 0x18 are audio at nine rates, for both roles."""
        for kind, rate_hz in enumerate(RATES_HZ, 0x10):
            data = raw_frame(kind, b"\x01\x02")
            self.assertEqual(read(ServerCodec(), IDENTIFY + data)[0][1:], [AudioFrame(b"\x01\x02", rate_hz)])
            self.assertEqual(read(AsteriskCodec(), data)[0], [AudioFrame(b"\x01\x02", rate_hz)])

    def test_every_digit(self) -> None:
        """Each of the sixteen keys arrives as itself."""
        frames, error, _ = read(ServerCodec(), IDENTIFY, *(raw_frame(0x03, key.encode()) for key in DIGITS))
        self.assertEqual((frames[1:], error), ([DtmfFrame(key) for key in DIGITS], ""))

    def test_error_bits(self) -> None:
        """The bits of an error frame have names; other bits are kept, and no code at all is zero."""
        for payload, code in (
            (b"", ErrorBits(0)),
            (b"\x00", ErrorBits(0)),
            (b"\x01", ErrorBits.HANGUP),
            (b"\x02", ErrorBits.FRAME_FORWARDING),
            (b"\x04", ErrorBits.MEMORY),
            (b"\x05", ErrorBits.HANGUP | ErrorBits.MEMORY),
            (b"\x80", ErrorBits(0x80)),
        ):
            for codec in (ServerCodec(), AsteriskCodec()):
                self.assertEqual(read(codec, raw_frame(0xFF, payload))[0], [ErrorFrame(code)])

    def test_any_packet_time(self) -> None:
        """A frame of 30 ms, or of the greatest even length, is one frame."""
        for size in (480, 65_534):
            frames, error, _ = read(ServerCodec(), IDENTIFY + raw_frame(0x10, bytes(size)))
            self.assertEqual((frames[1:], error), ([AudioFrame(bytes(size))], ""))

    def test_unknown_kind_goes_on(self) -> None:
        """A kind that is not known is reported with its payload, and the frame behind it is read."""
        data = raw_frame(0x02, b"xy") + raw_frame(0x7E, bytes(65_535)) + raw_frame(0x03, b"1")
        expected = [UnknownFrame(0x02, b"xy"), UnknownFrame(0x7E, bytes(65_535)), DtmfFrame("1")]
        self.assertEqual(read(ServerCodec(), IDENTIFY, data), ([UuidFrame(CALL), *expected], "", -1))
        self.assertEqual(read(AsteriskCodec(), raw_frame(0x02, b"") + raw_frame(0x00, b""))[0][1:], [HangupFrame()])

    def test_before_the_uuid(self) -> None:
        """A client may give up, or report an error, before it says which call it is."""
        data = raw_frame(0xFF, b"\x04") + raw_frame(0x00, b"")
        self.assertEqual(read(ServerCodec(), data), ([ErrorFrame(ErrorBits.MEMORY), HangupFrame()], "", -1))


class RefusalTests(SynchronousTestCase):
    """What can't be: each with the sentence that says what came and what was expected."""

    def assert_refused(self, codec: Codec, data: bytes, message: str, before: int = 0) -> None:
        """The codec rejects at the last byte and not before, after the given number of frames."""
        frames, error, at = read(codec, *in_single_bytes(data))
        self.assertEqual((len(frames), error, at), (before, message, len(data) - 1))

    def test_uuid_of_another_length(self) -> None:
        """A UUID frame that is not 16 bytes long is refused before its payload is waited for."""
        for length in (0, 15, 17, 36, 65_535):
            header = b"\x01" + length.to_bytes(2, "big")
            self.assert_refused(ServerCodec(), header, f"a UUID frame of {length} bytes came; a UUID has 16")

    def test_second_uuid(self) -> None:
        """A second UUID frame is refused, the same as the first or not."""
        message = "a second UUID frame came; a connection carries one call"
        self.assert_refused(ServerCodec(), IDENTIFY + b"\x01\x00\x10", message, before=1)

    def test_audio_before_the_uuid(self) -> None:
        """Audio of a call that is not known yet is refused before its payload is waited for."""
        for kind in (0x10, 0x12, 0x18):
            header = bytes((kind, 0x01, 0x40))
            self.assert_refused(ServerCodec(), header, "audio came before the UUID frame")

    def test_others_before_the_uuid(self) -> None:
        """So are a digit, a kind that is not known, and a web browser."""
        for data in (b"\x03\x00\x01", b"\x02\x00\x00", b"GET"):
            message = f"a frame of kind 0x{data[0]:02x} came before the UUID frame"
            self.assert_refused(ServerCodec(), data, message)

    def test_odd_audio(self) -> None:
        """A server skips half a sample; Asterisk's side refuses it before its payload arrives, as Asterisk does."""
        data = IDENTIFY + b"\x10\x00\x03abc" + b"\x10\x00\x02de"
        self.assertEqual(read(ServerCodec(), data)[0][1:], [UnknownFrame(0x10, b"abc"), AudioFrame(b"de")])
        message = "an audio frame of 65535 bytes came; Asterisk hangs up on it"
        self.assert_refused(AsteriskCodec(), b"\x12\xff\xff", message)

    def test_empty_audio(self) -> None:
        """An audio frame without audio means nothing to a server, and makes Asterisk hang up."""
        self.assertEqual(read(ServerCodec(), IDENTIFY + b"\x10\x00\x00")[0][1:], [AudioFrame(b"")])
        self.assert_refused(AsteriskCodec(), b"\x10\x00\x00", "an audio frame of 0 bytes came; Asterisk hangs up on it")

    def test_dtmf_of_another_length(self) -> None:
        """A DTMF frame is one byte; another length is refused before the payload is waited for."""
        for length in (0, 2, 65_535):
            data = IDENTIFY + b"\x03" + length.to_bytes(2, "big")
            self.assert_refused(ServerCodec(), data, f"a DTMF frame of {length} bytes came; a digit has one", before=1)

    def test_no_digit(self) -> None:
        """A DTMF frame that is none of the sixteen keys is refused, and shown."""
        for wrong in (b"a", b"E", b" ", b"\x00", b"\xff", b"\n"):
            message = f"DTMF digit {wrong!r} came; valid are 0123456789ABCD*#"
            self.assert_refused(ServerCodec(), IDENTIFY + raw_frame(0x03, wrong), message, before=1)

    def test_lengths_of_the_others(self) -> None:
        """A hangup frame has no payload, an error frame one byte at the most, for both roles."""
        for data, message in (
            (b"\x00\x00\x01", "a hangup frame of 1 bytes came; it must be empty"),
            (b"\xff\x00\x02", "an error frame of 2 bytes came; its code has one"),
        ):
            self.assert_refused(ServerCodec(), data, message)
            self.assert_refused(ServerCodec(), IDENTIFY + data, message, before=1)
            self.assert_refused(AsteriskCodec(), data, message)

    def test_what_a_server_may_not_send(self) -> None:
        """A UUID or a digit from the server makes Asterisk hang up, and so is refused in its role."""
        for data in (b"\x01\x00\x10", b"\x03\x00\x01"):
            message = f"a server sent a frame of kind 0x{data[0]:02x}; Asterisk hangs up on it"
            self.assert_refused(AsteriskCodec(), data, message)

    def test_keeps_refusing(self) -> None:
        """After an error every further byte meets the same error, and nothing is kept of it."""
        for codec, bad in ((ServerCodec(), b"\x10\x00\x02"), (AsteriskCodec(), b"\x01\x00\x00")):
            message = read(codec, bad)[1]
            for data in (b"", IDENTIFY, raw_frame(0x00, b""), bytes(70_000)):
                self.assertEqual(read(codec, data), ([], message, 0))
                self.assertEqual(held_bytes(codec), 0)

    def test_frames_before_the_error(self) -> None:
        """What came whole before the bytes that can't be is given first."""
        data = IDENTIFY + raw_frame(0x10, b"ab") + raw_frame(0x03, b"x") + raw_frame(0x00, b"")
        frames, error, _ = read(ServerCodec(), data)
        self.assertEqual(frames, [UuidFrame(CALL), AudioFrame(b"ab")])
        self.assertIn("DTMF", error)


class EncodingTests(SynchronousTestCase):
    """What may be sent, byte by byte, and what may not."""

    def test_servers_bytes(self) -> None:
        """The server's frames are what a real Asterisk accepts."""
        codec = ServerCodec()
        self.assertEqual(codec.send(HangupFrame()), b"\x00\x00\x00")
        self.assertEqual(codec.send(AudioFrame(bytes(320))), b"\x10\x01\x40" + bytes(320))
        self.assertEqual(codec.send(AudioFrame(bytes(640), 16_000)), b"\x12\x02\x80" + bytes(640))

    def test_asterisks_bytes(self) -> None:
        """The client's frames are what a real Asterisk sends."""
        codec = AsteriskCodec()
        self.assertEqual(codec.send(UuidFrame(CALL)), b"\x01\x00\x10" + CALL.bytes)
        self.assertEqual(codec.send(DtmfFrame("#")), b"\x03\x00\x01#")
        self.assertEqual(codec.send(ErrorFrame(ErrorBits.MEMORY)), b"\xff\x00\x01\x04")
        self.assertEqual(codec.send(AudioFrame(b"\x01\x02", 192_000)), b"\x18\x00\x02\x01\x02")

    def test_audio_header_of_every_rate(self) -> None:
        """Each rate has its kind; a rate without one is refused with the list of those that have."""
        for kind, rate_hz in enumerate(RATES_HZ, 0x10):
            self.assertEqual(audio_header(2, rate_hz), bytes((kind, 0, 2)))
        error = self.assertRaises(LocalProtocolError, audio_header, 320, 11_025)
        self.assertIn("no kind for 11025 Hz", str(error))
        self.assertIn("44100", str(error))

    def test_audio_that_asterisk_would_refuse(self) -> None:
        """No audio, half a sample, or more than a length can say: an error of this program."""
        for size in (0, 1, 321, 65_535, 65_536):
            codec = AsteriskCodec()
            codec.send(UuidFrame(CALL))
            for sender in (ServerCodec(), codec):
                error = self.assertRaises(LocalProtocolError, sender.send, AudioFrame(bytes(size)))
                self.assertEqual(str(error), f"an audio frame needs an even number of 2 to 65,534 bytes, not {size}")

    def test_server_sends_audio_and_hangup_only(self) -> None:
        """Whatever else a server sends makes Asterisk hang up, so it is not encoded."""
        for frame in (UuidFrame(CALL), DtmfFrame("1"), ErrorFrame(ErrorBits.HANGUP), UnknownFrame(2, b"")):
            error = self.assertRaises(LocalProtocolError, ServerCodec().send, frame)
            self.assertEqual(str(error), f"Asterisk accepts audio and hangup frames only, not {type(frame).__name__}")

    def test_asterisk_sends_its_uuid_first_and_once(self) -> None:
        """The client's codec holds its own side of the rules."""
        codec = AsteriskCodec()
        for frame in (AudioFrame(b"ab"), DtmfFrame("1"), HangupFrame(), ErrorFrame(ErrorBits.HANGUP)):
            error = self.assertRaises(LocalProtocolError, codec.send, frame)
            self.assertEqual(str(error), f"the UUID frame comes first, not {type(frame).__name__}")
        codec.send(UuidFrame(CALL))
        error = self.assertRaises(LocalProtocolError, codec.send, UuidFrame(CALL))
        self.assertEqual(str(error), "the UUID frame was already sent; a connection carries one call")

    def test_asterisk_sends_no_nonsense(self) -> None:
        """A digit that is none, a code that is no byte and a kind that is not known are not encoded."""
        codec = AsteriskCodec()
        codec.send(UuidFrame(CALL))
        for digit in ("", "12", "a", "E"):
            error = self.assertRaises(LocalProtocolError, codec.send, DtmfFrame(digit))
            self.assertEqual(str(error), f"a digit is one of 0123456789ABCD*#, not {digit!r}")
        error = self.assertRaises(LocalProtocolError, codec.send, ErrorFrame(ErrorBits(0x100)))
        self.assertEqual(str(error), "an error's code is one byte, not 256")
        error = self.assertRaises(LocalProtocolError, codec.send, UnknownFrame(2, b""))
        self.assertEqual(str(error), "UnknownFrame is not sent to a server")


class AnyBytesTests(SynchronousTestCase):
    """What holds for any bytes, cut up anyhow."""

    @given(st.data())
    def test_any_split_gives_the_same(self, data: st.DataObject) -> None:
        """The same bytes, cut up anyhow, give the same frames, and the same error with the byte that breaks a rule."""
        stream = data.draw(streams())
        chunks = data.draw(cut_up(stream))
        for make in (ServerCodec, AsteriskCodec):
            frames, error, at = read(make(), *in_single_bytes(stream))
            cut_frames, cut_error, chunk = read(make(), *chunks)
            self.assertEqual((cut_frames, cut_error), (frames, error))
            if error:
                before = sum(len(piece) for piece in chunks[:chunk])
                self.assertTrue(before <= at < before + len(chunks[chunk]))

    @given(st.binary(max_size=200), st.sampled_from((ServerCodec, AsteriskCodec)), st.booleans())
    def test_no_bytes_are_a_bug(self, garbage: bytes, make: type[Codec], identified: bool) -> None:
        """Any bytes give frames or the protocol error (read() lets nothing else pass); then it keeps refusing."""
        codec = make()
        if identified and isinstance(codec, ServerCodec):
            read(codec, IDENTIFY)
        _, error, _ = read(codec, garbage)
        if error:
            self.assertEqual(read(codec, IDENTIFY), ([], error, 0))

    @given(uuid_frames(), st.lists(asterisk_frames(), max_size=8))
    def test_asterisks_frames_decode_to_themselves(self, identity: UuidFrame, frames: list[Frame]) -> None:
        """What the client's codec encodes, the server's decodes to the same."""
        asterisk = AsteriskCodec()
        sent: list[Frame] = [identity, *frames]
        self.assertEqual(read(ServerCodec(), b"".join(map(asterisk.send, sent))), (sent, "", -1))

    @given(st.lists(server_frames(), max_size=8))
    def test_servers_frames_decode_to_themselves(self, sent: list[Frame]) -> None:
        """What the server's codec encodes, the client's decodes to the same."""
        self.assertEqual(read(AsteriskCodec(), b"".join(map(ServerCodec().send, sent))), (sent, "", -1))

    @given(st.lists(unknown_frames(), max_size=4))
    def test_unknown_frames_are_skipped_whole(self, unknown: list[UnknownFrame]) -> None:
        """However many frames of kinds that are not known come, the one behind them is read."""
        data = b"".join(raw_frame(frame.kind, frame.payload) for frame in unknown) + raw_frame(0x00, b"")
        self.assertEqual(read(AsteriskCodec(), data)[0], [*unknown, HangupFrame()])

    @given(st.lists(raw_frames(), max_size=6), st.integers(1, 50))
    def test_holds_no_more_than_an_unfinished_frame(self, frames: list[bytes], size: int) -> None:
        """What is kept is the part of one frame that has come so far, and not a byte more."""
        codec, stream, fed = AsteriskCodec(), b"".join(frames), 0
        for at in range(0, len(stream), size):
            error = read(codec, stream[at : at + size])[1]
            fed = min(at + size, len(stream))
            begun = 0
            for frame in frames:
                if begun + len(frame) > fed:
                    break
                begun += len(frame)
            self.assertEqual(held_bytes(codec), 0 if error else fed - begun)

    def test_holds_one_frame_of_the_greatest_length(self) -> None:
        """Megabytes of frames of 65,535 bytes, in pieces, never make it keep more than one of them."""
        codec = ServerCodec()
        read(codec, IDENTIFY)
        stream = raw_frame(0x7F, bytes(65_535)) * 20
        most = 0
        for at in range(0, len(stream), 4096):
            self.assertEqual(read(codec, stream[at : at + 4096])[1], "")
            most = max(most, held_bytes(codec))
        self.assertTrue(0 < most < 65_538)


class BothRoles(RuleBasedStateMachine):
    """Asterisk and a server talk to each other over two pipes that deliver as they please."""

    def __init__(self) -> None:
        super().__init__()
        self.asterisk, self.server = AsteriskCodec(), ServerCodec()
        self.identified = False
        self.to_server = self.to_asterisk = b""
        self.asked: list[Frame] = []
        self.heard: list[Frame] = []
        self.answered: list[Frame] = []
        self.got: list[Frame] = []

    @precondition(lambda self: not self.identified)
    @rule(frame=uuid_frames())
    def identify(self, frame: UuidFrame) -> None:
        """Asterisk says which call it is."""
        self.identified = True
        self.asked.append(frame)
        self.to_server += self.asterisk.send(frame)

    @rule(frame=asterisk_frames())
    def ask(self, frame: Frame) -> None:
        """Asterisk sends a frame, and is not let when it is too early."""
        if self.identified:
            self.asked.append(frame)
            self.to_server += self.asterisk.send(frame)
        else:
            try:
                self.asterisk.send(frame)
            except LocalProtocolError:
                return
            raise AssertionError(f"{frame} was let through before the UUID")

    @rule(frame=server_frames())
    def answer(self, frame: Frame) -> None:
        """The server sends a frame, at any time."""
        self.answered.append(frame)
        self.to_asterisk += self.server.send(frame)

    @rule(frame=st.one_of(uuid_frames(), unknown_frames()))
    def blunder(self, frame: Frame) -> None:
        """A frame that a role may not send leaves no trace."""
        for codec in (self.server, self.asterisk):
            if codec is self.asterisk and not self.identified:
                continue
            try:
                codec.send(frame)
            except LocalProtocolError:
                continue
            raise AssertionError(f"{frame} was let through")

    @rule(size=st.integers(0, 900))
    def deliver_to_server(self, size: int) -> None:
        """Some bytes reach the server."""
        data, self.to_server = self.to_server[:size], self.to_server[size:]
        self.heard.extend(self.server.receive_data(data))

    @rule(size=st.integers(0, 900))
    def deliver_to_asterisk(self, size: int) -> None:
        """Some bytes reach Asterisk."""
        data, self.to_asterisk = self.to_asterisk[:size], self.to_asterisk[size:]
        self.got.extend(self.asterisk.receive_data(data))

    @invariant()
    def nothing_is_changed_or_reordered(self) -> None:
        """What arrived so far is how what was sent begins."""
        assert self.heard == self.asked[: len(self.heard)]
        assert self.got == self.answered[: len(self.got)]
        assert self.server.uuid == (self.heard[0].uuid if self.heard else None)

    def teardown(self) -> None:
        """In the end everything arrives."""
        self.deliver_to_server(len(self.to_server))
        self.deliver_to_asterisk(len(self.to_asterisk))
        assert (self.heard, self.got) == (self.asked, self.answered)
        assert held_bytes(self.server) == held_bytes(self.asterisk) == 0


class BothRolesTests(SynchronousTestCase):
    """The two roles as one state machine."""

    def test_talking(self) -> None:
        """Whatever both say, in whatever pieces it travels, all of it arrives as it was said."""
        run_state_machine_as_test(BothRoles)
