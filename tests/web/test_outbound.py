"""Having a call placed over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from rapida_twisted.context import CallContext, CallStatus, Direction
from rapida_twisted.errors import CallNotPlaced, Draining, StoreUnavailable, TooManyCalls
from rapida_twisted.interfaces import IOutbound, OutboundCall
from rapida_twisted.web.outbound import PLACE_TIMEOUT_S
from tests.web.in_memory import KEY, NOW, Connection, HttpResponse, InMemoryHttp

PAGE = "/v1/talk/asterisk/outbound/1"
JSON = {"Content-Type": "application/json; charset=utf-8"}
CONTEXT_ID = "626162e8-ed7b-44b4-b10d-2f3ca1d457ca"


@implementer(IOutbound)
class ScriptedOutbound:
    """Notes what it shall place, and answers with what the test says."""

    def __init__(self) -> None:
        self.placed: list[OutboundCall] = []
        self.answer: Deferred[CallContext] | None = None
        self.status: CallStatus = CallStatus.INITIATED

    def place(self, call: OutboundCall) -> Deferred[CallContext]:
        """Note it."""
        self.placed.append(call)
        return succeed(self.context()) if self.answer is None else self.answer

    def hang_up(self, context_id: str) -> bool:
        """Nobody asks."""
        raise AssertionError("the page hung up")

    def context(self) -> CallContext:
        """The context of a call that was placed."""
        return CallContext(
            context_id=CONTEXT_ID,
            assistant_id="1",
            created_at=NOW,
            expires_at=NOW + 300,
            direction=Direction.OUTBOUND,
            channel_id="rapida-17",
            call_status=self.status,
        )


class OutboundTestCase(SynchronousTestCase):
    """A server that knows assistant 1, and places calls."""

    def setUp(self) -> None:
        self.outbound = ScriptedOutbound()
        self.http = InMemoryHttp(outbound=self.outbound)

    def post(self, body: Any, headers: Mapping[str, str] = JSON, page: str = PAGE) -> HttpResponse:
        """Have a call placed; a body that is no bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.request(page, method="POST", headers=headers, body=raw)

    def placed(self, **body: Any) -> OutboundCall:
        """The one call that this body places."""
        response = self.post(body)
        self.assertEqual((response.status, response.reason), (201, ""))
        (call,) = self.outbound.placed
        self.outbound.placed = []
        return call

    def refused(self, response: HttpResponse, status: int, words: str) -> dict[str, Any]:
        """The response is an error in JSON, and in the header; its members."""
        self.assertEqual(
            (response.status, response.headers["content-type"]), (status, "application/json"), response.body
        )
        content: dict[str, Any] = json.loads(response.body)
        self.assertIn(words, content["error"])
        self.assertIn(words, response.reason)
        self.assertIs(content["retryable"], "retry-after" in response.headers)
        return content

    def late(self, seconds: float) -> dict[str, str]:
        """The headers of a request that another process passed on, to be begun within so long."""
        return {**JSON, "X-Rapida-Until": str(time.monotonic_ns() + int(seconds * 1e9))}

    def bad(self, body: Any, words: str) -> None:
        """This body is a bad request, and places nothing."""
        self.assertFalse(self.refused(self.post(body), 400, words)["retryable"])
        self.assertEqual(self.outbound.placed, [])


