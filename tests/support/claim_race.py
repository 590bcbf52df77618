"""A process that claims all contexts of a store as fast as it can, and prints those it got.

Run by test_sqlite and test_redis, several at once: each waits until all have the store open.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.utils import getProcessOutputAndValue

from rapida_twisted.errors import ContextClaimed
from rapida_twisted.store.url import open_store

PROCESSES = 4


async def main(reactor: Any, url: str, now: str, meeting_place: str) -> None:
    """Claim everything that is pending, in the order of all other processes."""
    store = open_store(url, Path.cwd(), reactor, f"racer-{os.getpid()}")
    await store.open()
    Path(meeting_place, str(os.getpid())).touch()
    while len(list(Path(meeting_place).iterdir())) < PROCESSES:
        await task.deferLater(reactor, 0.005)
    won = []
    for found in await store.recent(10_000):
        try:
            await store.claim(found.context_id, transport="audiosocket", peer=str(sys.argv), now=float(now))
        except ContextClaimed:
            continue
        won.append(found.context_id)
    await store.close()
    sys.stdout.write("\n".join(won))


async def race(url: str, now: float, meeting_place: Path) -> list[list[str]]:
    """Have several processes claim the same contexts; gives what each got."""
    meeting_place.mkdir(parents=True)
    words = [__file__, url, str(now), str(meeting_place.absolute())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    racing = [getProcessOutputAndValue(sys.executable, words, env=environment) for _ in range(PROCESSES)]
    outcomes = await gatherResults(racing)
    assert [(error, code) for _, error, code in outcomes] == [(b"", 0)] * PROCESSES, outcomes
    return [output.decode().split() for output, _, _ in outcomes]


if __name__ == "__main__":
    task.react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
