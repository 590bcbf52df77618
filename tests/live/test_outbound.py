"""Outbound calls on a real Asterisk, to real SIP phones: placed, followed, limited, hung up, transferred, survived."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.server import API_KEY, Server
from benchmarks.harness.waiting import wait_until
from rapida_twisted.asterisk.dialplan import (
    DialplanValues,
    audiosocket_dialplan,
    audiosocket_outbound_dialplan,
    websocket_client_conf,
    websocket_outbound_dialplan,
)
from tests.live import phones
from tests.live.asterisk import ARI_PASSWORD, ARI_USER, Asterisk
from tests.live.case import ASSISTANT_ID, LiveTestCase
from tests.live.nodes import live_server
from tests.live.phones import Exchange
from tests.live.receiver import Receiver
from tests.live.recordings import Recording

WEBHOOK_SECRET = "hook-9pWz-5ecret-of-the-webhook"
WRONG_PASSWORD = "ari-wr0ng-Tq71"

SAYS = "tests.live.assistants:Interrupted"
SAID_HZ = 620.0
"""What it says, for 10 s."""
MOVES = "tests.live.assistants:Mover"
SECOND_HZ = 850.0
"""What the second party says."""

# The seed's own lines, unchanged.
SEED = """
[rapida-outbound]
exten => s,1,Set(CHANNEL(audioreadformat)=slin)
 same => n,Set(CHANNEL(audiowriteformat)=slin)
 ; RAPIDA_CONTEXT_ID is set by Rapida ARI when originating the call
 same => n,AudioSocket(${RAPIDA_CONTEXT_ID},${RAPIDA_AS_HOST}:${RAPIDA_PORT})
 same => n,Hangup()
"""

# Answered calls go to the context of their variable GOES_TO.
CONTEXTS = """
[answered]
exten => s,1,Goto(${GOES_TO},s,1)

[party]
exten => 300,1,Answer()
 same => n,Playback({speech})
 same => n,Hangup()
