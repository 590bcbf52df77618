"""``rapida-media-ctl dial`` as a process, against a server that pretends to place calls."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site
from zope.interface import implementer

from rapida_twisted.context import CallContext, CallProgress, CallStatus, Direction, EndReason
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.errors import CallNotPlaced, RapidaError, StoreUnavailable, TooManyCalls
from rapida_twisted.interfaces import IOutbound, OutboundCall
from rapida_twisted.server.registrar import Registrar
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.tools.ctl.calls import calls_text
from rapida_twisted.tools.ctl.dial import END_DELAY_S, PATIENCE_S, DialCommand, change_text
from rapida_twisted.tools.ctl.server_client import NoResponse, Response, ServerRefused
from rapida_twisted.web.site import RapidaSite, make_root
from tests.tools.ctl.test_calls import API_KEY, CTL, WRONG_KEY, ServerTestCase, Stranger

slow = True  # starts processes: see tests/support/selection.py

ANSWERED = (CallStatus.RINGING, CallStatus.ANSWERED, CallStatus.COMPLETED)
UNANSWERED = (CallStatus.RINGING, CallStatus.FAILED)
CONTEXT_ID = "626162e8-ed7b-44b4-b10d-2f3ca1d457ca"


@implementer(IOutbound)
class PretendedCalls(MemoryStore):
    """Registers calls and says that they are placed. Whenever a call is looked at, it then gets a step further."""

    def __init__(self) -> None:
        super().__init__()
        self.placed: list[OutboundCall] = []
        self.refusal: RapidaError | None = None
        self.first = CallStatus.INITIATED
        self.steps: list[CallStatus] = list(ANSWERED)
        self.troubles = 0
        """How many times the store does not answer, once the call rings."""
        self.reason = EndReason.BUSY

    def place(self, call: OutboundCall) -> Deferred[CallContext]:
        """Register it, or refuse it."""
        self.placed.append(call)
        if self.refusal is not None:
            return fail(self.refusal)
        now, context_id = time.time(), str(uuid4())
        context = CallContext(
            context_id=context_id, assistant_id=call.assistant_id, created_at=now, expires_at=now + 300,
            direction=Direction.OUTBOUND, called=call.to, channel_id=f"rapida-{context_id}", call_status=self.first,
        )  # fmt: skip
        return self.add(context, 100).addCallback(lambda _: context)

    def hang_up(self, context_id: str) -> bool:
        """Never."""
        return False

    def get(self, context_id: str) -> Deferred[CallContext]:
        """The context as it is now; then it goes on."""
        if self.troubles and self.steps[:1] != [CallStatus.RINGING]:
            self.troubles -= 1
            return fail(StoreUnavailable("the disk is full"))
        getting = super().get(context_id)
        if self.steps and context_id in self._contexts:
            self.follow(context_id, _news(self.steps.pop(0), self.reason))
        return getting


def _news(status: CallStatus, reason: EndReason) -> CallProgress:
    if not status.over:
        return CallProgress(status=status, at=time.time())
    return CallProgress(status=status, at=time.time(), cause=17, cause_text="User busy\x1b[2J", reason=reason)


def pretending_site(calls: PretendedCalls) -> RapidaSite:
    """The HTTP face of a server that pretends to place calls, with the assistants 123456789, 42 and a/b."""
    registrar = Registrar(
        calls, {"123456789", "42", "a/b"}.__contains__, now=time.time, context_ttl_s=300.0, max_pending=100,
        draining=lambda: False,
    )  # fmt: skip
    root = make_root(
        store=calls, keys=ApiKeys((API_KEY,)), registrar=registrar, hang_up=calls.hang_up, draining=lambda: False,
        outbound=calls,
    )  # fmt: skip
    return RapidaSite(root, reactor)


class DialTestCase(ServerTestCase):
    """A server that pretends to place calls."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "RAPIDA_API_KEY": API_KEY}
        self.calls = PretendedCalls()
        self.site = pretending_site(self.calls)
        self.url = f"http://127.0.0.1:{await self.listen(self.site)}"

    async def listen(self, site: Site, number: int = 0) -> int:
        """Serve, until the test is over; the port's number."""
        self.port = await TCP4ServerEndpoint(reactor, number, interface="127.0.0.1").listen(site)
        self.addCleanup(self.port.stopListening)
        return int(self.port.getHost().port)

    @property
    def context_id(self) -> str:
        """Of the only call."""
        (context_id,) = self.calls._contexts
        return context_id


