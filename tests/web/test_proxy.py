"""Requests for outbound calls that another process answers, over real sockets."""

from __future__ import annotations

import json
import time
from typing import Any

import treq
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.web.proxy import ForwardedOutbound
from tests.web.in_memory import KEY, OTHER_KEY

reactor: Any = _reactor


class Placing(Resource):
    """The other process's page: answers as told, and notes what it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[bytes, bytes, dict[str, str]]] = []
        self.answer = (201, b'{"contextId": "1"}', {"Content-Type": "application/json"})

    def render_POST(self, request: Request) -> bytes:
        """Answer."""
        assert request.content is not None
        headers = {
            name.decode().lower(): value[0].decode() for name, value in request.requestHeaders.getAllRawHeaders()
        }
        self.requests.append((request.uri, request.content.read(), headers))
        status, body, headers = self.answer
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name, value)
        return body


class HangsUp(Protocol):
    """A process that ends in the middle of a request."""

    def dataReceived(self, data: bytes) -> None:
        """End."""
        self.transport.abortConnection()  # type: ignore[union-attr]


class ForwardTests(TestCase):
    """A page, and behind it a UNIX socket."""

    timeout = 10

    def setUp(self) -> None:
        self.path = "/tmp/rapida-" + self.mktemp().replace("/", "-")[-60:]
        self.placing = Placing()
        page = Resource()
        page.putChild(b"outbound", ForwardedOutbound(ApiKeys([KEY]), self.path, reactor))
        self.port = reactor.listenTCP(0, Site(page), interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    def listen(self, factory: Any) -> None:
        """The other process is there."""
        port = reactor.listenUNIX(self.path, factory)
        self.addCleanup(port.stopListening)

    async def post(self, body: bytes = b"{}", key: str = KEY, page: str = "outbound/1") -> tuple[int, Any, Any]:
        """Have a call placed; gives the status, the body and the headers."""
        response = await treq.request(
            "POST", f"http://127.0.0.1:{self.port.getHost().port}/{page}", data=body, persistent=False,
            headers={"x-api-key": key, "Content-Type": "application/json", "Cookie": "no"},
        )  # fmt: skip
        return response.code, await response.json(), response.headers

    async def test_there_and_back(self) -> None:
        """Path, key and body come there, and status, body and headers back; nothing else does."""
        self.listen(Site(self.placing))
        status, answer, headers = await self.post(b'{"to": "100"}', page="outbound/1%2F2?x=y")
        self.assertEqual((status, answer), (201, {"contextId": "1"}))
        self.assertEqual(headers.getRawHeaders("Content-Type"), ["application/json"])
        ((uri, body, headers),) = self.placing.requests
        self.assertEqual((uri, body), (b"/outbound/1%2F2?x=y", b'{"to": "100"}'))
        self.assertEqual((headers["x-api-key"], headers["content-type"]), (KEY, "application/json"))
        self.assertNotIn("cookie", headers)
        self.assertLess(abs(int(headers["x-rapida-until"]) - time.monotonic_ns() - 10**10), 10**9)

    async def test_refusal(self) -> None:
        """What the other process refuses is refused so."""
        self.listen(Site(self.placing))
        refusal = {"error": "later", "retryable": True}
        headers = {"Retry-After": "5", "X-Rapida-Error": "later", "Content-Type": "application/json", "X-Other": "1"}
        self.placing.answer = (503, json.dumps(refusal).encode(), headers)
        status, answer, given = await self.post()
        self.assertEqual((status, answer), (503, refusal))
        self.assertEqual([given.getRawHeaders(name) for name in ("Retry-After", "X-Other")], [["5"], None])
        self.assertEqual(given.getRawHeaders("X-Rapida-Error"), ["later"])

    async def test_key(self) -> None:
        """Whoever has none is refused here."""
        self.listen(Site(self.placing))
        self.assertEqual((await self.post(key=OTHER_KEY))[0], 401)
        self.assertEqual(self.placing.requests, [])

    async def test_nobody_there(self) -> None:
        """Then nothing was placed, and it may be tried again."""
        status, answer, _ = await self.post()
        self.assertEqual((status, answer["retryable"]), (503, True))
        self.assertIn("is starting", answer["error"])

    async def test_goes_away(self) -> None:
        """Then nobody knows, and it is not to be tried again blindly."""
        self.listen(Factory.forProtocol(HangsUp))
        status, answer, _ = await self.post()
        self.assertEqual((status, answer["retryable"]), (502, False))
        self.assertIn("/v1/calls", answer["error"])
