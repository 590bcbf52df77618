"""Tracks one outbound call: its status and its deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from rapida_twisted.asterisk.ari.client import channel_id_of
from rapida_twisted.asterisk.outbound.progress import ChannelUpdate, end_of
from rapida_twisted.context import CallContext, CallProgress, CallStatus, EndReason

__all__ = ["TrackedCall"]


@attrs.define(eq=False, slots=False, repr=False)
class TrackedCall:
    """An outbound call from its registration to the end of its channel.

    :param record: stores each change of the call's progress.
    :param on_answered: called once, when the call is answered.
    :param on_over: called once, when the call is over.
    :param now: wall-clock time in UNIX seconds.
    """

    _log = Logger()

    _context: CallContext
    _record: Callable[[str, CallProgress], None] = attrs.field(kw_only=True)
    _on_answered: Callable[[TrackedCall], None] = attrs.field(kw_only=True)
    _on_over: Callable[[TrackedCall], None] = attrs.field(kw_only=True)
    _reactor: Any = attrs.field(kw_only=True)
    _now: Callable[[], float] = attrs.field(kw_only=True)
    placed = False
    """Whether Asterisk took the call, so that its channel can be looked up."""
    admitted = False
    """Whether the limiter admitted the call, so that it occupies a place."""
    cancelled = False
    """Whether it was cancelled before its answer."""
    _deadline: IDelayedCall | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.context_id = self._context.context_id
        self.channel_id = channel_id_of(self.context_id)
        self.created_at = self._context.created_at
        self.answered_at = self._context.answered_at
        self.status = self._context.call_status or CallStatus.NEW
        self._dial_status = self._context.dial_status

    def __repr__(self) -> str:
        return f"<TrackedCall {self.context_id} {self.status.value}>"

    @property
    def over(self) -> bool:
        return self.status.over

    @property
    def answered(self) -> bool:
        """Whether it was answered, over or not."""
        return self.answered_at is not None

    def progressed(self, status: CallStatus, dial_status: str = "") -> None:
        """The call has this status, or had it: a late or repeated report changes nothing."""
        is_next = status.comes_after(self.status)
        if is_next or status is self.status:
            self._dial_status = dial_status or self._dial_status
        if not is_next:
            return
        self.status = status
        self._record(self.context_id, CallProgress(status=status, at=self._now(), dial_status=self._dial_status))
        if status is CallStatus.ANSWERED:
            self.answered_at = self._now()
            self._log.info("call {id}: answered", id=self.context_id)
            self._on_answered(self)

    def update(self, update: ChannelUpdate) -> None:
        """Apply an event of its channel."""
        if update.destroyed:
            self.channel_ended(update.cause, update.cause_text)
        elif update.status is not None:
            self.progressed(update.status, update.dial_status)
        else:
            self._dial_status = update.dial_status or self._dial_status

    def channel_ended(self, cause: int | None = None, cause_text: str = "") -> None:
        status, reason = end_of(
            status=self.status, cancelled=self.cancelled, dial_status=self._dial_status, cause=cause
        )
        self.end(status, reason, cause_text, cause=cause, dial_status=self._dial_status)

    def end(
        self, status: CallStatus, reason: EndReason, why: str, *, cause: int | None = None, dial_status: str = ""
    ) -> None:
        """End the call; only the first call of this method counts.

        :param why: Asterisk's text for the cause, or the reason here.
        :param cause: Asterisk's cause.
        """
        if self.over:
            return
        self.status = status
        self.set_deadline(0)
        causes = " ".join(str(part) for part in (cause, why) if part not in (None, ""))
        self._log.info(
            "call {id}: {status}{reason}{cause}", id=self.context_id, status=status.value,
            reason=f", {reason.value}" if status is CallStatus.FAILED else "", cause=f" ({causes})" if causes else "",
        )  # fmt: skip
        self._record(
            self.context_id,
            CallProgress(
                status=status, at=self._now(), dial_status=dial_status, cause=cause, cause_text=why, reason=reason
            ),
        )
        self._on_over(self)

    def set_deadline(self, seconds: float, call: Callable[..., Any] | None = None) -> None:
        """Replace the deadline: call a function with this call later; None: no deadline."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None if call is None else self._reactor.callLater(max(0.0, seconds), call, self)
