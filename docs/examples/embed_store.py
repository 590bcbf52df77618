"""The call store alone: register a call, let it be claimed, and read how it went."""

import time
from pathlib import Path
from uuid import uuid4

from twisted.internet import defer, task

from rapida_twisted import CallContext, ContextClaimed, EndReason, open_store


async def main(reactor, url: str = "memory:") -> str:
    """A call's whole life in a store; gives its last status."""
    store = open_store(url, Path.cwd(), reactor)
    await store.open()
    now = time.time()
    call = CallContext(
        context_id=str(uuid4()), assistant_id="123456789", caller="+4930123456", created_at=now, expires_at=now + 300
    )
    await store.add(call, max_pending=1000)
    await store.claim(call.context_id, transport="audiosocket", peer="192.0.2.7:40312", now=now)
    try:
        await store.claim(call.context_id, transport="audiosocket", peer="192.0.2.8:40312", now=now)
    except ContextClaimed as refusal:
        print(refusal)
    ended = await store.finish(
        call.context_id, reason=EndReason.CALLER_HANGUP, audio_in_s=2.0, audio_out_s=1.5, now=time.time()
    )
    await store.close()
    return ended.status.value


if __name__ == "__main__":
    task.react(lambda reactor: defer.Deferred.fromCoroutine(main(reactor)))
