"""The page of ``rapida-media-ctl``: each of its lines is run, from top to bottom."""

from __future__ import annotations

import os
import re
from pathlib import Path
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.utils import getProcessOutputAndValue

from rapida_twisted.asterisk.vault.master_key import make_master_key
from rapida_twisted.tools.ctl.main import make_parser
from tests.tools.ctl.test_calls import CTL, Phone, ServerTestCase
from tests.tools.ctl.test_dial import PretendedCalls, pretending_site

slow = True  # starts processes: see tests/support/selection.py

PAGE = Path(__file__).parents[3] / "docs" / "control.rst"
PASSWORD = "Pa55w0rd-of-the-PBX"
ASKS_SERVER = re.compile(r"rapida-media-ctl (calls|call|hangup|ready|doctor)\b.*")
DIALS = re.compile(r"rapida-media-ctl dial .*")


class PageTests(ServerTestCase):
    async def test_every_line(self) -> None:
        """Every line of the page does what it says, and shows no secret unless it asks for it."""
        lines = [line.strip() for line in PAGE.read_text().splitlines() if line.startswith("    rapida-media-ctl ")]
        self.assertGreater(len(lines), 15)
        master_key = make_master_key()
        (self.folder / "password").write_text(PASSWORD + "\n")
        (self.folder / "new-key").write_text(master_key + "\n")
        context_id = await self.register()
        phone = Phone(UUID(context_id))
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.service.audiosocket_port), phone)
        while not len(self.service.calls):
            await self.pause()
        for line in lines:
            code, said = await self.shell(line.replace("5e4bd5f6-3f84-4f1c-8a80-6a7a5b1e9d10", context_id))
            self.assertEqual(code, 0, f"{line}\n{said}")
            self.assertNotIn(PASSWORD, said)
            self.assertNotIn(master_key, said)
            self.assertEqual(self.environ["RAPIDA_API_KEY"] in said, "--with-key" in line)
        self.assertEqual(await phone.over, "")

    async def shell(self, line: str) -> tuple[int, str]:
        """Run a line as a shell would, against this server."""
        environ = {
            **self.environ,
            "PATH": f"{CTL.parent}:{os.environ['PATH']}",
            "STATE_DIR": str(self.folder / "state"),
        }
        if ASKS_SERVER.fullmatch(line):
            line += f" --http {self.url}"
        if DIALS.fullmatch(line):
            line += f" --http {await self.dialling_server()}"
        out, error, code = await getProcessOutputAndValue("/bin/sh", ["-c", line], env=environ, path=str(self.folder))
        return code, (out + error).decode()

    async def dialling_server(self) -> str:
        """The URL of a server that pretends to place one call."""
        site = pretending_site(PretendedCalls())
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    def test_every_command(self) -> None:
        """The page leaves no command out."""
        page = PAGE.read_text()
        for command in _commands(make_parser()):
            self.assertIn(f"    rapida-media-ctl {command}", page)


def _commands(parser: object, before: str = "") -> list[str]:
    """The words of all commands that can be run."""
    found = []
    for action in getattr(parser, "_actions", ()):
        if isinstance(action.choices, dict):
            for name, below in action.choices.items():
                found += _commands(below, f"{before}{name} ") or [f"{before}{name}"]
    return found