"""

ANSWERED = ["initiated", "ringing", "answered", "completed"]


class OutboundTestCase(LiveTestCase):
    """Phones, a receiver of the webhook, and a server that reaches the phones by its credential ``phones``.

    After each test all that the server said and logged is searched for secrets.
    """

    def setUp(self) -> None:
        """Have phones and a receiver."""
        super().setUp()
        self.exchange = self.have_phones(self.asterisk)
        self.receiver = Receiver().start()
        self.addCleanup(self.receiver.stop)

    def have_phones(self, asterisk: Asterisk) -> Exchange:
        """The phones of an Asterisk's trunk."""
        exchange = Exchange(asterisk)
        self.addCleanup(exchange.stop)
        return exchange

    def prepare(self, assistant: str = SAYS, asterisk: Asterisk | None = None, **settings: object) -> Server:
        """A server that was not started yet, its dialplan and its credential.

        :param settings: such as ``OUTBOUND__CALLS``, by their names.
        """
        asterisk = asterisk or self.asterisk
        environment = {
            "STATUS_WEBHOOK__URL": self.receiver.url, "STATUS_WEBHOOK__SECRET": WEBHOOK_SECRET,
            "OUTBOUND__CONTEXT": "answered", "TRANSFER__ALLOW": "Local/3*@party", "DRAIN_S": "0",
            **{name: str(word) for name, word in settings.items()},
        }  # fmt: skip
        server = live_server(self.directory / "server", f"{ASSISTANT_ID}={assistant}", environment=environment)
        # Cleanups run backwards: this is the last.
        self.addCleanup(self.assert_no_secrets, server)
        self.keep_credential(server, "phones", asterisk, "trunk")
        self.tell(asterisk, server)
        return server

    def tell(self, asterisk: Asterisk, server: Server, outbound: str = "") -> None:
        """Have an Asterisk know the server.

        :param outbound: lines for answered calls in the place of those that the program prints.
        """
        values = DialplanValues(
            api_key=API_KEY, http_url=server.url, audiosocket_host="127.0.0.1",
            audiosocket_port=server.audiosocket_port, assistant_id=ASSISTANT_ID,
        )  # fmt: skip
        printed = audiosocket_outbound_dialplan(transfer=True) + websocket_outbound_dialplan(transfer=True)
        ours = CONTEXTS.replace("{speech}", self.speech(SECOND_HZ, 2.5))
        dialplan = audiosocket_dialplan(values) + (outbound or printed) + ours
        asterisk.write_config("extensions.conf", f"[general]\nclearglobalvars = yes\n{dialplan}")
        asterisk.write_config("websocket_client.conf", websocket_client_conf(values))
        if asterisk.running:
            asterisk.reload()
            asterisk.reload("res_websocket_client.so")

    def keep_credential(
        self, server: Server, name: str, asterisk: Asterisk, trunk: str, password: str = ARI_PASSWORD, port: int = 0
    ) -> None:
        """Put an Asterisk into the server's vault."""
        url = f"http://127.0.0.1:{port or asterisk.http_port}"
        server.keep_credential(name, url, ARI_USER, password, trunk)

    def start(self, assistant: str = SAYS, **settings: object) -> Server:
        """A running server."""
        return self.run_server(self.prepare(assistant, **settings))

    def place(
        self, server: Server, to: str, goes_to: str = "rapida-outbound", *, waits: bool = False, **words: Any
    ) -> str:
        """Place a call; gives its contextId.

        :param waits: whether it has to wait for its turn.
        """
        variables = {"GOES_TO": goes_to, "WORDS": "ä;& b"}
        status, answer = server.place(ASSISTANT_ID, to, variables=variables, **words)
        self.assertEqual(status, 202 if waits else 201, answer)
        context_id: str = answer["contextId"]
        return context_id

    # Claims

    def assert_told(self, record: Mapping[str, Any], statuses: list[str]) -> None:
        """The webhook was told these statuses, signed, and the record as it is at the end."""
        context_id = record["context_id"]
        self.receiver.wait_for(context_id, statuses[-1])
        told = self.receiver.statuses_of(context_id)
        self.assertEqual(told, statuses)
        posts = self.receiver.posts_of(context_id)
        numbers = [post.event["number"] for post in posts]
        self.assertEqual(numbers, sorted(numbers))
        for post in posts:
            self.assert_signed(post.headers, post.body)
        last = posts[-1].record
        for name in ("cause", "cause_text", "dial_status", "hung_up_at", "called", "credential"):
            self.assertEqual(last[name], record[name], name)

    def assert_signed(self, headers: Mapping[str, str], body: bytes) -> None:
        """A POST was signed with the secret that the server was given."""
        timestamp, _, digest = headers["x-rapida-signature"].partition(",")
        signed = timestamp.removeprefix("t=").encode() + b"." + body
        self.assertEqual(digest, "v1=" + hmac.new(WEBHOOK_SECRET.encode(), signed, hashlib.sha256).hexdigest())

    def assert_over(self, record: Mapping[str, Any], status: str, reason: str, cause: int | None) -> None:
        """How a call ended."""
        found = (record["call_status"], record["reason"], record["cause"])
        self.assertEqual(found, (status, reason, cause), record)
        self.assertIsNotNone(record["hung_up_at"])

    def assert_no_secrets(self, server: Server) -> None:
        """Nothing that the server said, logged or POSTed holds a secret."""
        said = "\n".join(
            [server.log(), *server.said]
            + [f"{post.headers}\n{post.body.decode(errors='replace')}" for post in self.receiver.posts]
        )
        key_file = server.directory / "state" / "vault-key"
        secrets = {
            "ARI password": ARI_PASSWORD, "wrong password": WRONG_PASSWORD, "API key": API_KEY,
            "webhook secret": WEBHOOK_SECRET, "master key": key_file.read_text().strip(),
        }  # fmt: skip
        for name, secret in secrets.items():
            self.assertGreater(len(secret), 12, name)
            self.assertNotIn(secret, said, f"the {name}")
            if name != "API key":  # which is the dialplan's
                self.assertNotIn(secret, self.asterisk.log_since(self.mark), f"the {name} in Asterisk's log")

    def assert_heard_both_ways(self, server: Server, context_id: str) -> None:
        """The phone heard the assistant's tone, and the server heard the phone's speech."""
        (heard,) = self.exchange.heard()
        self.assert_tone(heard, SAID_HZ)
        recorded = Recording.load(server.directory / f"state/recordings/{context_id}.wav")
        pieces = self.exchange.speech().pieces(0.5, above_db=-40)
        self.assertGreater(len(pieces), 2)
        likenesses = [piece.found_in(recorded)[1] for _, piece in pieces[1:-1]]
        self.assertGreater(max(likenesses), 0.98, likenesses)


