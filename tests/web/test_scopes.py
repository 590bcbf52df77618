"""Keys with names: what each of their scopes opens, and how many calls each may have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from rapida_twisted.context import CallContext, CallStatus, Direction, EndReason
from rapida_twisted.credentials.failed_keys import DELAY_S, FREE_PER_MINUTE
from rapida_twisted.credentials.key_ring import KeyRing, Scope
from rapida_twisted.credentials.masking import masked
from rapida_twisted.interfaces import IOutbound, OutboundCall
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.web.clock import ClockPage
from rapida_twisted.web.next_hop import ContextPages
from rapida_twisted.web.websocket import assistants_gate, handshake_gate
from tests.web.in_memory import KEY, NOW, Connection, HttpResponse, InMemoryHttp
from tests.web.test_websocket import Request

CALL = "/v1/talk/asterisk/call/1"
OUTBOUND = "/v1/talk/asterisk/outbound/1"
A_CALL = "626162e8-ed7b-44b4-b10d-000000000001"


@implementer(IOutbound)
class _Outbound:
    """Takes all calls."""

    def __init__(self) -> None:
        self.placed: list[OutboundCall] = []

    def place(self, call: OutboundCall) -> Deferred[CallContext]:
        """Take it."""
        self.placed.append(call)
        context = CallContext(
            context_id=A_CALL, assistant_id="1", created_at=NOW, expires_at=NOW, call_status=CallStatus.INITIATED
        )
        return succeed(context)

    def hang_up(self, context_id: str) -> bool:
        """There is none."""
        return False


class ScopesTestCase(SynchronousTestCase):
    """A server with a key file."""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.ring = KeyRing(directory / "keys.json")
        self.outbound = _Outbound()
        self.store: Any = MemoryStore()
        self.start()

    def start(self) -> None:
        """Start the server."""
        self.http = InMemoryHttp(self.store, outbound=self.outbound, ring=self.ring)

    def make(self, *scopes: Scope, name: str = "", max_calls: int = 0) -> str:
        """A key with these scopes."""
        return self.ring.make(name or "-".join(scopes), scopes, now=NOW, max_calls=max_calls)

    def place(self, key: str) -> HttpResponse:
        """Have a call placed."""
        headers = {"Content-Type": "application/json"}
        return self.http.request(OUTBOUND, method="POST", headers=headers, body=b'{"to": "100"}', key=key)


class ScopesTests(ScopesTestCase):
    """What a scope opens."""

    def test_wrong_keys_are_slow(self) -> None:
        """After a number of wrong keys from one address, each refusal waits; a right key never does."""
        for _ in range(FREE_PER_MINUTE):
            self.assertEqual(self.http.request("/v1/calls", key="rpd-wrong").status, 401)
        slow = Connection(self.http.site)
        slow.send(b"GET /v1/calls HTTP/1.1\r\nHost: x\r\nx-api-key: rpd-wrong\r\n\r\n")
        self.assertEqual(slow.responses(), [])
        self.assertEqual(self.http.request("/v1/calls", key=KEY).status, 200)
        self.http.clock.advance(DELAY_S)
        self.assertEqual([response.status for response in slow.responses()], [401])

    def test_not_in_the_log(self) -> None:
        """From its first use on, a key is masked, as the server's own is."""
        key = self.make(Scope.READ)
        self.assertEqual(self.http.request("/v1/calls", key=key).status, 200)
        self.assertEqual(masked(f"somebody wrote {key}!"), "somebody wrote ***!")

    def test_each(self) -> None:
        """Each scope opens what it is for and nothing else; a key with all of them everything."""
        self.store.add(_context(), 10)
        self.http.up.add(A_CALL)
        asked = {
            ("GET", CALL): Scope.REGISTER,
            ("POST", CALL): Scope.REGISTER,
            ("GET", "/v1/calls"): Scope.READ,
            ("GET", f"/v1/calls/{A_CALL}"): Scope.READ,
            ("HEAD", f"/v1/calls/{A_CALL}"): Scope.READ,
            ("DELETE", f"/v1/calls/{A_CALL}"): Scope.CONTROL,
        }
        keys = {scope: self.make(scope) for scope in Scope}
        everything = self.make(*Scope, name="everything")
        for (method, target), needed in asked.items():
            for scope, key in keys.items():
                response = self.http.request(target, method=method, key=key)
                if scope is needed:
                    self.assertIn(response.status, (200, 202), (method, target))
                else:
                    self.assertEqual((response.status, response.body), (403, b""), (method, target, scope))
                    self.assertIn(needed.value, response.reason)
            self.assertIn(self.http.request(target, method=method, key=everything).status, (200, 202))
        self.assertEqual(len(self.http.hung_up), 2)

    def test_refused_registration_is_none(self) -> None:
        """A call whose key may not register calls is not kept; who asks for JSON gets the reason in it."""
        response = self.http.request(CALL, headers={"Accept": "application/json"}, key=self.make(Scope.READ))
        self.assertEqual(response.status, 403)
        self.assertIn("register", json.loads(response.body)["error"])
        self.assertEqual(self.http.kept(), [])

    def test_outbound(self) -> None:
        """Calls are placed for those who control, and carry the key's name."""
        for scope in (Scope.READ, Scope.REGISTER):
            response = self.place(self.make(scope))
            self.assertEqual(response.status, 403)
            self.assertIn("control", json.loads(response.body)["error"])
        self.assertEqual(self.outbound.placed, [])
        self.assertEqual(self.place(self.make(Scope.CONTROL, name="dialler")).status, 201)
        self.assertEqual(self.place(KEY).status, 201)
        self.assertEqual([call.key_name for call in self.outbound.placed], ["dialler", ""])

    def test_pages_elsewhere(self) -> None:
        """The clock is for readers, its reset for those who control; where a call goes next is for the dialplan, and
        for those who control."""
        http = InMemoryHttp(self.store, ring=self.ring)
        pages = {
            b"clock": ClockPage(MediaClock(Clock()), http.keys),
            b"talk/asterisk/ctx": ContextPages(self.store, http.keys, None),  # type: ignore[arg-type]
        }
        self.store.add(replace(_context(), key_name="next-register"), 10)
        self.http = InMemoryHttp(self.store, pages, ring=self.ring)
        for name, method, target, needed in (
            ("clock", "GET", "/v1/clock", {Scope.READ}),
            ("reset", "DELETE", "/v1/clock", {Scope.CONTROL}),
            ("next", "GET", f"/v1/talk/asterisk/ctx/{A_CALL}/next", {Scope.REGISTER, Scope.CONTROL}),
        ):
            for scope in Scope:
                key = self.make(scope, name=f"{name}-{scope}")
                wanted = 200 if scope in needed else 403
                self.assertEqual(
                    self.http.request(target, method=method, key=key).status, wanted, (method, target, scope)
                )

    def test_next_of_another_key(self) -> None:
        """Where a call goes next is for the key that registered it; of an outbound call, for any dialplan's."""
        pages = {b"talk/asterisk/ctx": ContextPages(self.store, self.http.keys, None)}  # type: ignore[arg-type]
        self.http = InMemoryHttp(self.store, pages, ring=self.ring)
        self.store.add(replace(_context(), key_name="one"), 10)
        outbound = f"{A_CALL[:-1]}2"
        self.store.add(replace(_context(), context_id=outbound, key_name="one", direction=Direction.OUTBOUND), 10)
        for name, status in (("one", 200), ("two", 404)):
            key = self.make(Scope.REGISTER, name=name)
            self.assertEqual(self.http.request(f"/v1/talk/asterisk/ctx/{A_CALL}/next", key=key).status, status)
            self.assertEqual(self.http.request(f"/v1/talk/asterisk/ctx/{outbound}/next", key=key).status, 200)

    def test_waiting_calls(self) -> None:
        """The contextId of a waiting call, with which anybody could be its media, is for keys that may register."""
        self.store.add(replace(_context(), upstream_id="far"), 10)
        for scopes, is_shown in (((Scope.READ,), False), ((Scope.READ, Scope.REGISTER), True)):
            key = self.make(*scopes)
            for target in ("/v1/calls", f"/v1/calls/{A_CALL}"):
                record = json.loads(self.http.request(target, key=key).body)
                shown = record.get("calls", [record])[0]
                wanted = (A_CALL, "far") if is_shown else ("", "")
                self.assertEqual((shown["context_id"], shown["upstream_id"]), wanted, (scopes, target))
        self.store.claim(A_CALL, transport="audiosocket", peer="", now=NOW)
        (shown,) = json.loads(self.http.request("/v1/calls", key=self.make(Scope.READ, name="later")).body)["calls"]
        self.assertEqual(shown["context_id"], A_CALL)

    def test_bound_key(self) -> None:
        """For a key that is bound to assistants, there are no others and none of their calls."""
        http = self.http
        pages: Any = {
            b"talk/asterisk/ctx": ContextPages(self.store, http.keys, None),  # type: ignore[arg-type]
            b"clock": ClockPage(MediaClock(Clock()), http.keys),
        }
        self.http = InMemoryHttp(self.store, pages, outbound=self.outbound, ring=self.ring)
        self.http.hangs_up = True
        key = self.ring.make("tenant", list(Scope), now=NOW, assistants=["7"])
        other = f"{A_CALL[:-1]}7"
        self.store.add(_context(), 10)
        self.store.add(replace(_context(), context_id=other, assistant_id="7"), 10)
        calls = json.loads(self.http.request("/v1/calls?limit=1", key=key).body)["calls"]
        self.assertEqual([call["context_id"] for call in calls], [other])
        for method, target, status in (
            ("GET", "/v1/talk/asterisk/call/1", 404), ("GET", f"/v1/calls/{A_CALL}", 404),
            ("DELETE", f"/v1/calls/{A_CALL}", 404), ("GET", f"/v1/talk/asterisk/ctx/{A_CALL}/next", 404),
            ("GET", "/v1/clock", 403), ("GET", "/v1/talk/asterisk/call/7", 200), ("GET", f"/v1/calls/{other}", 200),
            ("GET", f"/v1/talk/asterisk/ctx/{other}/next", 200),
        ):  # fmt: skip
            self.assertEqual(self.http.request(target, method=method, key=key).status, status, (method, target))
        self.assertEqual((self.place(key).status, self.outbound.placed), (404, []))
        self.assertEqual(assistants_gate(self.http.keys)(Request({"x-api-key": key})), {"7"})
        self.assertEqual(tuple(assistants_gate(self.http.keys)(Request({"x-api-key": KEY}))), ())

    def test_details_of_readiness(self) -> None:
        """They are for keys that may read."""
        self.http.assistants = {"*": {"upstream": "far.example:443"}}
        for scope in Scope:
            response = self.http.request("/readyz", key=self.make(scope))
            self.assertEqual(response.status, 200)
            self.assertEqual("assistants" in json.loads(response.body), scope is Scope.READ)

    def test_method_before_scope(self) -> None:
        """A method that is not known is told as such to whoever has a key."""
        self.assertEqual(self.http.request("/v1/calls", method="PUT", key=self.make(Scope.REGISTER)).status, 405)

    def test_websocket(self) -> None:
        """Media may be connected with the key that registers calls."""
        check = handshake_gate(self.http.keys)
        self.assertIsNone(check(Request({"x-api-key": self.make(Scope.REGISTER)})))
        self.assertIsNone(check(Request({"x-api-key": KEY})))
        for scope in (Scope.READ, Scope.CONTROL):
            said = check(Request({"x-api-key": self.make(scope)}))
            assert said is not None
            self.assertEqual(said[0], 403)
            self.assertIn("register", said[1])
        self.assertEqual(check(Request({"x-api-key": "rpd-bad"})), (401, "this API key is not known"))

    def test_revoked(self) -> None:
        """A key that was revoked is unknown from the next request on."""
        key = self.make(Scope.READ, name="office")
        self.assertEqual(self.http.request("/v1/calls", key=key).status, 200)
        KeyRing(self.ring.path).revoke("office")
        self.assertEqual(self.http.request("/v1/calls", key=key).status, 401)
        self.assertEqual(self.http.request("/v1/calls").status, 200)


