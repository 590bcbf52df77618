"""The store under test, and the calls that the tests put into it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from rapida_twisted.context import CallContext, CallStatus, Direction, EndReason

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object  # so that trial runs them for the stores alone

NOW = 1_795_000_000.25


def context(number: int = 1, **changes: Any) -> CallContext:
    """A pending context, made at ``NOW`` plus its number and claimable for 300 s."""
    values: dict[str, Any] = {
        "context_id": f"626162e8-ed7b-44b4-b10d-{number:012d}",
        "assistant_id": "123456789",
        "created_at": NOW + number,
        "expires_at": NOW + number + 300,
    }
    return CallContext(**{**values, **changes})


def outbound_context(number: int = 1) -> CallContext:
    """A pending context of a call that is to be placed."""
    return context(number, direction=Direction.OUTBOUND, call_status=CallStatus.NEW, credential="office")


class StoreTestCase(TestCase):
    """A subclass is also a TestCase of trial, and gives the store."""

    def make_store(self, owner: str = "") -> Any:
        """A new store of a process of that name, not open yet."""
        raise NotImplementedError

    async def opened(self, owner: str = "") -> Any:
        """An open store, that is closed after the test."""
        store = self.make_store(owner)
        await store.open()
        self.addCleanup(store.close)
        return store

    async def claim(self, store: Any, number: int = 1, *, now: float = NOW + 2) -> CallContext:
        """Claim the context of that number."""
        claimed: CallContext = await store.claim(
            context(number).context_id, transport="audiosocket", peer="192.0.2.7:40312", now=now
        )
        return claimed

    async def finish(self, store: Any, number: int = 1, *, now: float = NOW + 60) -> CallContext:
        """Finish the context of that number."""
        ended: CallContext = await store.finish(
            context(number).context_id, reason=EndReason.CALLER_HANGUP, audio_in_s=2.5, audio_out_s=1.5, now=now
        )
        return ended

    def refused(self, asked: Coroutine[Any, Any, Any] | Deferred[Any], error: type[Exception]) -> Deferred[Any]:
        """What was asked fails with exactly this error; gives the error."""
        asked = asked if isinstance(asked, Deferred) else Deferred.fromCoroutine(asked)

        def exactly(failed: Exception) -> Exception:
            self.assertEqual(type(failed), error)
            return failed

        return self.assertFailure(asked, error).addCallback(exactly)

    async def outbound(self, number: int = 1) -> Any:
        """A store with an outbound call that waits to be placed."""
        store = await self.opened()
        await store.add(outbound_context(number), 10)
        return store

    async def pass_by(self, store: Any, now: float) -> None:
        """Time passes, for a store that has a clock of its own."""
