"""Registering a call over HTTP."""

from __future__ import annotations

import json
from uuid import UUID

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import CallContext, ContextStatus
from rapida_twisted.errors import StoreUnavailable, UpstreamFailed
from rapida_twisted.store.memory import MemoryStore
from tests.web.in_memory import KEY, NOW, Connection, HttpResponse, InMemoryHttp, SlowStore

CALL = "/v1/talk/asterisk/call/1"
AS_JSON = {"Accept": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json; charset=utf-8"}


class RegistrationTests(SynchronousTestCase):
    """What a dialplan gets, and what is kept of what it said."""

    def setUp(self) -> None:
        """A server that knows assistant 1."""
        self.http = InMemoryHttp()

    def registered(self, query: str = "") -> CallContext:
        """The context that a GET with this query made."""
        response = self.http.request(f"{CALL}?{query}")
        self.assertEqual((response.status, response.reason), (200, ""))
        return self.http.kept()[0]

    def test_answer(self) -> None:
        """The contextId, a random UUID, as plain text without a newline, and kept by no cache."""
        response = self.http.request(CALL)
        self.assertEqual(response.status, 200)
        self.assertEqual(response.headers["content-type"], "text/plain; charset=utf-8")
        self.assertEqual(response.headers["cache-control"], "no-store")
        self.assertNotIn("server", response.headers)
        self.assertEqual(str(UUID(response.body.decode())).encode(), response.body)
        self.assertEqual(UUID(response.body.decode()).version, 4)
        self.assertNotEqual(self.http.request(CALL).body, response.body)

    def test_json_response(self) -> None:
        """Who asks for JSON gets the contextId in an object."""
        for accept in ("application/json", "text/html, application/json;q=0.9"):
            response = self.http.request(CALL, headers={"Accept": accept})
            self.assertEqual(response.headers["content-type"], "application/json")
            self.assertEqual(json.loads(response.body), {"contextId": self.http.kept()[0].context_id})

    def test_any_accept_is_text(self) -> None:
        """The Accept header of Asterisk's CURL() means text."""
        self.assertEqual(len(self.http.request(CALL, headers={"Accept": "*/*"}).body), 36)

    def test_dialplan(self) -> None:
        """The query of the dialplan: numbers, channel, variables, and not the key."""
        made = self.registered(f"from=%2B4930123&to=100&channel_id=17.4&x-api-key={KEY}&queue=sales&queue2=")
        self.assertEqual(
            made,
            CallContext(
                context_id=made.context_id,
                assistant_id="1",
                created_at=NOW,
                expires_at=NOW + 300,
                caller="+4930123",
                called="100",
                channel_id="17.4",
                variables={"queue": "sales", "queue2": ""},
                registered_from="192.0.2.7",
            ),
        )
        self.assertIs(made.status, ContextStatus.PENDING)

    def test_names_of_the_caller(self) -> None:
        """The caller is from, else caller, else callerid; none of them is a variable."""
        self.assertEqual(self.registered("callerid=3&caller=2&from=1").caller, "1")
        self.assertEqual(self.registered("callerid=3&caller=2&from=").caller, "2")
        self.assertEqual(self.registered("callerid=3").caller, "3")
        self.assertEqual(self.registered("callerid=3&caller=2&from=1").variables, {})

    def test_names_of_the_called(self) -> None:
        """The dialled number is to, else extension, else dnid."""
        self.assertEqual(self.registered("dnid=3&extension=2&to=1").called, "1")
        self.assertEqual(self.registered("dnid=3&extension=2").called, "2")
        self.assertEqual(self.registered("dnid=3").called, "3")

    def test_anonymous(self) -> None:
        """An empty, blank or absent caller is an anonymous call."""
        for query in ("", "from=", "from=+", "from"):
            self.assertEqual(self.registered(query).caller, "")

    def test_eaten_plus(self) -> None:
        """A leading space in a number is the + that form decoding made of it."""
        made = self.registered("from=+4930&to=%204931&note=+4932")
        self.assertEqual((made.caller, made.called, made.variables), ("+4930", "+4931", {"note": " 4932"}))

    def test_utf8(self) -> None:
        """Text is UTF-8, in names, values and the assistant's id."""
        response = self.http.request("/v1/talk/asterisk/call/%C3%BC?name=J%c3%bcrgen&%F0%9F%98%80=%E2%82%AC")
        self.assertEqual(response.status, 200, response.reason)
        made = self.http.kept()[0]
        self.assertEqual((made.assistant_id, made.variables), ("ü", {"name": "Jürgen", "😀": "€"}))

    def test_form(self) -> None:
        """A POST may say the same in a form; what it says wins over the query."""
        response = self.http.request(
            CALL + "?from=1&lang=de", method="POST", headers=FORM, body=b"from=+49&to=100&a=b&x-api-key=zzz"
        )
        self.assertEqual(response.status, 200, response.reason)
        made = self.http.kept()[0]
        self.assertEqual((made.caller, made.called, made.variables), ("+49", "100", {"lang": "de", "a": "b"}))

    def test_json(self) -> None:
        """Or in a JSON object, whose numbers and truth values are text; null is nothing."""
        body = {"from": "+49", "to": 100, "vip": True, "score": 1.5, "none": None, "x-api-key": "zzz"}
        response = self.http.request(CALL, method="POST", headers=JSON, body=json.dumps(body).encode())
        self.assertEqual(response.status, 200, response.reason)
        made = self.http.kept()[0]
        self.assertEqual((made.caller, made.called, made.variables), ("+49", "100", {"vip": "true", "score": "1.5"}))

    def test_empty_post(self) -> None:
        """A POST without a body is a GET."""
        self.assertEqual(self.http.request(CALL + "?from=1", method="POST").status, 200)
        self.assertEqual(self.http.kept()[0].caller, "1")

    def test_limits_are_inclusive(self) -> None:
        """What is just within the limits is kept whole."""
        variables = {f"v{number:02d}" + "n" * 61: "x" * 200 for number in range(64)}
        query = "&".join(f"{name}={value}" for name, value in variables.items())
        body = f"from={'1' * 128}&to={'2' * 128}&channel_id={'3' * 128}&{query}".encode()
        response = self.http.request(CALL, method="POST", headers=FORM, body=body)
        self.assertEqual(response.status, 200, response.reason)
        self.assertEqual(self.http.kept()[0].variables, variables)
        self.assertEqual(self.registered(f"a={'%C3%BC' * 682}").variables, {"a": "ü" * 682})
        self.http.request(CALL, method="POST", headers=FORM, body=b"a=" + b"%C3%BC" * 1024)
        self.assertEqual(self.http.kept()[0].variables, {"a": "ü" * 1024})


class RefusalTests(SynchronousTestCase):
    """Every error has an empty body and its reason in a header, and leaves nothing behind."""

    def setUp(self) -> None:
        """A server that knows assistant 1, and has room for one call."""
        self.http = InMemoryHttp(max_pending=1)

    def refused(self, response: HttpResponse, status: int, words: str) -> None:
        """The response is a refusal as a dialplan must get it."""
        self.assertEqual((response.status, response.body), (status, b""))
        self.assertIn(words, response.reason)

    def bad(self, query: str | bytes, words: str) -> None:
        """A GET with this query is a bad request."""
        raw = query if isinstance(query, bytes) else query.encode()
        self.refused(self.http.request(f"{CALL}?".encode() + raw), 400, words)
        self.assertEqual(self.http.kept(), [])

    def bad_body(self, headers: dict[str, str], body: bytes, words: str) -> None:
        """A POST with this body is a bad request."""
        self.refused(self.http.request(CALL, method="POST", headers=headers, body=body), 400, words)
        self.assertEqual(self.http.kept(), [])

    def test_key(self) -> None:
        """A missing or wrong key is refused before anything else is looked at."""
        self.http.draining = True
        for target in (CALL, "/v1/talk/asterisk/call/unknown", CALL + "?from=%00"):
            for method in ("GET", "POST", "DELETE"):
                self.refused(self.http.request(target, key=None, method=method), 401, "an API key is needed")
                response = self.http.request(target, key="wrong", method=method)
                self.refused(response, 401, "not known")
                self.assertIn("Bearer", response.headers["www-authenticate"])

    def test_unknown_assistant(self) -> None:
        """404 for an assistant that is not there, and for paths that are none."""
        self.refused(self.http.request("/v1/talk/asterisk/call/2"), 404, "no such assistant")
        self.refused(self.http.request("/v1/talk/asterisk/call/"), 404, "no such assistant")
        self.refused(self.http.request("/v1/talk/asterisk/call"), 404, "nothing here")
        self.refused(self.http.request("/v1/talk/asterisk/call/1/"), 404, "nothing here")
        self.refused(self.http.request("/v1/talk/asterisk/call/1/2"), 404, "nothing here")

    def test_bad_assistant(self) -> None:
        """400 for an id that is no text of one line."""
        for bad in ("%ff", "a%0d%0aX:%20y", "a" * 129):
            self.assertEqual(self.http.request(f"/v1/talk/asterisk/call/{bad}").status, 400)

    def test_too_long(self) -> None:
        """Numbers, names and values have limits."""
        self.bad("from=" + "1" * 129, "the parameter from is longer than 128")
        self.bad("callerid=1&from=2&caller=" + "1" * 129, "the parameter caller is longer than 128")
        self.bad("channel_id=" + "1" * 129, "the parameter channel_id is longer than 128")
        self.bad("n" * 65 + "=1", "name is longer than 64")
        self.bad("a=" + "x" * 1025, "the parameter a is longer than 1024")

    def test_too_many(self) -> None:
        """Of variables there are at most 64, however many parameters there are."""
        self.bad("&".join(f"v{number}=" for number in range(65)), "more than 64 variables")
        self.bad("&".join(["a=1"] * 100), "more than 64 variables")
        self.bad("&".join(["a=1"] * 101), "more than 100 parameters")

    def test_not_utf8(self) -> None:
        """Bytes that are no UTF-8 are refused, in names and values."""
        for query in (b"from=%ff", b"%ff=1", b"a=%ed%a0%80"):
            self.bad(query, "not text in UTF-8")

    def test_control_characters(self) -> None:
        """Control characters are refused wherever they are."""
        for query in ("from=1%0d%0aX", "a=%00", "a=b%0a", "a%0d=b", "to=%7f", "a=%C2%85"):
            self.bad(query, "control character")

    def test_no_name(self) -> None:
        """A value without a name means nothing."""
        self.bad("=1", "no name")

    def test_bad_json(self) -> None:
        """What is no JSON object of plain values is refused."""
        self.bad_body(JSON, b"{", "not JSON")
        self.bad_body(JSON, b"\xff", "not JSON")
        self.bad_body(JSON, b"[" * 60_000, "not JSON")
        self.bad_body(JSON, b'{"a": ' + b"9" * 5000 + b"}", "not JSON")
        self.bad_body(JSON, b"[1]", "not a JSON object")
        self.bad_body(JSON, b'{"a": {"b": 1}}', "must be text, a number")
        self.bad_body(JSON, b'{"a": "\\ud800"}', "not text in UTF-8")
        self.bad_body(JSON, b'{"a": "\\u0000"}', "control character")

    def test_bad_form(self) -> None:
        """A form's values are checked like those of a query."""
        self.bad_body(FORM, b"a=%ff", "not text in UTF-8")
        self.bad_body(FORM, b"a=%0a", "control character")

    def test_other_body(self) -> None:
        """A body of another kind is refused rather than ignored."""
        self.bad_body({}, b"from=1", "neither application/x-www-form-urlencoded nor")
        self.bad_body({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--", "neither")

    def test_too_many_calls(self) -> None:
        """429 when as many as may wait do; when they waited too long there is room again."""
        self.assertEqual(self.http.request(CALL).status, 200)
        response = self.http.request(CALL)
        self.refused(response, 429, "1 calls wait")
        self.assertIn("retry-after", response.headers)
        self.http.now += 301
        self.assertEqual(self.http.request(CALL).status, 200)

    def test_draining(self) -> None:
        """503 when the server is about to stop."""
        self.http.draining = True
        response = self.http.request(CALL)
        self.refused(response, 503, "about to stop")
        self.assertIn("retry-after", response.headers)

    def test_store_down(self) -> None:
        """503 when the store can't keep the call; what is wrong with it is not told to the client."""
        http = InMemoryHttp(store=DownStore())
        response = http.request(CALL)
        self.refused(response, 503, "the call store does not answer")
        self.assertIn("retry-after", response.headers)

    def test_methods(self) -> None:
        """Other methods are refused, HEAD too, since GET makes a call; what is allowed is told."""
        for method in ("HEAD", "PUT", "DELETE", "OPTIONS", "BREW"):
            response = self.http.request(CALL, method=method)
            self.refused(response, 405, "not allowed")
            self.assertEqual(response.headers["allow"], "GET, POST")
        self.assertEqual(self.http.kept(), [])

    def test_json_errors(self) -> None:
        """Who asks for JSON gets the reason in an object, and in the header as well."""
        for target, key, status in ((CALL, "wrong", 401), ("/v1/talk/asterisk/call/2", KEY, 404), ("/x", KEY, 404)):
            response = self.http.request(target, key=key, headers=AS_JSON)
            self.assertEqual(response.status, status)
            self.assertEqual(response.headers["content-type"], "application/json")
            self.assertEqual(json.loads(response.body), {"error": response.reason})

    def test_reason_is_one_header(self) -> None:
        """A reason with a stranger's words in it stays one printable header."""
        response = self.http.request(CALL + "?" + "%C3%BC" * 60 + "=%0d%0aX-Evil:1")
        self.assertEqual(response.status, 400)
        self.assertNotIn("x-evil", response.headers)
        self.assertTrue(response.reason.isascii())

    def test_client_gone(self) -> None:
        """A client that goes away cancels what it asked for, and nothing is logged as a failure."""
        store = SlowStore()
        connection = Connection(InMemoryHttp(store=store).site)
        connection.send(f"GET {CALL} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode())
        connection.lose()
        self.assertTrue(store.waiting[0].called)
        self.assertEqual(connection.responses(), [])

    def test_upstream(self) -> None:
        """What the assistant noted at the registration is kept with the call."""
        self.http.upstream_id = "their-4711"
        context_id = self.http.request(f"{CALL}?from=4711").body.decode()
        (kept,) = self.http.kept()
        self.assertEqual((kept.context_id, kept.upstream_id), (context_id, "their-4711"))

    def test_upstream_failed(self) -> None:
        """A call that its assistant would not answer is not registered: the dialplan's error branch takes it."""
        for word, of_call, status in [
            ("unreachable", False, 502),
            ("timeout", False, 504),
            ("resting", False, 503),
            ("refused", True, 502),
        ]:
            self.http.refusing = UpstreamFailed(word, "upstream far.example:443 says no", of_call=of_call)
            response = self.http.request(CALL)
            self.refused(response, status, "far.example:443 says no")
            self.assertEqual("retry-after" in response.headers, not of_call)
        self.assertEqual(self.http.kept(), [])

    def test_store_too_slow(self) -> None:
        """A store that says nothing at all costs a bounded time, then it is a 503."""
        http = InMemoryHttp(store=SlowStore())
        connection = Connection(http.site)
        connection.send(f"GET {CALL} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode())
        http.clock.advance(29.9)
        self.assertEqual(connection.responses(), [])
        http.clock.advance(0.2)
        (response,) = connection.responses()
        self.refused(response, 503, "took too long")

    def test_store_broken(self) -> None:
        """A mistake of ours is a 500 with an empty body, and a traceback in the log."""
        http = InMemoryHttp(store=BrokenStore())
        response = http.request(CALL + f"?x-api-key={KEY}", headers=AS_JSON)
        self.assertEqual((response.status, response.body, response.reason), (500, b"", "internal error"))
        (failure,) = self.flushLoggedErrors(ZeroDivisionError)
        self.assertIsNotNone(failure)


class DownStore(MemoryStore):
    """A store whose file is locked."""

    def add(self, context: CallContext, max_pending: int) -> Deferred[None]:
        """Fail."""
        return fail(StoreUnavailable("the call store /secret/path is locked"))


class BrokenStore(MemoryStore):
    """A store with a mistake in it."""

    def add(self, context: CallContext, max_pending: int) -> Deferred[None]:
        """Break."""
        return fail(ZeroDivisionError("secret"))
