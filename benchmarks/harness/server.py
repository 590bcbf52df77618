"""The real program, started as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import FailTest

from benchmarks.harness.ports import free_port
from benchmarks.harness.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "rapida-media"]
CONTROL = str(Path(sys.executable).with_name("rapida-media-ctl"))
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
    :param environment: further variables of its environment, and of the control program's.
    """

    def __init__(
        self,
        directory: Path,
        *assistants: str,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self._opener = _opener
        self.said: list[str] = []
        """What it answered to requests, and what the control program printed."""
        self._environment = {
            "PATH": os.environ["PATH"], "HOME": str(directory), "RAPIDA_API_KEY": API_KEY,
            # So that the suite can be run with either way of reading.
            "MEDIA__POLLING": os.environ.get("MEDIA__POLLING", ""),
            # And with several processes.
            "WORKERS": os.environ.get("LIVE_WORKERS", ""), **(environment or {}),
        }  # fmt: skip
        self.http_port = free_port()
        self.audiosocket_port = free_port()
        self.admin_port = free_port()
        self.wss_port = 0
        """Where media with TLS goes, if not to the port of ``--https``."""
        self._command = [
            *PROGRAM,
            *["--audiosocket-host", "127.0.0.1", "--audiosocket-port", str(self.audiosocket_port)],
            *["--http-host", "127.0.0.1", "--http-port", str(self.http_port)],
            *["--admin-port", str(self.admin_port)],
            *["--state-dir", str(directory / "state")],
            *(word for rule in assistants for word in ("--assistant", rule)),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    # Running

    def start(self) -> Server:
        """Start it and wait until it says that it is ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                # It dies with us, however we die.
                ["setpriv", "--pdeathsig", "TERM", *self._command],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        wait_until("the server is ready", self._is_ready, START_S)
        return self

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise FailTest(f"the server ended with code {self._process.returncode} at its start:\n{self.log()}")
        try:
            with self._opener.open(f"{self.url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200) and self._are_workers_ready()
        except OSError:
            return False

    def _are_workers_ready(self) -> bool:
        """The worker that listens first would get all calls."""
        count = int(self._environment["WORKERS"] or 1)
        return count < 2 or all(f"worker {number} is ready" in self.log() for number in range(1, count + 1))

    def terminate(self) -> None:
        """Send it SIGTERM, and do not wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it and its workers SIGKILL, and wait for its end."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self.reap()

    def reap(self) -> None:
        """Wait for its end, however that comes."""
        assert self._process is not None
        self._process.wait()
        self._process = None

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
        for unwanted in ("Traceback", " at 0x"):
            if unwanted in self.log():
                raise FailTest(f"a traceback, or an object's repr, in the server's log:\n{self.log()}")

    def stop(self, timeout_s: float = 20) -> None:
        """Stop it, if it still runs."""
        if self._process is not None:
            self.terminate()
            self.wait(timeout_s)

    # Asking

    @property
    def _key(self) -> dict[str, str]:
        return {"x-api-key": self._environment["RAPIDA_API_KEY"]}

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

    def metrics(self) -> dict[str, float]:
        """The figures at /metrics, by their names with labels."""
        lines = (line for line in self._get("/metrics").decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def register(self, assistant_id: str, caller: str = "") -> str:
        """Register a call, as the dialplan's CURL() does; gives its contextId."""
        return self._get(f"/v1/talk/asterisk/call/{assistant_id}?from={caller}").decode()

    def _get(self, path: str) -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", headers=self._key)
        with self._opener.open(request, timeout=5) as answer:
            body: bytes = answer.read()
            self.said.append(body.decode(errors="replace"))
            return body

    def request(self, method: str, path: str, body: Any = None, timeout_s: float = 15) -> tuple[int, Any]:
        """Ask with the key, and with a body of JSON if there is one; gives the status and the answer's JSON."""
        request = urllib.request.Request(f"{self.url}{path}", method=method, headers=self._key)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                status, headers, text = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, headers, text = error.code, error.headers, error.read()
        self.said.append(f"{status} {headers}{text.decode(errors='replace')}")
        return status, json.loads(text) if text else None

    def control(self, *words: str, typed: str = "", timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        """Run ``rapida-media-ctl`` as the one who runs the server does.

        :param typed: its standard input.
        """
        done = subprocess.run(
            [CONTROL, *words],
            input=typed,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**self._environment, "STATE_DIR": str(self.directory / "state")},
        )
        self.said.append(done.stdout + done.stderr)
        return done

    # Outbound

    def keep_credential(self, name: str, url: str, user: str, password: str, trunk: str) -> None:
        """Put an Asterisk into the vault, by the control program."""
        done = self.control(
            *["vault", "set", name, "--ari-url", url, "--ari-user", user, "--trunk", trunk], typed=f"{password}\n"
        )
        if done.returncode != 0:
            raise FailTest(f"vault set {name} ended with code {done.returncode}: {done.stderr}")

    def place(self, assistant_id: str, to: str, **words: Any) -> tuple[int, Any]:
        """Place a call; gives the status and the answer."""
        return self.request("POST", f"/v1/talk/asterisk/outbound/{assistant_id}", {"to": to, **words})

    def hang_up(self, context_id: str) -> int:
        """Hang a call up; gives the status."""
        return self.request("DELETE", f"/v1/calls/{context_id}")[0]

    def wait_for_status(self, context_id: str, *statuses: str, timeout_s: float = 5) -> dict[str, Any]:
        """The record of an outbound call, once its call status is one of these."""

        def reached() -> dict[str, Any] | None:
            record = self.call(context_id)
            return record if record["call_status"] in statuses else None

        try:
            return wait_until(f"call {context_id} is {' or '.join(statuses)}", reached, timeout_s, 0.05)
        except FailTest as error:
            raise FailTest(f"{error}; its record: {self.call(context_id)}") from None

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
