"""A phone's line over AudioSocket, where audio is heard as it comes."""

from __future__ import annotations

from uuid import UUID

from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint

from rapida_twisted.protocols.audiosocket_asterisk import AsteriskProtocol
from rapida_twisted.tools.phone.call import PhoneCall, SetUpFailed
from rapida_twisted.wire.audiosocket import ErrorBits

__all__ = ["AudioSocketLine"]


class AudioSocketLine(AsteriskProtocol):
    """An AudioSocket connection as a phone call's line."""

    def __init__(self, call_id: UUID, call: PhoneCall) -> None:
        super().__init__(call_id)
        self._phone_call = call

    @classmethod
    async def dial(cls, endpoint: IStreamClientEndpoint, call_id: UUID, call: PhoneCall) -> AudioSocketLine:
        """Connect.

        :raises SetUpFailed: nobody is there.
        """
        try:
            return await connectProtocol(endpoint, cls(call_id, call))
        except (ConnectError, DNSLookupError) as error:
            raise SetUpFailed(
                f"the media connection failed ({str(error).rstrip('.')}): is the server running, and is this its"
                " AudioSocket address (--audiosocket)?"
            ) from None

    def send_audio(self, samples: bytes, rate_hz: int = 8000) -> bool:
        sent = super().send_audio(samples, rate_hz)
        if sent:
            self._phone_call.line_said(samples)
        return sent

    def queue_figures(self) -> None:
        """There is no queue."""

    def abort(self) -> None:
        """Close at once."""
        self.transport.abortConnection()

    def audio_received(self, samples: bytes, rate_hz: int) -> None:
        self._phone_call.line_heard(samples, rate_hz)

    def hangup_received(self) -> None:
        self._phone_call.line_hung_up("it sent a hangup frame")

    def error_received(self, code: ErrorBits) -> None:
        if code & ErrorBits.HANGUP:
            self._phone_call.line_hung_up(f"it reported error {code!r}")

    def call_ended(self, problem: str) -> None:
        self._phone_call.line_gone(problem)
