"""Two servers in a row, for the tests of the whole bridge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import treq
from autobahn.twisted.resource import WebSocketResource
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import formatEvent
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from benchmarks.harness.authority import Authority
from rapida_twisted.protocols.audiosocket_asterisk import AsteriskProtocol
from rapida_twisted.server.build import RapidaMedia
from tests.bridge.test_far_end_websocket import Bot, Bots
from tests.media.fakes import KeptLog
from tests.protocols.websockets import until
from tests.support.settings import make_settings

NEAR_KEY = "rpd-key-of-the-near-one"
FAR_KEY = "rpd-key-of-the-far-one"
FAR_ID = "11111111-2222-3333-4444-555555555555"
HOST = "127.0.0.1"


class Phone(AsteriskProtocol):
    """A caller's Asterisk: sends one frame over and over, and keeps what it hears."""

    def __init__(self, context_id: UUID, frame: bytes) -> None:
        super().__init__(context_id)
        self.heard = b""
        self.hung_up = False
        self.over: Deferred[str] = Deferred()
        self._talking = LoopingCall(lambda: self.send_audio(frame))

    def call_started(self) -> None:
        """Begin to talk."""
        self._talking.start(0.02).addErrback(lambda failure: None)

    def audio_received(self, samples: bytes, rate_hz: int) -> None:
        """Keep it."""
        self.heard += samples

    def hangup_received(self) -> None:
        """The dialplan goes on."""
        self.hung_up = True

    def call_ended(self, problem: str) -> None:
        """It is over."""
        if self._talking.running:
            self._talking.stop()
        self.over.callback(problem)


class FarSide(Resource):
    """A scripted assistant-api server that records its requests.

    :param register: answers a registration; None: the usual way.
    :param bot: what is at the end of its WebSockets.
    """

    isLeaf = False

    def __init__(self, register: Callable[[Request], Any] | None = None, bot: type[Bot] = Bot) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.bots = Bots(bot)
        self._register = register
        way: Resource = self
        for part in (b"v1", b"talk", b"asterisk"):
            below = Resource()
            way.putChild(part, below)
            way = below
        way.putChild(b"call", _Registrations(self))
        way.putChild(b"ctx", _Media(self.bots))

    def registered(self, request: Request) -> Any:
        """A call is being registered."""
        self.asked.append(request.uri.decode())
        return FAR_ID.encode() if self._register is None else self._register(request)


class _Registrations(Resource):
    isLeaf = True

    def __init__(self, far: FarSide) -> None:
        super().__init__()
        self._far = far

    def render_GET(self, request: Request) -> Any:
        return self._far.registered(request)


class _Media(Resource):
    def __init__(self, bots: Bots) -> None:
        super().__init__()
        self._socket = WebSocketResource(bots)

    def getChild(self, path: bytes, request: Request) -> Any:
        return self._socket


def says(status: int, body: bytes = b"", **headers: str) -> Callable[[Request], Any]:
    """Answers so."""

    def render(request: Request) -> bytes:
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        return body

    return render


def begins(body: bytes, length: int) -> Callable[[Request], Any]:
    """Answers so, and never comes to the end."""

    def render(request: Request) -> int:
        request.setHeader("content-length", str(length))
        request.write(body)
        return NOT_DONE_YET

    return render


def nothing(request: Request) -> int:
    """Never answers."""
    return NOT_DONE_YET


