"""Hangs up calls, for an operator and for other processes that share the store."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from twisted.logger import Logger

from rapida_twisted.asterisk.outbound.calls import OutboundCalls
from rapida_twisted.context import EndReason
from rapida_twisted.media.calls import Calls

__all__ = ["CallControl"]

MEDIA_FIRST_S = 1.5
"""How long (s) another process that has a call's media may take to end it, with its reason, before the channel is hung
up."""


@attrs.define(eq=False)
class CallControl:
    """Hangs up calls of this process.

    :param owner: this process's name in the store.
    """

    _log = Logger()

    _calls: Calls
    _outbound: OutboundCalls
    _owner: str

    def hang_up(self, context_id: str) -> bool:
        """Hang up the call of this context in any state. False if this process does not have it."""
        call = self._calls.get(context_id)
        hung_up = call is not None and call.end(EndReason.OPERATOR_HANGUP)
        return self._outbound.hang_up(context_id) or hung_up

    def obey(self, order: Mapping[str, str]) -> None:
        """Carry out an order of another process that shares the store."""
        context_id = order.get("hangup", "")
        if context_id and order.get("media", self._owner) not in ("", self._owner):
            self._outbound.hang_up_later(context_id, MEDIA_FIRST_S)
        elif context_id and not self.hang_up(context_id):
            self._log.info("call {id}: another server ordered to hang it up, but it is not up here", id=context_id)