class DialTests(DialTestCase):
    """A call is placed, and that is that."""

    async def test_plain(self) -> None:
        """A number is all that is needed; the ids are told."""
        said = await self.succeeds("dial", "+49301")
        self.assertEqual(
            [line.split() for line in said.splitlines()],
            [
                ["context_id", self.context_id],
                ["channel_id", f"rapida-{self.context_id}"],
                ["call_status", "initiated"],
            ],
        )
        self.assertEqual(self.calls.placed, [OutboundCall(assistant_id="123456789", to="+49301")])

    async def test_all(self) -> None:
        """Every option reaches the server as it was meant."""
        await self.succeeds(
            "dial", "100", "--assistant", "a/b", "--from", "Jürgen <1>", "--credential", "pbx", "--context", "mine",
            "--variable", "queue=sales=1", "--variable", "empty=", "--answer-timeout", "7",
        )  # fmt: skip
        await self.succeeds("dial", "100", "--stasis")
        variables = {"queue": "sales=1", "empty": ""}
        self.assertEqual(
            self.calls.placed,
            [
                OutboundCall(
                    assistant_id="a/b", to="100", caller="Jürgen <1>", variables=variables, credential="pbx",
                    context="mine", answer_timeout_s=7,
                ),
                OutboundCall(assistant_id="123456789", to="100", stasis=True),
            ],
        )  # fmt: skip

    async def test_default_assistant(self) -> None:
        """Without --assistant it is the first one that the settings name."""
        self.environ["ASSISTANT"] = "*=greeter, 42=echo"
        await self.succeeds("dial", "100")
        self.assertEqual(self.calls.placed[0].assistant_id, "42")

    async def test_waiting(self) -> None:
        """A call that waits for its turn counts as placed; one that has failed already does not."""
        self.calls.first = CallStatus.NEW
        self.assertRegex(await self.succeeds("dial", "100"), "call_status +new")
        self.calls.first = CallStatus.FAILED
        code, said = await self.run_ctl("dial", "100")
        self.assertEqual(code, 1, said)
        self.assertRegex(said, "call_status +failed")

    async def test_json(self) -> None:
        """The server's answer is to be had."""
        told = json.loads(await self.succeeds("dial", "100", "--json"))
        channel_id = f"rapida-{self.context_id}"
        self.assertEqual(told, {"contextId": self.context_id, "channelId": channel_id, "callStatus": "initiated"})


