"""What a person who started the server is told."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.dialplan import DialplanValues, audiosocket_dialplan
from rapida_twisted.server.banner import banner_text, dialplan_values, phone_command
from rapida_twisted.settings import default_state_dir, load
from rapida_twisted.settings.groups import AudioSocketSettings, HttpSettings, PublicSettings
from rapida_twisted.tools.phone.options import parse_options

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
    """What Asterisk is told of the server."""

    def test_ports(self) -> None:
        """The ports that are listened on, or that of the load balancer before them."""
        for words, port in (({}, 5), ({"PUBLIC_AUDIOSOCKET_PORT": "4574"}, 4574)):
            values = dialplan_values(
                HttpSettings(), AudioSocketSettings(), load(PublicSettings, words),
                api_key=KEY, port_of={"HTTP": 8, "AudioSocket": 5}.__getitem__, assistant_ids=["7"],
            )  # fmt: skip
            self.assertEqual((values.http_url, values.audiosocket_port), ("http://127.0.0.1:8", port))
            self.assertEqual(values.assistant_id, "7")


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
