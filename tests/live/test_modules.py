"""What ``rapida-media-ctl dialplan`` prints is enough: an Asterisk with those files, and those modules alone."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.harness.waiting import wait_until
from tests.live.asterisk import ARI_PASSWORD, ARI_USER, Asterisk, shared_asterisk
from tests.live.nodes import live_server
from tests.live.recordings import Recording

ASSISTANT = "tests.live.assistants:Interrupted"
"""Says a tone for ten seconds, and stays."""

THE_CALLERS_OWN = "app_milliwatt"
"""What the test's caller needs beside what is printed. Channels of the kind Local need no module."""

CALLER = """
[talker]
exten => milliwatt,1,Answer()
 same => n,Milliwatt()
"""

INDICATIONS = """
[general]
country = us
[us]
description = United States
ringcadence = 2000,4000
ring = 440+480/2000,0/4000
"""
"""As every Asterisk has them; without, it warns."""

HANGUP = "Failed to receive frame from channel"
"""AudioSocket() warns of this when the caller hangs up."""

TALKED_S = 1.0


def printed_files(printed: str) -> dict[str, str]:
    """The files that the program printed, by name."""
    parts = re.split(r"^; /etc/asterisk/([a-z_]+\.conf).*\n", printed, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


class ModulesTests(SynchronousTestCase):
    """An Asterisk of its own for each transport."""

    def have(self, *words: str, **environment: str) -> None:
        """A server, and an Asterisk that has nothing but what the control program prints of it."""
        directory = Path(self.mktemp()).absolute()
        self.asterisk = Asterisk(shared_asterisk().root)
        self.addCleanup(self.asterisk.stop, keep_log=directory.with_name("modules.log"))
        self.server = live_server(directory, f"*={ASSISTANT}", environment={"DRAIN_S": "0", **environment})
        self.print_and_boot(words)
        self.server.start()
        self.addCleanup(self.server.stop)
        self.assert_running()

    def print_and_boot(self, words: tuple[str, ...]) -> None:
        """Have the lines printed, put them where they say, and start Asterisk."""
        server, url = self.server, f"http://127.0.0.1:{self.asterisk.http_port}"
        server.directory.mkdir(parents=True)
        ports = server.directory / "ports"
        ports.write_text(f"HTTP__PORT={server.http_port}\nAUDIOSOCKET__PORT={server.audiosocket_port}\n")
        set_words = ["vault", "set", "pbx", "--ari-url", url, "--ari-user", ARI_USER, "--endpoint-technology", "Local"]
        self.control(*set_words, typed=f"{ARI_PASSWORD}\n")
        self.files = printed_files(
            self.control(
                "dialplan", *words, "--transfer", "--with-key", "--credential", "pbx", "--env-file", str(ports)
            )
        )
        self.files["ari.conf"] = self.files["ari.conf"].replace("<the ari_password of credential pbx>", ARI_PASSWORD)
        self.files["modules.conf"] = f"[modules]\nautoload = no\n{self.files['modules.conf']}load = {THE_CALLERS_OWN}\n"
        self.files["extensions.conf"] += CALLER
        self.files["indications.conf"] = INDICATIONS
        for name, text in self.files.items():
            self.asterisk.write_config(name, text)
        Recording.tone(700, 0.5).save(self.asterisk.directory / "data/sounds/en/an-error-has-occurred.wav")
        self.asterisk.start()

    def control(self, *words: str, typed: str = "") -> str:
        """What the control program prints."""
        done = self.server.control(*words, typed=typed)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    # Claims

    def assert_running(self) -> None:
        """Each module that is printed runs."""
        modules = re.findall(r"^load = (\w+)", self.files["modules.conf"], re.MULTILINE)
        self.assertGreater(len(modules), 15)
        listed = self.asterisk.cli("module show")
        running = re.findall(r"^(\w+)\.so .* Running ", listed, re.MULTILINE)
        self.assertEqual(set(modules) - set(running), set(), listed)

    def assert_known(self, *names: str) -> None:
        """Each application and each function that the dialplan names is there, and these are among them."""
        named = set(re.findall(r"(?:n|1|n\(\w+\)),(\w+)\(", self.files["extensions.conf"]))
        functions = set(re.findall(r"[{(]([A-Z]+)\(", self.files["extensions.conf"]))
        self.assertLessEqual({"Answer", "GotoIf", "Playback", "Hangup", *names}, named | functions)
        for kind, words in (("application", named), ("function", functions)):
            for word in words:
                self.assertIn(f"'{word}' =-", self.asterisk.cli(f"core show {kind} {word}"))

    def assert_quiet(self) -> None:
        """Asterisk has logged no warning and no error since it was started."""
        log = self.asterisk.log_since(0)
        self.assertIn("Asterisk Ready", log)
        problems = re.findall(r"^.* (?:WARNING|ERROR)\[.*$", log, re.MULTILINE)
        self.assertEqual([problem for problem in problems if HANGUP not in problem], [])

    def assert_call(self, record: dict[str, Any], direction: str) -> None:
        """A call had audio both ways."""
        self.assertEqual((record["status"], record["direction"]), ("completed", direction), record)
        self.assertGreater(record["audio_in_s"], TALKED_S / 2, record)
        self.assertGreater(record["audio_out_s"], TALKED_S / 2, record)

    def talk(self, context_id: str) -> None:
        """Let a call have its media for a while."""
        wait_until("the call has its media", lambda: self.server.call(context_id)["status"] == "claimed", 10)
        time.sleep(TALKED_S)

    def call_in(self, context: str) -> None:
        """One call in; the caller hangs up."""
        channel = self.asterisk.originate(f"Local/100@{context}", "milliwatt@talker")
        context_id = wait_until("a call is registered", self.server.calls, 10)[0]["context_id"]
        self.talk(context_id)
        self.asterisk.hang_up(channel)
        self.assert_call(self.server.ended_call(context_id), "inbound")

    def hear_prompt(self, context: str) -> None:
        """A call that gets no media hears the prompt."""
        self.asterisk.ari(
            "POST", "channels", endpoint="Local/milliwatt@talker", context=context, extension="100", label="error"
        )
        self.asterisk.wait_for_log("Playing 'an-error-has-occurred", 0)

    def call_out(self, **words: Any) -> None:
        """One call out; we hang up."""
        status, answer = self.server.place("123456789", "milliwatt@talker", **words)
        self.assertEqual(status, 201, answer)
        self.talk(answer["contextId"])
        self.server.hang_up(answer["contextId"])
        self.server.wait_for_status(answer["contextId"], "completed")
        self.assert_call(self.server.ended_call(answer["contextId"]), "outbound")

    # Tests

    def test_audiosocket(self) -> None:
        """Over AudioSocket."""
        self.have()
        self.assert_known("AudioSocket", "Dial", "CURL", "URIENCODE", "CALLERID")
        self.call_in("rapida-inbound")
        self.hear_prompt("rapida-inbound")
        self.call_out()
        self.assert_quiet()

    def test_websocket(self) -> None:
        """Over WebSocket."""
        self.have("--transport", "websocket", OUTBOUND__CONTEXT="rapida-outbound-ws")
        self.assert_known("Dial", "CURL", "URIENCODE", "CALLERID")
        self.call_in("rapida-inbound-ws")
        self.hear_prompt("rapida-inbound-ws")
        self.call_out()
        self.assert_quiet()

    def test_stasis(self) -> None:
        """Through the Stasis application."""
        self.have("--stasis")
        self.assert_known("Stasis", "Dial")
        self.call_in("rapida-inbound-stasis")
        self.hear_prompt("rapida-inbound-stasis")
        self.call_out(stasis=True)
        self.assert_quiet()
