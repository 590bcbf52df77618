"""The README and the pages say what the program does."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from textwrap import dedent
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.dialplan import DialplanValues, audiosocket_dialplan
from rapida_twisted.settings import all_settings
from rapida_twisted.tap import Options
from rapida_twisted.testing import FakeCall
from tests.support.blocks import named_block

ROOT = Path(__file__).parents[2]


class IndexTests(SynchronousTestCase):
    def test_no_package_index(self) -> None:
        """Nothing says that pip finds the package on an index: it is on none."""
        pages = [*(ROOT / "docs").rglob("*.rst"), *ROOT.glob("*.md"), *(ROOT / "rapida_twisted").rglob("*.py")]
        for page in pages:
            self.assertNotRegex(page.read_text("utf-8"), r"pip install [^\n`]*rapida[-_]twisted", str(page))


class GatewayPageTests(SynchronousTestCase):
    def test_two_servers_on_one_machine(self) -> None:
        """The server that is "far away" leaves the default ports to the other one."""
        options = dict(re.findall(r"--(\w+)-port (\d+)", named_block("gateway.rst", "far")))
        for port, default in (("http", "8080"), ("audiosocket", "4573"), ("admin", "8081")):
            self.assertNotEqual(options.get(port, default), default, port)


class ReadmeTests(SynchronousTestCase):
    def test_dialplan_is_the_one_that_the_server_prints(self) -> None:
        """What a stranger pastes from the README is what the live suite runs."""
        values = DialplanValues("rpd-xxx-your-api-key", "http://127.0.0.1:8080", "127.0.0.1", 4573)
        lines = audiosocket_dialplan(values).splitlines()[1:]
        self.assertIn("\n".join("    " + line if line else "" for line in lines), (ROOT / "README.md").read_text())

    def test_assistant(self) -> None:
        """The README's assistant hangs up on a caller without the PIN, and keeps one with it."""
        lines = (ROOT / "README.md").read_text().partition("Save this as `mybots.py`:\n")[2].splitlines()
        code = takewhile(lambda line: not line or line.startswith("    "), lines)
        names: dict[str, Any] = {}
        exec(dedent("\n".join(code)), names)
        for pin, hung_up in (("1234", False), ("99", True)):
            call = FakeCall(names["Support"]())
            call.start()
            call.advance(1.0)
            for digit in pin:
                call.press(digit)
            call.advance(6.0)
            self.assertEqual(call.hung_up, hung_up)

    def test_links_lead_somewhere(self) -> None:
        """Every page that the README names is there."""
        for word in (ROOT / "README.md").read_text().split("]("):
            target = word.partition(")")[0]
            if target.endswith((".rst", ".md")):
                self.assertTrue((ROOT / target).exists(), target)


class FrontPageTests(SynchronousTestCase):
    def test_assistant(self) -> None:
        """The front page's assistant plays its tone and hangs up."""
        names: dict[str, Any] = {}
        exec(named_block("index.rst", "assistant"), names)
        call = FakeCall(names["Support"]())
        call.start()
        call.advance(1.0)
        self.assertTrue(any(call.said))
        self.assertTrue(call.hung_up)


class SettingsPageTests(SynchronousTestCase):
    def test_every_setting_is_there(self) -> None:
        """The page names every setting in both forms, with its default."""
        page = (ROOT / "docs" / "settings.rst").read_text()
        for setting in all_settings():
            self.assertIn(f"``{setting.env}``", page)
            if not setting.secret:
                self.assertIn(f"``--{setting.option}``", page)
            self.assertIn(setting.default.replace("*", "\\*"), page)

    def test_meanings(self) -> None:
        """The page says of every setting what --help says, and may say more."""
        page = " ".join((ROOT / "docs" / "settings.rst").read_text().replace("``", "").split()).lower()
        for setting in all_settings():
            self.assertIn(setting.help.partition(" [default:")[0].lower(), page, setting.env)

    def test_every_setting_is_in_help(self) -> None:
        """--help names every setting with its environment name."""
        text = " ".join(str(Options()).split())
        for setting in all_settings():
            if not setting.secret:
                self.assertIn(f"--{setting.option}", text)
            self.assertIn(f"{setting.env}", text.replace(" ", "") if setting.env not in text else text)
