"""The microphone and the speaker, on a PortAudio that is made here."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.tools.phone.microphone import Headset
from rapida_twisted.tools.phone.options import parse_options
from tests.tools.phone.test_main import OptionsTestCase, PhoneTestCase

FRAME = bytes([0, 32]) * 160


class FakeStream:
    """One stream, whose callback the test calls."""

    made: list[FakeStream] = []

    def __init__(self, **options: Any) -> None:
        if options["device"] == "gone":
            raise PortAudioError("Error querying device -1")
        self.options = options
        self.state = "open"
        self.made.append(self)

    def start(self) -> None:
        self.state = "started"

    def close(self) -> None:
        self.state = "closed"

    def exchange(self, said: bytes) -> bytes:
        """20 ms of PortAudio's thread: what the speaker plays."""
        played = bytearray(len(said))
        self.options["callback"](said, memoryview(played), len(said) // 2, None, None)
        return bytes(played)


class PortAudioError(Exception):
    """sounddevice's."""


def fake_sounddevice() -> ModuleType:
    module: Any = ModuleType("sounddevice")
    module.RawStream, module.PortAudioError = FakeStream, PortAudioError
    return module


class HeadsetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(sys, "modules", {**sys.modules, "sounddevice": fake_sounddevice()})
        self.patch(FakeStream, "made", [])
        self.headset = Headset("", 20)
        (self.stream,) = FakeStream.made

    def test_microphone(self) -> None:
        """What is said is sent in order, silence where nothing was said, and no more than 100 ms wait."""
        frames = self.headset.frames()
        self.assertEqual((next(frames), self.stream.state), (bytes(320), "started"))
        said = [bytes([number]) * 320 for number in range(1, 8)]
        for frame in said:
            self.stream.exchange(frame)
        self.assertEqual([next(frames) for _ in range(6)], [*said[2:], bytes(320)])

    def test_speaker(self) -> None:
        """The speaker plays once 60 ms wait, until it runs empty, and then waits for 60 ms again."""
        self.headset.add(FRAME * 2, 8000)
        self.assertEqual(self.stream.exchange(FRAME), bytes(320))
        self.headset.add(FRAME, 8000)
        self.assertEqual([self.stream.exchange(FRAME) for _ in range(4)], [FRAME] * 3 + [bytes(320)])
        self.headset.add(FRAME * 2, 8000)
        self.assertEqual(self.stream.exchange(FRAME), bytes(320))

    def test_another_rate(self) -> None:
        """Audio of 16 kHz is played at 8 kHz."""
        for _ in range(10):
            self.headset.add(FRAME * 2, 16000)
        self.assertTrue(any(self.stream.exchange(FRAME)))

    def test_bound(self) -> None:
        """No more than 300 ms wait for the speaker."""
        self.headset.add(FRAME * 100, 8000)
        self.assertEqual([any(self.stream.exchange(FRAME)) for _ in range(16)].count(True), 15)


class CallTests(PhoneTestCase):
    async def test_call(self) -> None:
        """The voice goes to the server, its echo to the speaker, and the devices are closed with the call."""
        self.patch(sys, "modules", {**sys.modules, "sounddevice": fake_sounddevice()})
        self.patch(FakeStream, "made", [])
        phone = self.phone("--mic", "usb", "--duration", "0.6", "--tolerate", "50")
        (stream,) = FakeStream.made
        self.assertEqual((stream.options["device"], stream.options["samplerate"]), ("usb", 8000))
        played: list[bytes] = []
        portaudio = LoopingCall(lambda: played.append(stream.exchange(FRAME)))
        portaudio.start(0.02)
        (report,) = await phone.run()
        portaudio.stop()
        self.assertEqual((report.problem, stream.state), ("", "closed"))
        self.assertTrue(FRAME in self.server.calls[0].heard)
        self.assertTrue(FRAME in b"".join(played))


    async def test_does_not_start(self) -> None:
        """A device that is busy ends the call, which says so."""
        self.patch(sys, "modules", {**sys.modules, "sounddevice": fake_sounddevice()})

        def start(stream: FakeStream) -> None:
            raise PortAudioError("Device unavailable")

        self.patch(FakeStream, "start", start)
        (report,) = await self.phone("--mic", "--duration", "0.6").run()
        self.assertEqual(report.problem, "the sound to send failed: Device unavailable")


class RefusalTests(OptionsTestCase):
    def test_no_library(self) -> None:
        """Without the extra, without PortAudio and without a device one sentence says what to do."""
        self.patch(sys, "modules", {**sys.modules, "sounddevice": None})
        self.assertIn("pip install '.[mic]'", self.refusal("--mic"))
        self.patch(sys, "modules", {**sys.modules, "sounddevice": fake_sounddevice()})
        self.assertIn("name a device (--mic DEVICE)", self.refusal("--mic", "gone"))
        self.assertIn("--calls", self.refusal("--mic", "--calls", "2"))
        self.assertIn("not allowed with", self.refusal("--mic", "--mute"))

    def test_no_portaudio(self) -> None:
        """sounddevice raises OSError where PortAudio is not installed."""

        class Missing:
            def find_spec(self, name: str, *_: object) -> None:
                if name == "sounddevice":
                    raise OSError("PortAudio library not found")

        self.patch(sys, "meta_path", [Missing(), *sys.meta_path])
        self.patch(sys, "modules", {name: kept for name, kept in sys.modules.items() if name != "sounddevice"})
        self.assertIn("apt install libportaudio2", self.refusal("--mic"))

    def test_an_hour(self) -> None:
        """A call with a microphone lasts for an hour, or as long as is said."""
        self.patch(sys, "modules", {**sys.modules, "sounddevice": fake_sounddevice()})
        self.assertEqual(parse_options(["--mic"]).plan.end_s, 3600)
        self.assertEqual(parse_options(["--mic", "--duration", "5"]).plan.end_s, 5)
