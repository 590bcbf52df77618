"""Assistants that misbehave."""

from __future__ import annotations

import time

from rapida_twisted import Assistant, Call

__all__ = ["Blocker", "Runaway", "Sleeper"]


class Runaway(Assistant):
    """Ignores that its call has ended."""

    async def answer(self, call: Call) -> None:
        while True:
            try:
                await call.digits(1)
            except Exception:
                pass


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
