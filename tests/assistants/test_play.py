"""Play says a file and hangs up."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.assistants.play import configure
from rapida_twisted.audio.tones import tone
from rapida_twisted.audio.wav import WavWriter
from rapida_twisted.context import EndReason
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantEnvironment
from rapida_twisted.testing import FakeCall
from tests.assistants.calls import CONTEXT
from tests.audio.signals import measure


class PlayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.environment = AssistantEnvironment(Clock(), Path(self.mktemp()))

    def write_tone(self, rate_hz: int) -> bytes:
        """A second of 1 kHz in the file."""
        samples = tone(1000, 1000, rate_hz)
        writer = WavWriter(self.path, rate_hz)
        writer.write(samples)
        writer.close()
        return samples

    def answered(self, argument: str) -> FakeCall:
        """A call that is answered by it."""
        make = configure(argument, self.environment)
        call = FakeCall(make(CONTEXT))
        call.start()
        return call

    def test_plays_and_hangs_up(self) -> None:
        """The whole file is heard, then the call ends, and not before."""
        samples = self.write_tone(8000)
        call = self.answered(str(self.path))
        call.advance(0.9)
        self.assertFalse(call.hung_up)
        call.advance(0.2)
        self.assertTrue(call.hung_up)
        self.assertEqual(call.call.ended, EndReason.ASSISTANT_HANGUP)
        self.assertEqual(call.said.strip(b"\0"), samples.strip(b"\0"))

    def test_other_rates(self) -> None:
        """A file of another rate has its own pitch and length."""
        for rate_hz in (16000, 44100, 48000, 11025):
            self.write_tone(rate_hz)
            call = self.answered(str(self.path))
            call.advance(1.2)
            self.assertTrue(call.hung_up)
            heard = measure(call.said.strip(b"\0")[: 7900 * 2], 1000, 8000)
            self.assertApproximates(heard.hz, 1000, 1, rate_hz)
            self.assertApproximates(heard.level_db, -10, 0.1, rate_hz)

    def test_each_call_from_the_start(self) -> None:
        """One factory serves many calls, each from the file's beginning."""
        samples = self.write_tone(8000)
        make = configure(str(self.path), self.environment)
        calls = [FakeCall(make(CONTEXT)) for _ in range(2)]
        for call in calls:
            call.start()
            call.advance(0.3)
        for call in calls:
            call.advance(1)
            self.assertEqual(call.said.strip(b"\0"), samples.strip(b"\0"))

    def test_caller_hangs_up(self) -> None:
        """A caller who goes away in the middle ends it like any call."""
        self.write_tone(8000)
        call = self.answered(str(self.path))
        call.advance(0.3)
        call.end()
        call.advance(1)
        self.assertEqual(call.call.ended, EndReason.CALLER_HANGUP)

    def test_relative_to_the_start(self) -> None:
        """A relative path means the folder at the start, wherever the server goes later."""
        self.write_tone(8000)
        here = os.getcwd()
        make = configure(os.path.relpath(self.path), self.environment)
        self.addCleanup(os.chdir, here)
        os.chdir("/")
        call = FakeCall(make(CONTEXT))
        call.start()
        call.advance(0.2)
        self.assertFalse(call.hung_up)

    def test_refused_at_the_start(self) -> None:
        """No file, none that is there, and none that is sound are refused in one sentence that names it."""
        self.path.write_text("no sound")
        for argument, why in (
            ("", "play needs a file"),
            ("/nowhere/x.wav", "'/nowhere/x.wav'.*No such file"),
            (str(self.path), "no sound file"),
            (str(self.path.parent), "[Ii]s a directory"),
        ):
            error = self.assertRaises(SettingsError, configure, argument, self.environment)
            self.assertRegex(str(error), why)
            self.assertNotIn("\n", str(error))
