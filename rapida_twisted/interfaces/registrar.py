"""Registering calls, as the HTTP face and Stasis see it."""

from __future__ import annotations

from zope.interface import Interface

from rapida_twisted.context import CallContext, CallParameters
from rapida_twisted.credentials.grant import FULL_GRANT, Grant

__all__ = ["IRegistrar"]


class IRegistrar(Interface):
    """Registers calls: what the HTTP face and Stasis need of it."""

    def check(assistant_id: str) -> None:
        """Check that the server takes calls to this assistant now.

        :raises Draining: the server takes no new calls.
        :raises UnknownAssistant: no assistant answers this id.
        """

    async def check_key(grant: Grant) -> None:
        """Check that a key may have one more call.

        :raises TooManyCalls: it has reached its limit.
        """

    async def register(assistant_id: str, parameters: CallParameters, grant: Grant = FULL_GRANT) -> CallContext:
        """Keep a new context for a call.

        :param grant: what the key that registers the call may do.
        :raises TooManyCalls: too many calls wait for their media, or the key has reached its limit.
        :raises StoreUnavailable: the store can't keep it now.
        :raises UpstreamFailed: the assistant would not answer it.
        """
