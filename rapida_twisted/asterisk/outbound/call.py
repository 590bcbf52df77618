"""One outbound call, as it is followed: how far it is, and how long it may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from rapida_twisted.asterisk.ari.client import channel_id_of
from rapida_twisted.asterisk.outbound.progress import ChannelNews, end_of
from rapida_twisted.context import CallContext, CallProgress, CallStatus

__all__ = ["OutgoingCall"]


class OutgoingCall:
    """A call from its registration to the end of its channel.

    :param context: as registered.
    :param note: called with each news, to be kept.
    :param on_answered: called once, when somebody answered.
    :param on_over: called once, when the call is over.
    :param reactor: provides IReactorTime.
    :param now: wall-clock time in UNIX seconds.
    """

    _log = Logger()

    def __init__(
        self,
        context: CallContext,
        *,
        note: Callable[[str, CallProgress], None],
        on_answered: Callable[[OutgoingCall], None],
        on_over: Callable[[OutgoingCall], None],
        reactor: Any,
        now: Callable[[], float],
    ) -> None:
        self.context_id = context.context_id
        self.channel_id = channel_id_of(context.context_id)
        self.created_at = context.created_at
        self.answered_at = context.answered_at
        self.status = context.call_status or CallStatus.NEW
        self.placed = False
        """Whether Asterisk took it, so that its channel can be asked for."""
        self.admitted = False
        """Whether its turn has come, so that it takes a place."""
        self.cancelled = False
        """Whether it was taken back before anybody had answered."""
        self._dial_status = context.dial_status
        self._note = note
        self._on_answered = on_answered
        self._on_over = on_over
        self._reactor = reactor
        self._now = now
        self._deadline: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<OutgoingCall {self.context_id} {self.status.value}>"

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self.status.over

    @property
    def answered(self) -> bool:
        """Whether somebody answered, be it over or not."""
        return self.answered_at is not None

    def reached(self, status: CallStatus, dial_status: str = "") -> None:
        """It is so far, or was; what is late or comes twice changes nothing."""
        if status is self.status:
            self._dial_status = dial_status or self._dial_status
        if not status.comes_after(self.status):
            return
        self._dial_status = dial_status or self._dial_status
        self.status = status
        self._note(self.context_id, CallProgress(status=status, at=self._now(), dial_status=self._dial_status))
        if status is CallStatus.ANSWERED:
            self.answered_at = self._now()
            self._log.info("call {id}: answered", id=self.context_id)
            self._on_answered(self)

    def told(self, news: ChannelNews) -> None:
        """An event told something of its channel."""
        if news.destroyed:
            self.gone(news.cause, news.cause_text)
        elif news.status is not None:
            self.reached(news.status, news.dial_status)
        else:
            self._dial_status = news.dial_status or self._dial_status

    def gone(self, cause: int | None = None, cause_text: str = "") -> None:
        """Its channel is no more."""
        end = end_of(
            reached=self.status,
            cancelled=self.cancelled,
            dial_status=self._dial_status,
            cause=cause,
            cause_text=cause_text,
            at=self._now(),
        )
        self.end(end)

    def end(self, progress: CallProgress) -> None:
        """It is over; once."""
        if self.over:
            return
        self.status = progress.status
        self.set_deadline(0)
        self._log.info(
            "call {id}: {status}{reason}{cause}",
            id=self.context_id, status=progress.status.value,
            reason=f", {progress.reason.value}" if progress.reason and progress.status is CallStatus.FAILED else "",
            cause=_cause(progress),
        )  # fmt: skip
        self._note(self.context_id, progress)
        self._on_over(self)

    def set_deadline(self, seconds: float, call: Callable[..., Any] | None = None) -> None:
        """Have something called with this call after a time, in the place of what was to be called before."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None if call is None else self._reactor.callLater(max(0.0, seconds), call, self)


def _cause(progress: CallProgress) -> str:
    told = " ".join(str(part) for part in (progress.cause, progress.cause_text) if part not in (None, ""))
    return f" ({told})" if told else ""