class PlacingTests(OutboundTestCase):
    """What a client gets, and what is placed."""

    def test_passed_on(self) -> None:
        """A request that lay in a socket until nobody waited for it any more calls nobody; an honest one does."""
        self.refused(self.post({"to": "100"}, self.late(-1)), 503, "no longer waits for this call")
        self.assertEqual(self.outbound.placed, [])
        self.assertEqual(self.post({"to": "100"}, self.late(9)).status, 201)

    def test_only_the_number(self) -> None:
        """Whom to call is all that must be said."""
        self.assertEqual(self.placed(to="+49301"), OutboundCall(assistant_id="1", to="+49301"))

    def test_all(self) -> None:
        """Whatever else may be said is passed on; the variables are text then."""
        call = self.placed(
            to="100",
            **{"from": '"Jürgen" <+49>'},
            variables={"queue": "sales, ${x}", "vip": True, "score": 1.5, "n": -7, "__inherited": "", "_RAPIDO": "a"},
            credential="pbx",
            context="my-context_1.0",
            stasis=False,
            answer_timeout_s=2.5,
        )
        variables = {
            "queue": "sales, ${x}",
            "vip": "true",
            "score": "1.5",
            "n": "-7",
            "__inherited": "",
            "_RAPIDO": "a",
        }
        self.assertEqual(
            call,
            OutboundCall(
                assistant_id="1", to="100", caller='"Jürgen" <+49>', variables=variables, credential="pbx",
                context="my-context_1.0", answer_timeout_s=2.5,
            ),
        )  # fmt: skip

    def test_stasis(self) -> None:
        """A call can go to our Stasis application."""
        self.assertEqual(self.placed(to="100", stasis=True), OutboundCall(assistant_id="1", to="100", stasis=True))

    def test_null(self) -> None:
        """A member that is null was not said."""
        body = dict.fromkeys(("from", "variables", "credential", "context", "stasis", "answer_timeout_s"))
        self.assertEqual(self.placed(to="100", **body), OutboundCall(assistant_id="1", to="100"))

    def test_limits_are_inclusive(self) -> None:
        """What is just within the limits is passed on whole."""
        variables = {f"v{number:02d}" + "n" * 61: "x" * 800 for number in range(63)} | {"a": "ü" * 1024}
        call = self.placed(
            to="1" * 128, **{"from": "2" * 128}, variables=variables, credential="c" * 64, context="d" * 79,
            answer_timeout_s=600,
        )  # fmt: skip
        self.assertEqual((call.to, call.caller, call.variables), ("1" * 128, "2" * 128, variables))
        self.assertEqual((call.credential, call.context, call.answer_timeout_s), ("c" * 64, "d" * 79, 600))
        self.assertEqual(self.placed(to="1", answer_timeout_s=1).answer_timeout_s, 1)

    def test_answer(self) -> None:
        """201 and the ids when Asterisk has the call, even if it rings already; 202 when it waits for its turn."""
        for status, code in ((CallStatus.INITIATED, 201), (CallStatus.RINGING, 201), (CallStatus.NEW, 202)):
            self.outbound.status = status
            response = self.post({"to": "100"})
            self.assertEqual((response.status, response.headers["content-type"]), (code, "application/json"))
            told = {"contextId": CONTEXT_ID, "channelId": "rapida-17", "callStatus": status.value}
            self.assertEqual(json.loads(response.body), told)

    def test_key_in_the_query(self) -> None:
        """The key may stand in the query."""
        response = self.http.request(
            f"{PAGE}?x-api-key={KEY}", method="POST", headers=JSON, body=b'{"to": "1"}', key=None
        )
        self.assertEqual(response.status, 201)


