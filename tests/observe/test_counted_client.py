"""Requests that are counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.observe.counted_client import CountedClient


class FakeClient:
    """Answers with whatever the test gives it."""

    def __init__(self) -> None:
        self.result: Any = None
        self.asked: list[tuple[Any, ...]] = []
        self.pool = "a pool"

    def request(self, *words: Any, **named: Any) -> Deferred[Any]:
        """Keep it."""
        self.asked.append((*words, named))
        return self.result if isinstance(self.result, Deferred) else succeed(SimpleNamespace(code=self.result))

    post = request


class CountedClientTests(SynchronousTestCase):
    """What is told of each request."""

    def test_outcomes(self) -> None:
        """A status's class, or why there was none; the result itself is passed on."""
        client, told = FakeClient(), list[str]()
        counted = CountedClient(client, told.append, lambda error: isinstance(error, ConnectionRefusedError))
        for code in (200, 204, 404, 503):
            client.result = code
            self.assertEqual(self.successResultOf(counted.request("GET", "http://x/", params={})).code, code)
        for error in (ConnectionRefusedError(), ValueError()):
            client.result = fail(error)
            self.failureResultOf(counted.post("http://x/"), type(error))
        client.result = Deferred()
        waiting = counted.request("GET", "http://x/")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(told, ["2xx", "2xx", "4xx", "5xx", "no_connection", "no_answer", "no_answer"])
        self.assertEqual(client.asked[0], ("GET", "http://x/", {"params": {}}))
        self.assertEqual(counted.pool, "a pool")
