"""Health over HTTP."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.store.memory import MemoryStore
from tests.web.in_memory import Connection, Face, SlowStore


class HealthTests(SynchronousTestCase):
    """/healthz and /readyz need no key."""

    def test_healthz(self) -> None:
        """The process answers, also while draining."""
        face = Face()
        face.draining = True
        reply = face.ask("/healthz", key=None)
        self.assertEqual((reply.status, reply.body), (200, b"ok"))
        self.assertEqual(face.ask("/healthz", key=None, method="HEAD").headers["content-length"], "2")

    def test_ready(self) -> None:
        """200 when a call would be taken."""
        reply = Face().ask("/readyz", key=None)
        self.assertEqual(reply.status, 200)
        self.assertEqual(json.loads(reply.body), {"ready": True, "store": "ok", "draining": False})

    def test_assistants(self) -> None:
        """What assistants tell of themselves is shown to those who have a key, and decides nothing."""
        face = Face()
        face.assistants = {"*": {"upstream": "far.example:443", "state": "open"}}
        reply = face.ask("/readyz")
        self.assertEqual(reply.status, 200)
        self.assertEqual(json.loads(reply.body)["assistants"], face.assistants)
        for key in (None, "rpd-bad"):
            reply = face.ask("/readyz", key=key)
            self.assertEqual((reply.status, json.loads(reply.body)["ready"]), (200, True))
            self.assertNotIn(b"far.example", reply.body)

    def test_draining(self) -> None:
        """503 when the server is about to stop."""
        face = Face()
        face.draining = True
        reply = face.ask("/readyz", key=None)
        self.assertEqual(reply.status, 503)
        self.assertEqual(json.loads(reply.body), {"ready": False, "store": "ok", "draining": True})

    def test_store_down(self) -> None:
        """503 when the store is down; where it is does not show."""
        reply = Face(store=DownStore()).ask("/readyz", key=None)
        self.assertEqual(reply.status, 503)
        self.assertEqual(json.loads(reply.body), {"ready": False, "store": "unavailable", "draining": False})

    def test_store_silent(self) -> None:
        """503 when the store says nothing for long."""
        face = Face(store=SlowStore())
        connection = Connection(face.site)
        connection.send(b"GET /readyz HTTP/1.1\r\n\r\n")
        face.clock.advance(11)
        self.assertEqual([reply.status for reply in connection.replies()], [503])


class DownStore(MemoryStore):
    """A store that is down."""

    def check(self) -> Deferred[None]:
        """Fail."""
        return fail(StoreUnavailable("the call store /secret/path is locked"))
