"""The phone and TLS: https for registration, wss for media, and whom it trusts."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from benchmarks.harness.authority import Authority
from benchmarks.harness.ports import free_port
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.net.tls import read_ca
from rapida_twisted.tools.phone.call import SetUpFailed
from rapida_twisted.tools.phone.options import parse_options
from rapida_twisted.tools.phone.websocket_connection import WebSocketConnection, WebSocketServer
from tests.tools.echo_server import API_KEY
from tests.tools.media_server import Heard
from tests.tools.phone.test_websocket_connection import NoCall, OptionsTestCase, WebSocketTestCase, media_url


def certified(directory: Path) -> Authority:
    """An authority, and a server's certificate by it."""
    authority = Authority(directory)
    authority.certify("server")
    return authority


class TlsTests(WebSocketTestCase):
    """https and wss."""

    def setUp(self) -> None:
        self.ca = certified(Path(self.mktemp()).absolute())
        self.other_ca = certified(Path(self.mktemp()).absolute())
        self.https_port = free_port()
        super().setUp()

    def more_settings(self) -> dict[str, str]:
        """A port with TLS."""
        return {"HTTPS": self.ca.endpoint(self.https_port)}

    @property
    def http_url(self) -> str:
        """The port with TLS."""
        return f"https://127.0.0.1:{self.https_port}"

    async def test_private_ca(self) -> None:
        """With its CA's file, a call goes over https and wss."""
        report = await self.call(
            *["--ca", str(self.ca.authority), "--tone", "440", "--digits", "3@0.2"],
            *["--duration", "0.8", "--save", "heard.wav"],
        )
        assert report.level_db is not None
        self.assertEqual((report.problem, Heard.made[0].digits), ("", "3"))
        self.assertApproximates(report.level_db, -10, 1)

    async def test_wrong_ca(self) -> None:
        """With another CA's file the program says so in one sentence, and exits 1."""
        code, out, err = await self.program("--ca", str(self.other_ca.authority))
        self.assertEqual((code, err), (1, ""))
        self.assertEqual(len(out.splitlines()), 1)
        self.assertIn("not trusted", out)
        self.assertIn("--ca", out)
        self.assertNotIn("[(", out)

    async def test_without_ca(self) -> None:
        """Without a word about the CA the system's are trusted, and those alone."""
        report = await self.call("--duration", "0.2")
        self.assertIn("not trusted", report.problem)

    async def test_media_is_verified_too(self) -> None:
        """The media connection trusts no more than registration does."""
        server = WebSocketServer(url=media_url(self.http_url), api_key=API_KEY, trust=read_ca(self.other_ca.authority))
        dialing = WebSocketConnection.dial(server, uuid4(), NoCall(), MediaClock(reactor), reactor)  # type: ignore[arg-type]
        error = await self.assertFailure(Deferred.fromCoroutine(dialing), SetUpFailed)
        self.assertIn("not trusted", str(error))

    async def test_wrong_name(self) -> None:
        """A certificate for another name is told as that, at registration as in the handshake."""
        http_url = f"https://localhost:{self.https_port}"
        report = await self.call("--ca", str(self.ca.authority), "--http", http_url, "--duration", "0.2")
        self.assertIn("for another name", report.problem)
        server = WebSocketServer(url=media_url(http_url), api_key=API_KEY, trust=read_ca(self.ca.authority))
        dialing = WebSocketConnection.dial(server, uuid4(), NoCall(), MediaClock(reactor), reactor)  # type: ignore[arg-type]
        error = await self.assertFailure(Deferred.fromCoroutine(dialing), SetUpFailed)
        self.assertIn("for another name", str(error))

    async def test_no_tls_there(self) -> None:
        """https at a port without TLS is one sentence, too."""
        report = await self.call("--ca", str(self.ca.authority), "--http", f"https://127.0.0.1:{self.media.http_port}")
        self.assertNotEqual(report.problem, "")
        self.assertNotIn("[(", report.problem)

    async def test_audiosocket_with_https(self) -> None:
        """Calls over AudioSocket may be registered over https."""
        audiosocket = f"127.0.0.1:{self.media.audiosocket_port}"
        arguments = ["--transport", "audiosocket", "--audiosocket", audiosocket, "--ca", str(self.ca.authority)]
        report = await self.call(*arguments, "--duration", "0.4")
        self.assertEqual(report.problem, "")


class CaFileTests(OptionsTestCase):
    """The file of a CA."""

    def test_ca_file(self) -> None:
        """A CA's file that is not there, or none, is refused by its name."""
        arguments = ("--transport", "websocket", "--http", "https://localhost", "--ca")
        self.assertIn("no-such.pem", self.refusal(*arguments, "no-such.pem"))
        Path("text.pem").write_text("hello")
        self.assertIn("text.pem", self.refusal(*arguments, "text.pem"))
        Path("bad.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        self.assertIn("bad.pem", self.refusal(*arguments, "bad.pem"))

    def test_ca_bundle(self) -> None:
        """A file may hold several CAs."""
        cas = [Authority(Path(self.mktemp())) for _ in range(2)]
        Path("both.pem").write_bytes(b"# two\n" + b"".join(ca.authority.read_bytes() for ca in cas))
        self.assertIsNotNone(parse_options(["--http", "https://localhost", "--ca", "both.pem"]).trust)
