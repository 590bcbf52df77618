"""Health over HTTP."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.store.memory import MemoryStore
from tests.web.in_memory import KEY, Connection, InMemoryHttp, SlowStore


class HealthTests(SynchronousTestCase):
    """/healthz and /readyz need no key."""

    def test_healthz(self) -> None:
        """The process answers, also while draining."""
        http = InMemoryHttp()
        http.draining = True
        response = http.request("/healthz", key=None)
        self.assertEqual((response.status, response.body), (200, b"ok"))
        self.assertEqual(http.request("/healthz", key=None, method="HEAD").headers["content-length"], "2")

    def test_ready(self) -> None:
        """200 when a call would be taken."""
        response = InMemoryHttp().request("/readyz", key=None)
        self.assertEqual(response.status, 200)
        self.assertEqual(json.loads(response.body), {"ready": True, "store": "ok", "draining": False})

    def test_assistants(self) -> None:
        """What assistants tell of themselves is shown to those who have a key, and decides nothing."""
        http = InMemoryHttp()
        http.assistants = {"*": {"upstream": "far.example:443", "state": "open"}}
        response = http.request("/readyz")
        self.assertEqual(response.status, 200)
        self.assertEqual(json.loads(response.body)["assistants"], http.assistants)
        for key in (None, "rpd-bad"):
            response = http.request("/readyz", key=key)
            self.assertEqual((response.status, json.loads(response.body)["ready"]), (200, True))
            self.assertNotIn(b"far.example", response.body)

    def test_draining(self) -> None:
        """503 when the server is about to stop."""
        http = InMemoryHttp()
        http.draining = True
        response = http.request("/readyz", key=None)
        self.assertEqual(response.status, 503)
        self.assertEqual(json.loads(response.body), {"ready": False, "store": "ok", "draining": True})

    def test_store_down(self) -> None:
        """503 when the store is down; where it is does not show."""
        response = InMemoryHttp(store=DownStore()).request("/readyz", key=None)
        self.assertEqual(response.status, 503)
        self.assertEqual(json.loads(response.body), {"ready": False, "store": "unavailable", "draining": False})

    def test_store_silent(self) -> None:
        """503 when the store says nothing for long."""
        http = InMemoryHttp(store=SlowStore())
        connection = Connection(http.site)
        connection.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        http.clock.advance(11)
        self.assertEqual([response.status for response in connection.responses()], [503])


class DownStore(MemoryStore):
    """A store that is down."""

    def check(self) -> Deferred[None]:
        """Fail."""
        return fail(StoreUnavailable("the call store /secret/path is locked"))


class StrangersTests(SynchronousTestCase):
    """Strangers do not keep the store busy."""

    def test_kept(self) -> None:
        """They get what was found in the last second; a key has the store looked at."""
        http = InMemoryHttp(store=(store := SlowStore()))
        first = Connection(http.site)
        first.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        store.waiting[0].callback(None)
        self.assertEqual([response.status for response in first.responses()], [200])
        for _ in range(5):
            self.assertEqual(http.request("/readyz", key=None).status, 200)
        self.assertEqual(len(store.waiting), 1)
        http.clock.advance(1.1)
        second = Connection(http.site)
        second.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(http.request("/readyz", key=None).status, 200)
        self.assertEqual(len(store.waiting), 2)
        store.waiting[1].errback(StoreUnavailable("gone"))
        self.assertEqual(http.request("/readyz", key=None).status, 503)
        third = Connection(http.site)
        third.send(f"GET /readyz HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode())
        self.assertEqual(len(store.waiting), 3)
        store.waiting[2].callback(None)
        self.assertEqual([response.status for response in third.responses()], [200])
        for each in (first, second, third):
            each.lose()