class LimitTests(ScopesTestCase):
    """How many calls a key may have."""

    def status(self, key: str) -> int:
        """The status of a registration."""
        return self.http.request(CALL, key=key).status

    def test_limit(self) -> None:
        """One more than it may: 429, with a reason and nothing in the body; others are not touched by it."""
        key = self.make(Scope.REGISTER, name="office", max_calls=2)
        free = self.make(Scope.REGISTER, name="free")
        self.assertEqual([self.status(key), self.status(key)], [200, 200])
        response = self.http.request(CALL, key=key)
        self.assertEqual((response.status, response.body, response.headers["retry-after"]), (429, b"", "2"))
        self.assertIn("its limit is 2", response.reason)
        self.assertEqual([self.status(free), self.status(KEY)], [200, 200])
        names = sorted(context.key_name for context in self.http.kept())
        self.assertEqual(names, ["", "free", "office", "office"])

    def test_room_again(self) -> None:
        """A call that is over gives its place back, and one that never came, when its time is over."""
        key = self.make(Scope.REGISTER, name="office", max_calls=1)
        self.assertEqual([self.status(key), self.status(key)], [200, 429])
        (first,) = self.http.kept()
        self.store.claim(first.context_id, transport="audiosocket", peer="x", now=NOW)
        self.assertEqual(self.status(key), 429)
        self.store.finish(
            first.context_id, reason=EndReason.CALLER_HANGUP, audio_in_s=0.0, audio_out_s=0.0, now=NOW + 1
        )
        self.assertEqual([self.status(key), self.status(key)], [200, 429])
        self.http.now += 301
        self.assertEqual(self.status(key), 200)

    def test_at_once(self) -> None:
        """Of many that register at the same moment, as many as may be get a place."""
        self.store = _SlowStore()
        self.start()
        key = self.make(Scope.REGISTER, name="office", max_calls=3)
        connections = [Connection(self.http.site) for _ in range(8)]
        for connection in connections:
            connection.send(f"GET {CALL} HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\n\r\n".encode())
        for _ in range(40):
            self.store.answer()
        statuses = sorted(connection.responses()[0].status for connection in connections)
        self.assertEqual(statuses, [200] * 3 + [429] * 5)

    def test_outbound(self) -> None:
        """Calls that are to be placed count likewise."""
        self.store.add(_context(key_name="dialler"), 10)
        key = self.make(Scope.CONTROL, name="dialler", max_calls=1)
        response = self.place(key)
        self.assertEqual((response.status, json.loads(response.body)["retryable"]), (429, True))
        self.assertEqual(self.outbound.placed, [])

    def test_another_server_is_not_asked(self) -> None:
        """A call that has no place here is not registered elsewhere first."""
        asked: list[CallContext] = []

        async def prepare(context: CallContext) -> CallContext:
            asked.append(context)
            return context

        self.patch(InMemoryHttp, "_prepare", lambda http, context: prepare(context))
        self.start()
        key = self.make(Scope.REGISTER, name="office", max_calls=1)
        self.assertEqual([self.status(key), self.status(key)], [200, 429])
        self.assertEqual([context.key_name for context in asked], ["office"])


class _SlowStore(MemoryStore):
    """Answers one question at a time, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: list[Any] = []

    def answer(self) -> None:
        """Answer the oldest question."""
        if self._asked:
            waiting, question = self._asked.pop(0)
            question().chainDeferred(waiting)

    def add(self, context: CallContext, max_pending: int) -> Deferred[None]:
        """Later."""
        return self._later(lambda: super(_SlowStore, self).add(context, max_pending))

    def calls_of_key(self, key_name: str, *, now: float) -> Deferred[int]:
        """Later."""
        return self._later(lambda: super(_SlowStore, self).calls_of_key(key_name, now=now))

    def _later(self, question: Any) -> Any:
        waiting: Deferred[Any] = Deferred()
        self._asked.append((waiting, question))
        return waiting


def _context(**changes: Any) -> CallContext:
    return CallContext(
        **{"context_id": A_CALL, "assistant_id": "1", "created_at": NOW, "expires_at": NOW + 300, **changes}
    )
