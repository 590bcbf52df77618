"""register_call(): against every kind of reply, and against the real site over loopback."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any

from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from rapida_twisted.bridge.register import register_call
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.errors import RegistrationRefused
from rapida_twisted.server.registrar import Registrar
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.web.site import RapidaSite, make_root

CONTEXT_ID = "626162e8-ed7b-44b4-b10d-2f3ca1d457ca"
KEY = "rpd-secret"


class Server(Resource):
    """Gives one answer to every request, and records the requests."""

    isLeaf = True

    def __init__(self, body: bytes = b"", code: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.body = body
        self.code = code
        self.headers = headers or {}
        self.asked: list[Request] = []

    def render(self, request: Request) -> bytes:
        """Answer."""
        self.asked.append(request)
        request.setResponseCode(self.code)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        return self.body


class Silent(Resource):
    """Never answers, or begins to and never ends."""

    isLeaf = True

    def __init__(self, beginning: bytes = b"") -> None:
        super().__init__()
        self.beginning = beginning

    def render(self, request: Request) -> int:
        """Say no more than the beginning."""
        if self.beginning:
            request.write(self.beginning)
        return NOT_DONE_YET


class AnswerTests(SynchronousTestCase):
    """What the client makes of a server's answer."""

    def register(self, resource: Resource, clock: Clock | None = None, **words: Any) -> Deferred[str]:
        """Register a call at a server in memory."""
        stub = StubTreq(resource)
        asking = Deferred.fromCoroutine(
            register_call("http://server/", "1/ü", KEY, treq_client=stub, reactor=clock or Clock(), **words)
        )
        stub.flush()
        return asking

    def refused(self, resource: Resource, status: int, words: str) -> None:
        """The server's answer is a refusal; the key is not in its text."""
        error = self.failureResultOf(self.register(resource), RegistrationRefused).value
        self.assertEqual(error.status, status)
        self.assertIn(words, error.reason)
        self.assertNotIn(KEY, f"{error!r}{error}")

    def test_context_id(self) -> None:
        """The contextId, without what may be around it."""
        for body in (CONTEXT_ID, f" {CONTEXT_ID}\r\n", CONTEXT_ID.upper()):
            self.assertEqual(self.successResultOf(self.register(Server(body.encode()))), body.strip())

    def test_request(self) -> None:
        """It asks as a dialplan does, with the key in a header alone."""
        server = Server(CONTEXT_ID.encode())
        self.successResultOf(
            self.register(server, caller="+49 30", called="100", variables={"queue": "a&b=ü", "from": "nobody"})
        )
        (request,) = server.asked
        self.assertEqual(request.method, b"GET")
        self.assertEqual(request.path, b"/v1/talk/asterisk/call/1%2F%C3%BC")
        self.assertEqual(request.args, {b"from": [b"+49 30"], b"to": [b"100"], b"queue": ["a&b=ü".encode()]})
        self.assertEqual(request.getHeader("x-api-key"), KEY)
        self.assertNotIn(KEY.encode(), request.uri)

    def test_reason(self) -> None:
        """A refusal's reason is what the server says in its header, made printable."""
        self.refused(
            Server(code=404, headers={"X-Rapida-Error": "there is no such assistant"}), 404, "no such assistant"
        )
        self.refused(Server(code=400, headers={"X-Rapida-Error": "a\x1b[31mb"}), 400, "a?[31mb")

    def test_no_reason(self) -> None:
        """Without that header it is a plain sentence; the body is never quoted."""
        self.refused(Server(b"<html>go away", 401), 401, "does not know this API key")
        self.refused(Server(b"<html>go away", 418), 418, "gave no reason")

    def test_redirect(self) -> None:
        """A redirect is not followed: the key is for this server alone."""
        server = Server(code=302, headers={"Location": "http://server/elsewhere"})
        self.refused(server, 302, "gave no reason")
        self.assertEqual(len(server.asked), 1)

    def test_no_context_id(self) -> None:
        """An answer that is something else is refused, however long it is."""
        bodies = (b"", b"Unauthorized", b"\xff", f'{{"contextId": "{CONTEXT_ID}"}}'.encode(), CONTEXT_ID.encode() * 2)
        for body in (*bodies, b"x" * 1_000_000, CONTEXT_ID.encode() + b" " * 1_000_000 + b"x"):
            self.refused(Server(body), 200, "no contextId")

    def test_endless(self) -> None:
        """An answer without end is given up as soon as it is too long."""
        asking = self.register(Silent(b"x" * 65))
        self.assertEqual(self.failureResultOf(asking, RegistrationRefused).value.status, 200)

    def test_no_answer(self) -> None:
        """A server that says nothing, or never finishes, is given up after the timeout."""
        for resource in (Silent(), Silent(b"626162e8")):
            clock = Clock()
            asking = self.register(resource, clock, timeout_s=3.0)
            clock.advance(2.9)
            self.assertNoResult(asking)
            clock.advance(0.2)
            error = self.failureResultOf(asking, RegistrationRefused).value
            self.assertEqual((error.status, error.reason), (0, "no answer within 3 s"))
            self.assertEqual(clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """Cancelling raises no refusal."""
        asking = self.register(Silent())
        asking.cancel()
        self.failureResultOf(asking, CancelledError)


class LoopbackTests(TestCase):
    """The client and the real site, over loopback."""

    def setUp(self) -> Deferred[None]:
        """A client."""
        self.pool = HTTPConnectionPool(reactor, persistent=False)
        self.client = HTTPClient(Agent(reactor, pool=self.pool))
        return Deferred.fromCoroutine(self.listen())

    async def listen(self) -> None:
        """A server that knows assistant 1."""
        self.store = MemoryStore()
        registrar = Registrar(
            self.store, "1".__eq__, now=time.time, context_ttl_s=300.0, max_pending=10, draining=lambda: False
        )
        root = make_root(
            store=self.store,
            keys=ApiKeys((KEY,)),
            registrar=registrar,
            hang_up=lambda context_id: False,
            draining=lambda: False,
        )
        self.url = await self.serve(RapidaSite(root, reactor))

    async def serve(self, factory: Factory[Any]) -> str:
        """The URL of what listens on a free port until the test is over."""
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    def register(
        self, url: str = "", assistant_id: str = "1", key: str = KEY, **words: Any
    ) -> Coroutine[Any, Any, str]:
        """Register a call."""
        return register_call(url or self.url, assistant_id, key, treq_client=self.client, reactor=reactor, **words)

    def refused(self, registering: Coroutine[Any, Any, str]) -> Deferred[RegistrationRefused]:
        """The refusal."""
        return self.assertFailure(Deferred.fromCoroutine(registering), RegistrationRefused)

    async def test_registered(self) -> None:
        """The call is registered with its parameters."""
        context_id = await self.register(caller="+4930", called="100", variables={"name": "Jürgen & 😀"})
        kept = await self.store.get(context_id)
        self.assertEqual((kept.caller, kept.called, kept.variables), ("+4930", "100", {"name": "Jürgen & 😀"}))

    async def test_refused(self) -> None:
        """The server's own reasons come through."""
        error = await self.refused(self.register(key="wrong"))
        self.assertEqual((error.status, error.reason), (401, "this API key is not known"))
        error = await self.refused(self.register(assistant_id="2"))
        self.assertEqual((error.status, error.reason), (404, "there is no such assistant"))
        error = await self.refused(self.register(caller="1" * 129))
        self.assertEqual((error.status, error.reason), (400, "the parameter from is longer than 128 characters"))

    async def test_nobody_there(self) -> None:
        """A port without a server is a refusal with status 0."""
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
        number = port.getHost().port
        await port.stopListening()
        error = await self.refused(self.register(url=f"http://127.0.0.1:{number}"))
        self.assertEqual(error.status, 0)
        self.assertIn("refused", error.reason)

    async def test_no_http(self) -> None:
        """So is a server that speaks something else, or a URL that is none."""

        class Banner(Protocol):
            def connectionMade(self) -> None:
                self.transport.write(b"220 mail.example.com ESMTP\r\n")
                self.transport.loseConnection()

        error = await self.refused(self.register(url=await self.serve(Factory.forProtocol(Banner))))
        self.assertEqual(error.status, 0)
        error = await self.refused(self.register(url="ftp://127.0.0.1"))
        self.assertEqual(error.status, 0)
        self.assertIn("ftp", error.reason)
