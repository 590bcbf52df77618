"""The phone over WebSocket, against a whole media server in process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import numpy as np
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rapida_twisted.context import EndReason
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.ports.server_ports import HTTP
from rapida_twisted.protocols.chan_websocket_app import MediaServerFactory
from rapida_twisted.server.build import RapidaMedia
from rapida_twisted.tools.phone import phone
from rapida_twisted.tools.phone.call import SetUpFailed
from rapida_twisted.tools.phone.options import WEBSOCKET_PATH, parse_options
from rapida_twisted.tools.phone.phone import Phone
from rapida_twisted.tools.phone.queue import QueueFigures
from rapida_twisted.tools.phone.report import CallReport, summary_object, summary_text
from rapida_twisted.tools.phone.websocket_connection import WebSocketConnection, WebSocketServer
from rapida_twisted.wire.chan_websocket import ControlForm
from tests.bridge.far_ends import Chat, Peers
from tests.tools.echo_server import API_KEY
from tests.tools.media_server import FloodServer, Heard, settings_of, stop
from tests.tools.phone.test_main import read_wav

REPO = Path(__file__).resolve().parent.parent.parent
ECHO, HANGS_UP, SILENT, PAUSES, STUTTERS = "12345"


def media_url(http_url: str) -> str:
    """Where a server takes WebSocket media."""
    return f"ws{http_url.removeprefix('http')}{WEBSOCKET_PATH}"


class NoCall:
    """What a line tells its call, where there is none."""

    def line_silent(self, samples: bytes, rate_hz: int) -> None:
        """Nothing is heard."""

    def line_gone(self, problem: str) -> None:
        """The line is no more."""


class WebSocketTestCase(TestCase):
    """A server that is up, and the key in the environment."""

    def setUp(self) -> None:
        self.patch(os, "environ", {**os.environ, "RAPIDA_API_KEY": API_KEY})
        self.patch(Heard, "made", [])
        self.media = RapidaMedia(settings_of(self.mktemp(), **self.more_settings()), reactor=reactor)
        self.media.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(stop(self.media, reactor)))

    def more_settings(self) -> dict[str, str]:
        """What the server is told beside the usual."""
        return {}

    @property
    def http_url(self) -> str:
        """Where the server is."""
        return f"http://127.0.0.1:{self.media.http_port}"

    def arguments(self, *arguments: str) -> list[str]:
        """The phone's options that lead there."""
        return ["--transport", "websocket", "--http", self.http_url, "--assistant", ECHO, *arguments]

    def phone(self, *arguments: str) -> Phone:
        """A phone that calls the server."""
        return Phone(parse_options(self.arguments(*arguments)), reactor)

    async def call(self, *arguments: str) -> CallReport:
        """Place one call, and give its report."""
        (report,) = await self.phone(*arguments).run()
        return report

    async def program(self, *arguments: str) -> tuple[int, str, str]:
        """The console script in a process of its own: its exit code, and what it said."""
        code = "from rapida_twisted.tools.phone.main import main; main()"
        argv = [sys.executable, "-c", code, *self.arguments(*arguments)]
        process = subprocess.Popen(
            argv, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        out, err = await deferToThread(process.communicate, timeout=30)
        return process.returncode, out, err


class CallTests(WebSocketTestCase):
    """Calls that come up."""

    def check_tone(self, report: CallReport, path: str, level_db: float = -10) -> None:
        """A tone of 440 Hz came back, in good time and without a gap."""
        self.assertEqual((report.problem, report.ended_by, report.saved), ("", "phone", path))
        assert report.heard is not None
        assert report.queue is not None
        assert report.level_db is not None
        assert report.round_trip_ms is not None
        self.assertApproximates(report.duration_s, 1.5, 0.2)
        self.assertApproximates(report.frames_out, 75, 10)
        self.assertApproximates(report.level_db, level_db, 1)
        self.assertApproximates(report.heard.frames, report.frames_out, 8)
        self.assertLessEqual(report.heard.missing, 5)
        self.assertEqual(report.heard.missing, report.queue.gap_ticks)
        self.assertLess(report.round_trip_ms.p50, 150)
        self.assertGreaterEqual(report.round_trips, 2)
        self.assertEqual((report.queue.xoff, report.queue.xon, report.queue.dropped), (0, 0, 0))

    async def test_tone(self) -> None:
        """The tone that is sent comes back from an echo, is saved, and its round trip is known, whatever the codec."""
        for codec in ("ulaw", "alaw", "slin"):
            report = await self.call("--codec", codec, "--tone", "440", "--duration", "1.5", "--save", "heard.wav")
            self.check_tone(report, "heard.wav")
            spectrum = np.abs(np.fft.rfft(read_wav("heard.wav")[-8000:]))
            self.assertApproximates(int(np.argmax(spectrum)), 440, 1)
        self.assertEqual(set(Heard.made[0].sizes), {320})

    async def test_wide_band(self) -> None:
        """With slin16 the phone's 8 kHz go up to 16 kHz and come back so."""
        report = await self.call("--codec", "slin16", "--tone", "440", "--duration", "1.5", "--save", "heard.wav")
        self.check_tone(report, "heard.wav")
        heard = np.frombuffer(Heard.made[0].heard[-16000:], "<i2")
        self.assertApproximates(int(np.argmax(np.abs(np.fft.rfft(heard)))), 220, 1)

    async def test_json(self) -> None:
        """With JSON control messages a call goes as well."""
        report = await self.call("--control", "json", "--digits", "7@0.2", "--duration", "0.5")
        self.assertEqual((report.problem, Heard.made[0].digits), ("", "7"))

    async def test_digits(self) -> None:
        """Digits arrive in their order."""
        report = await self.call("--digits", "#@0.4,1@0.2,A@0.3", "--duration", "0.6")
        self.assertEqual((report.digits_sent, Heard.made[0].digits), ("1A#", "1A#"))

    async def test_phone_hangs_up(self) -> None:
        """The phone's hang-up is the caller's, for the server."""
        report = await self.call("--duration", "0.4")
        await deferLater(reactor, 0.05)
        self.assertEqual((report.problem, report.ended_by), ("", "phone"))
        self.assertEqual(Heard.made[0].ended, [EndReason.CALLER_HANGUP])

    async def test_server_hangs_up(self) -> None:
        """A server that hangs up ends the call, and that is no failure; what it said before was all heard."""
        report = await self.call("--assistant", HANGS_UP)
        assert report.heard is not None
        self.assertEqual((report.problem, report.ended_by, report.reason), ("", "server", "it sent HANGUP"))
        self.assertEqual(report.heard.frames, 25)
        self.assertApproximates(report.duration_s, 0.5, 0.2)

    async def test_ahead(self) -> None:
        """What is said is sent ahead, and the depth of the queue tells how far."""
        report = await self.call("--assistant", HANGS_UP)
        assert report.queue is not None
        assert report.queue.depth_ms is not None
        self.assertApproximates(report.queue.depth_ms.max, 200, 60)

    async def test_pause(self) -> None:
        """Silence between two things said is a pause, misses no frame, and is in the recording."""
        report = await self.call("--assistant", PAUSES, "--save", "heard.wav")
        assert report.heard is not None
        assert report.queue is not None
        self.assertEqual((report.heard.frames, report.heard.missing, report.queue.gaps), (20, 0, 0))
        self.assertEqual(report.queue.pauses, 1)
        loud = np.flatnonzero(read_wav("heard.wav"))
        self.assertApproximates((loud[-1] - loud[0]) / 8000, 0.7, 0.1)

    async def test_gap(self) -> None:
        """Live speech that stops and goes on has a gap, and its length is what is missing."""
        report = await self.call("--assistant", STUTTERS)
        assert report.heard is not None
        assert report.queue is not None
        self.assertEqual((report.queue.gaps, report.queue.pauses), (1, 0))
        self.assertApproximates(report.queue.gap_ticks, 15, 4)
        self.assertEqual(report.heard.missing, report.queue.gap_ticks)

    async def test_flooded(self) -> None:
        """What is too much for the queue is counted, as is what the server was told of it."""
        flood = FloodServer(reactor)
        port = reactor.listenTCP(0, MediaServerFactory(flood, reactor), interface="127.0.0.1")
        self.addCleanup(port.stopListening)

        async def register(*args: object, **kwargs: object) -> str:
            return flood.register()

        self.patch(phone, "register_call", register)
        report = await self.call("--http", f"http://127.0.0.1:{port.getHost().port}", "--duration", "0.6")
        await deferLater(reactor, 0.05)
        assert report.queue is not None
        assert report.queue.depth_ms is not None
        self.assertEqual((report.problem, report.queue.xoff, report.queue.xon, report.queue.dropped), ("", 1, 0, 1))
        self.assertGreater(report.queue.depth_ms.p50, 19_000)
        self.assertIn("1 message that came to a full queue", summary_text([report], None))

    async def test_several_calls(self) -> None:
        """Several calls are summed up, their queues too."""
        phone = self.phone("--calls", "3", "--rate", "20", "--tone", "300", "--duration", "0.6")
        reports = await phone.run()
        self.assertEqual([report.problem for report in reports], [""] * 3)
        text = summary_text(reports, phone.sending_late_ms)
        self.assertIn("3 calls: 3 went well, 0 did not", text)
        self.assertIn("XOFF 0, XON 0", text)
        self.assertNotIn("on time", text)

    async def test_interrupted(self) -> None:
        """An interrupted phone hangs up in order."""
        phone = self.phone()
        reactor.callLater(0.3, phone.interrupt)
        (report,) = await phone.run()
        self.assertEqual((report.problem, report.reason), ("interrupted", "interrupted"))


class FailureTests(WebSocketTestCase):
    """Calls that do not go well say why, and what can be done."""

    async def refusal(self, http_url: str = "", **more: object) -> str:
        """What a line says that is not let in."""
        server = WebSocketServer(url=media_url(http_url or self.http_url), api_key=API_KEY)
        server = WebSocketServer(**{**vars(server), **more})
        dialing = WebSocketConnection.dial(server, uuid4(), NoCall(), MediaClock(reactor), reactor)  # type: ignore[arg-type]
        return str(await self.assertFailure(Deferred.fromCoroutine(dialing), SetUpFailed))

    async def test_wrong_key(self) -> None:
        """A refused key says where the key is taken from, at registration as in the handshake."""
        os.environ["RAPIDA_API_KEY"] = "rpd-another-key"
        report = await self.call("--duration", "0.2")
        for problem in (report.problem, await self.refusal(api_key="rpd-another-key")):
            self.assertIn("401", problem)
            self.assertIn("RAPIDA_API_KEY", problem)
        self.assertIn("this API key is not known", report.problem)

    async def test_unknown_call(self) -> None:
        """A contextId that the server does not know is refused with its arguments."""
        problem = await self.refusal()
        self.assertIn("404", problem)
        self.assertIn("unknown", problem)

    async def test_no_server(self) -> None:
        """Where nobody listens, the option that says where to is named."""
        for http_url in ("http://127.0.0.1:9", "http://nobody.invalid"):
            self.assertIn("--http", await self.refusal(http_url))

    async def test_ipv6(self) -> None:
        """An IPv6 address leads to the server, too, as far as its answer to an unknown call shows."""
        site = self.media.components.ports._ports[HTTP]._factory
        port = reactor.listenTCP(0, site, interface="::1")
        self.addCleanup(port.stopListening)
        self.assertIn("unknown", await self.refusal(f"http://[::1]:{port.getHost().port}"))

    async def test_no_websocket(self) -> None:
        """A server that speaks something else is told from one that is not there."""
        problem = await self.refusal(f"http://127.0.0.1:{self.media.audiosocket_port}")
        self.assertIn("before its handshake", problem)

    async def test_refused_call(self) -> None:
        """In a call, too, a refused handshake is one sentence."""

        async def register(*args: object, **kwargs: object) -> str:
            return str(uuid4())

        self.patch(phone, "register_call", register)
        report = await self.call("--duration", "0.2")
        self.assertIn("the server refused the media connection with 404", report.problem)
        self.assertEqual((report.ended_by, report.connection_ms), ("", None))

    async def test_nothing_heard(self) -> None:
        """A call in which nothing was heard did not go well."""
        report = await self.call("--assistant", SILENT)
        self.assertIn("the server sent no audio", report.problem)
        self.assertEqual((report.ended_by, report.heard.frames if report.heard else None), ("server", 0))

    async def test_lost(self) -> None:
        """A connection that is cut is not an orderly end."""
        reactor.callLater(0.4, lambda: [call._channel.abort() for call in self.media.calls])
        report = await self.call("--tone", "440")
        self.assertEqual(report.ended_by, "network")
        self.assertIn("the connection was lost", report.problem)

    async def test_another_subprotocol(self) -> None:
        """A WebSocket server that chooses another subprotocol is none for calls."""
        port = reactor.listenTCP(0, Peers(Chat), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        problem = await self.refusal(f"http://127.0.0.1:{port.getHost().port}")
        self.assertIn("subprotocol", problem)
        await deferLater(reactor, 0.05)

    async def test_interrupted_early(self) -> None:
        """A call that is interrupted in its handshake was not up, and nothing is left of it."""
        factory = WebSocketServerFactory(reactor=reactor)
        factory.protocol = _NeverAnswers
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        phone = self.phone("--duration", "0.2")
        object.__setattr__(phone._websocket, "url", f"ws://127.0.0.1:{port.getHost().port}/{{}}")
        reactor.callLater(0.3, phone.interrupt)
        (report,) = await phone.run()
        await deferLater(reactor, 0.05)
        self.assertIn("interrupted", report.problem)
        self.assertEqual(report.ended_by, "")


class _NeverAnswers(WebSocketServerProtocol):
    """A server that takes a connection, and lets its handshake wait."""

    def dataReceived(self, data: bytes) -> None:
        """Take no notice."""


class OptionsTestCase(SynchronousTestCase):
    """A command line, and the key in the environment."""

    def setUp(self) -> None:
        self.patch(os, "environ", {**os.environ, "RAPIDA_API_KEY": API_KEY})

    def refusal(self, *arguments: str) -> str:
        """What a command line that can't be used is answered with."""
        with open("said", "w+") as errors:
            self.patch(sys, "stderr", errors)
            stopped = self.assertRaises(SystemExit, parse_options, arguments)
            self.assertEqual(stopped.code, 2)
            errors.seek(0)
            return errors.read().splitlines()[-1]


class OptionsTests(OptionsTestCase):
    """The command line."""

    def test_defaults(self) -> None:
        """AudioSocket if nothing is said; over WebSocket ulaw and plain text."""
        options = parse_options([])
        self.assertEqual(options.transport, "audiosocket")
        options = parse_options(["--transport", "websocket"])
        self.assertEqual((options.format.asterisk_name, options.form), ("ulaw", ControlForm.PLAIN))

    def test_said(self) -> None:
        """Codec and form can be chosen."""
        options = parse_options(["--transport", "websocket", "--codec", "slin16", "--control", "json"])
        self.assertEqual((options.format.rate_hz, options.form), (16000, ControlForm.JSON))

    def test_without_effect(self) -> None:
        """Options that would have no effect are refused."""
        self.assertIn("--transport websocket", self.refusal("--codec", "ulaw"))
        self.assertIn("--transport websocket", self.refusal("--control", "json"))
        self.assertIn("https", self.refusal("--ca", "ca.pem"))

    def test_wrong_words(self) -> None:
        """Wrong words are refused by their option."""
        self.assertIn("--transport", self.refusal("--transport", "sip"))
        self.assertIn("--codec", self.refusal("--transport", "websocket", "--codec", "opus"))

    def test_address(self) -> None:
        """The address of the media follows that of HTTP, a path in front included."""
        call_id = uuid4()
        for http_url, ws_url in (("http://a:8080", "ws://a:8080"), ("https://b/voice", "wss://b/voice")):
            server = WebSocketServer(url=media_url(http_url), api_key=API_KEY)
            self.assertEqual(server.url.replace("{}", str(call_id)), f"{ws_url}/v1/talk/asterisk/ctx/{call_id}")


class ReportTests(SynchronousTestCase):
    """What is shown of a queue."""

    def test_sums(self) -> None:
        """The queues of several calls are summed; without any there is nothing to sum."""
        queue = QueueFigures(depth_ms=None, gaps=1, gap_ticks=2, pauses=3, flushes=4, xoff=5, xon=5, dropped=6)
        reports = [CallReport(1, queue=queue), CallReport(2, queue=queue), CallReport(3)]
        self.assertEqual(summary_object(reports, None)["queue"]["gap_ticks"], 4)
        self.assertIn("4 frames missing in 2 gaps, 6 pauses between", summary_text(reports, None))
        self.assertIn("XOFF 10, XON 10, 8 flushes, 12 messages lost", summary_text(reports, None))
        self.assertIsNone(summary_object([CallReport(1)], None)["queue"])
