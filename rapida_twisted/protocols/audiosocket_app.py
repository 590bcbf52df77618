"""AudioSocket over any Twisted stream transport: the server's protocol, and Asterisk's.

The server's protocol is a call's :class:`~rapida_twisted.interfaces.IMediaChannel`. Its life: the UUID frame within
its time, the claim of that call at the reception (nothing is read meanwhile), then audio both ways until either side
ends it. The client's protocol is for programs that stand in for Asterisk: phones, gateways, tests.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any
from uuid import UUID

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.audio.formats import SLIN, AudioFormat
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import RapidaError, RemoteProtocolError
from rapida_twisted.interfaces import IMediaChannel, IMediaSink, IPolledReader, IReception
from rapida_twisted.net.address_text import address_text
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.protocols.frame_writer import FrameWriter, make_frame_writer, tune_socket
from rapida_twisted.protocols.polled_reader import make_polled_reader
from rapida_twisted.wire.audiosocket import (
    HANGUP_BYTES,
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

__all__ = ["AsteriskProtocol", "AudioSocketFactory", "AudioSocketProtocol"]

UUID_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
STALLED_FRAMES = 250
"""A peer that took none of so many frames in a row (5 s) is given up."""
LOST_FRAMES = 50
"""A connection that is reset after it took none of so many frames in a row (1 s) was lost, and not hung up."""
MAX_WAITING = 1000
"""Connections that may be open without a call at once."""


class _State(Enum):
    WAITING = "waiting for the UUID frame"
    CLAIMING = "claiming its call"
    UP = "up"
    CLOSING = "closing"


@implementer(IMediaChannel)
class AudioSocketProtocol(Protocol):
    """One AudioSocket connection, the server's side.

    :param reception: where the call of a UUID is claimed and started.
    :param reactor: provides IReactorTime.
    :param uuid_timeout_s: how long the UUID frame may take (s).
    :param settled: called once, when the connection has said which call it is, or is gone.
    :param rejections: told of those who are sent away.
    """

    _log = Logger()

    transport: Any
    transport_name = "audiosocket"
    paced = False

    def __init__(
        self,
        reception: IReception,
        reactor: Any,
        uuid_timeout_s: float = UUID_TIMEOUT_S,
        settled: Callable[[AudioSocketProtocol], None] = lambda protocol: None,
        rejections: RejectionLog | None = None,
    ) -> None:
        self.format: AudioFormat = SLIN
        self.peer = ""
        self.reading: IPolledReader | None = None
        self.context_id = ""
        """Of the call that the peer says it is."""
        self.unknown_frames = 0
        """Frames of a kind that the codec does not know."""
        self._reception = reception
        self._reactor = reactor
        self._uuid_timeout_s = uuid_timeout_s
        self._settled: Callable[[AudioSocketProtocol], None] | None = settled
        self._rejections = rejections if rejections is not None else RejectionLog()
        self._codec = ServerCodec()
        self._state = _State.WAITING
        self._writer: FrameWriter
        self._sink: IMediaSink | None = None
        self._early: list[Frame] = []
        self._early_end: tuple[EndReason, str] | None = None
        """How the connection ended, if it did before its call was there."""
        self._deadline: IDelayedCall | None = None
        self._header_bytes = SLIN.frame_bytes
        self._header = audio_header(SLIN.frame_bytes)

    # What the transport says

    def connectionMade(self) -> None:
        tune_socket(self.transport)
        self._writer = make_frame_writer(self.transport)
        self.reading = make_polled_reader(self.transport, self.dataReceived)
        self._set_deadline(self._uuid_timeout_s, self._uuid_overdue)

    def dataReceived(self, data: bytes) -> None:
        if self._state is _State.CLOSING:
            return
        try:
            for frame in self._codec.receive_data(data):
                self._frame_received(frame)
                if self._state is _State.CLOSING:
                    return
        except RemoteProtocolError as error:
            self._protocol_broken(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._set_deadline(None)
        self._settle()
        self._state = _State.CLOSING
        # A caller who hangs up while a frame of ours lies unread in Asterisk's socket makes a reset of its close. A
        # line that breaks is another thing: it takes nothing any more for a while before.
        if reason.check(ConnectionDone, ConnectionLost) and self._writer.dropped_in_row < LOST_FRAMES:
            self._tell_end(EndReason.CALLER_HANGUP)
        else:
            self._tell_end(EndReason.CONNECTION_LOST, reason.getErrorMessage())

    # What the call says (IMediaChannel)

    def send_audio(self, payload: bytes) -> None:
        """One frame of audio, in the channel's format."""
        if self._state is _State.CLOSING:
            return
        if len(payload) != self._header_bytes:
            self._header_bytes, self._header = len(payload), audio_header(len(payload), self.format.rate_hz)
        writer = self._writer
        if not writer.send(self._header + payload) and writer.dropped_in_row >= STALLED_FRAMES:
            self._tell_end(EndReason.PEER_STALLED, f"{writer.dropped_in_row} frames in a row could not be sent")
            self.abort()

    def flush(self) -> None:
        """Nothing waits at the peer: audio is sent when it is due."""

    def mark(self, reached: Callable[[], None]) -> None:
        """What was sent is being heard."""
        reached()

    def hang_up(self) -> None:
        """Send a hangup frame. Asterisk closes then, and goes on in its dialplan; who does not is cut off."""
        if self._state is _State.CLOSING:
            return
        self._state = _State.CLOSING
        self._sink = None
        # PolledReader may have stopped for the claim, and the peer's close must be seen.
        self.transport.resumeProducing()
        self._writer.send_control(HANGUP_BYTES)
        # We do not close first: with unread audio in the socket that would send a reset, ahead of the hangup frame.
        self._set_deadline(CLOSE_TIMEOUT_S, self._writer.abort)

    def abort(self) -> None:
        """Close at once, whatever is queued."""
        self._state = _State.CLOSING
        self._sink = None
        self._writer.abort()

    # Frames

    def _frame_received(self, frame: Frame) -> None:
        sink = self._sink
        if sink is None:
            self._before_the_call(frame)
        elif type(frame) is AudioFrame:
            if frame.rate_hz != self.format.rate_hz:
                self._change_rate(frame.rate_hz, sink)
            if frame.samples:
                sink.audio_received(frame.samples)
        elif type(frame) is DtmfFrame:
            sink.digit_received(frame.digit)
        elif type(frame) is HangupFrame:
            self._tell_end(EndReason.CALLER_HANGUP)
            self._close()
        elif type(frame) is ErrorFrame:
            self._error_received(frame.code)
        elif type(frame) is UnknownFrame:
            self._unknown_received(frame)

    def _before_the_call(self, frame: Frame) -> None:
        if type(frame) is UuidFrame:
            self._claim(str(frame.uuid))
        elif type(frame) is HangupFrame or type(frame) is ErrorFrame:
            self._early.clear()
            self._tell_end(EndReason.CALLER_HANGUP)
            self._close()
        else:
            # Only what was read together with the UUID can come here, since reading stops for the claim.
            self._early.append(frame)

    def _change_rate(self, rate_hz: int, sink: IMediaSink) -> None:
        """The peer's audio has another rate (a channel of chan_audiosocket): answer in the same."""
        self.format = AudioFormat("slin", rate_hz)
        self._header_bytes = 0
        sink.format_changed()

    def _error_received(self, code: ErrorBits) -> None:
        self._log.warn("AudioSocket {peer} reports error {code!r}", peer=self.peer, code=code, id=self.context_id)
        if code & ErrorBits.HANGUP:
            self._tell_end(EndReason.CALLER_HANGUP, f"error {code!r}")
            self._close()

    def _unknown_received(self, frame: UnknownFrame) -> None:
        self.unknown_frames += 1
        if self.unknown_frames == 1:
            self._log.warn(
                "AudioSocket {peer} sent a frame of unknown kind 0x{kind:02x} ({size} bytes): skipped, as all such"
                " frames of this call will be",
                peer=self.peer, kind=frame.kind, size=len(frame.payload), id=self.context_id,
            )  # fmt: skip

    # The claim

    def _claim(self, context_id: str) -> None:
        self._settle()
        self.context_id = context_id
        # Behind a PROXY protocol the peer is known only now.
        self.peer = address_text(self.transport.getPeer())
        self._state = _State.CLAIMING
        self._set_deadline(None)
        self.transport.pauseProducing()
        claim = self._reception.claim(context_id, self.transport_name, self.peer)
        claim.addCallbacks(self._claimed, self._refused)
        claim.addErrback(self._claim_broke)

    def _claimed(self, context: CallContext) -> None:
        if self._state is not _State.CLAIMING:
            reason, detail = self._early_end or (EndReason.CALLER_HANGUP, "")
            self._reception.abandon(context, reason, detail or "its connection closed while it was claimed")
            return
        self._state = _State.UP
        self._sink = self._reception.start(context, self)
        if self.reading is None or not self.reading.polled:
            self.transport.resumeProducing()
        early, self._early = self._early, []
        for frame in early:
            if self._state is _State.UP:
                self._frame_received(frame)

    def _refused(self, failure: Failure) -> None:
        failure.trap(RapidaError)
        word = getattr(failure.value, "word", "refused")
        self._refuse(f"call_{word}", "AudioSocket {peer} refused: {reason}", reason=failure.getErrorMessage())
        self.hang_up()

    def _claim_broke(self, failure: Failure) -> None:
        self._log.failure(
            "AudioSocket {peer}: its call could not be started", failure, peer=self.peer, id=self.context_id
        )
        self.hang_up()

    # The end

    def _uuid_overdue(self) -> None:
        self._deadline = None
        text = "AudioSocket {peer} sent no UUID frame within {seconds:g} s: closed"
        self._refuse("uuid_overdue", text, seconds=self._uuid_timeout_s)
        self.abort()

    def _protocol_broken(self, error: RemoteProtocolError) -> None:
        self._refuse("garbage", "AudioSocket {peer} broke the protocol: {error}", error=str(error))
        self._tell_end(EndReason.PROTOCOL_ERROR, str(error))
        self.hang_up()

    def _refuse(self, why: str, text: str, **values: Any) -> None:
        peer = self.transport.getPeer()
        self._rejections.add(
            f"audiosocket.{why}",
            peer,
            self._log,
            text,
            peer=self.peer or address_text(peer),
            id=self.context_id,
            **values,
        )

    def _close(self) -> None:
        """Close from our side, after a peer that said it is done."""
        self._state = _State.CLOSING
        self._set_deadline(CLOSE_TIMEOUT_S, self._writer.abort)
        self._writer.close()

    def _tell_end(self, reason: EndReason, detail: str = "") -> None:
        """Tell the call, once, that its media is over; one that is not there yet, when it is claimed."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.media_ended(reason, detail)
        elif self._early_end is None:
            self._early_end = reason, detail

    def _settle(self) -> None:
        settled, self._settled = self._settled, None
        if settled is not None:
            settled(self)

    def _set_deadline(self, delay_s: float | None, overdue: Callable[[], None] | None = None) -> None:
        """One deadline at a time: replace it, or drop it (None)."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if delay_s is not None and overdue is not None:
            self._deadline = self._reactor.callLater(delay_s, overdue)


