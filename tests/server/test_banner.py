"""What a person who started the server is told."""

from __future__ import annotations

import shlex
import sys
from ipaddress import ip_network
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.dialplan import DialplanValues, audiosocket_dialplan
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.server.addresses import addresses
from rapida_twisted.server.banner import banner, banner_text, phone_command
from rapida_twisted.server.preflight import Keys
from rapida_twisted.settings import default_state_dir
from rapida_twisted.tools.phone.options import parse_options
from tests.support.settings import make_settings

KEY = "rpd-0123456789abcdef"
USUAL = DialplanValues(KEY, "http://127.0.0.1:8080", "127.0.0.1", 4573)
OTHER = DialplanValues(KEY, "http://pbx.example:81", "pbx.example", 4574, "support")
STATE = Path("/srv/state")


def lines_of(text: str) -> list[str]:
    """The lines, without what they are indented by."""
    return [line.strip() for line in text.splitlines()]


class BannerTests(SynchronousTestCase):
    """The text as a whole."""

    def test_first_start(self) -> None:
        """The addresses, the new key with its place, the phone's line, and the dialplan with these very values."""
        text = banner_text(OTHER, STATE, key_is_new=True, key_is_set=False)
        lines = lines_of(text)
        self.assertIn("HTTP:         http://pbx.example:81", lines)
        self.assertIn("AudioSocket:  pbx.example:4574", lines)
        self.assertIn(f"API key:      {KEY}   (shown this once; kept in /srv/state/api-key)", lines)
        self.assertIn(phone_command(OTHER, STATE), lines)
        dialplan = lines_of(audiosocket_dialplan(OTHER))
        self.assertEqual(lines[-len(dialplan) :], dialplan)

    def test_later_starts(self) -> None:
        """The key is never shown again; the text says in which file it is."""
        text = banner_text(USUAL, STATE, key_is_new=False, key_is_set=False)
        self.assertNotIn(KEY, text)
        self.assertIn("API key:      the one in /srv/state/api-key", lines_of(text))
        self.assertIn("RAPIDA_API_KEY = <the key in /srv/state/api-key>", lines_of(text))

    def test_key_of_the_environment(self) -> None:
        """A key that was given is not shown, only where it came from."""
        text = banner_text(USUAL, STATE, key_is_new=False, key_is_set=True)
        self.assertNotIn(KEY, text)
        self.assertIn("API key:      the one in $RAPIDA_API_KEY", lines_of(text))
        self.assertIn("RAPIDA_API_KEY = <the key in $RAPIDA_API_KEY>", lines_of(text))

    def test_the_rest_of_the_dialplan_stays(self) -> None:
        """Without the key shown, the dialplan is the same but for that line."""
        shown = lines_of(banner_text(OTHER, STATE, key_is_new=True, key_is_set=False))
        hidden = lines_of(banner_text(OTHER, STATE, key_is_new=False, key_is_set=False))
        differing = [line for line, other in zip(shown, hidden, strict=True) if line != other]
        self.assertEqual(len(differing), 2)
        self.assertTrue(all(KEY in line for line in differing))


class ValuesTests(SynchronousTestCase):
    """The values of a running server."""

    def test_ports(self) -> None:
        """The ports that are open, or that of the load balancer before AudioSocket; and the one for operators."""
        keys = Keys(ApiKeys((KEY,)), KEY, False)
        ports = {"HTTP": 8, "HTTPS": 0, "AudioSocket": 5, "Admin": 9}
        for more, port in (({}, 5), ({"public_audiosocket_port": 4574}, 4574)):
            lines = lines_of(banner(make_settings(**more), keys, ports.__getitem__, ["*", "7"]))
            for line in (
                "HTTP:         http://127.0.0.1:8", f"AudioSocket:  127.0.0.1:{port}", "ASSISTANT_ID = 7",
                "Operators:    http://127.0.0.1:9   (/metrics, /readyz, /v1/calls)",
            ):  # fmt: skip
                self.assertIn(line, lines)
        self.assertNotIn("Operators", banner(make_settings(), keys, {**ports, "Admin": 0}.__getitem__, []))

    def test_behind_a_proxy(self) -> None:
        """A port that speaks the PROXY protocol is not the one that Asterisk uses."""
        settings = make_settings(
            http_endpoint="haproxy:tcp:8080",
            audiosocket_endpoint="haproxy:tcp:4573",
            proxy_allow=(ip_network("127.0.0.1/32"),),
        )
        found = addresses(settings, {"HTTP": 8, "HTTPS": 7, "AudioSocket": 5, "Admin": 9}.__getitem__, [])
        self.assertEqual((found.http_port, found.https_port, found.audiosocket_port), (0, 7, 0))


class PhoneCommandTests(SynchronousTestCase):
    """The line that places a test call."""

    def words(self, state_dir: Path | None, values: DialplanValues) -> list[str]:
        """The command as a shell reads it, without the program."""
        program, *words = shlex.split(phone_command(values, state_dir))
        self.assertEqual(Path(program).name, "rapida-phone")
        return words

    def test_usual_server(self) -> None:
        """A server on its defaults needs nothing said but what to say and where to keep what is heard."""
        self.assertEqual(
            self.words(default_state_dir(), USUAL), ["--tone", "440", "--duration", "10", "--save", "heard.wav"]
        )

    def test_another_server(self) -> None:
        """All that differs from the defaults is said, and the phone understands it as it was meant."""
        directory = Path(self.mktemp()).absolute() / "my state"
        directory.mkdir(parents=True)
        (directory / "api-key").write_text(KEY)
        options = parse_options(self.words(directory, OTHER))
        self.assertEqual((options.http_url, options.audiosocket), ("http://pbx.example:81", ("pbx.example", 4574)))
        self.assertEqual((options.assistant_id, options.api_key), ("support", KEY))

    def test_odd_names(self) -> None:
        """What a shell would read as its own is quoted."""
        directory = Path("/srv/it's $HOME; a state")
        words = self.words(directory, USUAL)
        self.assertIn(str(directory / "api-key"), words)

    def test_usual_state_directory(self) -> None:
        """The key's file is named only when the phone would not look there by itself."""
        self.assertNotIn("--key-file", self.words(default_state_dir(), USUAL))
        self.assertIn("--key-file", self.words(STATE, USUAL))
        self.assertNotIn("--key-file", self.words(None, USUAL))

    def test_program_beside_the_interpreter(self) -> None:
        """A phone installed in this environment is named with its path, for it may not be on the PATH."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.patch(sys, "executable", str(directory / "python"))
        self.assertEqual(shlex.split(phone_command(USUAL, None))[0], "rapida-phone")
        (directory / "rapida-phone").write_text("")
        self.assertEqual(shlex.split(phone_command(USUAL, None))[0], str(directory / "rapida-phone"))
