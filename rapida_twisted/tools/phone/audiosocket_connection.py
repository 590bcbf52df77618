"""A phone call's AudioSocket connection: audio is heard as it arrives."""

from __future__ import annotations

from uuid import UUID

from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint

from rapida_twisted.protocols.audiosocket_asterisk import AsteriskProtocol
from rapida_twisted.tools.phone.call import PhoneCall, connection_failed
from rapida_twisted.wire.audiosocket import ErrorBits

__all__ = ["AudioSocketConnection"]


class AudioSocketConnection(AsteriskProtocol):
    def __init__(self, call_id: UUID, call: PhoneCall) -> None:
        super().__init__(call_id)
        self._phone_call = call

    @classmethod
    async def dial(cls, endpoint: IStreamClientEndpoint, call_id: UUID, call: PhoneCall) -> AudioSocketConnection:
        """Connect.

        :raises SetUpFailed: the server is unreachable.
        """
        connection = cls(call_id, call)
        try:
            await connectProtocol(endpoint, connection)
        except (ConnectError, DNSLookupError) as error:
            raise connection_failed(error, "AudioSocket address (--audiosocket)") from None
        return connection

    def send_audio(self, samples: bytes, rate_hz: int = 8000) -> bool:
        sent = super().send_audio(samples, rate_hz)
        if sent:
            self._phone_call.audio_sent(samples)
        return sent

    def queue_figures(self) -> None:
        """Asterisk keeps no queue for AudioSocket."""

    def abort(self) -> None:
        self.transport.abortConnection()

    def audio_received(self, samples: bytes, rate_hz: int) -> None:
        self._phone_call.audio_received(samples, rate_hz)

    def hangup_received(self) -> None:
        self._phone_call.hang_up_received("it sent a hangup frame")

    def error_received(self, code: ErrorBits) -> None:
        if code & ErrorBits.HANGUP:
            self._phone_call.hang_up_received(f"it reported error {code!r}")

    def call_ended(self, problem: str) -> None:
        # A server that is killed looks like one that just closes. Asterisk's end of a call is a hangup frame.
        self._phone_call.connection_lost(problem or "the server closed it without a hangup frame")
