"""What ``rapida-phone`` says of calls that were not whole: the program, against ``twistd rapida-media``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.twistd_program import Program, wait_for

slow = True  # starts processes: see tests/support/selection.py

BOTS = """
from rapida_twisted import Assistant

class Echo(Assistant):
    def audio_received(self, call, samples):
        call.write(samples)

class Raises(Assistant):
    async def answer(self, call):
        await call.play(bytes([0, 32]) * 4000)
        {}["x"]
"""


class OutcomeTests(SynchronousTestCase):
    """Exit code 0 is for whole calls alone."""

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        (folder / "bots.py").write_text(BOTS)
        rules = ("--assistant", "1=bots:Raises", "--assistant", "*=bots:Echo")
        self.server = Program(self, folder, *rules, environment={"PYTHONPATH": str(folder)})
        self.server.wait_until_up()

    def call(self, *options: str) -> subprocess.Popen[str]:
        """Place a call, in a session of its own."""
        process = self.server.phone("--assistant", "2", "--tone", "440", *options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def up(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """The same, once the call is up for half a second."""
        wait_for(lambda: ": up over " in self.server.said() or process.poll() is not None, self.server.said)
        time.sleep(0.5)
        return process

    def outcome(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Its exit code, and its first line without the contextId."""
        said, _ = process.communicate(timeout=60)
        self.assertNotIn("Traceback", said)
        return process.returncode, said.splitlines()[0].partition(": ")[2]

    def test_whole(self) -> None:
        """A whole call, whose record was read with the key."""
        process = self.call("--duration", "1", "--json", "--tolerate", "50")
        said, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, said)
        record = json.loads(said)["each"][0]["record"]
        self.assertEqual(record, {"status": "completed", "reason": "caller_hangup", "detail": ""})

    def test_missing(self) -> None:
        """A server that is held up in the middle of a call: the frames that it left out are counted."""
        process = self.up(self.call("--duration", "5"))
        os.kill(self.server.process.pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(self.server.process.pid, signal.SIGCONT)
        code, problem = self.outcome(process)
        self.assertEqual(code, 1, problem)
        self.assertRegex(problem, r"of 2\d\d frames \d+ were missing and \d+ late: more than the 5 % that --tolerate")

    def test_killed(self) -> None:
        """A server that is killed breaks the connection, over each transport."""
        for transport in ("audiosocket", "websocket"):
            process = self.up(self.call("--duration", "20", "--transport", transport))
            self.server.process.kill()
            code, problem = self.outcome(process)
            self.assertEqual((code, problem.partition(":")[0]), (1, "the connection was lost"), problem)
            self.server.process.wait()
            if transport == "audiosocket":
                self.setUp()

    def test_raised(self) -> None:
        """An assistant that raised is named by the server's record, over each transport."""
        for transport in ("audiosocket", "websocket"):
            process = self.call("--assistant", "1", "--duration", "20", "--transport", transport)
            code, problem = self.outcome(process)
            self.assertEqual((code, problem), (1, "assistant_failed: KeyError: 'x' (the server's record)"))

    def test_interrupted(self) -> None:
        """An interrupted call is none that went well."""
        process = self.up(self.call("--duration", "20"))
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.outcome(process), (130, "interrupted"))
