"""The examples of the docs, run as they stand."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import wave
from pathlib import Path
from types import ModuleType
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rapida_twisted import AssistantEnvironment, CallContext, EndReason, IAssistantFactory
from rapida_twisted.protocols.audiosocket_asterisk import AsteriskProtocol
from rapida_twisted.testing import FakeCall
from rapida_twisted.wire.audiosocket import AsteriskCodec, AudioFrame, DtmfFrame, UuidFrame

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def example(name: str) -> ModuleType:
    """An example, imported."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module(name)


class CodecExampleTests(SynchronousTestCase):
    def test_describes_a_call(self) -> None:
        """The codec's example reads what an Asterisk sends, cut anywhere."""
        uuid, asterisk = uuid4(), AsteriskCodec()
        frames = (UuidFrame(uuid), AudioFrame(bytes(320)), DtmfFrame("5"))
        data = b"".join(asterisk.send(frame) for frame in frames)
        line = example("embed_codec").describe([data[:7], data[7:200], data[200:]])
        self.assertEqual(line, f"call {uuid}: 20 ms of audio, digits 5")

    def test_names_a_broken_rule(self) -> None:
        """The codec's example says what was wrong."""
        self.assertIn("before the UUID", example("embed_codec").describe([b"\x10\x00\x02ab"]))


class SupportBotTests(SynchronousTestCase):
    def test_right_pin(self) -> None:
        """The docs' assistant keeps a caller with the right PIN, and echoes him."""
        call = FakeCall(example("support_bot").Support())
        call.start()
        call.advance(0.5)
        for digit in "1234":
            call.press(digit)
        call.advance(0.1)
        self.assertFalse(call.hung_up)
        self.assertTrue(any(call.said))

    def test_time_is_up(self) -> None:
        """The docs' assistant hangs up on a caller without a PIN."""
        call = FakeCall(example("support_bot").Support())
        call.start()
        call.advance(6.0)
        self.assertTrue(call.hung_up)

    def test_the_docs_own_test(self) -> None:
        """The tests that the docs show pass, with the command that the docs give."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        for bot in ("support_bot", "menu_bot"):
            for name in (bot, f"test_{bot}"):
                (folder / f"{name}.py").write_text((EXAMPLES / f"{name}.py").read_text())
            done = subprocess.run(
                [sys.executable, "-m", "twisted.trial", f"test_{bot}"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=60,
                env={"PATH": "/usr/bin:/bin"},
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("PASSED", done.stdout)


class StoriesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A call that has a story of 3 s."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        story = str(folder / "fox.wav")
        with wave.open(story, "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(16000 * 3))
        self.patch(example("story_bot"), "STORIES", {"1": story})
        self.bot = example("story_bot").Stories()
        self.call = FakeCall(self.bot)
        self.call.start()
        self.call.advance(1.0)

    def test_interrupted(self) -> None:
        """The example knows how much of an interrupted story was heard, and answers a wrong key at once."""
        self.call.press("1")
        self.call.advance(2.0)
        self.call.press("9")
        self.call.advance(1.0)
        self.assertApproximates(self.bot.heard_ms, 500 + 2000, 20)
        self.assertApproximates(self.call.said_ms, 500 + 2000 + 500, 20)

    def test_no_key(self) -> None:
        """The example hangs up on a caller who presses none."""
        self.call.advance(60.0)
        self.assertIs(self.call.ended, EndReason.ASSISTANT_HANGUP)


class AsyncioExampleTests(SynchronousTestCase):
    def test_the_docs_own_test(self) -> None:
        """The test of the bot with an asyncio library passes, by the command of its page."""
        page = (EXAMPLES.parent / "asyncio.rst").read_text()
        self.assertIn("python -m unittest test_asyncio_bot", page)
        done = subprocess.run(
            [sys.executable, "-m", "unittest", "test_asyncio_bot"],
            cwd=EXAMPLES,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(EXAMPLES.parents[1])},
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("Ran 2 tests", done.stderr)


class PluginExampleTests(SynchronousTestCase):
    def test_weather(self) -> None:
        """The docs' plugin says the weather and hangs up."""
        factory = example("weather_plugin").weather
        self.assertTrue(IAssistantFactory.providedBy(factory))
        make = factory.configure("Berlin", AssistantEnvironment(reactor, Path(".")))
        call = FakeCall(make(CallContext(context_id="x", assistant_id="1", created_at=0, expires_at=1)))
        call.start()
        call.advance(1.0)
        self.assertTrue(call.hung_up)


class StoreExampleTests(TestCase):
    async def test_a_calls_life(self) -> None:
        """The store's example runs to its end, in memory and on SQLite."""
        for url in ("memory:", f"sqlite:{Path(self.mktemp()).absolute()}"):
            status = await Deferred.fromCoroutine(example("embed_store").main(reactor, url))
            self.assertEqual(status, "completed")


class _Phone(AsteriskProtocol):
    """Says a frame, and hangs up with a digit when it comes back."""

    def __init__(self) -> None:
        super().__init__(uuid4())
        self.heard = b""
        self.over: Deferred[str] = Deferred()

    def call_started(self) -> None:
        """Say something."""
        self.send_audio(b"\x01\x02" * 160)

    def audio_received(self, samples: bytes, rate_hz: int) -> None:
        """It came back."""
        self.heard += samples
        self.send_digit("#")

    def call_ended(self, problem: str) -> None:
        """All is over."""
        self.over.callback(problem)


class ProtocolExampleTests(TestCase):
    async def test_parrot(self) -> None:
        """The protocol's example gives back what it hears, and hangs up at #."""
        port = await example("embed_protocol").listen(0)
        phone = _Phone()
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), phone)
        self.assertEqual(await phone.over, "")
        self.assertEqual(phone.heard, b"\x01\x02" * 160)
        await port.stopListening()


class ServiceExampleTests(SynchronousTestCase):
    def test_starts_and_stops(self) -> None:
        """The service's example listens, and stops when it is told to."""
        script = (
            "import runpy; names = runpy.run_path('embed_service.py'); from twisted.internet import reactor;"
            "from twisted.application.service import IService; app = IService(names['application']);"
            "reactor.callWhenRunning(app.startService); reactor.callLater(0.3, reactor.stop);"
            "reactor.addSystemEventTrigger('before', 'shutdown', app.stopService); reactor.run()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=EXAMPLES,
            capture_output=True,
            text=True,
            timeout=60,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(EXAMPLES.parents[1]),
                "STATE_DIRECTORY": os.path.abspath(self.mktemp()),
            },
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout + done.stderr, "")
