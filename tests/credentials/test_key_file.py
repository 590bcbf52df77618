"""The API key that the server makes for itself."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.credentials import key_file as keyfile
from rapida_twisted.credentials.key_file import KEY_FILE, is_open_to_others, load_or_make_key, make_state_dir
from rapida_twisted.errors import StartError

RACER = """
import sys
from pathlib import Path
from rapida_twisted.credentials.key_file import load_or_make_key
print("ready", flush=True)
sys.stdin.readline()
print(*load_or_make_key(Path(sys.argv[1])), flush=True)
"""


class KeyFileTestCase(SynchronousTestCase):
    """A state directory of the test's own."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        make_state_dir(self.directory)
        self.path = self.directory / KEY_FILE

    def refusal(self) -> str:
        """Why there is no key."""
        return str(self.assertRaises(StartError, load_or_make_key, self.directory))


class StateDirTests(KeyFileTestCase):
    """The directory's mode."""

    def test_modes(self) -> None:
        """One that every user can write to is refused; one that others can enter is noticed."""
        for mode, is_open in (
            (0o700, False),
            (0o710, False),
            (0o750, False),
            (0o770, True),
            (0o701, True),
            (0o755, True),
        ):
            self.directory.chmod(mode)
            make_state_dir(self.directory)
            self.assertEqual(is_open_to_others(self.directory), is_open, oct(mode))
        for mode in (0o777, 0o1777, 0o702):
            self.directory.chmod(mode)
            error = self.assertRaises(StartError, make_state_dir, self.directory)
            self.assertIn(f"chmod 700 {self.directory}", str(error))


class KeyTests(KeyFileTestCase):
    """Making the key, and finding it again."""

    def test_made_once(self) -> None:
        """The first start makes a key, the next finds the same."""
        key, is_new = load_or_make_key(self.directory)
        self.assertTrue(is_new)
        self.assertEqual(load_or_make_key(self.directory), (key, False))
        self.assertEqual(self.path.read_text(), key + "\n")

    def test_not_to_be_guessed(self) -> None:
        """A key has 24 random bytes and stands in an address as it is."""
        key, _ = load_or_make_key(self.directory)
        self.assertRegex(key, r"\Arpd-[A-Za-z0-9_-]{32}\Z")
        self.path.unlink()
        self.assertNotEqual(load_or_make_key(self.directory)[0], key)

    def test_for_its_owner_alone(self) -> None:
        """The file is 0600 and its directory 0700, whatever the umask allows, and no other file is left."""
        self.addCleanup(os.umask, os.umask(0))
        directory = Path(self.mktemp()) / "deep" / "state"
        make_state_dir(directory)
        load_or_make_key(directory)
        self.assertEqual(stat.S_IMODE((directory / KEY_FILE).stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(directory.stat().st_mode), 0o700)
        self.assertEqual(os.listdir(directory), [KEY_FILE])

    def test_written_by_a_person(self) -> None:
        """A key that somebody put there is taken, without the blanks around it."""
        self.path.write_text("  my-own-key\r\n\n")
        self.assertEqual(load_or_make_key(self.directory), ("my-own-key", False))

    def test_two_processes_at_once(self) -> None:
        """Of several processes that start at once one makes the key, and all have the same."""
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACER, str(self.directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environ,
                text=True,
            )
            for _ in range(4)
        ]
        for racer in racers:
            assert racer.stdout is not None
            self.assertEqual(racer.stdout.readline(), "ready\n")
        answers = [racer.communicate("go\n")[0].split() for racer in racers]
        self.assertEqual(len({key for key, _ in answers}), 1)
        self.assertEqual(sorted(is_new for _, is_new in answers), ["False", "False", "False", "True"])

    def test_another_process_in_the_midst(self) -> None:
        """A process that finds no key, and then finds itself too late, takes the other's whole key."""
        make = keyfile.secrets.token_urlsafe

        def late(size: int) -> str:
            self.path.write_text("the-others-key\n")
            return make(size)

        self.patch(keyfile.secrets, "token_urlsafe", late)
        self.assertEqual(load_or_make_key(self.directory), ("the-others-key", False))
        self.assertEqual(os.listdir(self.directory), [KEY_FILE])


class TroubleTests(KeyFileTestCase):
    """No key: one sentence."""

    def test_empty(self) -> None:
        """An empty file is no key; the sentence says what helps."""
        self.path.write_text(" \n")
        self.assertEqual(self.refusal(), f"the API key file {self.path} is empty; remove it, and a new key is made")

    def test_no_text(self) -> None:
        """Neither is a file of other bytes, which are not shown."""
        self.path.write_bytes(b"\xff\xfe")
        self.assertEqual(self.refusal(), f"the API key in {self.path} can't be read: it is no text")

    def test_directory(self) -> None:
        """Neither is a directory."""
        self.path.mkdir()
        self.assertEqual(self.refusal(), f"the API key in {self.path} can't be read: Is a directory")

    def test_points_nowhere(self) -> None:
        """A link to a file that is not there is left alone."""
        self.path.symlink_to("nowhere")
        self.assertEqual(self.refusal(), f"the API key can't be kept in {self.path}: No such file or directory")

    def test_disk_full(self) -> None:
        """A full disk leaves no half a key behind, so that the next start can make one."""

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(keyfile.os, "fsync", full)
        self.assertEqual(self.refusal(), f"the API key can't be kept in {self.path}: No space left on device")
        self.assertEqual(os.listdir(self.directory), [])

    def test_state_dir_can_not_be_made(self) -> None:
        """A state directory below a file can't be made."""
        self.path.write_text("x")
        directory = self.path / "state"
        error = self.assertRaises(StartError, make_state_dir, directory)
        self.assertEqual(str(error), f"the state directory {directory} can't be made: Not a directory")

    def test_state_dir_of_somebody_else(self) -> None:
        """One that can't be written to is told apart."""
        self.patch(keyfile.os, "access", lambda path, mode: False)
        error = self.assertRaises(StartError, make_state_dir, self.directory)
        self.assertEqual(str(error), f"the state directory {self.directory} can't be written to by this user")

    def test_key_of_somebody_else(self) -> None:
        """A key that this user may not read."""

        def forbidden(path: Path, encoding: str) -> str:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        self.patch(Path, "read_text", forbidden)
        self.assertEqual(self.refusal(), f"the API key in {self.path} can't be read: Permission denied")
