"""What the console programs share: one-sentence errors, versions, completion, colours, quick starts."""

from __future__ import annotations

import argparse
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted import __version__
from rapida_twisted.tools.command_line import CommandLine, whole_number
from rapida_twisted.tools.ctl.main import make_parser
from rapida_twisted.tools.ctl.options import COMMANDS
from rapida_twisted.tools.terminal import BOLD, GREEN, has_colour, paint, table

slow = True  # starts processes: see tests/support/selection.py

BIN = Path(sys.executable).parent
HEAVY = {"treq", "autobahn", "numpy", "twisted.web", "twisted.internet", "cryptography"}


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A program of this environment."""
    argv = [str(BIN / words[0]), *words[1:]]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env={**os.environ, **more})


class ParserTests(SynchronousTestCase):
    def test_error(self) -> None:
        """A wrong command line is one printable sentence, and exit code 2."""
        parser = CommandLine(prog="it")
        parser.add_argument("--number", type=whole_number(1, 5))
        for words in (["--number", "6"], ["--number"], ["--frob"], ["a\x1b[31m\nb"], ["--num", "1"]):
            errors = io.StringIO()
            self.patch(sys, "stderr", errors)
            self.assertEqual(self.assertRaises(SystemExit, parser.parse_args, words).code, 2)
            said = errors.getvalue()
            self.assertTrue(said.startswith("it: ") and said.endswith("; see it --help\n"), said)
            self.assertEqual((said.count("\n"), said.count("\x1b")), (1, 0))

    def test_commands(self) -> None:
        """The parser for one command has the names and help of all; each command of a module is in the table."""
        whole = make_parser()
        for parser in (whole, make_parser(()), make_parser(["vault"])):
            (action,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
            self.assertEqual(list(action.choices), list(COMMANDS))
            self.assertEqual(parser.format_help(), whole.format_help())


class TerminalTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Colours do not move a column, and are not there unless wanted."""
        rows = [("completed", "1"), ("x\x1b[31m", "2")]
        plain = table(("STATUS", "N"), rows)
        self.assertEqual(plain, "STATUS     N\ncompleted  1\nx?[31m     2")
        coloured = table(("STATUS", "N"), rows, True)
        self.assertIn(f"\x1b[{GREEN}mcompleted\x1b[m  1", coloured)
        self.assertIn(f"\x1b[{BOLD}mSTATUS\x1b[m     ", coloured)
        self.assertEqual(paint("x", GREEN, False), "x")

    def test_has_colour(self) -> None:
        """A terminal has colours, without NO_COLOR; a file, a pipe and a dumb terminal have none."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        with open(theirs, "w") as terminal, open("file", "w") as file:
            for environ, stream, wanted in (
                ({"TERM": "xterm"}, terminal, True), ({"TERM": "xterm", "NO_COLOR": "1"}, terminal, False),
                ({"TERM": "dumb"}, terminal, False), ({}, terminal, False), ({"TERM": "xterm"}, file, False),
                ({"TERM": "xterm"}, None, False),
            ):  # fmt: skip
                self.patch(os, "environ", environ)
                self.assertEqual(has_colour(stream), wanted, (environ, stream))


class ProgramTests(SynchronousTestCase):
    """All three programs, as processes."""

    def test_version(self) -> None:
        """The version is ours, not Twisted's."""
        for words, name in (
            (("twistd", "rapida-media"), "rapida-media"), (("rapida-phone",), "rapida-phone"),
            (("rapida-media-ctl",), "rapida-media-ctl"),
        ):  # fmt: skip
            done = run(*words, "--version")
            self.assertEqual((done.returncode, done.stdout), (0, f"{name} {__version__}\n"), done.stderr)

    def test_wrong_option(self) -> None:
        """A wrong option is one sentence."""
        for words in (("rapida-phone",), ("rapida-media-ctl",), ("rapida-media-ctl", "calls")):
            done = run(*words, "--frob")
            self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), done.stderr)

    def test_completion(self) -> None:
        """The scripts for bash are scripts of bash; both know commands and options."""
        for words, known in (
            (("rapida-media-ctl", "completion"), ("dialplan", "--max-calls", "--state-dir")),
            (("rapida-phone", "--completion"), ("--tolerate", "--bare-uuid", "audiosocket")),
        ):
            for shell in ("bash", "zsh"):
                script = run(*words, shell).stdout
                for word in known:
                    self.assertIn(word, script)
                if shell == "bash":
                    subprocess.run(["bash", "-n"], input=script, text=True, check=True)

    def test_quick(self) -> None:
        """--help imports nothing that only a call or a request needs."""
        for module in ("ctl.main", "phone.main"):
            code = (
                "import sys; sys.argv = ['it', '--help']\n"
                f"from rapida_twisted.tools.{module} import main\n"
                "try: main()\n"
                "except SystemExit: pass\n"
                "print(*sys.modules, file=sys.stderr)"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
            self.assertEqual(HEAVY & set(done.stderr.split()), set(), module)
