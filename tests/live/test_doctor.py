"""``rapida-media-ctl doctor`` on a real Asterisk: a healthy installation, and broken ones, each told right."""

from __future__ import annotations

import json
import subprocess

from benchmarks.harness.ports import free_port
from benchmarks.harness.server import API_KEY, Server
from rapida_twisted.asterisk.dialplan import (
    DialplanValues,
    audiosocket_dialplan,
    audiosocket_outbound_dialplan,
)
from tests.live.asterisk import ARI_PASSWORD, ARI_USER
from tests.live.case import ASSISTANT_ID, LiveTestCase

WRONG = "not-the-p4ssword-qq"
WRONG_KEY = "rpd-not-the-key-99887766"


class DoctorTests(LiveTestCase):
    """One server, one Asterisk, and what may be wrong between them."""

    def setUp(self) -> None:
        """A healthy installation."""
        super().setUp()
        self.server = self.serve(f"{ASSISTANT_ID}=echo")
        self.keep()
        self.load_dialplan()

    def keep(self, port: int = 0, password: str = ARI_PASSWORD) -> None:
        """Put the Asterisk's credential into the vault."""
        url = f"http://127.0.0.1:{port or self.asterisk.http_port}"
        self.server.keep_credential("pbx", url, ARI_USER, password, "trunk")

    def load_dialplan(self, api_key: str = API_KEY, port: int = 0) -> None:
        """Load the printed dialplan."""
        values = DialplanValues(
            api_key=api_key, http_url=self.server.url, audiosocket_host="127.0.0.1",
            audiosocket_port=port or self.server.audiosocket_port, assistant_id=ASSISTANT_ID,
        )  # fmt: skip
        self.load(f"{audiosocket_dialplan(values)}\n{audiosocket_outbound_dialplan()}")

    def doctor(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What the doctor says; never a secret."""
        done = self.server.control("doctor", "--http", self.server.url, *words)
        for secret in (ARI_PASSWORD, API_KEY, WRONG, WRONG_KEY):
            self.assertNotIn(secret, done.stdout + done.stderr)
        return done

    def bad(self, done: subprocess.CompletedProcess[str]) -> list[tuple[str, str]]:
        """What is bad, each with the advice, and nothing else is."""
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        lines = done.stdout.splitlines()
        found = [
            (line.removeprefix("BAD").strip(), following.strip())
            for line, following in zip(lines, [*lines[1:], ""], strict=True)
            if line.startswith("BAD")
        ]
        self.assertTrue(all(advice.startswith("-> ") for _, advice in found), done.stdout)
        return found

    def only_bad(self, done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
        """The one thing that is bad."""
        ((what, advice),) = self.bad(done)
        return what, advice

    def test_healthy(self) -> None:
        """All is well, line by line, and as JSON; Asterisk has no new call by it."""
        done = self.doctor()
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertEqual({line.split()[0] for line in done.stdout.splitlines()}, {"ok"}, done.stdout)
        for words in ("is up and ready", "password is right", "Asterisk 2", "modules for audiosocket are running",
                      "modules for websocket are running", "RAPIDA_API_KEY", "the clocks agree",
                      f"127.0.0.1:{self.server.audiosocket_port} is reachable"):  # fmt: skip
            self.assertIn(words, done.stdout)
        findings = json.loads(self.doctor("--json").stdout)
        self.assertEqual({finding["level"] for finding in findings}, {"ok"})
        self.assert_log_lacks(r"Executing \[")
        self.assertEqual(self.server.calls(), [])

    def test_ari_not_reached(self) -> None:
        """An address where nobody listens."""
        port = free_port()
        self.keep(port=port)
        what, advice = self.only_bad(self.doctor())
        self.assertIn(f"pbx: ARI at http://127.0.0.1:{port} is not reachable: Connection was refused", what)
        self.assertIn("http.conf", advice)

    def test_wrong_password(self) -> None:
        """A password that ARI refuses."""
        self.keep(password=WRONG)
        what, advice = self.only_bad(self.doctor())
        self.assertIn("refuses the user or the password", what)
        self.assertIn("rapida-media-ctl vault set pbx", advice)

    def test_module_missing(self) -> None:
        """A module that is not loaded: bad where its transport must work, a warning where the other one does."""
        self.asterisk.cli("module unload app_audiosocket.so")
        self.addCleanup(self.asterisk.cli, "module load app_audiosocket.so")
        what, advice = self.only_bad(self.doctor("--transport", "audiosocket"))
        self.assertIn("modules for audiosocket: app_audiosocket not running", what)
        self.assertIn('asterisk -rx "module load app_audiosocket.so"', advice)
        self.assertIn("load = app_audiosocket.so", advice)
        done = self.doctor()
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("warn pbx: modules for audiosocket", done.stdout)

    def test_wrong_key(self) -> None:
        """A key in the dialplan that the server does not accept."""
        self.load_dialplan(api_key=WRONG_KEY)
        what, advice = self.only_bad(self.doctor())
        self.assertIn("does not accept the dialplan's RAPIDA_API_KEY", what)
        self.assertIn("extensions.conf", advice)

    def test_wrong_port(self) -> None:
        """An AudioSocket address in the dialplan where nobody listens."""
        port = free_port()
        self.load_dialplan(port=port)
        what, advice = self.only_bad(self.doctor())
        self.assertIn(f"AudioSocket address 127.0.0.1:{port} is not reachable from here", what)
        self.assertIn("RAPIDA_PORT", advice)

    def test_server_down(self) -> None:
        """A server that does not run: told once as such, and by its addresses."""
        self.server.stop()
        bad = self.bad(self.doctor())
        self.assertIn("does not answer", bad[0][0])
        self.assertIn("twistd rapida-media", bad[0][1])
        self.assertEqual(len(bad), 3)

    def test_no_credential(self) -> None:
        """An empty vault is no failure: the server is looked at, and the way to a credential is told."""
        server = Server(self.directory / "fresh", f"{ASSISTANT_ID}=echo")
        self.run_server(server)
        done = server.control("doctor", "--http", server.url)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("skip Asterisk: the vault has no credential", done.stdout)
        self.assertIn("rapida-media-ctl vault set", done.stdout)
