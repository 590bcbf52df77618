"""A process that claims all contexts of a store as fast as it can, and prints them: run by test_sqlite and test_redis."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from rapida_twisted.contexts.url import open_store
from rapida_twisted.errors import ContextClaimed


async def main(reactor: Any, url: str, now: str) -> None:
    """Claim everything that is pending, in the order of all other processes."""
    store = open_store(url, Path.cwd(), reactor)
    await store.open()
    won = []
    for found in await store.recent(10_000):
        try:
            await store.claim(found.context_id, transport="audiosocket", peer=str(sys.argv), now=float(now))
        except ContextClaimed:
            continue
        won.append(found.context_id)
    await store.close()
    sys.stdout.write("\n".join(won))


if __name__ == "__main__":
    task.react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
