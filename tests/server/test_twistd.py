"""``twistd rapida-media`` as a process: what it prints, how it starts and fails, how it stops."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

slow = True  # starts processes: see tests/support/selection.py

TWISTD = Path(sys.executable).with_name("twistd")
PHONE = Path(sys.executable).with_name("rapida-phone")


class TwistdTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.state = self.folder / "state"

    def start(
        self, *options: str, key: str = "", ports: bool = True, more: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """The program, in a folder of its own, on free ports unless told otherwise, with more in its environment."""
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        environment |= more or {}
        if key:
            environment["RAPIDA_API_KEY"] = key
        process = subprocess.Popen(
            [
                str(TWISTD), "-n", "--pidfile=", "rapida-media", "--state-dir", str(self.state),
                *(("--audiosocket-port", "0", "--http-port", "0", "--admin-port", "0") if ports else ()),
                *options,
            ],
            cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.addCleanup(self._stop, process)
        return process

    def _stop(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def read_welcome(self, process: subprocess.Popen[str], until: str = "same => n(error)") -> str:
        """What it prints until the dialplan's last line, or another."""
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if until in line:
                return "".join(lines)
        self.fail("it ended: " + "".join(lines))

    def fails(self, *options: str, code: int = 1) -> str:
        """What it says when it can't start: one sentence, and this exit code."""
        process = self.start(*options, ports=False)
        said, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, code, said)
        self.assertNotIn("Traceback", said)
        return said.strip().splitlines()[-1]

    def test_first_start_shows_the_key_and_a_call_goes_through(self) -> None:
        """The first start shows its key once, keeps it 0600, and the printed phone line places a call."""
        process = self.start()
        welcome = self.read_welcome(process)
        key = re.search(r"rpd-[\w-]{20,}", welcome)
        assert key is not None
        file = self.state / "api-key"
        self.assertEqual(file.read_text().strip(), key[0])
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        line = next(line for line in welcome.splitlines() if "rapida-phone" in line).split()
        words = [*line, "--duration", "2"]
        called = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, timeout=60)
        self.assertEqual(called.returncode, 0, called.stdout + called.stderr)
        self.assertGreater((self.folder / "heard.wav").stat().st_size, 20_000)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, rest)
        self.assertNotIn(key[0], rest)

    def test_second_start_shows_no_key(self) -> None:
        """A key that was made before is not shown again."""
        for turn in range(2):
            process = self.start()
            welcome = self.read_welcome(process)
            self.assertEqual("rpd-" in welcome.replace("rpd-xxx", ""), turn == 0)
            process.terminate()
            process.communicate(timeout=30)
            self.assertEqual(process.returncode, 0)

    def test_given_key_is_never_shown(self) -> None:
        """A key from the environment is in no output, nor in the process's arguments."""
        process = self.start(key="very-secret-key-1")
        welcome = self.read_welcome(process)
        port = re.search(r"http://127\.0\.0\.1:(\d+)", welcome)
        assert port is not None
        url = f"http://127.0.0.1:{port[1]}/v1/talk/asterisk/call/1?x-api-key=very-secret-key-1"
        with urllib.request.urlopen(url, timeout=10) as answer:
            self.assertEqual(len(answer.read()), 36)
        self.assertNotIn("very-secret", Path(f"/proc/{process.pid}/cmdline").read_text())
        process.terminate()
        rest, _ = process.communicate(timeout=30)
        self.assertNotIn("very-secret", welcome + rest)

    def test_sigterm_with_a_call_up(self) -> None:
        """A call that does not end within the drain time is hung up, and the exit code is 0."""
        process = self.start("--drain-s", "1", key="very-secret-key-1")
        line = next(line for line in self.read_welcome(process).splitlines() if "rapida-phone" in line).split()
        phone = subprocess.Popen(
            [*line, "--duration", "30"], cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "RAPIDA_API_KEY": "very-secret-key-1"},
        )  # fmt: skip
        self.addCleanup(self._stop, phone)
        self.read_welcome(process, until=": up over ")
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, rest)
        self.assertGreater(time.monotonic() - began, 0.9)
        said, _ = phone.communicate(timeout=30)
        self.assertEqual(phone.returncode, 0, said)
        self.assertIn("it sent a hangup frame", said)
        self.assertIn("over, shutdown", rest)

    def test_second_signal_hurries(self) -> None:
        """A second signal cuts the drain time short."""
        process = self.start("--drain-s", "60", key="very-secret-key-1")
        line = next(line for line in self.read_welcome(process).splitlines() if "rapida-phone" in line).split()
        phone = subprocess.Popen(
            [*line, "--duration", "50"], cwd=self.folder, stdout=subprocess.DEVNULL, text=True,
            env={**os.environ, "RAPIDA_API_KEY": "very-secret-key-1"},
        )  # fmt: skip
        self.addCleanup(self._stop, phone)
        self.read_welcome(process, until=": up over ")
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        self.assertEqual(process.returncode, 0)

    def test_names_that_are_no_setting(self) -> None:
        """The env file's are refused, with the nearest one; the environment's only make a warning."""
        file = self.folder / "env"
        file.write_text("MAX_CALS=7\n")
        process = self.start("--env-file", str(file))
        refusal, _ = process.communicate(timeout=30)
        self.assertEqual((process.returncode, refusal), (1, "rapida-media: MAX_CALS is no setting: is it MAX_CALLS?\n"))
        process = self.start(more={"AUDIOSOCKET__PROT": "1"})
        welcome = self.read_welcome(process)
        process.terminate()
        process.communicate(timeout=30)
        self.assertIn("rapida-media: AUDIOSOCKET__PROT is no setting: is it AUDIOSOCKET__PORT?\n", welcome)

    def test_sighup(self) -> None:
        """A single process can't be replaced without a gap, says so, and goes on."""
        process = self.start()
        self.read_welcome(process)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        process.terminate()
        rest, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, rest)
        self.assertIn("SIGHUP does nothing to a single process", rest)

    def test_unknown_assistant(self) -> None:
        """A name that is not known is refused with the names that are."""
        self.assertIn("known are bridge, echo, greeter, play, record", self.fails("--assistant", "*=nobody"))

    def test_bad_port(self) -> None:
        """A port out of range is one sentence."""
        self.assertIn("AUDIOSOCKET__PORT (--audiosocket-port) '70000'", self.fails("--audiosocket-port", "70000"))

    def test_key_on_the_command_line(self) -> None:
        """A key on the command line is refused, and not repeated."""
        said = self.fails("--rapida-api-key", "very-secret-key-1", code=2)
        self.assertIn("set RAPIDA_API_KEY in the environment", said)
        self.assertNotIn("very-secret", said)

    def test_store_password_on_the_command_line(self) -> None:
        """The store's URL may be there, but not with a password."""
        said = self.fails("--store-url", "redis://:very-secret-1@127.0.0.1:1", code=2)
        self.assertIn("STORE__URL", said)
        self.assertNotIn("very-secret", said)
        self.assertIn("the call store does not answer at 127.0.0.1:1", self.fails("--store-url", "redis://127.0.0.1:1"))

    def test_other_secrets_on_the_command_line(self) -> None:
        """So are the vault's master key and the webhook's secret."""
        for option, env in [
            ("--vault-master-key", "VAULT__MASTER_KEY"), ("--status-webhook-secret", "STATUS_WEBHOOK__SECRET"),
        ]:  # fmt: skip
            said = self.fails(option, "very-secret-key-1", code=2)
            self.assertIn(f"set {env} in the environment", said)
            self.assertNotIn("very-secret", said)

    def test_wrong_master_key(self) -> None:
        """A vault that can't be opened is one sentence at the start, not a call's failure later; no key is shown."""
        password = self.folder / "password"
        password.write_text("a-password-1")
        words = ["--ari-url", "http://127.0.0.1:8088", "--ari-user", "rapida", "--password-file", str(password)]
        control = Path(sys.executable).with_name("rapida-media-ctl")
        subprocess.run(
            [control, "vault", "set", "pbx", "--state-dir", self.state, *words], check=True, capture_output=True
        )
        other = self.folder / "other-key"
        other.write_text("A" * 43 + "=")
        said = self.fails("--vault-master-key-file", str(other))
        self.assertIn("the master key does not open the vault", said)
        self.assertNotIn("AAAA", said)
        (self.state / "vault-key").unlink()
        self.assertIn("vault", self.fails())
        other.write_text("nonsense")
        self.assertIn("is no master key", self.fails("--vault-master-key-file", str(other)))

    def test_authorities_that_are_not_there(self) -> None:
        """A file of authorities that can't be read is one sentence."""
        self.assertIn("TLS__CA_FILE: the CA's file /no/such.pem", self.fails("--tls-ca-file", "/no/such.pem"))

    def test_taken_port(self) -> None:
        """A port that another program has is one sentence, which says what to do, and nothing stays behind."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            said = self.fails("--http-port", "0", "--admin-port", "0", "--audiosocket-port", port)
        self.assertIn("AudioSocket can't listen", said)
        self.assertIn("in use; stop the program that has this port, or choose another one", said)
        self.assertIn(port, said)

    def test_daemon_on_a_taken_port(self) -> None:
        """A daemon says so on standard error and in its log, and exits with 1; it leaves no pid file."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            ports = ["--http-port", "0", "--audiosocket-port", "0", "--admin-port", str(taken.getsockname()[1])]
            done = subprocess.run(
                [str(TWISTD), "--pidfile", "the.pid", "rapida-media", "--state-dir", str(self.state), *ports],
                cwd=self.folder, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        sentence = done.stderr.splitlines()[0]
        self.assertRegex(sentence, r"^rapida-media: Admin can't listen: .*in use; set ADMIN__PORT to a free port")
        log = (self.folder / "twistd.log").read_text()
        self.assertIn(sentence.removeprefix("rapida-media: "), log)
        self.assertNotIn("Traceback", log)
        self.assertFalse((self.folder / "the.pid").exists())

    def test_wrong_options(self) -> None:
        """One sentence instead of the whole help, and exit code 2."""
        for words, sentence in (
            (("--http-prot", "1"), "rapida-media: option --http-prot not recognized (--help lists the options)"),
            (("--http-port",), "rapida-media: option --http-port requires argument (--help lists the options)"),
        ):
            process = self.start(*words, ports=False)
            said, _ = process.communicate(timeout=30)
            self.assertEqual((process.returncode, said), (2, sentence + "\n"))

    def test_state_directory_that_is_a_file(self) -> None:
        """A state directory that can't be used is one sentence."""
        self.state.write_text("")
        self.assertIn("STATE_DIR", self.fails())

    def test_broken_store(self) -> None:
        """A call store that is no database is one sentence."""
        self.state.mkdir()
        (self.state / "calls.sqlite3").write_bytes(b"this is no database" * 100)
        said = self.fails("--http-port", "0", "--admin-port", "0", "--audiosocket-port", "0")
        self.assertIn("the call store can't be opened", said)

    def test_own_assistant_from_a_file(self) -> None:
        """An assistant in a file of the current folder is found by module and class."""
        shutil.copy(Path(__file__).parents[2] / "docs" / "examples" / "support_bot.py", self.folder)
        process = self.start("--assistant", "7=support_bot:Support")
        self.assertIn("ASSISTANT_ID = 7", self.read_welcome(process))
        process.terminate()
        process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0)

    def test_env_file(self) -> None:
        """Settings are read from an env file."""
        values = "ASSISTANT='42=echo'\nHTTP__PORT=0\nADMIN__PORT=0\nAUDIOSOCKET__PORT=0\n"
        (self.folder / "assistant.env").write_text(values)
        process = self.start("--env-file", "assistant.env", ports=False)
        self.assertIn("ASSISTANT_ID = 42", self.read_welcome(process))
        process.terminate()
        process.communicate(timeout=30)
