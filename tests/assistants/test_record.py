"""Recordings: both sides of a call, as they were heard and when."""

from __future__ import annotations

import errno
import os
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.assistants.record import configure
from rapida_twisted.assistants.registry import parse_assistant
from rapida_twisted.audio.tones import tone
from rapida_twisted.audio.wav import WavWriter
from rapida_twisted.context import EndReason
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantEnvironment, ICall
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.testing import FakeCall
from tests.assistants.calls import CONTEXT, talk
from tests.audio.signals import measure, samples_of

BEEP_S = 0.2


class RecordTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        bare = AssistantEnvironment(Clock(), Path(self.mktemp()).absolute())
        self.environment = replace(bare, assistant=lambda words: parse_assistant(words, bare))

    def answered(self, argument: str = "", rate_hz: int = 8000) -> FakeCall:
        """A call that is recorded."""
        make = configure(argument, self.environment)
        call = FakeCall(make(CONTEXT), rate_hz=rate_hz)
        call.start()
        return call

    def path(self, call: FakeCall) -> Path:
        """Where its recording must be."""
        return self.environment.state_dir / "recordings" / f"{call.call.context.context_id}.wav"

    def is_open(self, call: FakeCall) -> bool:
        """Whether this process has its recording open."""
        folder = Path("/proc/self/fd")
        return any(os.path.realpath(folder / name) == str(self.path(call)) for name in os.listdir(folder))

    def sides(self, call: FakeCall) -> tuple[np.ndarray, np.ndarray]:
        """The recording's caller and assistant."""
        with wave.open(str(self.path(call))) as recording:
            self.assertEqual(recording.getparams()[:3], (2, 2, 8000))
            both = samples_of(recording.readframes(recording.getnframes())).reshape(-1, 2)
        return both[:, 0], both[:, 1]


class TwoSidesTests(RecordTestCase):
    def test_beeps(self) -> None:
        """By itself it says a beep, so that the caller knows, and then is silent."""
        call = self.answered()
        call.advance(1)
        said = call.said.strip(b"\0")
        self.assertApproximates(len(said) / 16000, BEEP_S, 0.005)
        self.assertFalse(call.hung_up)

    def test_both_sides(self) -> None:
        """The caller is on the left, what he heard on the right, each sample as it was."""
        call = self.answered()
        call.advance(0.5)
        sound = tone(440, 1500, 8000)
        talk(call, sound)
        call.advance(0.3)
        call.end()
        caller, assistant = self.sides(call)
        self.assertEqual(assistant.astype("<i2").tobytes(), call.said)
        self.assertEqual(caller.astype("<i2").tobytes().strip(b"\0"), sound.strip(b"\0"))
        self.assertApproximates(np.flatnonzero(caller)[0] / 8000, 0.5, 0.021)

    def test_echo_is_seen(self) -> None:
        """With an echo recorded, the right side is the left a moment later."""
        call = self.answered("echo")
        talk(call, tone(440, 1000, 8000))
        call.advance(0.2)
        call.end()
        caller, assistant = self.sides(call)
        late = (np.flatnonzero(assistant)[0] - np.flatnonzero(caller)[0]) / 8000
        self.assertApproximates(late, 0.01, 0.011)
        self.assertEqual(caller.astype("<i2").tobytes().strip(b"\0"), assistant.astype("<i2").tobytes().strip(b"\0"))

    def test_flushed_is_not_recorded(self) -> None:
        """What was cut short is on the recording as far as it was heard, and no further."""
        call = self.answered("greeter")
        call.advance(2)
        call.press("5")
        call.advance(1)
        call.end()
        _, assistant = self.sides(call)
        self.assertEqual(assistant.astype("<i2").tobytes(), call.said)
        self.assertFalse(assistant[int(2.2 * 8000) :].any())

    def test_pauses_are_silence(self) -> None:
        """A telephone that sends nothing for a while leaves silence of that length, and both sides stay together."""
        call = self.answered()
        talk(call, b"\1\0" * 1600)
        call.advance(1)
        talk(call, b"\2\0" * 1600)
        call.advance(0.5)
        call.end()
        caller, assistant = self.sides(call)
        self.assertEqual(len(caller), len(assistant))
        first, second = np.flatnonzero(caller == 1), np.flatnonzero(caller == 2)
        self.assertEqual((len(first), len(second)), (1600, 1600))
        self.assertApproximates((second[0] - first[0]) / 8000, 1.2, 0.021)

    def test_long_packets(self) -> None:
        """Packets of 30 and 60 ms are recorded whole."""
        for packet_ms in (30, 60):
            call = self.answered()
            sound = tone(440, 1200, 8000)
            talk(call, sound, packet_ms)
            call.advance(0.3)
            call.end()
            caller, _ = self.sides(call)
            expected = samples_of(sound)
            self.assertEqual(caller[caller != 0].tolist(), expected[expected != 0].tolist(), packet_ms)

    def test_burst_after_a_stall(self) -> None:
        """Of a burst that comes after a stall only the newest is kept, so that the sides drift apart no further."""
        call = self.answered()
        call.advance(1)
        for number in range(1, 51):
            call.hear(number.to_bytes(2, "little") * 160)
        call.advance(1)
        call.end()
        caller, assistant = self.sides(call)
        self.assertEqual(len(caller), len(assistant))
        self.assertEqual(sorted(set(caller[caller != 0])), list(range(41, 51)))

    def test_wide_line(self) -> None:
        """A call on a line of 16 kHz is recorded at 8 kHz, at its own speed and level."""
        call = self.answered(rate_hz=16000)
        call.advance(0.5)
        for begin in range(0, 32000, 640):
            call.hear(tone(1000, 1000, 16000)[begin : begin + 640])
            call.advance(0.02)
        call.end()
        caller, _ = self.sides(call)
        sound = caller[np.flatnonzero(caller)[0] :].astype("<i2").tobytes()
        heard = measure(sound, 1000, 8000)
        self.assertApproximates(heard.hz, 1000, 1)
        self.assertApproximates(heard.level_db, -10, 0.2)

    def test_during_the_call(self) -> None:
        """All but the last second is in the file while the call lasts, should the process be killed."""
        call = self.answered()
        call.advance(5)
        caller, _ = self.sides(call)
        self.assertGreaterEqual(len(caller) / 8000, 4)


