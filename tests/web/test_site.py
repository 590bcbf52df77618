"""The site: its tree, its limits and its log."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Request

from rapida_twisted.web.request import SECURITY_HEADERS
from rapida_twisted.web.resource import AsyncResource
from rapida_twisted.web.responses import Response, describe, header_value
from rapida_twisted.web.site import FIRST_REQUEST_S, MAX_BODY_BYTES, REQUEST_TIMEOUT_S
from tests.web.in_memory import KEY, Connection, InMemoryHttp

ROOT = Path(__file__).parents[2]
POST = b"POST /v1/talk/asterisk/call/1 HTTP/1.1\r\nHost: x\r\nx-api-key: " + KEY.encode() + b"\r\n"


class Hello(AsyncResource):
    """A resource of somebody else."""

    async def respond(self, request: Request) -> Response:
        """Greet."""
        return Response(200, b"hello")


class Broken(Resource):
    """A plain resource with a mistake in it."""

    def render(self, request: Request) -> bytes:
        """Break."""
        raise ZeroDivisionError("secret")


class Plain(Resource):
    """A plain resource that knows GET alone: Twisted answers the rest."""

    def render_GET(self, request: Request) -> bytes:
        """Greet."""
        return b"hello"


class TreeTests(SynchronousTestCase):
    """What is there, and what is not."""

    def test_nothing_there(self) -> None:
        """Unknown paths are 404 with an empty body, whatever the method; there are no listings."""
        for path in ("/", "/v1", "/v1/", "/v1/talk", "/v1/talk/asterisk", "/x", "//", "/healthz/", "/readyz/x", "/%00"):
            for method in ("GET", "POST", "DELETE"):
                response = InMemoryHttp().request(path, method=method, key=None)
                self.assertEqual((response.status, response.body), (404, b""), path)
                self.assertNotIn("server", response.headers)

    def test_extra(self) -> None:
        """Further resources can be put anywhere below /v1, beside what is there."""
        http = InMemoryHttp(extra={b"clock": Hello(), b"talk/asterisk/ctx": Hello(), b"new/place": Hello()})
        for path in ("/v1/clock", "/v1/talk/asterisk/ctx", "/v1/new/place"):
            self.assertEqual(http.request(path, key=None).body, b"hello")
        self.assertEqual(http.request("/v1/talk/asterisk/call/1").status, 200)

    def test_extra_in_the_way(self) -> None:
        """Nothing can be put below a page."""
        self.assertRaises(ValueError, InMemoryHttp, extra={b"calls/mine": Hello()})

    def test_broken_resource(self) -> None:
        """A resource that raises is a 500 with an empty body; the traceback is in the log alone."""
        response = InMemoryHttp(extra={b"broken": Broken()}).request("/v1/broken")
        self.assertEqual((response.status, response.body), (500, b""))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_headers_of_every_answer(self) -> None:
        """Whatever is answered, to whom and by what: not kept, not guessed at, in no frame, and no word of a server."""
        self.http = InMemoryHttp(extra={b"broken": Broken(), b"hello": Hello(), b"plain": Plain()})
        for target, method, key, status in (
            ("/v1/calls", "GET", KEY, 200),
            ("/v1/calls", "HEAD", KEY, 200),
            ("/v1/talk/asterisk/call/1", "POST", KEY, 200),
            ("/healthz", "GET", None, 200),
            ("/readyz", "GET", None, 200),
            ("/v1/hello", "GET", None, 200),
            ("/v1/plain", "GET", None, 200),
            ("/v1/calls", "GET", None, 401),
            ("/", "GET", None, 404),
            ("/../../etc/passwd", "GET", None, 404),
            ("/v1/calls/../../", "GET", KEY, 404),
            ("/v1/calls", "TRACE", KEY, 405),
            ("/v1/calls", "OPTIONS", KEY, 405),
            ("/v1/calls", "OPTIONS", None, 401),
            ("/v1/plain", "POST", None, 405),
            ("/v1/plain", "BREW", None, 501),
            ("*", "OPTIONS", None, 200),
            ("/v1/broken", "GET", None, 500),
        ):
            response = self.http.request(target, method=method, key=key)
            self.assertEqual(response.status, status, (method, target))
            for name, value in SECURITY_HEADERS.items():
                self.assertEqual(response.headers[name.lower()], value, (method, target))
            shown = repr(response.headers) + repr(response.body)
            for word in ("server", "Twisted", "Python", "Traceback", "secret", str(ROOT), ".py"):
                self.assertNotIn(word, shown, (method, target))
        self.flushLoggedErrors(ZeroDivisionError)

    def test_star(self) -> None:
        """A request for the server as a whole is answered without telling what it is."""
        self.assertNotIn("server", InMemoryHttp().request("*", method="OPTIONS").headers)

    def test_protocols(self) -> None:
        """Only HTTP/1.1 is offered under TLS."""
        self.assertEqual(InMemoryHttp().site.acceptableProtocols(), [b"http/1.1"])


class LimitTests(SynchronousTestCase):
    """A client can take only so much room and time."""

    def setUp(self) -> None:
        """A connection."""
        self.http = InMemoryHttp()
        self.connection = Connection(self.http.site)

    def statuses(self) -> list[int]:
        """What was answered."""
        return [response.status for response in self.connection.responses()]

    def test_long_body(self) -> None:
        """A body that says it is too long is refused before it comes, and the connection closed."""
        self.connection.send(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
        self.assertEqual(self.statuses(), [413])
        self.assertFalse(self.connection.transport.connected)

    def test_long_chunked_body(self) -> None:
        """A body that becomes too long is refused when it does."""
        self.connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
        for _ in range(16):
            self.connection.send(chunk)
        self.assertEqual(self.statuses(), [])
        self.connection.send(b"1\r\nx\r\n0\r\n\r\n")
        self.assertEqual(self.statuses(), [413])
        self.assertFalse(self.connection.transport.connected)
        self.assertEqual(self.http.kept(), [])

    def test_longest_body(self) -> None:
        """A body as long as may be is read."""
        body = b"a=" + b"%78" * 1024 + b"&&" + b"&" * 70 + b"from=1"
        body += b" " * (MAX_BODY_BYTES - len(body))
        head = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.connection.send(POST + head + body)
        self.assertEqual(self.statuses(), [400])
        self.assertTrue(self.connection.transport.connected)

    def test_long_head(self) -> None:
        """A request line or headers without end are cut off."""
        self.connection.send(b"GET /" + b"x" * 20_000)
        self.assertFalse(self.connection.transport.connected)

    def test_silence(self) -> None:
        """A connection that says nothing is closed."""
        self.http.clock.advance(REQUEST_TIMEOUT_S + 1)
        self.assertFalse(self.connection.transport.connected)

    def test_trickle(self) -> None:
        """A request that trickles in is cut off at the same time as silence."""
        self.connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for _ in range(int(REQUEST_TIMEOUT_S) + 1):
            if self.connection.transport.connected:
                self.connection.send(b"a: b\r\n")
            self.http.clock.advance(1)
        self.assertFalse(self.connection.transport.connected)

    def test_keep_alive(self) -> None:
        """Requests one after the other have their time each."""
        for wait_s in (FIRST_REQUEST_S - 1, *[REQUEST_TIMEOUT_S - 1] * 4):
            self.http.clock.advance(wait_s)
            self.connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(self.statuses(), [200] * 5)
        self.connection.lose()

    def test_no_timers_left(self) -> None:
        """A connection that is over leaves no timer behind."""
        self.connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        self.connection.lose()
        self.assertEqual(self.http.clock.getDelayedCalls(), [])


class LogTests(SynchronousTestCase):
    """One line for each request, and no key in any."""

    def lines(self, target: str | bytes, **asked: Any) -> list[tuple[LogLevel, str]]:
        """The log of one request."""
        with capturedLogs() as events:
            InMemoryHttp().request(target, **asked)
        return [(event["log_level"], formatEvent(event)) for event in events]

    def test_key_is_masked(self) -> None:
        """The line shows the request with its key masked, in the log's fields too."""
        with capturedLogs() as events:
            InMemoryHttp().request(f"/v1/talk/asterisk/call/1?from=1&X-Api-Key={KEY}&x-api-key={KEY}", key=KEY)
        self.assertNotIn(KEY, repr([formatEvent(event) for event in events]) + repr(events))
        self.assertIn(
            "GET /v1/talk/asterisk/call/1?from=1&X-Api-Key=***&x-api-key=*** from 192.0.2.7: 200",
            formatEvent(events[-1]),
        )

    def test_key_is_masked_in_failures(self) -> None:
        """Nor is it in the line of a request that broke."""
        with capturedLogs() as events:
            InMemoryHttp(extra={b"broken": Broken()}).request(f"/v1/broken?x-api-key={KEY}", key=None)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertNotIn(KEY, repr([formatEvent(event) for event in events]) + repr(events))

    def test_reason(self) -> None:
        """A refusal's reason is in its line."""
        ((level, line),) = self.lines("/v1/calls", key=None)
        self.assertEqual(level, LogLevel.info)
        self.assertIn(": 401 an API key is needed (", line)

    def test_control_characters(self) -> None:
        """A stranger's bytes can't make lines of their own."""
        request: Any = SimpleNamespace(method=b"GET", uri=b"/a\x1b[31m\xff\n", client=UNIXAddress("/run/s"))
        self.assertEqual(describe(request), "GET /a\\x1b[31m\\xff\\x0a from UNIXAddress('/run/s')")

    def test_no_http(self) -> None:
        """What is no HTTP at all, such as a query that is not URI-encoded, gets a 400 and a line."""
        with capturedLogs() as events:
            response = InMemoryHttp().request("/v1/talk/asterisk/call/1?from=J\u00fcrgen")
        self.assertEqual((response.status, response.body), (400, b""))
        (line,) = [formatEvent(event) for event in events]
        self.assertIn("192.0.2.7 sent no valid HTTP request", line)

    def test_flood_of_strangers(self) -> None:
        """Requests without a key make a few lines of each kind; those with one make a line each."""
        http = InMemoryHttp()
        with capturedLogs() as events:
            for _ in range(50):
                http.request("/v1/calls", key="rpd-guess")
                http.request("/wp-login.php", key=None)
                http.request("/v1/calls")
        lines = [formatEvent(event) for event in events]
        self.assertEqual(sum(": 200" in line for line in lines), 50)
        self.assertLess(len(lines), 60)
        counts = http.site.rejections.counts
        self.assertEqual((counts["http.401"], counts["http.404"]), (50, 50))

    def test_flood_of_garbage(self) -> None:
        """Likewise what is no HTTP, bodies that are too long, and requests that never end."""
        http = InMemoryHttp()
        with capturedLogs() as events:
            connections = [Connection(http.site) for _ in range(40)]
            for connection in connections[:10]:
                connection.send(b"\x15\x03\x01 garbage\r\n\r\n")
            for connection in connections[10:20]:
                connection.send(POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
            for connection in connections[20:30]:
                connection.send(b"GET /healthz")
            for connection in connections[:20]:
                connection.lose()
            http.clock.advance(REQUEST_TIMEOUT_S + 1)
        self.assertLessEqual(len(events), 9, [formatEvent(event) for event in events])
        counts = dict(http.site.rejections.counts)
        self.assertEqual(counts, {"http.garbage": 10, "http.body_too_long": 10, "http.overdue": 10, "http.idle": 10})

    def test_health_is_quiet(self) -> None:
        """Health checks that are well make no line."""
        self.assertEqual(self.lines("/healthz"), [])
        self.assertEqual(self.lines("/readyz"), [])


class HeaderValueTests(SynchronousTestCase):
    """header_value() gives what is fit for a header."""

    def test_sanitised(self) -> None:
        """Only printable ASCII, and not too much of it."""
        self.assertEqual(header_value("a\r\nb\x00ü\x7f c"), "a??b??? c")
        self.assertEqual(len(header_value("x" * 1000)), 200)
