"""WAV files: those of other programs read, and ours read by other programs."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio.tones import tone
from rapida_twisted.audio.wav import WavReader, WavWriter
from tests.audio.signals import measure, samples_of

SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
WRITES_AND_WAITS = """
import sys, time
from rapida_twisted.audio.wav import WavWriter
writer = WavWriter(sys.argv[1], 8000, 2)
for number in range(int(sys.argv[2])):
    writer.write(number.to_bytes(2, "little") * 320)
print("written", flush=True)
time.sleep(60)
"""


def is_open(path: Path) -> bool:
    """Whether this process has it open."""
    folder = Path("/proc/self/fd")
    return any(os.path.realpath(folder / name) == str(path.absolute()) for name in os.listdir(folder))


class WavTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def assert_refused(self, content: bytes, why: str) -> None:
        """A file with this content is refused by a sentence that names it and says why."""
        self.path.write_bytes(content)
        error = self.assertRaises(ValueError, WavReader, self.path)
        self.assertIn(str(self.path), str(error))
        self.assertRegex(str(error), why)

    def write_sound(self, samples: bytes, rate_hz: int = 8000) -> bytes:
        """Write a file in one go; its bytes."""
        writer = WavWriter(self.path, rate_hz)
        writer.write(samples)
        writer.close()
        return self.path.read_bytes()


class ReaderTests(WavTestCase):
    def test_every_encoding(self) -> None:
        """PCM of 8 to 32 bits, floating point and G.711, mono and stereo, at several rates, sound the same."""
        for subtype in SUBTYPES:
            for rate_hz, channels in ((8000, 1), (16000, 2), (44100, 2)):
                sound = samples_of(tone(440, 600, rate_hz)) / 32768
                with soundfile.SoundFile(
                    self.path, "w", samplerate=rate_hz, channels=channels, format="WAV", subtype=subtype
                ) as out:
                    out.write(np.stack([sound] * channels, axis=1))
                reader = WavReader(self.path)
                self.assertEqual((reader.rate_hz, round(reader.duration_s, 3)), (rate_hz, 0.6))
                heard = measure(b"".join(reader), 440, rate_hz)
                self.assertApproximates(heard.level_db, -10, 0.1, subtype)
                self.assertGreater(heard.snr_db, 30, subtype)

    def test_exact(self) -> None:
        """Samples of 16 bits are read as they are, whichever they are."""
        samples = np.arange(-32768, 32768).astype("<i2").tobytes()
        self.write_sound(samples)
        self.assertEqual(b"".join(WavReader(self.path)), samples)

    def test_parts(self) -> None:
        """The parts have the requested length; the last one is the rest."""
        self.write_sound(bytes(8000 * 2))
        reader = WavReader(self.path, part_ms=300)
        self.assertEqual([len(part) for part in reader], [4800, 4800, 4800, 1600])
        self.assertEqual(list(reader), [])

    def test_mixed_down(self) -> None:
        """Of two channels the mean is heard."""
        with wave.open(str(self.path), "wb") as out:
            out.setparams((2, 2, 8000, 0, "NONE", ""))
            out.writeframes(struct.pack("<6h", 1000, 3000, -32768, -32768, 32767, -32767))
        self.assertEqual(samples_of(b"".join(WavReader(self.path))).tolist(), [2000, -32768, 0])

    def test_too_loud(self) -> None:
        """Floating point beyond full scale is clipped, and what is no number is silence."""
        sound = np.array([2.0, -2.0, np.nan, 0.5], dtype="float32")
        soundfile.write(self.path, sound, 8000, subtype="FLOAT", format="WAV")
        self.assertEqual(samples_of(b"".join(WavReader(self.path))).tolist(), [32767, -32768, 0, 16384])

    def test_length_not_known(self) -> None:
        """A file from a pipe, whose header could not tell its length, is read to its end."""
        content = self.write_sound(tone(440, 500, 8000))
        for length in (b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f"):
            self.path.write_bytes(content[:4] + length + content[8:40] + length + content[44:])
            self.assertEqual(sum(map(len, WavReader(self.path))), 8000)

    def test_pad_byte_left_out(self) -> None:
        """An odd number of bytes without the byte that fills it up, as many programs write it, is not truncated."""
        content = bytearray(self.write_sound(b""))
        content[4:8] = struct.pack("<I", 36 + 801 + 1)
        content[22:24], content[32:34], content[34:36] = b"\1\0", b"\1\0", b"\x08\0"
        content[28:32], content[40:44] = struct.pack("<I", 8000), struct.pack("<I", 801)
        self.path.write_bytes(bytes(content) + b"\x80" * 801)
        self.assertEqual(sum(map(len, WavReader(self.path))), 1602)

    def test_refusals(self) -> None:
        """No sound file, an empty one or a truncated one: the error is one sentence."""
        content = self.write_sound(tone(440, 500, 8000))
        self.assert_refused(b"", "no sound file")
        self.assert_refused(b"Hello. This is a text.\n" * 9, "no sound file")
        self.assert_refused(content[:30], "truncated")
        self.assert_refused(content[:5000], "truncated: 5000 bytes, but its header says 8044")
        self.assert_refused(self.write_sound(b""), "no sound")
        self.assert_refused(self.write_sound(bytes(320), rate_hz=50), "rate of 50 Hz")

    def test_raw(self) -> None:
        """Samples without a header are refused like all that is no sound file."""
        self.path = self.path.with_suffix(".raw")
        self.assert_refused(bytes(320), "no sound file")

    def test_missing(self) -> None:
        """A file that is not there, or a folder, is an OSError."""
        self.assertRaises(FileNotFoundError, WavReader, self.path)
        self.path.mkdir()
        self.assertRaises(IsADirectoryError, WavReader, self.path)

    @given(st.binary(max_size=200), st.integers(0, 60), st.integers(0, 200))
    def test_garbage(self, garbage: bytes, kept: int, cut: int) -> None:
        """Whatever is in a file, it is read or refused by a ValueError, and nothing else happens."""
        path = Path(self.mktemp())
        header = self.write_sound(bytes(200))[:kept]
        path.write_bytes((header + garbage)[cut % 50 if cut % 3 == 0 else 0 :])
        try:
            for part in WavReader(path):
                self.assertEqual(len(part) % 2, 0)
        except ValueError:
            pass


class WriterTests(WavTestCase):
    def test_read_by_others(self) -> None:
        """The standard library reads what was written: rate, channels, samples."""
        writer = WavWriter(self.path, 16000, channels=2)
        for part in (b"\1\0\2\0", b"\3\0\4\0" * 1000, b""):
            writer.write(part)
        writer.close()
        writer.close()
        with wave.open(str(self.path)) as heard:
            self.assertEqual(heard.getparams()[:4], (2, 2, 16000, 1001))
            self.assertEqual(heard.readframes(2000), b"\1\0\2\0" + b"\3\0\4\0" * 1000)

    def test_valid_from_the_start(self) -> None:
        """Before the first sample the file is a WAV file already, with no sound."""
        writer = WavWriter(self.path, 8000)
        self.addCleanup(writer.close)
        with wave.open(str(self.path)) as heard:
            self.assertEqual(heard.getnframes(), 0)

    def test_only_ours_to_read(self) -> None:
        """What was said in a call is readable by the server's user alone."""
        self.write_sound(bytes(320))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_killed(self) -> None:
        """A process that is killed leaves a WAV file without its last second at the most, and all samples in it."""
        for frames in (0, 60, 177):
            with subprocess.Popen(
                [sys.executable, "-c", WRITES_AND_WAITS, str(self.path), str(frames)], stdout=subprocess.PIPE
            ) as child:
                self.addCleanup(child.kill)
                assert child.stdout is not None
                self.assertEqual(child.stdout.readline(), b"written\n")
                child.kill()
            with wave.open(str(self.path)) as heard:
                told = heard.getnframes()
                samples = heard.readframes(told)
            self.assertLess(frames * 160 - told, 8000)
            expected = b"".join(number.to_bytes(2, "little") * 320 for number in range(frames))
            self.assertEqual(samples, expected[: len(samples)])
            self.assertEqual(self.path.read_bytes()[44:], expected)
            if told:
                self.assertEqual(len(b"".join(WavReader(self.path))), told * 2)

    def test_full_disk(self) -> None:
        """A disk that is full is an OSError at once, and the descriptor is not kept."""
        self.assertRaises(OSError, WavWriter, "/dev/full", 8000)
        self.assertFalse(is_open(Path("/dev/full")))

    def test_closed(self) -> None:
        """A reader has its file open until its end, or until it is closed; a closed one is at its end."""
        self.write_sound(bytes(32000))
        for finish in (list, WavReader.close):
            reader = WavReader(self.path)
            next(reader)
            self.assertTrue(is_open(self.path))
            finish(reader)
            self.assertFalse(is_open(self.path))
            self.assertEqual(list(reader), [])

    @given(st.lists(st.binary(max_size=400), max_size=20))
    def test_any_parts(self, parts: list[bytes]) -> None:
        """However the samples come, the file holds them."""
        path = Path(self.mktemp())
        even = [part[: len(part) // 2 * 2] for part in parts]
        writer = WavWriter(path, 8000)
        for part in even:
            writer.write(part)
        writer.close()
        with wave.open(str(path)) as heard:
            self.assertEqual(heard.readframes(heard.getnframes()), b"".join(even))