class WaitTests(DialTestCase):
    """A call is followed to its end."""

    def changes(self, said: str) -> list[str]:
        """What stands behind the times."""
        first, second, *lines = said.splitlines()
        self.assertEqual((first.split()[1], second.split()[1]), (self.context_id, f"rapida-{self.context_id}"))
        return [line.partition(" s  ")[2] for line in lines]

    async def test_completed(self) -> None:
        """Each change is told once; a call that was answered is a success."""
        changes = self.changes(await self.succeeds("dial", "100", "--wait"))
        self.assertEqual(changes, ["initiated", "ringing", "answered", "completed, busy: User busy?[2J (cause 17)"])

    async def test_failed(self) -> None:
        """A call that nobody answers is none, and its cause is told."""
        self.calls.steps = list(UNANSWERED)
        code, said = await self.run_ctl("dial", "100", "--wait")
        self.assertEqual(code, 1)
        self.assertEqual(self.changes(said), ["initiated", "ringing", "failed, busy: User busy?[2J (cause 17)"])

    async def test_cancelled(self) -> None:
        """Nor is one that was taken back."""
        self.calls.steps = [CallStatus.CANCELLED]
        code, said = await self.run_ctl("dial", "100", "--wait")
        self.assertEqual((code, "cancelled" in said), (1, True), said)

    async def test_no_media(self) -> None:
        """Nor is one that was answered, but did not reach the assistant."""
        self.calls.reason = EndReason.NO_MEDIA
        code, said = await self.run_ctl("dial", "100", "--wait")
        self.assertEqual(code, 1)
        self.assertEqual(self.changes(said)[-1][:19], "completed, no_media")

    async def test_json(self) -> None:
        """In JSON it is an object a line: the answer, then the record after each change."""
        said = await self.succeeds("dial", "100", "--wait", "--json")
        placed, *records = map(json.loads, said.splitlines())
        self.assertEqual(placed["contextId"], self.context_id)
        statuses = [record["call_status"] for record in records]
        self.assertEqual(statuses, ["initiated", "ringing", "answered", "completed"])
        self.assertEqual({record["context_id"] for record in records}, {self.context_id})

    async def test_store_away(self) -> None:
        """A store that does not answer for a moment does not end it."""
        self.calls.troubles = 2
        self.assertEqual(len(self.changes(await self.succeeds("dial", "100", "--wait"))), 4)
        self.assertEqual(self.calls.troubles, 0)

    async def test_forgotten(self) -> None:
        """A call that the server does not know any more is not waited for."""
        process = Watched(self, "dial", "100", "--wait")
        await process.until("initiated")
        self.calls._contexts.clear()
        self.assertEqual(await process.ended, 1)
        self.assertIn("no such call (404); the call continues", process.said)

    async def test_server_away(self) -> None:
        """A server that is started anew in the meantime is asked again."""
        process = Watched(self, "dial", "100", "--wait")
        await process.until("initiated")
        number = self.port.getHost().port
        await self.port.stopListening()
        for _ in range(50):
            await self.pause()
        await self.listen(self.site, number)
        self.assertEqual(await process.ended, 0, process.said)
        self.assertEqual(self.changes(process.said)[-1][:9], "completed")

    async def test_interrupted(self) -> None:
        """Ctrl-C leaves the call alone, and tells how to hang it up."""
        self.calls.steps = [CallStatus.RINGING]
        process = Watched(self, "dial", "100", "--wait")
        await process.until("ringing")
        assert process.transport is not None
        process.transport.signalProcess("INT")
        self.assertEqual(await process.ended, 1)
        hangup = f"rapida-media-ctl hangup {self.context_id} --http {self.url}"
        self.assertEqual(
            process.said.splitlines()[-1], f"rapida-media-ctl: the call continues; to hang it up: {hangup}"
        )
        self.assertNotIn("Traceback", process.said)

    async def test_interrupted_while_placing(self) -> None:
        """Ctrl-C before the server has answered tells where to look."""
        asked: Deferred[None] = Deferred()

        def place(call: OutboundCall) -> Deferred[CallContext]:
            asked.callback(None)
            return Deferred()

        self.calls.place = place  # type: ignore[method-assign]
        process = Watched(self, "dial", "100")
        await asked
        assert process.transport is not None
        process.transport.signalProcess("INT")
        self.assertEqual(await process.ended, 1)
        self.assertIn("to see whether the server placed the call: rapida-media-ctl calls --http", process.said)
        self.assertEqual(process.said.count("\n"), 1, process.said)


class Watched(ProcessProtocol):
    """A running ``rapida-media-ctl``, of which one sees what it prints as it does."""

    def __init__(self, case: ServerTestCase, *arguments: str) -> None:
        self.said = ""
        self.ended: Deferred[int] = Deferred()
        self._case = case
        argv = [str(CTL), *arguments, "--http", case.url]
        reactor.spawnProcess(self, argv[0], argv, env=case.environ, path=str(case.folder))
        case.addCleanup(self._kill)

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        """It prints."""
        self.said += data.decode()

    errReceived = outReceived  # noqa: N815

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        """It is over."""
        self.ended.callback(reason.value.exitCode)  # type: ignore[attr-defined]

    async def until(self, word: str) -> None:
        """Wait until it has printed a word."""
        while word not in self.said and not self.ended.called:
            await self._case.pause()
        self._case.assertIn(word, self.said)

    def _kill(self) -> None:
        if not self.ended.called and self.transport is not None:
            self.transport.signalProcess("KILL")


