"""One bridged call: relays audio and digits between the caller and another server's assistant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from rapida_twisted.audio.convert import Converter, converter
from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.bridge.fallback import Fallback
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import UpstreamFailed
from rapida_twisted.interfaces import ICallPlumbing, IFarEnd, IFarEndUser
from rapida_twisted.interfaces.typed import Call, CallPlumbing
from rapida_twisted.media.assistant import Assistant

__all__ = ["BridgedCall", "Connect"]

MAX_EARLY_DIGITS = 32
"""Digits kept until the far end is connected; beyond it the oldest are dropped."""

Connect = Callable[[CallContext, IFarEndUser], Awaitable[IFarEnd]]
"""Connects a call to the other server.

:raises UpstreamFailed: the server did not accept the call.
"""


@implementer(IFarEndUser)
class BridgedCall(Assistant):
    """The assistant of one bridged call.

    :param connect: connects the far end.
    :param format: of the far end's audio.
    :param fallback: takes over when the other server fails.
    :param relays_digits: whether the other server gets the caller's digits.
    """

    _log = Logger()

    def __init__(self, connect: Connect, format: AudioFormat, fallback: Fallback, relays_digits: bool = True) -> None:
        self.rate_hz = format.rate_hz
        self._format = format
        self._connect = connect
        self._fallback = fallback
        self._relays_digits = relays_digits
        self._upward: Converter | None = converter(format.linear(), format)
        self._downward: Converter | None = converter(format, format.linear())
        self._far_end: IFarEnd | None = None
        self._call: CallPlumbing | None = None
        self._failure: Deferred[UpstreamFailed] = Deferred()
        self._unheard_bytes = 0
        self._early_digits = ""

    async def answer(self, call: Call) -> None:
        self._call = plumbing = ICallPlumbing(call)
        try:
            self._attach(plumbing, await self._connect(call.context, self))
            failure = await self._failure
        except UpstreamFailed as error:
            failure = error
        await self._fallback.take_over(plumbing, failure)

    def _attach(self, call: CallPlumbing, far_end: IFarEnd) -> None:
        self._far_end = far_end
        for digit in self._early_digits:
            far_end.send_digit(digit)
        call.fetch(far_end.take if self._downward is None else self._fetch)

    def _detach(self) -> IFarEnd | None:
        """Stop relaying; returns the far end, if it was connected."""
        far_end, self._far_end = self._far_end, None
        if far_end is not None and self._call is not None:
            self._log.info(
                "call {id}: was bridged; {unheard:.0f} ms came before the connection, {dropped:.0f} ms were dropped,"
                " {shifted} frames were skipped or repeated for the server's clock",
                id=self._call.context.context_id, unheard=self._format.linear().ms(self._unheard_bytes),
                dropped=far_end.dropped_ms, shifted=far_end.shifted,
            )  # fmt: skip
        return far_end

    def _fetch(self) -> bytes | None:
        frame = self._far_end.take() if self._far_end is not None else None
        return frame if frame is None or self._downward is None else self._downward(frame)

    # From the call

    def audio_received(self, call: Call, samples: bytes) -> None:
        """Relay the caller's audio at once.

        Audio before the connection is dropped: sent later, it would arrive in a burst and delay the whole call.
        """
        if self._far_end is not None:
            self._far_end.send_audio(samples if self._upward is None else self._upward(samples))
        else:
            self._unheard_bytes += len(samples)

    def digit_received(self, call: Call, digit: str) -> None:
        if not self._relays_digits:
            return
        if self._far_end is not None:
            self._far_end.send_digit(digit)
        else:
            self._early_digits = (self._early_digits + digit)[-MAX_EARLY_DIGITS:]

    def call_ended(self, call: Call, reason: EndReason) -> None:
        far_end = self._detach()
        if far_end is not None:
            far_end.hang_up()

    # IFarEndUser, called by the far end

    def far_end_flushed(self) -> None:
        if self._call is not None:
            self._call.flush()

    def far_end_hung_up(self, detail: str) -> None:
        self._detach()
        if self._call is not None:
            if detail:
                self._call.note(detail)
            self._call.hang_up()

    def far_end_failed(self, failure: UpstreamFailed) -> None:
        self._detach()
        if self._call is not None:
            self._call.fetch(None)
        self._failure.callback(failure)
