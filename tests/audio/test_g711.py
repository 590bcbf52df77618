"""G.711: what an encoding loses, and what it keeps."""

from __future__ import annotations

import subprocess
import sys
from array import array

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio import g711
from rapida_twisted.audio.formats import ALAW, ULAW
from rapida_twisted.audio.tones import tone
from tests.audio.signals import measure

EVERY_BYTE = bytes(range(256))
SAMPLES = st.lists(st.integers(-32768, 32767)).map(lambda numbers: array("h", numbers))
NEGATIVE_ZERO = 0x7F
"""Mu-law has two zeros; what is decoded is encoded as the positive one, 0xFF."""


class G711Tests(SynchronousTestCase):
    def test_ulaw_bytes_survive(self) -> None:
        """Every mu-law byte but the negative zero is the same after decoding and encoding."""
        back = g711.slin_to_ulaw(g711.ulaw_to_slin(EVERY_BYTE))
        self.assertEqual([byte for byte in EVERY_BYTE if back[byte] != byte], [NEGATIVE_ZERO])
        self.assertEqual(back[NEGATIVE_ZERO], 0xFF)

    def test_alaw_bytes_survive(self) -> None:
        """Every A-law byte is the same after decoding and encoding."""
        self.assertEqual(g711.slin_to_alaw(g711.alaw_to_slin(EVERY_BYTE)), EVERY_BYTE)

    def test_known_values(self) -> None:
        """Full scale, silence and small samples have the values of the ITU's tables."""
        self.assertEqual(array("h", g711.ulaw_to_slin(b"\x00\x80\xff\x7e")).tolist(), [-32124, 32124, 0, -8])
        self.assertEqual(array("h", g711.alaw_to_slin(b"\x2a\xaa\xd5\x55")).tolist(), [-32256, 32256, 8, -8])

    @given(SAMPLES)
    def test_ulaw_error(self, samples: array[int]) -> None:
        """Mu-law moves no sample by more than a 19th of itself with its bias of 132."""
        back = array("h", g711.ulaw_to_slin(g711.slin_to_ulaw(samples.tobytes())))
        self.assertEqual(len(back), len(samples))
        for before, after in zip(samples, back, strict=True):
            self.assertLessEqual(abs(before - after), (abs(before) + 132) / 19 + 1)

    @given(SAMPLES)
    def test_alaw_error(self, samples: array[int]) -> None:
        """A-law moves no sample by more than a 32nd of itself, or 8 for the smallest."""
        back = array("h", g711.alaw_to_slin(g711.slin_to_alaw(samples.tobytes())))
        self.assertEqual(len(back), len(samples))
        for before, after in zip(samples, back, strict=True):
            self.assertLessEqual(abs(before - after), max(8, abs(before) / 32 + 1))

    def test_noise(self) -> None:
        """A tone through either keeps its level within 0.1 dB and has at most -38 dB of noise."""
        samples = tone(1000, 1000, 8000)
        for there, back in (
            (g711.slin_to_ulaw, g711.ulaw_to_slin),
            (g711.slin_to_alaw, g711.alaw_to_slin),
        ):
            heard = measure(back(there(samples)), 1000, 8000)
            self.assertApproximates(heard.level_db, -10, 0.1)
            self.assertGreater(heard.snr_db, 38)

    def test_direct_is_the_long_way(self) -> None:
        """From one law to the other directly gives what the way through linear samples gives."""
        self.assertEqual(g711.ulaw_to_alaw(EVERY_BYTE), g711.slin_to_alaw(g711.ulaw_to_slin(EVERY_BYTE)))
        self.assertEqual(g711.alaw_to_ulaw(EVERY_BYTE), g711.slin_to_ulaw(g711.alaw_to_slin(EVERY_BYTE)))

    def test_silence(self) -> None:
        """What the formats call silence is silence to the codecs, in either direction."""
        self.assertEqual(g711.slin_to_ulaw(bytes(320)), ULAW.silent_frame)
        self.assertEqual(g711.slin_to_alaw(bytes(320)), ALAW.silent_frame)

    def test_imports_under_w_error(self) -> None:
        """A program that turns warnings into errors can import it, and keeps its own filters."""
        code = (
            "import warnings\n"
            "import rapida_twisted.audio.g711\n"
            "try:\n    warnings.warn('still an error', DeprecationWarning)\n"
            "except DeprecationWarning:\n    print('fine')"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual((done.stdout, done.stderr), ("fine\n", ""))
