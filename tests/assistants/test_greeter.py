"""The greeter: its welcome, its late echo, its answers to digits."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.assistants.greeter import WELCOME, Greeter
from rapida_twisted.audio.tones import dtmf, tone
from rapida_twisted.audio.wav import WavReader
from rapida_twisted.context import EndReason
from rapida_twisted.testing import FakeCall
from tests.assistants.calls import frames_of, talk
from tests.audio.signals import measure, samples_of

WELCOME_S = WavReader(WELCOME).duration_s


def welcome() -> bytes:
    """Its samples."""
    return b"".join(WavReader(WELCOME))


class WelcomeFileTests(SynchronousTestCase):
    def test_is_for_the_telephone(self) -> None:
        """The welcome has 8 kHz, less than 6 s, nothing clipped, and its sound between 300 and 3400 Hz."""
        self.assertEqual(WavReader(WELCOME).rate_hz, 8000)
        self.assertLess(WELCOME_S, 6)
        samples = samples_of(welcome())
        self.assertLess(abs(samples).max(), 32767)
        power = abs(np.fft.rfft(samples)) ** 2
        hz = np.fft.rfftfreq(len(samples), 1 / 8000)
        outside = power[(hz < 250) | (hz > 3500)].sum()
        self.assertLess(10 * np.log10(outside / power.sum()), -30)

    def test_is_as_loud_as_speech(self) -> None:
        """Where somebody speaks its level is -16 dBFS (RMS), within 2 dB."""
        loudness = np.sqrt((samples_of(welcome())[: 8000 * 5].reshape(-1, 160) ** 2).mean(axis=1))
        speech = loudness[loudness > loudness.max() / 30]
        self.assertApproximates(20 * np.log10(np.sqrt((speech**2).mean()) / 32768), -16, 2)


class GreeterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.call = FakeCall(Greeter())
        self.call.start()

    def after_the_welcome(self) -> int:
        """Let it speak; how many frames were sent."""
        self.call.advance(WELCOME_S + 0.1)
        return len(self.call.channel.sent)

    def test_says_the_welcome(self) -> None:
        """The caller hears the whole file, and then silence."""
        self.after_the_welcome()
        self.assertEqual(self.call.said.strip(b"\0"), welcome().strip(b"\0"))

    def test_echo_is_a_second_late(self) -> None:
        """What the caller says afterwards comes back complete, a second later."""
        for packet_ms in (20, 30, 60):
            call = FakeCall(Greeter())
            call.start()
            call.advance(WELCOME_S + 0.1)
            before = len(call.channel.sent)
            sound = tone(440, 1800, 8000).strip(b"\0")
            talk(call, sound.ljust(len(sound) // 2 * 2 + 24000, b"\0"), packet_ms)
            said = b"".join(call.channel.sent[before:])
            silence = len(said) - len(said.lstrip(b"\0"))
            self.assertApproximates(silence / 16000, 1, 0.08, packet_ms)
            self.assertEqual(said.strip(b"\0"), sound, packet_ms)

    def test_last_second_of_a_quiet_phone(self) -> None:
        """A telephone that sends nothing while its user is silent hears his last second too."""
        for duration_ms in (300, 2000):
            call = FakeCall(Greeter())
            call.start()
            call.advance(WELCOME_S + 0.1)
            before = len(call.channel.sent)
            sound = tone(440, duration_ms, 8000).strip(b"\0")
            talk(call, sound)
            call.advance(1.5)
            said = b"".join(call.channel.sent[before:])
            silence = len(said) - len(said.lstrip(b"\0"))
            self.assertApproximates(silence / 16000, 1, 0.08, duration_ms)
            self.assertEqual(samples_of(said).astype(bool).sum(), samples_of(sound).astype(bool).sum())

    def test_bounded(self) -> None:
        """Packets without a sample, or faster than time, do not pile up."""
        greeter = Greeter()
        call = FakeCall(greeter)
        call.start()
        for _ in range(2000):
            call.hear(b"")
            call.hear(b"\1\0" * 160)
        self.assertLessEqual(len(greeter._late), 51)

    def test_digit_has_its_tone(self) -> None:
        """A digit is answered with its own tone, once."""
        for digit in "0123456789*ABCD":
            call = FakeCall(Greeter())
            call.start()
            call.advance(WELCOME_S + 0.1)
            before = len(call.channel.sent)
            call.press(digit)
            call.advance(0.5)
            said = b"".join(call.channel.sent[before:])
            self.assertEqual(said.strip(b"\0"), dtmf(digit, 150, 8000).strip(b"\0"), digit)

    def test_digit_interrupts(self) -> None:
        """A digit during the welcome ends it at once."""
        self.call.advance(1)
        before = len(self.call.channel.sent)
        self.call.press("5")
        self.call.advance(1)
        said = b"".join(self.call.channel.sent[before:])
        self.assertEqual(said.strip(b"\0"), dtmf("5", 150, 8000).strip(b"\0"))
        self.assertEqual(frames_of(said)[0], dtmf("5", 150, 8000)[:320])

    def test_hash_hangs_up(self) -> None:
        """``#`` ends the call, also in the middle of the welcome."""
        self.call.advance(0.5)
        self.call.press("#")
        self.assertTrue(self.call.hung_up)
        self.call.advance(2)
        self.assertEqual(self.call.call.ended, EndReason.ASSISTANT_HANGUP)

    def test_leaves_nothing_behind(self) -> None:
        """After the call nothing of it waits in the reactor."""
        self.call.advance(1)
        self.call.hear(b"\1\0" * 160)
        self.call.end()
        self.assertEqual([entry for entry in self.call.clock.getDelayedCalls() if entry.active()], [])

    def test_wide_line(self) -> None:
        """On a line of 16 kHz the welcome has its own speed and level."""
        call = FakeCall(Greeter(), rate_hz=16000)
        call.start()
        call.advance(WELCOME_S + 0.1)
        before = len(call.channel.sent)
        call.press("1")
        call.advance(0.3)
        said = b"".join(call.channel.sent[before:]).strip(b"\0")
        self.assertApproximates(len(said) / 32000, 0.15, 0.006)
        self.assertApproximates(measure(said[: len(said) // 2 * 2], 697, 16000).level_db, -10, 0.5)
