"""``rapida-media-ctl`` as a process, against a server that runs in this one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from uuid import UUID, uuid4

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from rapida_twisted.bridge.register import register_call
from rapida_twisted.protocols.audiosocket_asterisk import AsteriskProtocol
from rapida_twisted.server.build import RapidaMedia
from rapida_twisted.tools.ctl.calls import call_text, calls_text
from tests.support.settings import make_settings

slow = True  # starts processes: see tests/support/selection.py

CTL = Path(sys.executable).with_name("rapida-media-ctl")
API_KEY = "rpd-of-the-control-tests"
WRONG_KEY = "rpd-that-nobody-knows"


class Phone(AsteriskProtocol):
    """A call that is up until somebody hangs up."""

    def __init__(self, context_id: UUID) -> None:
        super().__init__(context_id)
        self.over: Deferred[str] = Deferred()

    def call_ended(self, problem: str) -> None:
        """It is over."""
        self.over.callback(problem)


class ServerTestCase(TestCase):
    """A server that is up, and the program that asks it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "RAPIDA_API_KEY": API_KEY}
        settings = make_settings(
            state_dir=self.folder / "state", store_url="memory:", http_port=0, audiosocket_port=0,
            rapida_api_key=(API_KEY,), assistant=("*=echo",), drain_s=0,
        )  # fmt: skip
        self.service = RapidaMedia(settings, reactor=reactor)
        self.service.startService()
        self.addCleanup(self.service.stopService)
        self.url = f"http://127.0.0.1:{self.service.http_port}"

    async def run_ctl(self, *arguments: str, url: str = "") -> tuple[int, str]:
        """Its exit code and what it printed, in which there is no key."""
        process = getProcessOutputAndValue(
            str(CTL), [*arguments, "--http", url or self.url], env=self.environ, path=str(self.folder)
        )
        out, error, code = await process
        said = (out + error).decode()
        for secret in (API_KEY, WRONG_KEY, "Traceback"):
            self.assertNotIn(secret, said)
        return code, said

    async def succeeds(self, *arguments: str) -> str:
        """What it prints when all is well."""
        code, said = await self.run_ctl(*arguments)
        self.assertEqual(code, 0, said)
        return said

    async def fails(self, *arguments: str, url: str = "") -> str:
        """The one sentence with which it ends."""
        code, said = await self.run_ctl(*arguments, url=url)
        self.assertEqual((code, said.count("\n")), (1, 1), said)
        return said

    async def register(self, caller: str = "100") -> str:
        """Register a call."""
        return await register_call(
            self.url, "123456789", API_KEY, caller=caller, called="200", variables={"queue": "sales"},
            treq_client=HTTPClient(Agent(reactor)), reactor=reactor,
        )  # fmt: skip

    def pause(self) -> Deferred[None]:
        """A moment."""
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.02, waiting.callback, None)
        return waiting