class AudioSocketFactory(ServerFactory):
    """Makes an :class:`AudioSocketProtocol` for each connection that an endpoint accepts.

    :param max_waiting: connections that may be open at once without saying which call they are; for a further one, the
        oldest of them is closed.
    :param rejections: told of those who are sent away.
    """

    _log = Logger()
    noisy = False

    def __init__(
        self,
        reception: IReception,
        reactor: Any,
        uuid_timeout_s: float = UUID_TIMEOUT_S,
        max_waiting: int = MAX_WAITING,
        rejections: RejectionLog | None = None,
    ) -> None:
        self.refused = 0
        """Connections that were closed because too many had not said which call they are."""
        self._reception = reception
        self._reactor = reactor
        self._uuid_timeout_s = uuid_timeout_s
        self._max_waiting = max_waiting
        self.rejections = rejections if rejections is not None else RejectionLog()
        self._waiting: dict[AudioSocketProtocol, None] = {}

    @property
    def waiting(self) -> int:
        """Connections that have not said which call they are."""
        return len(self._waiting)

    def buildProtocol(self, addr: IAddress | None) -> AudioSocketProtocol:
        if len(self._waiting) >= self._max_waiting:
            self._close_oldest()
        protocol = AudioSocketProtocol(
            self._reception, self._reactor, self._uuid_timeout_s, self._settled, self.rejections
        )
        protocol.factory = self
        self._waiting[protocol] = None
        return protocol

    def _close_oldest(self) -> None:
        """Make room. An Asterisk says its UUID at once, so whoever has been silent for the longest is none."""
        oldest = next(iter(self._waiting))
        self.refused += 1
        peer = oldest.transport.getPeer() if oldest.transport is not None else None
        self.rejections.add(
            "audiosocket.waiting", peer, self._log,
            "AudioSocket: {waiting} connections have not said which call they are, so the oldest is closed"
            " ({refused} closed so far)",
            waiting=len(self._waiting), refused=self.refused,
        )  # fmt: skip
        self._settled(oldest)
        if oldest.transport is not None:
            oldest.abort()

    def _settled(self, protocol: AudioSocketProtocol) -> None:
        self._waiting.pop(protocol, None)