class BadRequestTests(OutboundTestCase):
    """What can't be placed is refused with its reason, in JSON, whatever the client accepts."""

    def test_json_whatever_is_accepted(self) -> None:
        """No dialplan asks here."""
        for accept in ("*/*", "text/plain", "application/json"):
            self.refused(self.post({}, {**JSON, "Accept": accept}), 400, "to is required")

    def test_unknown_members(self) -> None:
        """A member that is not known is named, so that a typo does not dial differently."""
        self.bad({"to": "1", "variable": {}}, "'variable' is unknown: the members are to, from, variables")
        self.bad({"to": "1", "From": "2"}, "'From' is unknown")
        self.bad({"to": "1", "x" * 1000: "2"}, "x...' is unknown")
        self.bad({"to": "1", "a\r\nX-Y: z": None}, "'a\\r\\nX-Y: z' is unknown")

    def test_doubles(self) -> None:
        """Of two members of the same name neither is taken."""
        self.bad(b'{"to": "1", "to": "2"}', "two members of the same name")
        self.bad(b'{"to": "1", "variables": {"a": "1", "a": "2"}}', "two members of the same name")

    def test_to(self) -> None:
        """Whom to call is a text, of one line, and not too long."""
        for body in ({}, {"to": None}):
            self.bad(body, "to is required")
        for to in ("", 100, True, ["100"], {}):
            self.bad({"to": to}, "to must be text")
        self.bad({"to": "1" * 129}, "to is longer than 128")
        self.bad({"to": "1\n"}, "to holds a control character")
        self.bad(b'{"to": "\\ud800"}', "to is not text in UTF-8")

    def test_from(self) -> None:
        """The caller id can be shown on a telephone."""
        for caller in (100, False, ["1"]):
            self.bad({"to": "1", "from": caller}, "from must be text")
        self.bad({"to": "1", "from": "1" * 129}, "from is longer than 128")
        self.bad({"to": "1", "from": "1\r"}, "from holds a control character")
        self.bad({"to": "1", "from": "1\u2028"}, "from holds a character that is not printable")

    def test_variables(self) -> None:
        """Variables are a flat object of plain values."""
        for variables in ([], "a=b", 5, False):
            self.bad({"to": "1", "variables": variables}, "variables must be a JSON object")
        for value in (None, [], {"b": "c"}):
            self.bad({"to": "1", "variables": {"a": value}}, "the variable a must be text, a number")
        self.bad(b'{"to": "1", "variables": {"a": 1e999}}', "the variable a must be text, a number")
        self.bad({"to": "1", "variables": {"a": float("nan")}}, "the variable a must be text, a number")
        self.bad({"to": "1", "variables": {"a": "x" * 1025}}, "the variable a is longer than 1024")
        self.bad({"to": "1", "variables": {"a": 10**1024}}, "the variable a is longer than 1024")
        self.bad({"to": "1", "variables": {"a": "x\0"}}, "the variable a holds a control character")
        self.bad({"to": "1", "variables": {f"v{number}": 1 for number in range(65)}}, "more than 64 variables")

    def test_variables_names(self) -> None:
        """A variable's name is a plain one: never a function of the dialplan, and none of the server's own."""
        for name in ("", "1a", "a b", "SHELL(reboot)", "CHANNEL(hangup_handler_push)", "a-b", "ü", "a\n", "n" * 65):
            self.bad({"to": "1", "variables": {name: "x"}}, "cannot name a variable")
        for name in ("RAPIDA_CONTEXT_ID", "rapida_x", "_Rapida_", "__RAPIDA_CONTEXT_ID", "___rapida_y"):
            self.bad({"to": "1", "variables": {name: "x"}}, f"the variable {name} is reserved")

    def test_credential(self) -> None:
        """A credential that is named has a name."""
        self.bad({"to": "1", "credential": ""}, "credential must be text")
        self.bad({"to": "1", "credential": 5}, "credential must be text")
        self.bad({"to": "1", "credential": "c" * 65}, "credential is longer than 64")

    def test_context(self) -> None:
        """A context is one word, and does not go with Stasis."""
        for context in ("", "a b", "a,b,1", "d" * 80, "a\n", 7):
            self.bad({"to": "1", "context": context}, "context must be up to 79 letters")
        self.bad({"to": "1", "context": "a", "stasis": True}, "context and stasis exclude each other")
        for stasis in ("true", 1, []):
            self.bad({"to": "1", "stasis": stasis}, "stasis must be true or false")

    def test_answer_timeout(self) -> None:
        """A call rings for 1 to 600 seconds."""
        for seconds in (0, 0.9, 600.1, -1, "30", True, [30], float("inf"), float("nan")):
            self.bad({"to": "1", "answer_timeout_s": seconds}, "must be a number of seconds from 1 to 600")

    def test_body(self) -> None:
        """The body is a JSON object, and says so."""
        for body in (b"{", b"\xff", b"[" * 60_000, b'{"a": ' + b"9" * 5000 + b"}"):
            self.bad(body, "not JSON")
        for body in (b"[]", b'"to"', b"null"):
            self.bad(body, "not a JSON object")
        self.refused(self.http.request(PAGE, method="POST", headers=JSON), 400, "not JSON")
        for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}):
            self.refused(self.post({"to": "1"}, headers), 400, "Content-Type is not application/json")

    def test_query(self) -> None:
        """A call is not described by the query."""
        for query in ("to=1", f"x-api-key={KEY}&answer_timeout_s=5"):
            self.refused(self.post({"to": "1"}, page=f"{PAGE}?{query}"), 400, "the query may hold the API key only")
        self.assertEqual(self.outbound.placed, [])


