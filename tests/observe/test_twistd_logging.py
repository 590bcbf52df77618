"""The real twistd: whatever its log goes to, our lines are there, and no secret is."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.parse
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.twistd_program import KEY, Program, wait_for

slow = True  # starts processes: see tests/support/selection.py

UPSTREAM_KEY = "upstream key/äö+1"
OURS = f"""
from rapida_twisted import Assistant


class Leaky(Assistant):
    async def answer(self, call):
        raise ValueError("http://far.example/?x={KEY} and {urllib.parse.quote(UPSTREAM_KEY)}")


class Quiet(Assistant):
    async def answer(self, call):
        print("printed {KEY}")
"""
SYSLOG = """
import syslog

syslog.openlog = lambda prefix, *words: None


def write(priority, line):
    with open("{file}", "a") as file:
        file.write(f"<{{priority}}>{{line}}\\n")


syslog.syslog = write
"""
THEIRS = """
from twisted.logger import textFileLogObserver


def observer():
    return textFileLogObserver(open("theirs.log", "a"))
"""


class TwistdLogTestCase(SynchronousTestCase):
    """A server whose assistants do what they can to have secrets logged."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        (self.folder / "leaky.py").write_text(OURS)
        (self.folder / "theirs.py").write_text(THEIRS)
        (self.folder / "sitecustomize.py").write_text(SYSLOG.format(file=self.folder / "syslog"))

    def run_with(self, *twistd: str, log_format: str = "text") -> Program:
        """Start it, have it log secrets, and stop it. Gives it with what it printed."""
        program = Program(
            self, self.folder, "--assistant", "1=leaky:Leaky", "--assistant", "2=leaky:Quiet",
            twistd=("-n", *twistd),
            environment={
                "LOG__FORMAT": log_format, "PYTHONPATH": str(self.folder), "UPSTREAM__API_KEY": UPSTREAM_KEY,
                "STATUS_WEBHOOK__SECRET": "webhook-secret-of-the-test",
            },
        )  # fmt: skip
        program.wait_until_up()
        phones = [program.phone("--duration", "1", "--assistant", assistant) for assistant in ("1", "2")]
        for phone in phones:
            said, _ = phone.communicate(timeout=30)
            self.assertIn("call", said)
        encoded = "".join(f"%{ord(letter):02x}" for letter in KEY)
        program.ask(f"/v1/{KEY}")
        # Of rejections of one kind a line is logged once a second.
        time.sleep(1.1)
        program.ask(f"/v1/{encoded}/{urllib.parse.quote(UPSTREAM_KEY)}?x-api-key=k-1")
        program.stop()
        self.assertEqual(program.process.returncode, 0, program.said())
        return program

    def check(self, text: str) -> None:
        """Everything was logged, and no secret was."""
        for wanted in ("registered, caller anonymous", "ValueError: http://far.example/?x=*** and ***", "printed ***",
                       "GET /v1/*** ", "x-api-key=***", "stopped"):  # fmt: skip
            self.assertIn(wanted, text)
        for secret in (KEY, UPSTREAM_KEY, urllib.parse.quote(UPSTREAM_KEY), "webhook-secret", "k-1"):
            self.assertNotIn(secret, text)


class PlacesTests(TwistdLogTestCase):
    """All the places that twistd logs to."""

    def test_stdout(self) -> None:
        """In the foreground, as text."""
        text = self.run_with().said()
        self.check(text)
        self.assertRegex(
            text, r"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[rapida_twisted\.server\.reception\.Reception#info\] "
        )

    def test_logfile(self) -> None:
        """Into a file, as JSON: one object a line, each of a call with its contextId."""
        program = self.run_with("--logfile", "the.log", log_format="json")
        text = (self.folder / "the.log").read_text()
        self.check(text)
        self.assertNotIn("registered, caller", program.said())
        lines = [json.loads(line) for line in text.splitlines()]
        of_calls = [line for line in lines if line["message"].startswith("call ")]
        self.assertGreater(len(of_calls), 5)
        for line in of_calls:
            self.assertEqual(line["contextId"], line["message"].split()[1].rstrip(":"))
        requests = [line for line in lines if "/talk/asterisk/call/" in line["message"]]
        self.assertEqual({line["contextId"] for line in requests}, {line["contextId"] for line in of_calls})
        self.assertEqual(sum("traceback" in line for line in lines), 1)

    def test_syslog(self) -> None:
        """To the system's log, each line with its priority."""
        self.run_with("--syslog", "--prefix", "rapida", log_format="json")
        text = (self.folder / "syslog").read_text()
        self.check(text)
        levels = {"<6>": "info", "<4>": "warn", "<2>": "critical", "<3>": "error", "<7>": "debug"}
        for line in text.splitlines():
            self.assertEqual(json.loads(line[3:])["level"], levels[line[:3]])

    def test_their_logger(self) -> None:
        """To an observer that the command line names."""
        self.run_with("--logger", "theirs.observer")
        self.check((self.folder / "theirs.log").read_text())

    def test_daemon(self) -> None:
        """A daemon logs to twistd.log, and a new file is begun when told to."""
        program = Program(self, self.folder, "--assistant", "1=leaky:Leaky", twistd=("--pidfile", "the.pid"))
        program.process.wait(30)
        self.assertEqual(program.process.returncode, 0, program.said())
        pid = int((self.folder / "the.pid").read_text())
        log = self.folder / "twistd.log"
        try:
            wait_for(lambda: "listening: HTTP" in log.read_text())
            os.kill(pid, signal.SIGUSR1)
            wait_for((self.folder / "twistd.log.1").exists)
        finally:
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{pid}").exists())
        self.assertIn("stopped", log.read_text())
        self.assertIn("listening: HTTP", (self.folder / "twistd.log.1").read_text())
