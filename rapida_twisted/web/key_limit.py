"""How many calls a key may have at once, where the key file says so."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import DeferredLock

from rapida_twisted.context import CallContext
from rapida_twisted.credentials.api_keys import Grant
from rapida_twisted.errors import TooManyCalls
from rapida_twisted.interfaces import ICallStore

__all__ = ["KeyLimit"]


class KeyLimit:
    """Counts the calls of a key in the store, which knows those of other processes too.

    Within this process the limit is exact. Of several that register at the same moment each may be one call too far.

    :param store: knows the calls.
    :param now: wall-clock time in UNIX seconds.
    :param refused: called at each call that is refused.
    """

    def __init__(self, store: ICallStore, now: Callable[[], float], refused: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._now = now
        self._refused = refused
        self._locks: dict[str, DeferredLock] = {}

    async def check(self, grant: Grant) -> None:
        """:raises TooManyCalls: the key has as many calls as it may."""
        if not grant.max_calls:
            return
        count = await self._store.calls_of_key(grant.key_name, now=self._now())
        if count >= grant.max_calls:
            self._refused()
            raise TooManyCalls(f"{count} calls of this API key wait or are up, and its limit is {grant.max_calls}")

    async def add(self, context: CallContext, grant: Grant, max_pending: int) -> None:
        """Keep a new context, if the key may have one more.

        :raises TooManyCalls: it may not, or too many calls wait already.
        """
        if not grant.max_calls:
            await self._store.add(context, max_pending)
            return
        # Between the count and the call nobody else of this key may come.
        lock = self._locks.setdefault(grant.key_name, DeferredLock())
        await lock.acquire()
        try:
            await self.check(grant)
            await self._store.add(context, max_pending)
        finally:
            lock.release()
