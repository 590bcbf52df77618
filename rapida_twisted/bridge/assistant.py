"""``bridge``: another server's assistant answers. Its audio is the caller's as soon as it is due, and the other way."""

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
from rapida_twisted.interfaces import ICall, ICallPlumbing, IFarEnd, IFarEndUser
from rapida_twisted.media.assistant import Assistant

__all__ = ["Bridge", "Carry"]

EARLY_DIGITS = 32
"""So many keys wait for the connection at the most."""

Carry = Callable[[CallContext, IFarEndUser], Awaitable[IFarEnd]]
"""Connects a call to the other server, for its user.

:raises UpstreamFailed: it did not take the call.
"""


@implementer(IFarEndUser)
class Bridge(Assistant):
    """One call that is carried on.

    :param carry: connects it.
    :param format: of the audio there.
    :param fallback: what becomes of a call that the other server does not take, or loses.
    """

    _log = Logger()

    def __init__(self, carry: Carry, format: AudioFormat, fallback: Fallback) -> None:
        self.rate_hz = format.rate_hz
        self._format = format
        self._carry = carry
        self._fallback = fallback
        self._upward: Converter | None = converter(format.linear(), format)
        self._downward: Converter | None = converter(format, format.linear())
        self._far_end: IFarEnd | None = None
        self._call: ICallPlumbing | None = None
        self._failure: Deferred[UpstreamFailed] = Deferred()
        self._unheard_bytes = 0
        self._early_digits = ""

    async def answer(self, call: ICall) -> None:
        """Connect, and stay for what may go wrong."""
        self._call = plumbing = ICallPlumbing(call)
        try:
            self._attach(plumbing, await self._carry(call.context, self))
            failure = await self._failure
        except UpstreamFailed as error:
            failure = error
        await self._fallback.take_over(plumbing, failure)

    def _attach(self, call: ICallPlumbing, far_end: IFarEnd) -> None:
        self._far_end = far_end
        for digit in self._early_digits:
            far_end.send_digit(digit)
        call.fetch(far_end.take if self._downward is None else self._fetch)

    def _detach(self) -> IFarEnd | None:
        """Nothing goes to the far end any more; gives it, if it was there."""
        far_end, self._far_end = self._far_end, None
        if far_end is not None and self._call is not None:
            self._log.info(
                "call {id}: was carried on; {unheard:.0f} ms came before the connection, {dropped:.0f} ms were dropped,"
                " {shifted} frames shifted for its clock",
                id=self._call.context.context_id, unheard=self._format.linear().ms(self._unheard_bytes),
                dropped=far_end.dropped_ms, shifted=far_end.shifted,
            )  # fmt: skip
        return far_end

    def _fetch(self) -> bytes | None:
        frame = self._far_end.take() if self._far_end is not None else None
        return frame if frame is None or self._downward is None else self._downward(frame)

    # What the call says

    def audio_received(self, call: ICall, samples: bytes) -> None:
        """The caller was heard: there, at once. What comes before the connection is not kept for later, when it would
        arrive in a burst, and an echo of it would be that much behind for the whole call."""
        if self._far_end is not None:
            self._far_end.send_audio(samples if self._upward is None else self._upward(samples))
        else:
            self._unheard_bytes += len(samples)

    def digit_received(self, call: ICall, digit: str) -> None:
        """The caller pressed a key: there, if need be as soon as there is a connection."""
        if self._far_end is not None:
            self._far_end.send_digit(digit)
        else:
            self._early_digits = (self._early_digits + digit)[-EARLY_DIGITS:]

    def call_ended(self, call: ICall, reason: EndReason) -> None:
        """The call is over, and so it is there."""
        far_end = self._detach()
        if far_end is not None:
            far_end.hang_up()

    # What the far end says (IFarEndUser)

    def far_end_flushed(self) -> None:
        """The assistant there was interrupted."""
        if self._call is not None:
            self._call.flush()

    def far_end_hung_up(self) -> None:
        """The assistant there hung up."""
        self._detach()
        if self._call is not None:
            self._call.hang_up()

    def far_end_failed(self, failure: UpstreamFailed) -> None:
        """The connection there is lost."""
        self._detach()
        if self._call is not None:
            self._call.fetch(None)
        self._failure.callback(failure)
