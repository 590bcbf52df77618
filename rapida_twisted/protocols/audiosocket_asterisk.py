"""AudioSocket, Asterisk's side: connects to a server and sends the UUID, for far ends, phones and tests."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from rapida_twisted.errors import RemoteProtocolError
from rapida_twisted.protocols.control_budget import CRUMB_BYTES, PROBLEM, ControlBudget
from rapida_twisted.protocols.frame_writer import FrameWriter, make_frame_writer, tune_socket
from rapida_twisted.wire import audiosocket as wire

__all__ = ["AsteriskProtocol"]


class AsteriskProtocol(Protocol):
    """One AudioSocket connection that Asterisk would make. Override the methods for the events of interest.

    :param call: the UUID frame's UUID: the contextId from the registration.
    """

    transport: Any

    def __init__(self, call: UUID) -> None:
        self.call = call
        self._codec = wire.AsteriskCodec()
        self._budget = ControlBudget(time.monotonic)
        self._writer: FrameWriter | None = None
        """None unless the call is up."""
        self.problem = ""
        """The protocol rule that the server broke, or empty."""

    # Events, to be overridden

    def call_started(self) -> None:
        """The connection is up and the UUID is sent."""

    def audio_received(self, samples: bytes, rate_hz: int) -> None:
        """The server sent audio (s16le mono)."""

    def hangup_received(self) -> None:
        """The server hung up. The connection is closing; :meth:`call_ended` follows."""

    def error_received(self, code: wire.ErrorBits) -> None:
        """The server sent an error frame."""

    def call_ended(self, problem: str) -> None:
        """The connection closed. Called once; ``problem`` is empty for an orderly end."""

    # Actions

    def send_audio(self, samples: bytes, rate_hz: int = 8000) -> bool:
        """Send one frame of s16le mono; False if it was dropped because the server reads too slowly."""
        return self._writer is not None and self._writer.send(self._codec.send(wire.AudioFrame(samples, rate_hz)))

    def send_digit(self, digit: str) -> None:
        if self._writer is not None:
            self._writer.send_control(self._codec.send(wire.DtmfFrame(digit)))

    def hang_up(self) -> None:
        """Hang up as Asterisk does: close without a hangup frame. Do not wait for a server that reads too slowly."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if writer.full:
            writer.abort()
        else:
            writer.close()

    # IProtocol

    def connectionMade(self) -> None:
        tune_socket(self.transport)
        self._writer = make_frame_writer(self.transport)
        self._writer.send_control(self._codec.send(wire.UuidFrame(self.call)))
        self.call_started()

    def dataReceived(self, data: bytes) -> None:
        try:
            for frame in self._codec.receive_data(data):
                if self._writer is None:
                    return
                if type(frame) is wire.AudioFrame:
                    if len(frame.samples) < CRUMB_BYTES:
                        self.count_control()
                    self.audio_received(frame.samples, frame.rate_hz)
                else:
                    self._control_received(frame)
        except RemoteProtocolError as error:
            if self._writer is not None:
                self.problem = str(error)
                self._writer.abort()

    def _control_received(self, frame: wire.Frame) -> None:
        self.count_control()
        if type(frame) is wire.HangupFrame:
            self.hang_up()
            self.hangup_received()
        elif type(frame) is wire.ErrorFrame:
            self.error_received(frame.code)

    def count_control(self) -> None:
        """Count a frame that is no ordinary audio, or that costs more than its bytes.

        :raises RemoteProtocolError: the server has sent too many.
        """
        if not self._budget.take():
            raise RemoteProtocolError(PROBLEM)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._writer = None
        self.call_ended(self.problem or ("" if reason.check(ConnectionDone) else reason.getErrorMessage()))
