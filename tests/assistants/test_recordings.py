"""The folder of recordings: its limits, and the thread that writes."""

from __future__ import annotations

import os
import threading
import wave
from pathlib import Path
from typing import Any
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rapida_twisted.assistants import recordings
from rapida_twisted.assistants.record import configure
from rapida_twisted.assistants.recordings import GB, RecordingFile, RecordingsFolder, WriterThread, recordings_dir
from rapida_twisted.interfaces import AssistantEnvironment
from rapida_twisted.settings.groups import RecordingSettings
from rapida_twisted.testing import FakeCall
from tests.assistants.calls import CONTEXT

NOW = 1_800_000_000.0


class FolderTests(SynchronousTestCase):
    """What is deleted, and when."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()

    def keep(self, *ages_s: float, kilobytes: int = 100) -> list[Path]:
        """Recordings that ended this long ago."""
        made = []
        for number, age_s in enumerate(ages_s):
            path = self.path / f"{UUID(int=number)}.wav"
            path.write_bytes(bytes(kilobytes * 1000))
            os.utime(path, (NOW - age_s, NOW - age_s))
            made.append(path)
        return made

    def tidied(self, keep_s: float = 0, max_bytes: float = 0) -> list[int]:
        """The numbers of the recordings that are left."""
        folder = RecordingsFolder(self.path, keep_s, max_bytes, lambda: NOW)
        self.assertEqual(folder.is_limited, bool(keep_s or max_bytes))
        folder.tidy()
        return sorted(UUID(path.stem).int for path in self.path.glob("*-*.wav"))

    def test_age(self) -> None:
        """Those that ended too long ago go; other files and links stay."""
        self.keep(100, 3601, 3599)
        others = [self.path / name for name in ("notes.txt", "music.wav")]
        for other in others:
            other.write_text("x")
            os.utime(other, (0, 0))
        target = Path(self.mktemp())
        target.write_text("x")
        link = self.path / f"{UUID(int=9)}.wav"
        link.symlink_to(target.absolute())
        self.assertEqual(self.tidied(keep_s=3600), [0, 2, 9])
        self.assertTrue(all(each.exists() for each in (*others, target)))

    def test_size(self) -> None:
        """The oldest go until the rest is small enough; one that is being written never does."""
        self.keep(30, 20, 400, 300, 5)
        self.assertEqual(self.tidied(max_bytes=320_000), [0, 1, 4])
        self.assertEqual(self.tidied(max_bytes=1), [4])

    def test_no_folder(self) -> None:
        """It is made by the first recording."""
        RecordingsFolder(self.path / "none", 1, 1).tidy()

    def test_where(self) -> None:
        """In the state directory, or where the settings say."""
        self.assertEqual(recordings_dir(RecordingSettings(), Path("/state")), Path("/state/recordings"))
        self.assertEqual(recordings_dir(RecordingSettings(dir="/srv/calls"), Path("/state")), Path("/srv/calls"))


class ReserveTests(SynchronousTestCase):
    """A disk that is nearly full."""

    def test_reserve(self) -> None:
        """A recording stops at the reserve with one warning, what it has stays, and the call goes on."""
        free_gb = 2.0

        class Disk:
            f_frsize = 1

            @property
            def f_bavail(self) -> float:
                return free_gb * GB

        self.patch(recordings.os, "statvfs", lambda path: Disk())
        state_dir = Path(self.mktemp()).absolute()
        settings = RecordingSettings(dir=str(state_dir / "elsewhere"))
        call = FakeCall(configure("", AssistantEnvironment(Clock(), state_dir, settings=settings))(CONTEXT))
        with capturedLogs() as events:
            call.start()
            call.advance(2)
            free_gb = 0.9
            call.advance(2)
        (warning,) = [event for event in events if event["log_level"] >= LogLevel.warn]
        self.assertIn("the disk has 0.90 GB free, and RECORDINGS__RESERVE_GB keeps 1", warning["error"])
        self.assertIsNone(call.call.ended)
        call.end()
        with wave.open(str(state_dir / "elsewhere" / f"{call.call.context.context_id}.wav")) as recording:
            self.assertApproximates(recording.getnframes() / 8000, 2, 0.6)


class ThreadTests(TestCase):
    """The writer's thread."""

    async def test_in_order(self) -> None:
        """Work is done in order, elsewhere; what it raises comes back into the reactor's thread."""
        writer, done = WriterThread(reactor), list[Any]()
        failed: Deferred[Exception] = Deferred()
        for number in range(100):
            writer.submit(lambda number=number: done.append((number, threading.current_thread())), self.fail)
        writer.submit(lambda: 1 / 0, lambda error: failed.callback(threading.current_thread()))
        self.assertIs(await failed, threading.current_thread())
        self.assertEqual([number for number, _ in done], list(range(100)))
        self.assertNotIn(threading.current_thread(), [thread for _, thread in done])
        await writer.close()

    async def test_slow_disk(self) -> None:
        """A disk that stands still stops recordings, and blocks nobody; what must be done is done later."""
        self.patch(recordings, "MAX_WAITING", 3)
        writer, go_on, done, failures = WriterThread(reactor), threading.Event(), list[int](), list[Exception]()
        writer.submit(lambda: void(go_on.wait(10)), self.fail)
        while writer._queue.qsize():
            await deferLater(reactor, 0.001)
        for number in range(5):
            writer.submit(lambda number=number: done.append(number), failures.append)
        writer.submit(lambda: done.append(9), self.fail, always=True)
        self.assertEqual([str(error) for error in failures], ["[Errno 11] the disk is too slow"] * 2)
        go_on.set()
        await writer.close()
        self.assertEqual(done, [0, 1, 2, 9])

    async def test_disk_that_stands_still(self) -> None:
        """A server can stop nevertheless."""
        self.patch(recordings, "JOIN_S", 0.05)
        writer, go_on = WriterThread(reactor), threading.Event()
        writer.submit(lambda: void(go_on.wait(10)), self.fail)
        with capturedLogs() as events:
            await writer.close()
        self.assertEqual(len([event for event in events if event["log_level"] is LogLevel.error]), 1)
        go_on.set()

    async def test_recording(self) -> None:
        """A recording is whole when the writer is closed."""
        path, writer = Path(self.mktemp()) / "x.wav", WriterThread(reactor)
        file = RecordingFile(path, 8000)
        writer.submit(file.open, self.fail)
        for _ in range(50):
            writer.submit(lambda: file.write(b"\1\0" * 80, b"\2\0" * 80), self.fail)
        writer.submit(file.close, self.fail, always=True)
        await writer.close()
        with wave.open(str(path)) as recording:
            self.assertEqual(recording.readframes(10_000), b"\1\0\2\0" * 4000)


def void(_: object) -> None:
    """Nothing, whatever comes."""
