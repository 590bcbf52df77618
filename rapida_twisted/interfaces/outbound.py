"""Placing calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from twisted.internet.defer import Deferred
from zope.interface import Interface

from rapida_twisted.context import CallContext

__all__ = ["IOutbound", "OutboundCall"]


@dataclass(frozen=True, kw_only=True)
class OutboundCall:
    """A call to be placed."""

    assistant_id: str
    to: str
    """The number, or with a credential that has no trunk, the endpoint."""
    caller: str = ""
    """The caller id that the called party shall see."""
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Variables of the channel, and of the context."""
    credential: str = ""
    """The vault's name for the Asterisk and the trunk; empty: the only one, or the one called ``default``."""
    context: str = ""
    """The dialplan context of the answered call; empty: from the settings."""
    stasis: bool = False
    """Whether the call goes to our Stasis application instead, and needs no dialplan."""
    answer_timeout_s: float = 0.0
    """How long it may ring (s); 0: from the settings."""
    key_name: str = ""
    """The name of the API key that requested it, if it has one."""


class IOutbound(Interface):
    """Places calls."""

    def place(call: OutboundCall) -> Deferred[CallContext]:
        """Register a call and have Asterisk place it.

        :return: fires when Asterisk has taken the call; if it has to wait in a queue, at once, with ``call_status``
            new. Fails with :class:`~rapida_twisted.errors.CallNotPlaced`, ``TooManyCalls``, ``Draining`` or
            ``StoreUnavailable``. Cancelling it does not cancel the call.
        """

    def hang_up(context_id: str) -> bool:
        """Cancel a call, or hang it up, whatever state its media is in. False if this process has no such call."""