class RefusalTests(OutboundTestCase):
    """Every error has its status, its reason, and a word on whether it pays to ask again."""

    def setUp(self) -> None:
        """A body that is right."""
        super().setUp()
        self.body = {"to": "100"}

    def failed(self, error: Exception, status: int, words: str) -> dict[str, Any]:
        """The members of what is answered when placing a call fails."""
        self.outbound.answer = fail(error)
        return self.refused(self.post(self.body), status, words)

    def test_call_refused(self) -> None:
        """422 when Asterisk does not want the call, with its words and the context that tells of it."""
        error = CallNotPlaced("no such endpoint: PJSIP/100", context_id=CONTEXT_ID, refused=True)
        told = {"error": "no such endpoint: PJSIP/100", "retryable": False, "contextId": CONTEXT_ID}
        self.assertEqual(self.failed(error, 422, "no such endpoint"), told)

    def test_not_registered(self) -> None:
        """A call that was not registered has no contextId."""
        told = {"error": "there is no credential x", "retryable": False}
        self.assertEqual(self.failed(CallNotPlaced("there is no credential x", refused=True), 422, "credential"), told)

    def test_asterisk_failed(self) -> None:
        """502 when Asterisk can't be asked; to be tried again only where that may help."""
        gone = CallNotPlaced("Asterisk can't be reached", context_id=CONTEXT_ID, retryable=True)
        told = {"error": "Asterisk can't be reached", "retryable": True, "contextId": CONTEXT_ID}
        self.assertEqual(self.failed(gone, 502, "reached"), told)
        wrong = CallNotPlaced("Asterisk refuses the password of credential pbx", context_id=CONTEXT_ID)
        self.assertFalse(self.failed(wrong, 502, "credential pbx")["retryable"])

    def test_not_now(self) -> None:
        """429 for too many calls, 503 when the server stops or its store is away: all three pass."""
        for error, status, words in (
            (TooManyCalls("100 outbound calls are under way"), 429, "100 outbound calls"),
            (Draining(), 503, "about to stop"),
            (StoreUnavailable("/secret/path is full"), 503, "the call store does not answer"),
        ):
            content = self.failed(error, status, words)
            self.assertEqual((content["retryable"], "contextId" in content), (True, False))

    def test_mistake(self) -> None:
        """A mistake of ours is a 500 that tells nothing of it, and a traceback in the log."""
        content = self.failed(RuntimeError("secret"), 500, "the server failed")
        self.assertEqual((content["retryable"], "secret" in str(content)), (False, False))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_key(self) -> None:
        """A missing or wrong key is refused before anything else is looked at."""
        self.http.draining = True
        for key, words in ((None, "an API key is needed"), ("wrong", "not known")):
            for page in (PAGE, "/v1/talk/asterisk/outbound/2"):
                self.refused(self.http.request(page, method="POST", body=b"{", key=key), 401, words)

    def test_method(self) -> None:
        """Only POST places a call."""
        for method in ("GET", "PUT", "DELETE"):
            response = self.http.request(PAGE, method=method)
            self.refused(response, 405, "not allowed")
            self.assertEqual(response.headers["allow"], "POST")

    def test_assistant(self) -> None:
        """404 for an assistant that is not there, 503 while the server is about to stop."""
        self.refused(self.post(self.body, page="/v1/talk/asterisk/outbound/2"), 404, "no such assistant")
        self.refused(self.post(self.body, page="/v1/talk/asterisk/outbound/"), 404, "no such assistant")
        self.assertEqual(self.post(self.body, page="/v1/talk/asterisk/outbound").status, 404)
        self.assertEqual(self.post(self.body, page=f"{PAGE}/").status, 404)
        self.http.draining = True
        self.assertTrue(self.refused(self.post(self.body), 503, "about to stop")["retryable"])
        self.assertEqual(self.outbound.placed, [])

    def test_no_outbound(self) -> None:
        """501 from a server that places no calls."""
        self.http = InMemoryHttp()
        self.assertFalse(self.refused(self.post(self.body), 501, "places no calls")["retryable"])


