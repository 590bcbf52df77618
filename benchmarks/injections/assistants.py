"""Assistants that misbehave."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

from twisted.internet.defer import Deferred

import rapida_twisted
from rapida_twisted import Assistant, Call

__all__ = ["Blocker", "Leaker", "Runaway", "Sleeper"]

SOUND = next((Path(rapida_twisted.__file__).parent / "assistants").glob("*.wav"))


class Runaway(Assistant):
    """Ignores that its call has ended."""

    async def answer(self, call: Call) -> None:
        while True:
            try:
                await call.digits(1)
            except Exception:
                pass


class Leaker(Assistant):
    """Begins things, and awaits none of them."""

    async def answer(self, call: Call) -> None:
        for _ in range(10):
            call.play(SOUND)
        call.play(self.endless())
        call.wait(3600)
        call.digits(100, timeout_s=3600)

    async def endless(self) -> AsyncIterator[bytes]:
        yield bytes(16_000)
        await Deferred[None]()


class Blocker(Assistant):
    """Blocks the reactor for 2 s."""

    async def answer(self, call: Call) -> None:
        await call.wait(1)
        time.sleep(2)  # noqa: ASYNC251


class Sleeper(Assistant):
    """Blocks the reactor for a minute."""

    async def answer(self, call: Call) -> None:
        await call.wait(1)
        time.sleep(60)  # noqa: ASYNC251
