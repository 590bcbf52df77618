"""The program as a process, with a phone to call it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

BIN = Path(sys.executable).parent
KEY = "very-secret-key-1"
START_S = 30.0


class Program:
    """One ``twistd rapida-media``, on ports that were free.

    :param twistd: options of twistd itself; without any it stays in the foreground and logs to stdout.
    """

    def __init__(
        self,
        test: SynchronousTestCase,
        folder: Path,
        *options: str,
        twistd: tuple[str, ...] = ("-n",),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.output = folder / "output"
        self._environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        self._environment |= {"RAPIDA_API_KEY": KEY, **(environment or {})}
        words = [
            str(BIN / "twistd"), "--pidfile=", *twistd, "rapida-media", "--state-dir", str(folder / "state"),
            "--audiosocket-port", "0", "--http-port", "0", "--admin-port", "0", *options,
        ]  # fmt: skip
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                words, cwd=folder, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )
        test.addCleanup(self.stop)

    def said(self) -> str:
        """What it has printed so far."""
        return self.output.read_text()

    def wait_until_up(self) -> None:
        """Wait until it takes calls."""
        wait_for(lambda: "same => n(error)" in self.said() or self.process.poll() is not None, self.said)
        assert self.process.poll() is None, self.said()
        line = next(line for line in self.said().splitlines() if "rapida-phone" in line)
        self.phone_words = [str(BIN / "rapida-phone"), *line.split()[1:]]
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.said())
        assert found is not None
        self.url = found[0]

    def phone(self, *options: str) -> subprocess.Popen[str]:
        """Call it."""
        return subprocess.Popen(
            [*self.phone_words, *options], cwd=self.folder, env=self._environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def ask(self, path: str, key: str = KEY) -> tuple[int, str]:
        """The status and the body of an answer."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def samples(self) -> dict[str, float]:
        """What /metrics shows, by names with labels."""
        status, text = self.ask("/metrics")
        assert status == 200, text
        lines = (line for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def stop(self) -> None:
        """End it in order; kill it if that takes too long."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def wait_for(condition: Callable[[], bool], told: Callable[[], str] = str, seconds: float = START_S) -> None:
    """Look again and again until something is so."""
    until_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until_s, told()
        time.sleep(0.1)
