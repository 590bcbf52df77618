"""The program on asyncio's reactor, and without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.harness.ports import free_port
from benchmarks.harness.waiting import wait_until
from tests.server.test_two_servers import Phone

slow = True  # starts processes: see tests/support/selection.py

TWISTD = Path(sys.executable).with_name("twistd")
KEY = "rpd-live-0123456789"
BOT = """
import asyncio
from rapida_twisted import Assistant

class Bot(Assistant):
    needs_asyncio = True

    async def answer(self, call):
        await asyncio.sleep(0.1)
        print("worked", await call.run(self.work(call)), type(call.reactor).__name__, flush=True)

    async def work(self, call):
        async with asyncio.timeout(5):
            await call.play_tone(440, 100)
            return await asyncio.to_thread(sum, (1, 2))

def none(context):
    Assistant()
"""


class ReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        (self.folder / "bots.py").write_text(BOT)
        self.log = self.folder / "log"

    def start(self, reactor: str, *options: str) -> subprocess.Popen[bytes]:
        self.http_port, self.audiosocket_port = free_port(), free_port()
        ports = ["--http-port", str(self.http_port), "--audiosocket-port", str(self.audiosocket_port)]
        ports += ["--admin-port", "0"]
        command = [str(TWISTD), *reactor.split(), "-n", "--pidfile=", "rapida-media", "--drain-s", "0", *ports]
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                [*command, "--state-dir", str(self.folder / "state"), *options],
                cwd=self.folder, stdout=log, stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "RAPIDA_API_KEY": KEY},
            )  # fmt: skip
        self.addCleanup(process.wait, 30)
        self.addCleanup(process.terminate)
        return process

    def said(self) -> str:
        return self.log.read_text()

    def call(self) -> None:
        """Register a call, and take it."""
        wait_until("it listens", lambda: "contextId" in self.said() or "same => n(error)" in self.said(), 30)
        request = [
            "curl",
            "-s",
            "-H",
            f"x-api-key: {KEY}",
            f"http://127.0.0.1:{self.http_port}/v1/talk/asterisk/call/1",
        ]
        context_id = subprocess.run(request, capture_output=True, text=True, check=True).stdout
        phone = Phone(self.audiosocket_port, context_id)
        self.addCleanup(phone.hang_up)

    def test_works(self) -> None:
        """An asyncio library works in one process and in a worker."""
        for reactor, options in (("--reactor=asyncio", ()), ("", ("--workers", "2"))):
            process = self.start(reactor, "--assistant", "*=bots:Bot", *options)
            self.call()
            wait_until("the bot says so", lambda: "worked 3 AsyncioSelectorReactor" in self.said(), 10)
            process.terminate()
            process.wait(30)
            self.assertNotIn("Traceback", self.said())

    def refused(self, reactor: str, *options: str) -> str:
        """It does not start; the last line of what it says."""
        self.assertEqual(self.start(reactor, *options).wait(30), 1)
        return self.said().strip().splitlines()[-1]

    def test_refused(self) -> None:
        """An assistant that needs asyncio is refused on any other reactor, with workers, too, in one sentence."""
        for options in ((), ("--workers", "2")):
            said = self.refused("--reactor=epoll", "--assistant", "*=bots:Bot", *options)
            self.assertIn("rapida-media: the assistant 'bots:Bot' needs asyncio: start the server with", said)

    def test_returns_none(self) -> None:
        """So is a function that forgot its return."""
        said = self.refused("--reactor=asyncio", "--assistant", "*=bots:none")
        self.assertIn("rapida-media: the assistant 'bots:none' can't be made: its function always returns None", said)
