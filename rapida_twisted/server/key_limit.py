"""Limits the calls of an API key, where the key file sets a limit."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import DeferredLock

from rapida_twisted.context import CallContext
from rapida_twisted.credentials.grant import Grant
from rapida_twisted.errors import TooManyCalls
from rapida_twisted.interfaces.typed import CallStore

__all__ = ["KeyLimit"]


@attrs.define(eq=False)
class KeyLimit:
    """Counts the calls of a key in the store, which holds those of other processes too.

    Within this process the limit is exact. Each further process that registers at the same moment may exceed it by one.

    :param now: wall-clock time in UNIX seconds.
    :param refused: called for each refused call.
    """

    _store: CallStore
    _now: Callable[[], float]
    _refused: Callable[[], None]
    _locks: dict[str, DeferredLock] = attrs.field(factory=dict, init=False)

    async def check(self, grant: Grant) -> None:
        """:raises TooManyCalls: the key has reached its limit."""
        if not grant.max_calls:
            return
        count = await self._store.calls_of_key(grant.key_name, now=self._now())
        if count >= grant.max_calls:
            self._refused()
            raise TooManyCalls(f"{count} calls of this API key wait or are up, and its limit is {grant.max_calls}")

    async def add(self, context: CallContext, grant: Grant, max_pending: int) -> None:
        """Keep a new context.

        :raises TooManyCalls: the key has reached its limit, or too many calls wait for their media.
        """
        if not grant.max_calls:
            await self._store.add(context, max_pending)
            return
        # Nothing else of this key may be added between the count and the call.
        async with self._locks.setdefault(grant.key_name, DeferredLock()):
            await self.check(grant)
            await self._store.add(context, max_pending)