class AnsweredTests(OutboundTestCase):
    """Calls that somebody answers."""

    def test_seed(self) -> None:
        """The seed's own lines: rings, is answered, both hear each other, DELETE hangs up; each status is told."""
        server = self.prepare(f"record:{SAYS}", OUTBOUND__CONTEXT="rapida-outbound")
        self.tell(self.asterisk, server, SEED)
        self.run_server(server)
        context_id = self.place(server, phones.RINGS_FIRST)
        self.assertEqual(server.wait_for_status(context_id, "ringing")["answered_at"], None)
        server.wait_for_status(context_id, "answered")
        time.sleep(3)
        self.assertEqual(server.hang_up(context_id), 202)
        server.wait_for_status(context_id, "completed")

        self.assert_heard_both_ways(server, context_id)
        self.exchange.wait_for("hung up on 201")
        record = server.ended_call(context_id)
        self.assert_over(record, "completed", "operator_hangup", 16)
        self.assertEqual((record["cause_text"], record["dial_status"]), ("Normal Clearing", "ANSWER"))
        self.assertEqual((record["direction"], record["called"], record["credential"]), ("outbound", "201", "phones"))
        self.assertEqual(record["variables"]["WORDS"], "ä;& b")
        self.assertLess(record["answered_at"] + 2.5, record["hung_up_at"])
        self.assert_told(record, ANSWERED)
        figures = server.metrics()
        self.assertGreater(figures['rapida_ari_requests_total{credential="phones",outcome="2xx"}'], 1)
        self.assertEqual(figures['rapida_webhook_requests_total{outcome="2xx"}'], len(ANSWERED))
        self.assertEqual(figures['rapida_call_setup_seconds_count{direction="outbound",transport="audiosocket"}'], 1)

    def test_websocket(self) -> None:
        """Over WebSocket likewise; here it is the phone that hangs up."""
        server = self.start(f"record:{SAYS}")
        context_id = self.place(server, phones.HANGS_UP, "rapida-outbound-ws")
        record = server.wait_for_status(context_id, "completed", timeout_s=8)
        self.assert_heard_both_ways(server, context_id)
        self.exchange.wait_for("hung up 202")
        record = server.ended_call(context_id)
        self.assertEqual((record["transport"], record["reason"]), ("websocket", "caller_hangup"))
        # A phone's BYE without a Reason leaves Asterisk without a cause.
        self.assertIn(record["cause"], (0, 16))
        self.assert_told(record, ANSWERED)

    def test_dial(self) -> None:
        """``rapida-media-ctl dial --wait`` tells each status, and how the call ended; so it does of one that failed."""
        server = self.start(OUTBOUND__CONTEXT="rapida-outbound", OUTBOUND__LONGEST_S=1)
        words = ("--assistant", ASSISTANT_ID, "--wait", "--http", server.url)
        done = server.control("dial", phones.RINGS_FIRST, *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"(?s)ringing\n.*answered\n.*completed, .*Normal Clearing \(cause 16\)")
        done = server.control("dial", phones.BUSY, *words)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"failed, busy: User busy \(cause 17\)")

    def test_transfer(self) -> None:
        """On both transports the assistant hands the call over, and the second party is heard by the phone."""
        server = self.start(MOVES)
        ways = {phones.SPEAKS: "rapida-outbound", phones.RINGS_FIRST: "rapida-outbound-ws"}
        calls = {number: self.place(server, number, context) for number, context in ways.items()}
        for context_id in calls.values():
            record = server.wait_for_status(context_id, "completed", timeout_s=10)
            self.assertEqual((record["status"], record["reason"]), ("completed", "transferred"))
            self.assertEqual(record["next_dial"], "Local/300@party")
            # The call went on after its media were over.
            self.assertLess(record["ended_at"] + 2, record["hung_up_at"])
        recordings = self.exchange.heard()
        self.assertEqual(len(recordings), len(ways))
        for heard in recordings:
            self.assert_tone(heard, SECOND_HZ)