class RefusalTests(DialTestCase):
    """A call that is not placed is one sentence."""

    async def test_call_refused(self) -> None:
        """Asterisk's arguments, and where the call's record is."""
        self.calls.refusal = CallNotPlaced("no such endpoint", context_id=CONTEXT_ID, refused=True)
        said = await self.fails("dial", "100", "--wait")
        self.assertIn(f"no such endpoint (422); the call's record: rapida-media-ctl call {CONTEXT_ID}\n", said)

    async def test_retryable(self) -> None:
        """Whether it pays to try again."""
        self.calls.refusal = TooManyCalls("100 calls are under way")
        self.assertIn("100 calls are under way (429); try again later", await self.fails("dial", "100"))
        self.calls.refusal = CallNotPlaced("Asterisk refuses the password")
        self.assertTrue((await self.fails("dial", "100")).endswith("refuses the password (502)\n"))

    async def test_server_refuses(self) -> None:
        """What the server's page has against it."""
        said = await self.fails("dial", "1", "--assistant", "7")
        self.assertIn("there is no such assistant (404); name one of the server's assistants (--assistant)", said)
        self.assertIn("is reserved", await self.fails("dial", "1", "--variable", "RAPIDA_X=1"))
        self.environ["RAPIDA_API_KEY"] = WRONG_KEY
        self.assertIn("this API key is not known (401)", await self.fails("dial", "1"))

    async def test_nobody_there(self) -> None:
        """Where nobody listens nothing was placed, and nothing is said of looking for it."""
        said = await self.fails("dial", "1", url="http://127.0.0.1:9")
        self.assertIn("(--http)", said)
        self.assertNotIn("whether the call was placed", said)

    async def test_no_answer(self) -> None:
        """A server that goes away in the middle may have placed the call."""

        def place(call: OutboundCall) -> Deferred[CallContext]:
            reactor.callLater(0, self.drop)
            return Deferred()

        self.calls.place = place  # type: ignore[method-assign]
        said = await self.fails("dial", "1")
        self.assertIn("to see whether the server placed the call: rapida-media-ctl calls --http", said)

    def drop(self) -> None:
        """Lose all connections."""
        for reader in reactor.getReaders():
            if getattr(getattr(reader, "protocol", None), "factory", None) is self.site:
                reader.abortConnection()

    async def test_another_server(self) -> None:
        """What is no answer of a rapida-media server is told as that."""
        url = f"http://127.0.0.1:{await self.listen(Site(Stranger()))}"
        for path in ("", "/json", "/moved"):
            self.assertIn("not the response of a rapida-media server", await self.fails("dial", "1", url=url + path))

    async def test_command_line(self) -> None:
        """What can't be meant is refused before anything is asked."""
        for arguments in (
            ("--context", "a", "--stasis"),
            ("--variable", "a"),
            ("--variable", "=a"),
            ("--variable", "a=1", "--variable", "a=2"),
            ("--answer-timeout", "0"),
            ("--answer-timeout", "601"),
            ("--key", WRONG_KEY),
        ):
            code, said = await self.run_ctl("dial", "1", *arguments)
            self.assertEqual((code, arguments[-2] in said), (2, True), said)
        self.assertEqual((await self.run_ctl("dial"))[0], 2)
        self.assertEqual(self.calls.placed, [])


class ScriptedServer:
    """A server that answers what the test says, in a time that the test moves."""

    def __init__(self, *replies: Response | Exception) -> None:
        self.reactor = Clock()
        self.replies = list(replies)
        self.asked = 0

    async def request(self, path: str, method: str = "GET", **_: Any) -> Response:
        """The next answer; the last one again and again."""
        self.asked += 1
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply


class PatienceTests(SynchronousTestCase):
    """A server that does not come back is not waited for endlessly."""

    def run_command(self, server: ScriptedServer) -> Deferred[int]:
        """A call on it."""
        arguments = argparse.Namespace(
            to="1", caller=None, variable=[], credential=None, context=None, stasis=False, answer_timeout=None,
            wait=True, json=True, http="http://127.0.0.1:8080",
        )  # fmt: skip
        self.patch(DialCommand, "_print", lambda *_: None)
        return Deferred.fromCoroutine(DialCommand(arguments, "1").run(server))  # type: ignore[arg-type]

    def test_away_for_good(self) -> None:
        """After a while it is given up, and the call is left alone."""
        placed = Response(201, {"contextId": CONTEXT_ID, "channelId": "x", "callStatus": "initiated"})
        server = ScriptedServer(placed, NoResponse("nobody is there", may_have_arrived=False))
        running = self.run_command(server)
        server.reactor.pump([0.5] * int(PATIENCE_S / 0.5))
        self.assertNoResult(running)
        server.reactor.pump([0.5] * 2)
        error = self.failureResultOf(running, ServerRefused).value
        hangup = f"rapida-media-ctl hangup {CONTEXT_ID}"
        self.assertEqual(str(error), f"nobody is there; the call continues; to hang it up: {hangup}")
        self.assertGreater(server.asked, 50)

    def test_polls(self) -> None:
        """The server is asked twice a second."""
        placed = Response(202, {"contextId": CONTEXT_ID, "channelId": "x", "callStatus": "new"})
        server = ScriptedServer(placed, Response(200, {"call_status": "new"}))
        running = self.run_command(server)
        server.reactor.pump([0.25] * 40)
        self.assertEqual(server.asked, 1 + 1 + 20)
        server.replies = [Response(200, {"call_status": "completed"})]
        server.reactor.advance(0.5)
        self.assertEqual(self.successResultOf(running), 0)

    def test_reason_follows_end(self) -> None:
        """A call that is over for Asterisk, while the end of its media is not written down yet, is asked for again."""
        placed = Response(201, {"contextId": CONTEXT_ID, "channelId": "x", "callStatus": "initiated"})
        early = Response(200, {"call_status": "completed", "status": "claimed", "reason": ""})
        late = Response(200, {"call_status": "completed", "status": "completed", "reason": "caller_hangup"})
        server = ScriptedServer(placed, early, late)
        running = self.run_command(server)
        printed: list[dict[str, Any]] = []
        self.patch(DialCommand, "_print", lambda _, content, text: printed.append(content))
        server.reactor.advance(END_DELAY_S)
        self.assertEqual(self.successResultOf(running), 0)
        self.assertEqual([record["reason"] for record in printed], ["caller_hangup"])

    def test_strange_answers(self) -> None:
        """An answer without a proper contextId, or a record without a status, is none."""
        for content in ({}, {"contextId": 5}, {"contextId": "../x"}, []):
            self.failureResultOf(self.run_command(ScriptedServer(Response(201, content))), ServerRefused)
        placed = Response(201, {"contextId": CONTEXT_ID})
        for content in ({}, [], None, {"call_status": None}):
            self.failureResultOf(self.run_command(ScriptedServer(placed, Response(200, content))), ServerRefused)


class TextTests(SynchronousTestCase):
    """What is printed."""

    def test_changes(self) -> None:
        """At the end stands what is known of it, and no more."""
        self.assertEqual(change_text({"call_status": "ringing", "reason": "x", "cause": 16}), "ringing")
        self.assertEqual(change_text({"call_status": "completed", "reason": "", "cause": None}), "completed")
        self.assertEqual(change_text({"call_status": "failed", "cause": 0}), "failed (cause 0)")

    def test_table(self) -> None:
        """The calls' table tells how outbound calls go; an inbound one has nothing there."""
        text = calls_text([{"context_id": "x", "call_status": "ringing"}, {"context_id": "y", "call_status": None}])
        head, *rows = text.splitlines()
        column = slice(head.index("OUTBOUND"), head.index("OVER"))
        self.assertEqual([row[column].strip() for row in rows], ["ringing", "-"])