class AsteriskProtocol(Protocol):
    """One AudioSocket connection, Asterisk's side: override what should be heard of.

    :param call: the UUID to send first: the contextId that the registration gave.
    """

    transport: Any

    def __init__(self, call: UUID) -> None:
        self.call = call
        self._codec = AsteriskCodec()
        self._writer: FrameWriter | None = None
        """Where frames go, while the call is up."""
        self.problem = ""
        """The rule that the server broke, if it did."""

    # To be overridden

    def call_started(self) -> None:
        """The connection is up and the UUID is sent."""

    def audio_received(self, samples: bytes, rate_hz: int) -> None:
        """The server said something: s16le mono."""

    def hangup_received(self) -> None:
        """The server ended the call. The connection is closed by now; :meth:`call_ended` follows."""

    def error_received(self, code: ErrorBits) -> None:
        """The server reports an error."""

    def call_ended(self, problem: str) -> None:
        """The connection is gone, once; ``problem`` is empty for an orderly end."""

    # To be called

    def send_audio(self, samples: bytes, rate_hz: int = 8000) -> bool:
        """Send one frame of s16le mono; whether the server kept up, else it was dropped."""
        return self._writer is not None and self._writer.send(self._codec.send(AudioFrame(samples, rate_hz)))

    def send_digit(self, digit: str) -> None:
        """Send a key that was pressed."""
        if self._writer is not None:
            self._writer.send_control(self._codec.send(DtmfFrame(digit)))

    def hang_up(self) -> None:
        """Hang up as Asterisk does: close, without a frame. A server that is behind with reading is not waited for."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if writer.full:
            writer.abort()
        else:
            writer.close()

    # What the transport says

    def connectionMade(self) -> None:
        tune_socket(self.transport)
        self._writer = make_frame_writer(self.transport)
        self._writer.send_control(self._codec.send(UuidFrame(self.call)))
        self.call_started()

    def dataReceived(self, data: bytes) -> None:
        try:
            for frame in self._codec.receive_data(data):
                if self._writer is None:
                    return
                if type(frame) is AudioFrame:
                    self.audio_received(frame.samples, frame.rate_hz)
                elif type(frame) is HangupFrame:
                    self.hang_up()
                    self.hangup_received()
                elif type(frame) is ErrorFrame:
                    self.error_received(frame.code)
        except RemoteProtocolError as error:
            if self._writer is not None:
                self.problem = str(error)
                self._writer.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._writer = None
        self.call_ended(self.problem or ("" if reason.check(ConnectionDone) else reason.getErrorMessage()))
