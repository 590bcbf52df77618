"""AudioSocket, the application's side: accepts Asterisk's connections and claims the call of each UUID.

A connection is a call's :class:`~rapida_twisted.interfaces.IMediaChannel`, over any Twisted stream transport::

    WAITING --UUID frame--> CLAIMING --claimed--> UP --either side ends--> CLOSING
       |  none in time         |  refused                                     ^
       +-----------------------+----------------------------------------------+

It reads nothing while the reception claims the call.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import attrs
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.audio.formats import FRAME_MS, SLIN, AudioFormat
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import RapidaError, RemoteProtocolError
from rapida_twisted.interfaces import IMediaChannel, IPolledReader
from rapida_twisted.interfaces.typed import MediaSink, Reception
from rapida_twisted.net.addresses import address_text
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.protocols.control_budget import CRUMB_BYTES, CRUMB_MS, PROBLEM, ControlBudget
from rapida_twisted.protocols.frame_writer import FrameWriter, make_frame_writer, tune_socket
from rapida_twisted.protocols.polled_reader import make_polled_reader
from rapida_twisted.wire import audiosocket as wire

__all__ = ["AudioSocketFactory", "AudioSocketProtocol"]

UUID_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
STALLED_FRAMES = 250
"""After this many frames (5 s) dropped in a row, the connection is aborted."""
LOST_FRAMES = 50
"""A reset after this many frames (1 s) dropped in a row counts as a lost connection, not as a hangup."""
MAX_UNIDENTIFIED = 1000


class _State(Enum):
    WAITING = "waiting for the UUID frame"
    CLAIMING = "claiming its call"
    UP = "up"
    CLOSING = "closing"


@implementer(IMediaChannel)
class AudioSocketProtocol(Protocol):
    """One AudioSocket connection of the application.

    :param reception: claims and starts the call of a UUID.
    :param reactor: provides IReactorTime.
    :param uuid_timeout_s: the time limit (s) of the UUID frame.
    :param on_settled: called once, when the connection has sent its UUID or is closed.
    :param rejections: counts and logs rejected connections.
    """

    _log = Logger()

    transport: Any
    transport_name = "audiosocket"
    paced = False

    def __init__(
        self,
        reception: Reception,
        reactor: Any,
        uuid_timeout_s: float = UUID_TIMEOUT_S,
        on_settled: Callable[[AudioSocketProtocol], None] = lambda protocol: None,
        rejections: RejectionLog | None = None,
    ) -> None:
        self.format: AudioFormat = SLIN
        self.peer = ""
        self.reading: IPolledReader | None = None
        self.context_id = ""
        """The UUID that the peer sent."""
        self.unknown_frames = 0
        """Skipped frames of unknown kinds."""
        self.error_frames = 0
        """Error frames that did not end the call."""
        self._reception = reception
        self._reactor = reactor
        self._uuid_timeout_s = uuid_timeout_s
        self._on_settled: Callable[[AudioSocketProtocol], None] | None = on_settled
        self._rejections = rejections if rejections is not None else RejectionLog()
        self._codec = wire.ServerCodec()
        self._budget = ControlBudget(reactor.seconds)
        self._rate_changed = False
        self._crumb_bytes = CRUMB_BYTES
        self._state = _State.WAITING
        self._writer: FrameWriter
        self._sink: MediaSink | None = None
        self._early_frames: list[wire.Frame] = []
        self._early_end: tuple[EndReason, str] | None = None
        """How the connection ended, if it ended before its call started."""
        self._deadline: IDelayedCall | None = None
        self._header_bytes = SLIN.frame_bytes
        self._header = wire.audio_header(SLIN.frame_bytes)

    # IProtocol

    def connectionMade(self) -> None:
        tune_socket(self.transport)
        self._writer = make_frame_writer(self.transport)
        self.reading = make_polled_reader(self.transport, self.dataReceived)
        self._set_deadline(self._uuid_timeout_s, self._uuid_overdue)

    def dataReceived(self, data: bytes) -> None:
        state: _State = self._state
        if state is _State.CLOSING:
            return
        try:
            for frame in self._codec.receive_data(data):
                self._frame_received(frame)
                if self._state is _State.CLOSING:
                    return
        except RemoteProtocolError as error:
            self._protocol_violated(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._set_deadline(None)
        self._settle()
        self._state = _State.CLOSING
        # The kernel resets the connection if Asterisk closes it with a frame of ours unread. A broken network is
        # different: before the reset, the peer took no frame for a while.
        if reason.check(ConnectionDone, ConnectionLost) and self._writer.dropped_in_row < LOST_FRAMES:
            self._report_end(EndReason.CALLER_HANGUP)
        else:
            self._report_end(EndReason.CONNECTION_LOST, reason.getErrorMessage())

    # IMediaChannel, called by the call

    def send_audio(self, payload: bytes) -> None:
        if self._state is _State.CLOSING:
            return
        if len(payload) != self._header_bytes:
            self._header_bytes, self._header = len(payload), wire.audio_header(len(payload), self.format.rate_hz)
        writer = self._writer
        if not writer.send(self._header + payload) and writer.dropped_in_row >= STALLED_FRAMES:
            self._report_end(EndReason.PEER_STALLED, f"{writer.dropped_in_row} frames in a row could not be sent")
            self.abort()

    def flush(self) -> None:
        """At barge-in there is nothing to flush at the peer: each frame is sent when it is due."""

    def mark(self, reached: Callable[[], None]) -> None:
        """Call back at once: the peer plays each frame as it arrives."""
        reached()

    def hang_up(self) -> None:
        """Send a hangup frame: Asterisk closes and continues in the dialplan. Abort a peer that does not close."""
        if self._state is _State.CLOSING:
            return
        self._state = _State.CLOSING
        self._sink = None
        # Reading may be paused for the claim, and we must see the peer close.
        self.transport.resumeProducing()
        self._writer.send_control(wire.HANGUP_BYTES)
        # Closing first, with unread audio in the socket, would send a reset that overtakes the hangup frame.
        self._set_deadline(CLOSE_TIMEOUT_S, self._writer.abort)

    def abort(self) -> None:
        self._state = _State.CLOSING
        self._sink = None
        self._writer.abort()

    # Received frames

    def _frame_received(self, frame: wire.Frame) -> None:
        sink = self._sink
        if sink is None:
            self._frame_before_call(frame)
        elif type(frame) is wire.AudioFrame:
            if frame.rate_hz != self.format.rate_hz and not self._change_rate(frame.rate_hz, sink):
                return
            if len(frame.samples) >= self._crumb_bytes or (self._may_go_on() and frame.samples):
                sink.audio_received(frame.samples)
        elif self._may_go_on():
            self._control_received(frame, sink)

    def _control_received(self, frame: wire.Frame, sink: MediaSink) -> None:
        if type(frame) is wire.DtmfFrame:
            sink.digit_received(frame.digit)
        elif type(frame) is wire.HangupFrame:
            self._report_end(EndReason.CALLER_HANGUP)
            self._close()
        elif type(frame) is wire.ErrorFrame:
            self._error_received(frame.code)
        elif type(frame) is wire.UnknownFrame:
            self._unknown_received(frame)

    def _may_go_on(self) -> bool:
        """Count a frame that is no ordinary audio. False: there were too many, and the call has ended."""
        if self._budget.take():
            return True
        self._protocol_violated(RemoteProtocolError(PROBLEM))
        return False

    def _frame_before_call(self, frame: wire.Frame) -> None:
        if type(frame) is wire.UuidFrame:
            self._claim(str(frame.uuid))
        elif type(frame) is wire.HangupFrame or type(frame) is wire.ErrorFrame:
            self._early_frames.clear()
            self._report_end(EndReason.CALLER_HANGUP)
            self._close()
        else:
            # Reading is paused for the claim, so these few came in the same read as the UUID.
            self._early_frames.append(frame)

    def _change_rate(self, rate_hz: int, sink: MediaSink) -> bool:
        """The peer (chan_audiosocket) sends another sample rate: answer at that rate.

        Asterisk's rate is one for the whole call, and each change makes converters. False: the call has ended.
        """
        if self._rate_changed:
            self._protocol_violated(RemoteProtocolError("the sample rate changed a second time"))
            return False
        self._rate_changed = True
        self.format = AudioFormat("slin", rate_hz)
        self._crumb_bytes = self.format.frame_bytes * CRUMB_MS // FRAME_MS
        self._header_bytes = 0
        sink.format_changed()
        return True

    def _error_received(self, code: wire.ErrorBits) -> None:
        self.error_frames += 1
        if self.error_frames == 1:
            self._log.warn(
                "AudioSocket {peer} reports error {code}: this call logs no further one",
                peer=self.peer, code=code.text, id=self.context_id,
            )  # fmt: skip
        if code & wire.ErrorBits.HANGUP:
            self._report_end(EndReason.CALLER_HANGUP, f"error {code.text}")
            self._close()

    def _unknown_received(self, frame: wire.UnknownFrame) -> None:
        self.unknown_frames += 1
        if self.unknown_frames == 1:
            self._log.warn(
                "AudioSocket {peer} sent a frame of kind 0x{kind:02x} with {size} bytes: frames of unknown kinds and"
                " audio of an odd length are skipped, this call logs no further one",
                peer=self.peer, kind=frame.kind, size=len(frame.payload), id=self.context_id,
            )  # fmt: skip

    # The claim

    def _claim(self, context_id: str) -> None:
        self._settle()
        self.context_id = context_id
        # With the PROXY protocol, getPeer() is the proxy until the first byte behind the header arrives.
        self.peer = address_text(self.transport.getPeer())
        self._state = _State.CLAIMING
        self._set_deadline(None)
        self.transport.pauseProducing()
        claim = self._reception.claim(context_id, self.transport_name, self.peer)
        claim.addCallbacks(self._claimed, self._refused)
        claim.addErrback(self._claim_crashed)

    def _claimed(self, context: CallContext) -> None:
        if self._state is not _State.CLAIMING:
            reason, detail = self._early_end or (EndReason.CALLER_HANGUP, "")
            self._reception.abandon(context, reason, detail or "the connection closed while the call was claimed")
            return
        self._state = _State.UP
        self._sink = self._reception.start(context, self)
        if self.reading is None or not self.reading.polled:
            self.transport.resumeProducing()
        early, self._early_frames = self._early_frames, []
        for frame in early:
            if self._state is _State.UP:
                self._frame_received(frame)

    def _refused(self, failure: Failure) -> None:
        failure.trap(RapidaError)
        word = getattr(failure.value, "word", "refused")
        self._reject(f"call_{word}", "AudioSocket {peer} rejected: {reason}", reason=failure.getErrorMessage())
        self.hang_up()

    def _claim_crashed(self, failure: Failure) -> None:
        self._log.failure("AudioSocket {peer}: cannot start the call", failure, peer=self.peer, id=self.context_id)
        self.hang_up()

    # The end

    def _uuid_overdue(self) -> None:
        self._deadline = None
        text = "AudioSocket {peer} sent no UUID frame within {seconds:g} s: closed"
        self._reject("uuid_overdue", text, seconds=self._uuid_timeout_s)
        self.abort()

    def _protocol_violated(self, error: RemoteProtocolError) -> None:
        self._reject("garbage", "AudioSocket {peer} broke the protocol: {error}", error=str(error))
        self._report_end(EndReason.PROTOCOL_ERROR, str(error))
        self.hang_up()

    def _reject(self, cause: str, text: str, **values: Any) -> None:
        peer = self.transport.getPeer()
        self._rejections.add(
            f"audiosocket.{cause}", peer, self._log, text,
            peer=self.peer or address_text(peer), id=self.context_id, **values,
        )  # fmt: skip

    def _close(self) -> None:
        """Close the connection after the peer's hangup or error frame."""
        self._state = _State.CLOSING
        self._set_deadline(CLOSE_TIMEOUT_S, self._writer.abort)
        self._writer.close()

    def _report_end(self, reason: EndReason, detail: str = "") -> None:
        """Report the end of the media to the call, once; keep it for a call that is not claimed yet."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.media_ended(reason, detail)
        elif self._early_end is None:
            self._early_end = reason, detail

    def _settle(self) -> None:
        on_settled, self._on_settled = self._on_settled, None
        if on_settled is not None:
            on_settled(self)

    def _set_deadline(self, delay_s: float | None, overdue: Callable[[], None] | None = None) -> None:
        """Replace the connection's only deadline; None cancels it."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if delay_s is not None and overdue is not None:
            self._deadline = self._reactor.callLater(delay_s, overdue)