class StasisTests(OutboundTestCase):
    """Calls into the server's own Stasis application, without a dialplan."""

    def assert_nothing_left(self) -> None:
        """No channel and no bridge is left in Asterisk."""
        wait_until("no bridge is left", lambda: self.asterisk.ari("GET", "bridges") == [], 3)
        self.asterisk.wait_until_idle(3)

    def place_in_stasis(self, server: Server, number: str) -> str:
        """Place a call, and wait for its answer; gives its contextId."""
        context_id = self.place(server, number, stasis=True)
        server.wait_for_status(context_id, "answered")
        return context_id

    def test_answered(self) -> None:
        """Both hear each other, and DELETE hangs up."""
        server = self.start(f"record:{SAYS}")
        context_id = self.place_in_stasis(server, phones.SPEAKS)
        time.sleep(3)
        self.assertEqual(server.hang_up(context_id), 202)
        server.wait_for_status(context_id, "completed")
        self.assert_heard_both_ways(server, context_id)
        self.exchange.wait_for("hung up on 200")
        record = server.ended_call(context_id)
        self.assert_over(record, "completed", "operator_hangup", 16)
        self.assert_told(record, ANSWERED)
        self.assert_nothing_left()

    def test_phone_hangs_up(self) -> None:
        """The phone hangs up: the call is over, and its media with it."""
        server = self.start()
        context_id = self.place_in_stasis(server, phones.HANGS_UP)
        server.wait_for_status(context_id, "completed")
        record = server.ended_call(context_id)
        self.assertEqual((record["status"], record["reason"]), ("completed", "caller_hangup"))
        self.assertEqual(self.exchange.count("hung up 202"), 1)
        self.assert_nothing_left()

    def test_transfer(self) -> None:
        """The phone hears the second party when the assistant is gone."""
        server = self.start(MOVES)
        context_id = self.place_in_stasis(server, phones.SPEAKS)
        record = server.wait_for_status(context_id, "completed")
        self.assertEqual((record["reason"], record["next_dial"]), ("transferred", "Local/300@party"))
        (heard,) = self.exchange.heard()
        self.assert_tone(heard, SECOND_HZ)
        self.assert_nothing_left()

    def test_killed_server(self) -> None:
        """A call whose server was killed is hung up when that is back: nobody stays on a dead line."""
        server = self.start()
        context_id = self.place_in_stasis(server, phones.SPEAKS)
        wait_until("it has its media", lambda: server.call(context_id)["status"] == "claimed", 5)
        server.kill()
        server.start()
        record = server.wait_for_status(context_id, "completed", timeout_s=40)
        self.exchange.wait_for("hung up on 200")
        self.assert_told(record, ANSWERED)
        self.assert_nothing_left()


