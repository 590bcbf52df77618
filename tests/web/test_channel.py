"""HTTP connections: pipelining, TLS by mistake, and what is no request or too long."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.ports.turn_budget import TurnBudget
from rapida_twisted.web.request import MAX_PARAMETERS, MAX_PATH_BYTES, MAX_QUERY_BYTES, origin_form
from rapida_twisted.web.site import FIRST_REQUEST_S, REQUEST_TIMEOUT_S
from tests.support.turns import Turns
from tests.web.in_memory import KEY, Connection, HttpResponse, InMemoryHttp

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class ChannelTestCase(SynchronousTestCase):
    """One connection to a site."""

    def setUp(self) -> None:
        self.http = InMemoryHttp()
        self.clock: Clock = self.http.clock
        self.turns = Turns()
        self.http.site.budget = TurnBudget(self.turns)
        self.connection = Connection(self.http.site)
        self.addCleanup(self.connection.lose)

    def answers(self) -> list[int]:
        """What was answered."""
        return [response.status for response in self.connection.responses()]

    def answer(self, data: bytes) -> HttpResponse:
        """The only answer to these bytes."""
        self.connection.send(data)
        (response,) = self.connection.responses()
        return response


class PipeliningTests(ChannelTestCase):
    """Requests that come before the one before them is answered."""

    def test_one_a_turn(self) -> None:
        """One is answered in each turn, in their order, and nothing is read meanwhile."""
        self.connection.send(HEALTHZ * 2 + b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" + HEALTHZ[:10])
        seen = []
        for _ in range(4):
            seen.append((self.answers(), self.connection.transport.producerState))
            self.turns.turn()
        self.assertEqual(
            seen,
            [([200], "paused"), ([200] * 2, "paused"), ([200, 200, 404], "paused"), ([200, 200, 404], "producing")],
        )  # fmt: skip
        self.connection.send(HEALTHZ[10:])
        self.assertEqual(self.answers(), [200, 200, 404, 200])

    def test_body(self) -> None:
        """What follows on a body is the next request."""
        post = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        self.connection.send(post + HEALTHZ)
        self.turns.turn()
        self.assertEqual(self.answers(), [405, 200])

    def test_client_does_not_read(self) -> None:
        """A client that reads no responses gets no more of them before it does."""
        self.connection.send(HEALTHZ * 3)
        self.connection.protocol.pauseProducing()
        for _ in range(3):
            self.turns.turn()
        self.assertEqual(self.answers(), [200])
        self.connection.protocol.resumeProducing()
        for _ in range(3):
            self.turns.turn()
        self.assertEqual(self.answers(), [200] * 3)

    def test_gone(self) -> None:
        """A connection that closes meanwhile gets no turn."""
        self.connection.send(HEALTHZ * 3)
        self.connection.lose()
        self.turns.turn()
        self.assertEqual(self.answers(), [200])


class RefusalTests(ChannelTestCase):
    """What is no request, or too long, is told so."""

    def refused(self, data: bytes, status: int, reason: str) -> None:
        """One answer with this reason, and the end of the connection."""
        response = self.answer(data)
        self.assertEqual((response.status, response.reason), (status, reason))
        self.assertFalse(self.connection.transport.connected)

    def test_request_line(self) -> None:
        self.refused(b"GET /" + b"x" * 20_000, 414, "the request line is too long")

    def test_whole_request_line(self) -> None:
        self.refused(b"GET /" + b"x" * 9000 + HEALTHZ[5:], 414, "the request line is too long")

    def test_header(self) -> None:
        self.refused(HEALTHZ[:-2] + b"a: " + b"x" * 9000 + b"\r\n\r\n", 431, "the headers are too long")

    def test_headers(self) -> None:
        self.refused(HEALTHZ[:-2] + b"a: xxxxxxx\r\n" * 2000, 431, "the headers are too long")

    def test_many_headers(self) -> None:
        self.refused(HEALTHZ[:-2] + b"a:\r\n" * 600 + b"\r\n", 431, "the headers are too long")

    def test_garbage(self) -> None:
        self.refused(b"hello\r\n\r\n", 400, "this is no valid HTTP request: is a parameter not URI-encoded?")

    def test_content_length(self) -> None:
        """A length that Python does not parse."""
        self.refused(
            HEALTHZ[:-2] + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\n", 400,
            "this is no valid HTTP request: is a parameter not URI-encoded?",
        )  # fmt: skip

    def test_long_targets(self) -> None:
        """A path or a query that is too long is 414 before the key is looked at; the connection stays."""
        for target in (b"/" + b"x" * MAX_PATH_BYTES, b"/v1/calls?" + b"x" * (MAX_QUERY_BYTES + 1)):
            response = self.http.request(target, key=KEY)
            self.assertEqual(response.status, 414)
            self.assertIn("a query 4096", response.reason)
        self.assertEqual(self.http.request(b"/v1/calls?" + b"x" * MAX_QUERY_BYTES).status, 200)

    def test_parameters(self) -> None:
        self.assertEqual(self.http.request("/v1/calls?" + "a&" * MAX_PARAMETERS).status, 400)
        self.assertEqual(self.http.request("/v1/calls?" + "a&" * (MAX_PARAMETERS - 1)).status, 200)

    def test_host(self) -> None:
        """HTTP/1.1 has one Host header, HTTP/1.0 need have none."""
        for head, status in (
            (b"HTTP/1.1\r\n", 400), (b"HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400), (b"HTTP/1.0\r\n", 200),
            (b"HTTP/1.0\r\nHost: a\r\nHost: b\r\n", 400), (b"HTTP/1.1\r\nHost: a\r\n", 200),
        ):  # fmt: skip
            self.connection = Connection(self.http.site)
            response = self.answer(b"GET /healthz " + head + b"\r\n")
            self.assertEqual((response.status, bool(response.reason)), (status, status == 400), head)
            self.connection.lose()

    def test_tls(self) -> None:
        """A TLS hello is known by its first byte: the connection is closed, and the log says what to do."""
        with capturedLogs() as events:
            self.connection.send(b"\x16")
        self.assertFalse(self.connection.transport.connected)
        self.assertEqual(self.connection.transport.value(), b"")
        (line,) = [formatEvent(event) for event in events]
        self.assertIn("192.0.2.7 began TLS on a port without TLS: closed. Use http://", line)


class TimeTests(ChannelTestCase):
    """The first request has less time than the next."""

    def test_first_request(self) -> None:
        self.clock.advance(FIRST_REQUEST_S + 0.1)
        self.assertFalse(self.connection.transport.connected)

    def test_next_request(self) -> None:
        self.connection.send(HEALTHZ)
        self.clock.advance(REQUEST_TIMEOUT_S - 1)
        self.assertTrue(self.connection.transport.connected)
        self.clock.advance(2)
        self.assertFalse(self.connection.transport.connected)


class OriginFormTests(SynchronousTestCase):
    """origin_form()."""

    def test_forms(self) -> None:
        for target, expected in (
            (b"/a?b", b"/a?b"), (b"*", b"*"), (b"http://h/a?b", b"/a?b"), (b"HTTPS://h:1", b"/"),
            (b"http://h?a=/b", b"/?a=/b"), (b"ftp://h/a", b"ftp://h/a"), (b"/x?http://h/", b"/x?http://h/"),
        ):  # fmt: skip
            self.assertEqual(origin_form(target), expected, target)

    def test_served(self) -> None:
        """The query's key counts, too."""
        response = InMemoryHttp().request(f"http://media.example/v1/calls?x-api-key={KEY}", key=None)
        self.assertEqual(response.status, 200)