@attrs.define(eq=False, slots=False, repr=False)
class AudioSocketFactory(ServerFactory):
    """Makes an :class:`AudioSocketProtocol` for each accepted connection.

    :param max_unidentified: maximum connections that have not sent their UUID; beyond it the oldest is closed.
    :param rejections: counts and logs rejected connections.
    """

    _log = Logger()
    noisy = False

    _reception: Reception
    _reactor: Any
    _uuid_timeout_s: float = UUID_TIMEOUT_S
    _max_unidentified: int = MAX_UNIDENTIFIED
    rejections: RejectionLog = attrs.field(factory=RejectionLog)
    _unidentified: dict[AudioSocketProtocol, None] = attrs.field(init=False, factory=dict)
    refused = 0
    """Connections closed because too many had not sent their UUID."""

    @property
    def unidentified(self) -> int:
        """Open connections that have not sent their UUID."""
        return len(self._unidentified)

    def buildProtocol(self, addr: IAddress | None) -> AudioSocketProtocol:
        if len(self._unidentified) >= self._max_unidentified:
            self._close_oldest()
        protocol = AudioSocketProtocol(
            self._reception, self._reactor, self._uuid_timeout_s, self._settled, self.rejections
        )
        protocol.factory = self
        self._unidentified[protocol] = None
        return protocol

    def _close_oldest(self) -> None:
        """Make room. Asterisk sends its UUID at once, so the connection silent for longest is not Asterisk's."""
        oldest = next(iter(self._unidentified))
        self.refused += 1
        peer = oldest.transport.getPeer() if oldest.transport is not None else None
        self.rejections.add(
            "audiosocket.waiting", peer, self._log,
            "AudioSocket: {unidentified} connections have not sent their UUID: closed the oldest"
            " ({refused} closed so far)",
            unidentified=len(self._unidentified), refused=self.refused,
        )  # fmt: skip
        self._settled(oldest)
        if oldest.transport is not None:
            oldest.abort()

    def _settled(self, protocol: AudioSocketProtocol) -> None:
        self._unidentified.pop(protocol, None)
