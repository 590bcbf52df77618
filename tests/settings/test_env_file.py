"""Env files."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import SettingsError
from rapida_twisted.settings import read_env_file


class EnvFileTests(SynchronousTestCase):
    """Files of NAME=value lines."""

    def read(self, text: str | bytes) -> dict[str, str]:
        """What a file with this text says."""
        self.path = Path(self.mktemp())
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_env_file(str(self.path))

    def test_lines(self) -> None:
        """Comments, blank lines, export, blanks around, and the line ends of Windows."""
        text = "# a comment\n\n  HTTP__PORT = 81  \r\nexport DRAIN_S=5\n\t# another\nEMPTY=\nURL=a=b"
        self.assertEqual(self.read(text), {"HTTP__PORT": "81", "DRAIN_S": "5", "EMPTY": "", "URL": "a=b"})

    def test_last_one_wins(self) -> None:
        """Of two lines with one name the last one counts, as in a shell."""
        self.assertEqual(self.read("A=1\nA=2"), {"A": "2"})

    def test_values_as_in_a_shell(self) -> None:
        """Quotes go, and a comment begins at a # that stands behind a blank and outside of quotes."""
        for value, read in (
            ("'a b'", "a b"),
            ('"a # b"', "a # b"),
            ('"it\'s"', "it's"),
            ("''", ""),
            ("a # b", "a"),
            ("a#b", "a#b"),
            ("#b", "#b"),
            (" # nothing", ""),
            ("a\t# b", "a"),
            ("'a' # b", "a"),
            (' "a b"\t# it\'s "b"', "a b"),
        ):
            self.assertEqual(self.read(f"NAME={value}\n"), {"NAME": read}, value)

    def test_bad_lines(self) -> None:
        """A line that is none is named by its number."""
        for line, why in (
            ("HTTP__PORT", ": expected NAME=value"),
            ("=1", ": expected NAME=value"),
            ("A B=1", ": expected NAME=value"),
            ("A-B=1", ": expected NAME=value"),
            ("A='1", ": a quote is not closed"),
            ('A="', ": a quote is not closed"),
            ("A='1' 2", ": there is text behind the closing quote"),
        ):
            error = self.assertRaises(SettingsError, self.read, f"OK=1\n{line}\n")
            self.assertEqual(str(error), f"the env file {self.path}, line 2{why}")

    def test_unreadable(self) -> None:
        """A file that is not there, a directory, and what is no text."""
        missing = self.mktemp()
        error = self.assertRaises(SettingsError, read_env_file, missing)
        self.assertIn(f"the env file {missing} can't be read: ", str(error))
        self.assertIn("No such file", str(error))
        Path(missing).mkdir()
        self.assertIn("directory", str(self.assertRaises(SettingsError, read_env_file, missing)))
        self.assertIn("can't be read", str(self.assertRaises(SettingsError, self.read, b"A=\xff")))
