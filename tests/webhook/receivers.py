"""Receivers of webhooks over loopback."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from benchmarks.harness.authority import Authority
from rapida_twisted.context import CallContext, CallProgress, CallStatus, Direction
from rapida_twisted.net.http_client import make_client
from rapida_twisted.store.sqlite import SqliteStore
from rapida_twisted.webhook.status import StatusWebhook
from tests.support.blocks import named_block
from tests.webhook.clocked import SECRET


class Received:
    """A notice as a receiver got it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.body: bytes = request.content.read()
        self.event = json.loads(self.body)
        self.call: str = self.event["call"]["context_id"]
        self.status: str = self.event["call"]["call_status"]
        self.signature: str = request.getHeader("X-Rapida-Signature")


class Receiver(Resource):
    """A receiver that answers as ``answer`` says: with a status, or with None, and then the test answers, or nobody."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.received: list[Received] = []
        self.answer: Callable[[Received], int | None] = lambda received: 204
        self.headers: dict[str, str] = {}

    def render_POST(self, request: Request) -> Any:
        """Take a notice."""
        received = Received(request)
        self.received.append(received)
        code = self.answer(received)
        if code is None:
            # The client may be gone before anybody answers.
            request.notifyFinish().addErrback(lambda _: None)
            return NOT_DONE_YET
        request.setResponseCode(code)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        return b""

    @property
    def told(self) -> list[tuple[str, str]]:
        """Call and status of all that came."""
        return [(received.call, received.status) for received in self.received]


class Endless(Resource):
    """Takes a notice, and answers with a body that never ends, as fast as it is read."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.sent_bytes = 0
        self.gone: Deferred[None] = Deferred()

    def render_POST(self, request: Request) -> int:
        """Begin."""
        request.notifyFinish().addErrback(lambda _: self.gone.callback(None))
        request.registerProducer(self, False)
        self.request = request
        return NOT_DONE_YET

    def resumeProducing(self) -> None:
        """More of it."""
        self.sent_bytes += 65_536
        self.request.write(bytes(65_536))

    def stopProducing(self) -> None:
        """Nobody is there any more."""


class QuietSite(Site):
    """A site that logs nothing: the receiver's own log is not what is looked at."""

    noisy = False

    def log(self, request: Request) -> None:
        """Say nothing."""


def verify_with_the_page(secret: str, received: Received) -> None:
    """What the docs' receiver makes of a notice's signature: nothing, or ValueError."""
    page_code()["verify"](secret, received.signature, received.body)


def page_code() -> dict[str, Any]:
    """The names of the page's receiver."""
    os.environ.setdefault("STATUS_WEBHOOK__SECRET", SECRET)
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(named_block("webhook.rst", "receiver"), names)
    return names


class LoopbackTestCase(TestCase):
    """A call store in a file, the program's own HTTP client, and receivers on loopback."""

    def setUp(self) -> Deferred[None]:
        """Open the store."""
        self.hooks: list[StatusWebhook] = []
        self.path = Path(self.mktemp()).absolute() / "calls.sqlite3"
        self.store = SqliteStore(self.path, reactor)
        return self.store.open()

    def tearDown(self) -> Deferred[None]:
        """Stop what runs."""
        return Deferred.fromCoroutine(self.end())

    async def end(self) -> None:
        """Stop the webhooks, then the store."""
        for hook in self.hooks:
            await hook.stop()
        await self.store.close()

    def start_hook(self, url: str, ca_file: str = "", pause_s: float = 0.01) -> StatusWebhook:
        """A webhook that runs until the test is over, with short pauses."""
        client, pool = make_client(reactor, ca_file)
        self.addCleanup(pool.closeCachedConnections)
        hook = StatusWebhook(
            self.store, url, SECRET, treq_client=client, reactor=reactor, pause=lambda tries: pause_s
        )  # fmt: skip
        self.hooks.append(hook)
        hook.start()
        return hook

    async def serve(self, resource: Resource, port: int = 0) -> str:
        """The address of a receiver that runs until the test is over."""
        site = QuietSite(resource)
        listening = await TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(site)
        self.addCleanup(listening.stopListening)
        return f"http://127.0.0.1:{listening.getHost().port}/calls"

    async def serve_tls(self, resource: Resource) -> tuple[str, str]:
        """The address of one with TLS, and the file of its authority."""
        authority = Authority(Path(self.mktemp()))
        authority.certify("127.0.0.1")
        context = ssl.DefaultOpenSSLContextFactory(str(authority.key), str(authority.certificate))
        site = QuietSite(resource)
        listening = await SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1").listen(site)
        self.addCleanup(listening.stopListening)
        return f"https://127.0.0.1:{listening.getHost().port}/calls", str(authority.authority)

    async def change(self, call: str, *statuses: str) -> None:
        """A call's status becomes so, one after another."""
        now = time.time()
        if not any(known.context_id == call for known in await self.store.recent(1000)):
            context = CallContext(
                context_id=call, assistant_id="1", created_at=now, expires_at=now + 300,
                direction=Direction.OUTBOUND, call_status=CallStatus.NEW, called="200",
            )  # fmt: skip
            await self.store.add(context, 1000)
        for status in statuses:
            await self.store.follow(call, CallProgress(status=CallStatus(status), at=time.time()), notify=True)

    async def until(self, done: Callable[[], Any], at_most_s: float = 5.0) -> None:
        """Wait for something."""
        until_s = time.monotonic() + at_most_s
        while not done():
            self.assertLess(time.monotonic(), until_s, "it did not come to that")
            await deferLater(reactor, 0.005)

    async def until_empty(self) -> None:
        """Wait until the store is empty."""
        until_s = time.monotonic() + 5
        while await self.store.notices(1):
            self.assertLess(time.monotonic(), until_s, "the store did not get empty")
            await deferLater(reactor, 0.005)
