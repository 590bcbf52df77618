"""The calls over HTTP."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import CallContext, CallProgress, CallStatus, Direction, EndReason
from tests.web.in_memory import NOW, InMemoryHttp

UNKNOWN = "626162e8-ed7b-44b4-b10d-000000000000"


class CallsTests(SynchronousTestCase):
    """/v1/calls shows what became of calls, and hangs up."""

    def setUp(self) -> None:
        """A server with three calls: one over, one up, one waiting."""
        self.http = InMemoryHttp()
        self.ids = []
        for number in range(3):
            self.http.now = NOW + number
            response = self.http.request(f"/v1/talk/asterisk/call/1?from=+49{number}&to=100&channel_id=17.4&lang=de")
            self.ids.append(response.body.decode())
        for number in range(2):
            claiming = self.http.store.claim(
                self.ids[number], transport="audiosocket", peer="192.0.2.7:40312", now=NOW + 10
            )
            self.successResultOf(claiming)
        finishing = self.http.store.finish(
            self.ids[0], reason=EndReason.CALLER_HANGUP, audio_in_s=2.5, audio_out_s=1.5, now=NOW + 20
        )
        self.successResultOf(finishing)

    def json(self, target: str) -> Any:
        """The JSON that a GET gives."""
        response = self.http.request(target)
        self.assertEqual((response.status, response.headers["content-type"]), (200, "application/json"))
        self.assertEqual(response.headers["cache-control"], "no-store")
        return json.loads(response.body)

    def listed(self, query: str = "") -> list[int]:
        """The numbers of the calls that are listed."""
        return [self.ids.index(record["context_id"]) for record in self.json(f"/v1/calls?{query}")["calls"]]

    def test_record(self) -> None:
        """A record holds all that is known of a call, its times as numbers and as text."""
        self.assertEqual(
            self.json(f"/v1/calls/{self.ids[0]}"),
            {
                "context_id": self.ids[0],
                "assistant_id": "1",
                "created_at": NOW,
                "expires_at": NOW + 300,
                "direction": "inbound",
                "status": "completed",
                "caller": "+490",
                "called": "100",
                "channel_id": "17.4",
                "variables": {"lang": "de"},
                "transport": "audiosocket",
                "peer": "192.0.2.7:40312",
                "claimed_at": NOW + 10,
                "ended_at": NOW + 20,
                "reason": "caller_hangup",
                "audio_in_s": 2.5,
                "audio_out_s": 1.5,
                "detail": "",
                "upstream_id": "",
                "key_name": "",
                "registered_from": "192.0.2.7",
                "next_dial": "",
                "credential": "",
                "call_status": None,
                "answered_at": None,
                "hung_up_at": None,
                "dial_status": "",
                "cause": None,
                "cause_text": "",
                "owner": "",
                "follower": "",
                "created": "2026-11-18T11:06:40.250Z",
                "claimed": "2026-11-18T11:06:50.250Z",
                "ended": "2026-11-18T11:07:00.250Z",
                "answered": None,
                "hung_up": None,
            },
        )

    def test_times_not_reached(self) -> None:
        """Times that were not reached are null."""
        record = self.json(f"/v1/calls/{self.ids[2]}")
        self.assertEqual((record["claimed_at"], record["claimed"], record["ended"]), (None, None, None))

    def test_list(self) -> None:
        """The newest come first; limit and status narrow the list."""
        self.assertEqual(self.listed(), [2, 1, 0])
        self.assertEqual(self.listed("limit=2"), [2, 1])
        self.assertEqual(self.listed("status=claimed"), [1])
        self.assertEqual(self.listed("status=expired&limit=1000"), [])

    def test_default_limit(self) -> None:
        """Without a limit there are at most a hundred."""
        for _ in range(97):
            self.http.request("/v1/talk/asterisk/call/1")
        self.http.store.sweep(now=NOW + 999, forget_before=0)
        for _ in range(20):
            self.http.request("/v1/talk/asterisk/call/1")
        self.assertEqual(len(self.json("/v1/calls")["calls"]), 100)

    def test_bad_query(self) -> None:
        """A limit or status that is none is refused with what would be one."""
        for limit in ("0", "1001", "-1", "x", "1e3", "9" * 4000, "%C2%B2"):
            response = self.http.request(f"/v1/calls?limit={limit}")
            self.assertEqual(
                (response.status, response.body, response.reason), (400, b"", "limit is a number from 1 to 1000")
            )
        response = self.http.request("/v1/calls?status=gone")
        self.assertEqual(response.status, 400)
        self.assertIn("pending, claimed, completed", response.reason)

    def test_unknown(self) -> None:
        """A call that is not there: 404, whatever its name."""
        for name in (UNKNOWN, "x", "%ff", "a%0d%0ab", "", f"{self.ids[0]}/x"):
            response = self.http.request(f"/v1/calls/{name}")
            self.assertEqual((response.status, response.body), (404, b""), name)

    def test_key(self) -> None:
        """Nothing is shown or done without a key."""
        for method, target in (("GET", "/v1/calls"), ("GET", f"/v1/calls/{self.ids[0]}"), ("DELETE", "/v1/calls/x")):
            self.assertEqual(self.http.request(target, method=method, key=None).status, 401)
        self.assertEqual(self.http.hung_up, [])

    def test_head(self) -> None:
        """HEAD is GET without the body."""
        whole = self.http.request("/v1/calls")
        response = self.http.request("/v1/calls", method="HEAD")
        self.assertEqual((response.status, response.headers["content-length"]), (200, str(len(whole.body))))

    def test_methods(self) -> None:
        """Other methods are refused, and what is allowed is told."""
        self.assertEqual(self.http.request("/v1/calls", method="DELETE").headers["allow"], "GET, HEAD")
        response = self.http.request(f"/v1/calls/{self.ids[1]}", method="POST")
        self.assertEqual((response.status, response.headers["allow"]), (405, "GET, HEAD, DELETE"))

    def test_hangup(self) -> None:
        """DELETE hangs up a call that is up: 202, and without a body."""
        self.http.up.add(self.ids[1])
        response = self.http.request(f"/v1/calls/{self.ids[1]}", method="DELETE")
        self.assertEqual((response.status, response.body), (202, b""))
        self.assertEqual(self.http.hung_up, [self.ids[1]])

    def test_hangup_of_media_elsewhere(self) -> None:
        """A call that this process follows, and whose media another one has, is hung up by orders to both: the media
        first."""
        store = self.http.store
        context_id = str(uuid4())
        context = CallContext(
            context_id=context_id, assistant_id="1", created_at=NOW, expires_at=NOW + 300, direction=Direction.OUTBOUND,
            call_status=CallStatus.ANSWERED, follower="here",
        )  # fmt: skip
        self.successResultOf(store.add(context, 10))
        store.owner = "there"
        self.successResultOf(store.claim(context_id, transport="audiosocket", peer="", now=NOW + 10))
        store.owner = "here"
        self.http.up.add(context_id)
        response = self.http.request(f"/v1/calls/{context_id}", method="DELETE")
        self.assertEqual(json.loads(response.body), {"contextId": context_id, "ordered": ["here", "there"]})
        self.assertEqual(self.http.hung_up, [])
        for owner in ("here", "there"):
            store.owner = owner
            orders = self.successResultOf(store.orders(now=time.time()))
            self.assertEqual(orders, [{"hangup": context_id, "media": "there"}])

    def test_hangup_elsewhere(self) -> None:
        """A call that another process has is hung up by an order to it: 202, and who got the order."""
        store = self.http.store
        store.owner = "there"
        self.successResultOf(store.claim(self.ids[2], transport="audiosocket", peer="", now=NOW + 10))
        store.owner = "here"
        response = self.http.request(f"/v1/calls/{self.ids[2]}", method="DELETE")
        self.assertEqual(response.status, 202)
        self.assertEqual(json.loads(response.body), {"contextId": self.ids[2], "ordered": ["there"]})
        self.assertEqual(self.successResultOf(store.orders(now=time.time())), [])
        store.owner = "there"
        orders = self.successResultOf(store.orders(now=time.time()))
        self.assertEqual(orders, [{"hangup": self.ids[2], "media": "there"}])
        self.assertEqual(self.http.request(f"/v1/calls/{self.ids[2]}", method="DELETE").status, 404)

    def test_hangup_of_what_rings_elsewhere(self) -> None:
        """So is an outbound call that another process follows; when that is over nobody is asked any more."""
        call = CallContext(
            context_id=UNKNOWN, assistant_id="1", created_at=NOW, expires_at=NOW + 300, direction=Direction.OUTBOUND,
            call_status=CallStatus.RINGING, follower="there",
        )  # fmt: skip
        self.successResultOf(self.http.store.add(call, 10))
        response = self.http.request(f"/v1/calls/{UNKNOWN}", method="DELETE")
        self.assertEqual((response.status, json.loads(response.body)["ordered"]), (202, ["there"]))
        over = CallProgress(status=CallStatus.CANCELLED, at=NOW)
        self.successResultOf(self.http.store.follow(UNKNOWN, over))
        self.assertEqual(self.http.request(f"/v1/calls/{UNKNOWN}", method="DELETE").status, 404)

    def test_hangup_of_nothing(self) -> None:
        """404 when no such call is up."""
        response = self.http.request(f"/v1/calls/{self.ids[0]}", method="DELETE")
        self.assertEqual((response.status, response.reason), (404, "no such call is up"))
