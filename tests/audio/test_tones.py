"""The frequency and level of tones and DTMF digits."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio.tones import dtmf, tone
from tests.audio.signals import measure, samples_of, sign_changes

KEYS = {
    "1": (697, 1209), "2": (697, 1336), "3": (697, 1477), "A": (697, 1633),
    "4": (770, 1209), "5": (770, 1336), "6": (770, 1477), "B": (770, 1633),
    "7": (852, 1209), "8": (852, 1336), "9": (852, 1477), "C": (852, 1633),
    "*": (941, 1209), "0": (941, 1336), "#": (941, 1477), "D": (941, 1633),
}  # fmt: skip


class ToneTests(SynchronousTestCase):
    def test_measured(self) -> None:
        """A tone has its frequency, its level and nothing else, at each rate."""
        for rate_hz in (8000, 16000, 48000):
            heard = measure(tone(440, 1000, rate_hz, level_db=-20), 440, rate_hz)
            self.assertApproximates(heard.hz, 440, 0.5)
            self.assertApproximates(heard.level_db, -20, 0.05)
            self.assertGreater(heard.snr_db, 60)

    def test_length(self) -> None:
        """It has the requested length, which may be zero."""
        self.assertEqual(len(tone(440, 150, 8000)), 2400)
        self.assertEqual(len(tone(440, 150, 44100)), 6615 * 2)
        self.assertEqual(tone(440, 0, 8000), b"")

    def test_no_click(self) -> None:
        """It begins and ends softly."""
        samples = abs(samples_of(tone(1000, 100, 8000)))
        for edge in (samples[:4], samples[-4:]):
            self.assertLess(edge.max(), 0.1 * samples.max())

    def test_full_scale(self) -> None:
        """Even too loud, it is clipped and does not wrap around."""
        samples = samples_of(tone(100, 100, 8000, level_db=6))
        self.assertEqual((samples.max(), samples.min()), (32767, -32768))
        self.assertEqual(sign_changes(samples), 19)


class DtmfTests(SynchronousTestCase):
    def test_every_key(self) -> None:
        """Each key sounds its row and its column, each at the level."""
        for digit, frequencies in KEYS.items():
            samples = dtmf(digit, 400, 8000, level_db=-12)
            for hz in frequencies:
                self.assertApproximates(measure(samples, hz, 8000).level_db, -12, 0.3, f"{digit} at {hz} Hz")

    def test_no_key(self) -> None:
        """What is no key is refused, in a sentence."""
        for word in ("", "E", "a", "12", " "):
            with self.assertRaisesRegex(ValueError, "a digit is one of"):
                dtmf(word, 100, 8000)
