"""The real program, started as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import FailTest

from tests.live import free_port, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "rapida-media"]
API_KEY = "rpd-live-0123456789"
START_S = 30
OVER = ("completed", "failed", "expired")

# A proxy of the environment has no business on the loopback interface.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Server:
    """One server with its own ports and its own state.

    :param directory: where its state and its log are; made if it is not there.
    :param assistants: its ``--assistant`` rules.
    :param options: further options.
    """

    def __init__(self, directory: Path, *assistants: str, options: Sequence[str] = ()) -> None:
        self.directory = directory
        self.http_port = free_port()
        self.audiosocket_port = free_port()
        self._command = [
            *PROGRAM,
            *["--audiosocket-host", "127.0.0.1", "--audiosocket-port", str(self.audiosocket_port)],
            *["--http-host", "127.0.0.1", "--http-port", str(self.http_port)],
            *["--state-dir", str(directory / "state")],
            *(word for rule in assistants for word in ("--assistant", rule)),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    # Running

    def start(self) -> Server:
        """Start it and wait until it says that it is ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "RAPIDA_API_KEY": API_KEY}
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                # It dies with us, however we die.
                ["setpriv", "--pdeathsig", "TERM", *self._command],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        wait_until("the server is ready", self._is_ready, START_S)
        return self

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise FailTest(f"the server ended with code {self._process.returncode} at its start:\n{self.log()}")
        try:
            with _opener.open(f"{self.url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def terminate(self) -> None:
        """Send it SIGTERM, and do not wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> None:
        """Wait for its end, which must be in order: exit code 0, and no traceback in its log."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise FailTest(f"the server did not end within {timeout_s:g} s:\n{self.log()}") from None
        finally:
            self._process = None
        if code != 0:
            raise FailTest(f"the server ended with code {code}:\n{self.log()}")
        if "Traceback" in self.log():
            raise FailTest(f"a traceback in the server's log:\n{self.log()}")

    def stop(self, timeout_s: float = 20) -> None:
        """Stop it, if it still runs."""
        if self._process is not None:
            self.terminate()
            self.wait(timeout_s)

    # Asking

    @property
    def url(self) -> str:
        """Where its HTTP is."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    def log(self) -> str:
        """What it logged so far."""
        return self._log.read_text(errors="replace")

    def ask(self, path: str) -> Any:
        """The JSON that it answers to someone with the key."""
        return json.loads(self._get(path))

    def register(self, assistant_id: str, caller: str = "") -> str:
        """Register a call, as the dialplan's CURL() does; gives its contextId."""
        return self._get(f"/v1/talk/asterisk/call/{assistant_id}?from={caller}").decode()

    def _get(self, path: str) -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", headers={"x-api-key": API_KEY})
        with _opener.open(request, timeout=5) as answer:
            body: bytes = answer.read()
            return body

    def calls(self) -> list[dict[str, Any]]:
        """Its records of all calls."""
        found: list[dict[str, Any]] = self.ask("/v1/calls")["calls"]
        return found

    def call(self, context_id: str) -> dict[str, Any]:
        """Its record of one call."""
        record: dict[str, Any] = self.ask(f"/v1/calls/{context_id}")
        return record

    def ended_call(self, context_id: str, timeout_s: float = 5) -> dict[str, Any]:
        """Its record of one call, once that is over."""

        def over() -> dict[str, Any] | None:
            record = self.call(context_id)
            return record if record["status"] in OVER else None

        return wait_until(f"call {context_id} is over in the server's record", over, timeout_s, 0.05)