class NotAnsweredTests(OutboundTestCase):
    """Calls that nobody answers, each told why."""

    def test_why(self) -> None:
        """Busy, rejected, unknown, congested, rings too long, nobody there: reason, cause and words of each."""
        server = self.prepare()
        self.keep_credential(server, "absent", self.asterisk, "absent")
        self.keep_credential(server, "silent", self.asterisk, "silent")
        self.run_server(server)
        expected = {
            ("phones", phones.BUSY): ("busy", 17, "User busy"),
            ("phones", phones.DECLINES): ("rejected", 21, "Call Rejected"),
            ("phones", phones.UNKNOWN): ("unavailable", 1, "Unallocated (unassigned) number"),
            ("phones", phones.CONGESTED): ("congestion", 34, "Circuit/channel congestion"),
            ("phones", phones.RINGS): ("no_answer", 19, "User alerting, no answer"),
            ("absent", phones.SPEAKS): ("congestion", 34, "Circuit/channel congestion"),
            ("silent", phones.SPEAKS): ("unavailable", 19, "User alerting, no answer"),
        }
        calls = {
            (credential, number): self.place(server, number, credential=credential, answer_timeout_s=2)
            for credential, number in expected
        }
        for way, context_id in calls.items():
            reason, cause, cause_text = expected[way]
            record = server.wait_for_status(context_id, "failed", "completed", "cancelled")
            self.assert_over(record, "failed", reason, cause)
            self.assertEqual((record["status"], record["cause_text"]), ("failed", cause_text))
            rang = ["ringing"] if way == ("phones", phones.RINGS) else []
            self.assert_told(record, ["initiated", *rang, "failed"])
        self.exchange.wait_for(f"cancelled {phones.RINGS}")
        self.assertEqual(self.exchange.count("answered"), 0)

    def test_not_placed(self) -> None:
        """No such trunk or phone, a wrong password, no ARI: each its own answer, and a record that says so."""
        server = self.prepare()
        self.keep_credential(server, "missing", self.asterisk, "nothere")
        self.keep_credential(server, "unregistered", self.asterisk, "unregistered")
        self.keep_credential(server, "mistyped", self.asterisk, "trunk", password=WRONG_PASSWORD)
        self.keep_credential(server, "away", self.asterisk, "trunk", port=self.asterisk.nobody_port)
        self.run_server(server)
        expected = {
            "missing": (422, "Allocation failed", False),
            "unregistered": (422, "Allocation failed", False),
            "mistyped": (502, "mistyped", False),
            "away": (502, "away", True),
            "unheard-of": (422, "unheard-of", False),
        }
        for credential, (status, words, retryable) in expected.items():
            found, answer = server.place(ASSISTANT_ID, phones.SPEAKS, credential=credential)
            self.assertEqual(found, status, answer)
            self.assertIn(words, answer["error"], credential)
            self.assertEqual(answer.get("retryable", False), retryable, answer)
            if answer.get("contextId"):
                record = server.wait_for_status(answer["contextId"], "failed")
                self.assertEqual((record["status"], record["reason"]), ("failed", "not_placed"), credential)
                self.assert_told(record, ["failed"])
        self.assertEqual(self.exchange.count("called"), 0)
        # The others do not suffer from it.
        server.wait_for_status(self.place(server, phones.BUSY, credential="phones"), "failed")

    def test_cancelled(self) -> None:
        """DELETE takes a ringing call back: its phone is told, and so is everybody else."""
        server = self.start()
        context_id = self.place(server, phones.RINGS)
        server.wait_for_status(context_id, "ringing")
        self.assertEqual(server.hang_up(context_id), 202)
        self.exchange.wait_for(f"cancelled {phones.RINGS}")
        record = server.wait_for_status(context_id, "cancelled")
        self.assert_over(record, "cancelled", "cancelled", 16)
        self.assert_told(record, ["initiated", "ringing", "cancelled"])
        self.assertEqual(server.hang_up(context_id), 404)


class LimitTests(OutboundTestCase):
    """So many at once, so many waiting, so long."""

    def test_limits(self) -> None:
        """One at once: the second waits and has its turn, the third is too many; each lasts two seconds at most."""
        server = self.start(OUTBOUND__CALLS=1, OUTBOUND__QUEUE=1, OUTBOUND__LONGEST_S=2)
        first = self.place(server, phones.SPEAKS)
        second = self.place(server, phones.HANGS_UP, waits=True)
        self.assertEqual(server.call(second)["call_status"], "new")
        status, answer = server.place(ASSISTANT_ID, phones.SPEAKS)
        self.assertEqual(status, 429, answer)
        self.assertIn("error", answer)
        records = [server.wait_for_status(call, "completed", timeout_s=8) for call in (first, second)]
        for record in records:
            self.assert_near(record["hung_up_at"] - record["answered_at"], 2.0, 0.3, "lasted (s)")
            self.assert_told(record, ANSWERED)
        self.assertGreater(records[1]["answered_at"], records[0]["hung_up_at"])

    def test_cancelled_while_waiting(self) -> None:
        """A call that waits for its turn is taken back without anybody having been called, and makes room."""
        server = self.start(OUTBOUND__CALLS=1, OUTBOUND__QUEUE=1)
        first = self.place(server, phones.RINGS)
        second = self.place(server, phones.SPEAKS, waits=True)
        self.assertEqual(server.hang_up(second), 202)
        record = server.wait_for_status(second, "cancelled")
        self.assertEqual((record["status"], record["reason"], record["cause"]), ("failed", "cancelled", None))
        third = self.place(server, phones.BUSY, waits=True)
        server.hang_up(first)
        server.wait_for_status(third, "failed")
        self.assertEqual(self.exchange.count(f"called {phones.SPEAKS}"), 0)