class ChainTestCase(TestCase):
    """A near server, which callers reach, and what it carries calls on to. No key is in any log or answer."""

    timeout = 40

    def setUp(self) -> None:
        """Begin to watch the log."""
        self.log = KeptLog(self)
        self.answers: list[str] = []
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.authority = Authority(self.folder / "tls")
        self.authority.certify(HOST)
        self.addCleanup(self.assert_no_key)

    def assert_no_key(self) -> None:
        """Neither server's key is in a line of the log, in a traceback, or in an answer."""
        for event in self.log.events:
            words = [formatEvent(event) or "", str(event.get("log_failure", ""))]
            if "log_failure" in event:
                words.append(event["log_failure"].getTraceback(detail="verbose"))
            self.answers.extend(words)
        for answer in self.answers:
            self.assertNotIn(FAR_KEY, answer)
            self.assertNotIn(NEAR_KEY, answer)

    def run_service(self, name: str, key: str, rules: tuple[str, ...], **words: Any) -> RapidaMedia:
        """A server, until the test is over."""
        settings = make_settings(
            state_dir=self.folder / name, store_url="memory:", http_port=0, audiosocket_port=0, rapida_api_key=(key,),
            assistant=rules, drain_s=0, **words,
        )  # fmt: skip
        service = RapidaMedia(settings, reactor=reactor)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def far_server(self, *rules: str, **words: Any) -> RapidaMedia:
        """A whole server as the far one, with TLS."""
        endpoint = f"ssl:0:interface={HOST}:privateKey={self.authority.key}:certKey={self.authority.certificate}"
        self.far = self.run_service("far", FAR_KEY, rules, https=endpoint, **words)
        return self.far

    def far_side(self, **words: Any) -> FarSide:
        """A scripted server; its port is :attr:`far_port`."""
        self.side = FarSide(**words)
        site = Site(self.side)
        site.noisy = False
        # What another server writes into its own log is not ours.
        site.log = lambda request: None
        tls = DefaultOpenSSLContextFactory(str(self.authority.key), str(self.authority.certificate))
        port: Any = reactor.listenSSL(0, site, tls, interface=HOST)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.addCleanup(self._cut, site)
        self.far_port = port.getHost().port
        return self.side

    async def _cut_all(self, site: Any) -> None:
        for bot in self.side.bots.made:
            if not bot.lost:
                bot.transport.abortConnection()
        # A site's own connections have time-outs of a minute.
        for channel in list(getattr(site, "_openChannels", ())):
            channel.abortConnection()
        await deferLater(reactor, 0)

    def _cut(self, site: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(self._cut_all(site))

    def near_server(self, *rules: str, **words: Any) -> RapidaMedia:
        """The near server; by default it bridges all calls to the far one."""
        port = self.far_port if hasattr(self, "far_port") else self.far.https_port if hasattr(self, "far") else 1
        usual = {
            "upstream_url": f"https://{HOST}:{port}", "upstream_api_key": FAR_KEY,
            "tls_ca_file": str(self.authority.authority), "upstream_timeout_s": 2.0,
        }  # fmt: skip
        self.near = self.run_service("near", NEAR_KEY, rules or ("*=bridge",), **{**usual, **words})
        return self.near

    # What a dialplan does

    async def register(self, assistant_id: str = "123", **words: str) -> tuple[int, str, str]:
        """Register a call at the near server: the status, the body, and why not."""
        url = f"http://{HOST}:{self.near.http_port}/v1/talk/asterisk/call/{assistant_id}"
        answer = await treq.get(url, params=words, headers={"x-api-key": NEAR_KEY}, persistent=False)
        body = (await answer.content()).decode()
        said = ";".join(answer.headers.getRawHeaders("X-Rapida-Error", []))
        self.answers += [body, said]
        return answer.code, body, said

    async def ask(self, path: str) -> Any:
        """What the near server answers to someone with the key."""
        url = f"http://{HOST}:{self.near.http_port}{path}"
        answer = await treq.get(url, headers={"x-api-key": NEAR_KEY}, persistent=False)
        self.answers.append(await answer.text())
        return await answer.json()

    async def call(self, frame: bytes, assistant_id: str = "123", **words: str) -> Phone:
        """Register a call, and bring its media."""
        status, context_id, said = await self.register(assistant_id, **words)
        self.assertEqual(status, 200, said)
        phone = Phone(UUID(context_id), frame)
        await connectProtocol(TCP4ClientEndpoint(reactor, HOST, self.near.audiosocket_port), phone)
        self.addCleanup(self._hang_up, phone)
        return phone

    def _hang_up(self, phone: Phone) -> Deferred[str]:
        phone.hang_up()
        return phone.over

    async def ended(self, phone: Phone) -> Any:
        """The near server's record of a call, once it is over."""
        record: list[Any] = []

        async def look() -> bool:
            record[:] = [await self.ask(f"/v1/calls/{phone.call}")]
            return record[0]["status"] in ("completed", "failed")

        for _ in range(200):
            if await look():
                return record[0]
            await deferLater(reactor, 0.02)
        raise AssertionError(f"the call is not over: {record[0]}")

    async def hears(self, phone: Phone, wanted: Callable[[bytes], bool], longest_s: float = 6.0) -> None:
        """Wait until what a phone has heard is as wanted."""
        await until(lambda: wanted(phone.heard), longest_s)