class WaitingTests(OutboundTestCase):
    """Asterisk takes its time."""

    def setUp(self) -> None:
        """A client that has asked."""
        super().setUp()
        self.cancelled = 0
        self.outbound.answer = Deferred(self.cancel)
        self.connection = Connection(self.http.site)
        head = f"POST {PAGE} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
        self.connection.send(f'{head}Content-Length: 13\r\n\r\n{{"to": "100"}}'.encode())
        self.assertEqual(len(self.outbound.placed), 1)

    def cancel(self, waiting: Deferred[CallContext]) -> None:
        """Nobody waits for the answer any more."""
        self.cancelled += 1

    def test_slow(self) -> None:
        """An answer may come late, since two requests to a slow Asterisk may be needed."""
        self.http.clock.advance(PLACE_TIMEOUT_S - 1)
        self.assertEqual((self.connection.responses(), self.cancelled), ([], 0))
        assert self.outbound.answer is not None
        self.outbound.answer.callback(self.outbound.context())
        self.assertEqual([response.status for response in self.connection.responses()], [201])

    def test_too_slow(self) -> None:
        """An answer that never comes is a 504 that does not invite to call again."""
        self.http.clock.advance(PLACE_TIMEOUT_S + 1)
        (response,) = self.connection.responses()
        self.assertFalse(self.refused(response, 504, "whether the call was placed")["retryable"])

    def test_client_gone(self) -> None:
        """A client that goes away is not waited for; its call is placed all the same, and nothing breaks."""
        self.connection.lose()
        self.assertEqual(self.cancelled, 1)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.connection.responses(), [])


def values() -> st.SearchStrategy[Any]:
    """Any JSON, and some that is nearly right."""
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    names = st.sampled_from(("a", "_b", "RAPIDA_X", "a(b)")) | st.text(max_size=5)
    return st.recursive(plain, lambda below: st.lists(below, max_size=3) | st.dictionaries(names, below, max_size=3))


def bodies() -> st.SearchStrategy[Any]:
    """Objects with members of all kinds, known and not."""
    names = ("to", "from", "variables", "credential", "context", "stasis", "answer_timeout_s", "typo")
    return st.fixed_dictionaries({"to": st.just("100") | values()}, optional={name: values() for name in names[1:]})


class AnyBodyTests(OutboundTestCase):
    """Whatever is sent, the answer is a call or a refusal."""

    def check(self, response: HttpResponse) -> None:
        """It is a call that can be placed, or a bad request that placed nothing."""
        self.assertIn(response.status, (201, 400))
        self.assertEqual(len(self.outbound.placed), response.status == 201)
        for call in self.outbound.placed:
            self.assertTrue(call.to and len(call.variables) <= 64)
            self.assertFalse(call.stasis and call.context)
            for text in (call.to, call.caller, call.credential, call.context, *call.variables.values()):
                self.assertFalse(any(character < " " for character in text))
            for name in call.variables:
                self.assertTrue(name.isascii() and name.isidentifier() and "rapida_" not in name.lower())
        self.outbound.placed = []

    @given(bodies())
    @example({"to": "100", "variables": {"a": 1}, "stasis": True})
    def test_objects(self, body: Any) -> None:
        """JSON of any shape."""
        self.check(self.post(json.dumps(body).encode()))

    @given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
    def test_bytes(self, body: bytes) -> None:
        """Bytes of any kind."""
        self.check(self.post(body))