class RestartTests(OutboundTestCase):
    """Asterisk, or the server, ends in the middle of calls."""

    def test_asterisk(self) -> None:
        """Asterisk is killed with a call up, one ringing: both are told lost when it is back; the next one works."""
        asterisk = Asterisk(self.asterisk.root)
        self.addCleanup(asterisk.stop)
        server = self.prepare(asterisk=asterisk, OUTBOUND__CONTEXT="rapida-outbound")
        exchange = self.have_phones(asterisk)
        asterisk.start()
        self.run_server(server)
        up, ringing = self.place(server, phones.SPEAKS), self.place(server, phones.RINGS)
        server.wait_for_status(ringing, "ringing")
        server.wait_for_status(up, "answered")
        time.sleep(2)
        asterisk.kill()
        status, answer = server.place(ASSISTANT_ID, phones.SPEAKS)
        self.assertEqual((status, answer["retryable"]), (502, True), answer)
        asterisk.start()
        for context_id in (up, ringing):
            record = server.wait_for_status(context_id, "failed", timeout_s=10)
            self.assertEqual(record["cause_text"], "Asterisk was restarted")
            self.receiver.wait_for(context_id, "failed")
        self.assertEqual(record["reason"], "asterisk_gone")
        self.assertIsNotNone(server.call(up)["ended_at"])
        following = self.place(server, phones.SPEAKS)
        server.wait_for_status(following, "answered")
        server.hang_up(following)
        self.assert_over(server.wait_for_status(following, "completed"), "completed", "operator_hangup", 16)
        exchange.wait_for("hung up on 200")
        self.assertEqual(exchange.count("called"), 3)

    def test_stopped_server(self) -> None:
        """SIGTERM: a ringing call is taken back, one that is up ends; what nobody was told yet is told later."""
        self.receiver.stop()
        server = self.start(OUTBOUND__CONTEXT="rapida-outbound")
        up, ringing = self.place(server, phones.SPEAKS), self.place(server, phones.RINGS)
        server.wait_for_status(ringing, "ringing")
        wait_until("it has its media", lambda: server.call(up)["status"] == "claimed", 5)
        server.terminate()
        server.wait(10)
        self.exchange.wait_for(f"cancelled {phones.RINGS}")
        self.exchange.wait_for("hung up on 200")
        self.assertEqual(self.receiver.posts, [])
        self.receiver.start()
        server.start()
        # Another node that takes it over has another Stasis application, and asks what became of it.
        record = server.wait_for_status(up, "completed", timeout_s=40)
        self.assertEqual((record["status"], record["reason"]), ("completed", "shutdown"))
        self.assert_told(record, ANSWERED)
        record = server.wait_for_status(ringing, "cancelled")
        self.assert_told(record, ["initiated", "ringing", "cancelled"])

    def test_killed_server(self) -> None:
        """SIGKILL: after the start each call is followed to its end, be it over or not, and told once."""
        server = self.start(OUTBOUND__CONTEXT="rapida-outbound")
        up, short = self.place(server, phones.SPEAKS), self.place(server, phones.RINGS, answer_timeout_s=2)
        ringing, rings_on = [self.place(server, phones.RINGS, answer_timeout_s=wait_s) for wait_s in (5, 60)]
        wait_until("it has its media", lambda: server.call(up)["status"] == "claimed", 5)
        for context_id in (short, ringing, rings_on):
            server.wait_for_status(context_id, "ringing")
        server.kill()
        self.exchange.wait_for("hung up on 200")
        self.exchange.wait_for(f"cancelled {phones.RINGS}")
        server.start()
        record = server.wait_for_status(up, "completed", timeout_s=40)
        self.assert_told(record, ANSWERED)
        self.assertEqual((record["status"], record["reason"]), ("failed", "server_lost"))
        record = server.wait_for_status(short, "failed", timeout_s=40)
        self.assertEqual(record["reason"], "no_answer")
        self.assert_told(record, ["initiated", "ringing", "failed"])
        self.assertEqual(server.call(rings_on)["call_status"], "ringing")
        self.assertEqual(server.hang_up(rings_on), 202)
        self.assert_over(server.wait_for_status(rings_on, "cancelled"), "cancelled", "cancelled", 16)
        record = server.wait_for_status(ringing, "failed", timeout_s=40)
        self.assert_over(record, "failed", "no_answer", 19)
        self.assert_told(record, ["initiated", "ringing", "failed"])