class InnerTests(RecordTestCase):
    def test_inner_hears_all(self) -> None:
        """The recorded assistant hears, is told of digits and of the end, and may hang up, as if it were alone."""
        told: list[object] = []

        class Inner(Assistant):
            async def answer(self, call: ICall) -> None:
                told.append(await call.digits(2))
                await call.hang_up()

            def audio_received(self, call: ICall, samples: bytes) -> None:
                told.append(len(samples))

            def digit_received(self, call: ICall, digit: str) -> None:
                told.append(digit)

            def call_ended(self, call: ICall, reason: EndReason) -> None:
                told.append(reason)

        self.environment = replace(self.environment, assistant=lambda words: lambda context: Inner())
        call = self.answered("inner")
        call.hear(bytes(320))
        call.press("4")
        call.press("2")
        call.advance(0.1)
        self.assertEqual(told, [320, "4", "42", "2", EndReason.ASSISTANT_HANGUP])
        self.assertTrue(self.path(call).exists())

    def test_refused_at_the_start(self) -> None:
        """An inner assistant that is not known, or that is the recorder itself, is refused in a sentence."""
        for argument, why in (("nosuch", "'nosuch' is not known"), ("record", "itself"), ("echo:loud", "no argument")):
            error = self.assertRaises(SettingsError, configure, argument, self.environment)
            self.assertRegex(str(error), why)

    def test_nothing_at_the_start(self) -> None:
        """The folder is made by the first call, not by the start."""
        configure("greeter", self.environment)
        self.assertFalse(self.environment.state_dir.exists())


class FullDiskTests(RecordTestCase):
    def assert_goes_on(self, call: FakeCall) -> None:
        """The call still echoes."""
        before = len(call.said)
        talk(call, b"\5\0" * 1600)
        call.advance(0.2)
        self.assertEqual(call.said[before:].count(b"\5\0"), 1600)
        self.assertIsNone(call.call.ended)

    def test_full_from_the_start(self) -> None:
        """If the recording can't even begin, the call goes on, and one log line says so."""
        self.environment.state_dir.parent.mkdir(parents=True, exist_ok=True)
        self.environment.state_dir.write_text("a file, where a folder must be")
        with capturedLogs() as events:
            call = self.answered("echo")
            call.advance(0.1)
            self.assert_goes_on(call)
            call.end()
        errors = [event for event in events if event["log_level"] >= LogLevel.warn]
        self.assertEqual(len(errors), 1)
        self.assertEqual(errors[0]["id"], call.call.context.context_id)

    def test_full_in_the_middle(self) -> None:
        """If the disk is full later, the call goes on, what was recorded stays, and nothing is kept open."""
        with capturedLogs() as events:
            call = self.answered("echo")
            call.advance(3)
            self.assertTrue(self.is_open(call))

            def full(writer: WavWriter, samples: bytes) -> None:
                if samples:
                    raise OSError(errno.ENOSPC, "No space left on device")

            self.patch(WavWriter, "write", full)
            call.advance(2)
            self.assert_goes_on(call)
            self.assertFalse(self.is_open(call))
            call.end()
        errors = [event for event in events if event["log_level"] >= LogLevel.warn]
        self.assertEqual(len(errors), 1)
        self.assertIn("No space left", str(errors[0]["error"]))
        caller, _ = self.sides(call)
        self.assertApproximates(len(caller) / 8000, 3, 0.6)

    def test_nothing_kept_open(self) -> None:
        """An ended call has closed its file."""
        call = self.answered("echo")
        call.advance(1)
        self.assertTrue(self.is_open(call))
        call.end()
        self.assertFalse(self.is_open(call))