class CallsTests(ServerTestCase):
    async def test_no_calls(self) -> None:
        """Without calls there is a word for it."""
        self.assertEqual(await self.succeeds("calls"), "no calls\n")

    async def test_table(self) -> None:
        """The newest calls come first, in columns; status and limit narrow them down."""
        ids = [await self.register(str(number)) for number in range(3)]
        head, *rows = (await self.succeeds("calls")).splitlines()
        self.assertEqual(head.split()[:6], ["CONTEXT", "ID", "STATUS", "FROM", "TO", "ASSISTANT"])
        self.assertEqual([row.split()[:5] for row in rows], [
            [ids[number], "pending", str(number), "200", "123456789"] for number in (2, 1, 0)
        ])  # fmt: skip
        self.assertEqual(len((await self.succeeds("calls", "--limit", "2")).splitlines()), 3)
        self.assertEqual(await self.succeeds("calls", "--status", "claimed"), "no calls\n")
        code, said = await self.run_ctl("calls", "--limit", "0")
        self.assertEqual((code, "--limit" in said), (2, True))

    async def test_json(self) -> None:
        """The server's JSON is to be had, of all and of one."""
        context_id = await self.register()
        (record,) = json.loads(await self.succeeds("calls", "--json"))["calls"]
        self.assertEqual(record["context_id"], context_id)
        self.assertEqual(json.loads(await self.succeeds("call", context_id, "--json")), record)

    async def test_call(self) -> None:
        """One call is told field by field; its id may be written in any way."""
        context_id = await self.register("+49 30 1")
        said = await self.succeeds("call", context_id.upper())
        lines = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in said.splitlines()}
        self.assertEqual(lines["context_id"], context_id)
        self.assertEqual(lines["caller"], "+49 30 1")
        self.assertEqual(lines["variables.queue"], "sales")

    async def test_unknown_call(self) -> None:
        """A call that is not there is a sentence; what is no id is not asked for."""
        self.assertIn("no such call (404)", await self.fails("call", str(uuid4())))
        self.assertIn("no such call is up (404)", await self.fails("hangup", str(uuid4())))
        code, said = await self.run_ctl("call", "../calls")
        self.assertEqual((code, "a contextId is a UUID" in said), (2, True))

    async def test_hangup(self) -> None:
        """A call that is up is hung up, and counts as that."""
        context_id = await self.register()
        self.assertIn("no such call is up", await self.fails("hangup", context_id))
        phone = Phone(UUID(context_id))
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.service.audiosocket_port), phone)
        while not len(self.service.calls):
            await self.pause()
        self.assertIn("is hanging up", await self.succeeds("hangup", context_id))
        self.assertEqual(await phone.over, "")
        while "completed" not in (said := await self.succeeds("call", context_id)):
            await self.pause()
        self.assertIn("operator_hangup", said)
        self.assertIn("operator_hangup", await self.succeeds("calls", "--status", "completed"))


class KeyTests(ServerTestCase):
    async def test_wrong_key(self) -> None:
        """A key that the server does not know is a sentence that says where it is taken from."""
        self.environ["RAPIDA_API_KEY"] = WRONG_KEY
        for arguments in (("calls",), ("call", str(uuid4())), ("hangup", str(uuid4()))):
            said = await self.fails(*arguments)
            self.assertIn("this API key is not known (401); set RAPIDA_API_KEY", said)

    async def test_key_files(self) -> None:
        """The key is taken from a named file, else the environment, else the state directory."""
        key = self.folder / "key"
        key.write_text(API_KEY + "\n")
        self.environ["RAPIDA_API_KEY"] = WRONG_KEY
        await self.succeeds("calls", "--key-file", str(key))
        del self.environ["RAPIDA_API_KEY"]
        code, said = await self.run_ctl("calls")
        self.assertEqual((code, "there is no API key" in said), (2, True))
        state = self.folder / "other-state"
        state.mkdir()
        (state / "api-key").write_text(API_KEY)
        await self.succeeds("calls", "--state-dir", str(state))
        (state / "api-key").write_bytes(b"\xff\xfe" + API_KEY.encode())
        code, said = await self.run_ctl("calls", "--state-dir", str(state))
        self.assertEqual(code, 2, said)
        (state / "api-key").write_text(f"{API_KEY}\nX-More: 1")
        code, said = await self.run_ctl("calls", "--state-dir", str(state))
        self.assertEqual(code, 2, said)

    async def test_ready(self) -> None:
        """Whether the server can take calls is told without a key, with an exit code for scripts."""
        del self.environ["RAPIDA_API_KEY"]
        self.assertEqual(await self.succeeds("ready"), "ready\n")
        self.service.components.state.draining = True
        self.assertIn("it is about to stop", await self.fails("ready"))


class Stranger(Resource):
    """A server that is none of ours."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str | None] = []

    def render(self, request: Request) -> bytes:
        """A redirect, or a page, or JSON of another kind."""
        self.keys.append(request.getHeader("x-api-key"))
        if request.path.startswith(b"/moved"):
            request.setResponseCode(302)
            request.setHeader("location", "/elsewhere")
        return b"[1, 2]" if request.path.startswith(b"/json") else b"<html>\x1b[31mhello</html>"


class DialplanOfServerTests(ServerTestCase):
    """What ``dialplan`` takes from a running server."""

    async def dialplan(self, *arguments: str) -> tuple[int, str]:
        """Its exit code and what it printed, on a command line that does not say where the server is."""
        process = getProcessOutputAndValue(str(CTL), ["dialplan", *arguments], env=self.environ, path=str(self.folder))
        out, error, code = await process
        return code, (out + error).decode()

    async def test_ports(self) -> None:
        """The ports that really listen, whatever the settings say; only for a key that the server accepts."""
        self.environ |= {"ADMIN__PORT": "0", "HTTP__PORT": str(self.service.http_port), "ASSISTANT": "9=echo"}
        code, said = await self.dialplan()
        self.assertEqual(code, 0, said)
        self.assertIn(f"RAPIDA_PORT = {self.service.audiosocket_port}\n", said)
        self.assertIn(f"RAPIDA_URL = {self.url}\n", said)
        self.assertIn(f"the ports are those of the running server at {self.url}", said)
        code, said = await self.dialplan("--host", "media.example", "--assistant", "42")
        self.assertIn(f"RAPIDA_URL = http://media.example:{self.service.http_port}\n", said)
        self.assertIn("ASSISTANT_ID = 42\n", said)
        self.environ["RAPIDA_API_KEY"] = WRONG_KEY
        code, said = await self.dialplan()
        self.assertEqual(code, 0, said)
        self.assertIn("RAPIDA_PORT = 4573\n", said)
        self.assertNotIn("running server", said)

    async def test_named(self) -> None:
        """A server that is named must answer."""
        self.assertIn(f"RAPIDA_URL = {self.url}\n", (await self.dialplan("--server", self.url))[1])
        self.environ["RAPIDA_API_KEY"] = WRONG_KEY
        code, said = await self.dialplan("--server", self.url)
        self.assertEqual(code, 2)
        self.assertIn(f"the server at {self.url} does not answer, or does not accept the API key", said)

    async def test_default_address(self) -> None:
        """Without --http, a command asks the port for operators, and without one the HTTP port."""
        self.environ |= {"ADMIN__PORT": "0", "HTTP__PORT": str(self.service.http_port)}
        for _ in range(2):
            process = getProcessOutputAndValue(str(CTL), ["ready"], env=self.environ, path=str(self.folder))
            out, error, code = await process
            self.assertEqual((code, error), (0, b""), out)
            self.environ |= {"ADMIN__PORT": str(self.service.http_port), "HTTP__PORT": "1"}


class NobodyTests(ServerTestCase):
    async def test_nobody_there(self) -> None:
        """Where nobody listens, the option that says where to is named."""
        for arguments in (("calls",), ("ready",)):
            self.assertIn("(--http)", await self.fails(*arguments, url="http://127.0.0.1:9"))

    async def test_another_server(self) -> None:
        """What is no answer of a rapida-media server is told as that; a redirect does not get the key."""
        stranger = Stranger()
        port = reactor.listenTCP(0, Site(stranger), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}"
        for path in ("", "/json", "/moved"):
            for arguments in (("calls",), ("call", str(uuid4())), ("hangup", str(uuid4())), ("ready",)):
                self.assertIn("not the response of a rapida-media server", await self.fails(*arguments, url=url + path))
        self.assertEqual(len(stranger.keys), 12)


class TextTests(SynchronousTestCase):
    def test_terminal_is_not_steered(self) -> None:
        """What a caller put into his number does not reach the terminal as control characters."""
        record = {"context_id": "x", "caller": "\x1b]0;hello\x07\n1", "variables": {"a\x1b": "b\x9b"}}
        for text in (calls_text([record]), call_text(record)):
            self.assertTrue(text.replace("\n", "").isprintable())
            self.assertIn("?]0;hello??1", text)

    def test_strange_records(self) -> None:
        """Records with fields of other kinds are shown as they are."""
        self.assertIn("-", calls_text([{"claimed_at": "x", "created": 7, "status": [1]}, 5, {}]))
        self.assertEqual(calls_text([]), "no calls")
        self.assertEqual(call_text({"audio_in_s": 1.5, "x_at": 1.0, "y": None}), "audio_in_s  1.5")

    def test_seconds(self) -> None:
        """How long a call was up is told once it is over."""
        self.assertIn(" 61.5", calls_text([{"claimed_at": 10, "ended_at": 71.5}]))
