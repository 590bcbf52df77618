"""An assistant's argument: an address with options, in the text or in a file."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.credentials.masking import masked
from rapida_twisted.errors import SettingsError
from rapida_twisted.settings.argument import parse_argument, with_options
from rapida_twisted.settings.groups import UpstreamSettings


class ArgumentTests(SynchronousTestCase):
    """In both forms."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        (self.folder / "key").write_text("s3cret\n")

    def file(self, content: str) -> str:
        """The argument that names a file with this content."""
        (self.folder / "bot.toml").write_text(content)
        return f"@{self.folder}/bot.toml"

    def test_text(self) -> None:
        """Options follow the address; a value may be in a file."""
        key = f"@{self.folder}/key"
        found = parse_argument(f"ws://h/m?a=b; format = slin ;header.X-Key={key};api_key={key}")
        self.assertEqual(found.address, "ws://h/m?a=b")
        self.assertEqual(found.options, {"format": "slin", "api_key": "s3cret"})
        self.assertEqual(found.headers, {"X-Key": "s3cret"})
        self.assertEqual(found.visible, {"format"})
        self.assertNotIn("s3cret", repr(found))
        self.assertEqual(with_options(UpstreamSettings(), found).api_key, "s3cret")
        self.assertEqual(parse_argument("").address, "")

    def test_file(self) -> None:
        """A TOML file has the same. Paths in it are relative to it; a secret may stand in it."""
        found = parse_argument(
            self.file(
                'address = "wss://h/m;x,y"\nformat = "slin16"\ndigits = false\nstalled_s = 2.5\napi_key = "s3cret"\n'
                '[headers]\nAuthorization = "@key"\nX-Tenant = 7\n'
            )
        )
        self.assertEqual(found.address, "wss://h/m;x,y")
        self.assertEqual(found.headers, {"Authorization": "s3cret", "X-Tenant": "7"})
        settings = with_options(UpstreamSettings(format="ulaw", timeout_s=1), found)
        self.assertEqual((settings.format, settings.digits, settings.stalled_s), ("slin16", "off", 2.5))
        self.assertEqual((settings.timeout_s, settings.api_key), (1, "s3cret"))

    def test_secrets_are_masked(self) -> None:
        """The log shows neither the content of a file, nor a secret option, nor a secret header."""
        (self.folder / "token").write_text("token-in-a-file\n")
        content = (
            'api_key = "key-in-toml"\n'
            '[headers]\nX-Token = "@token"\nauthorization = "Token of-toml"\nX-Plain = "plain"'
        )
        with_options(UpstreamSettings(), parse_argument(self.file(content)))
        self.assertEqual(masked("token-in-a-file, key-in-toml, Token of-toml, plain"), "***, ***, ***, plain")

    def test_secret_headers_in_the_command_line(self) -> None:
        """They are refused, as secret options are."""
        error = self.assertRaises(SettingsError, parse_argument, "ws://h/;header.Authorization=Bearer s3cret")
        sentence = "the header 'Authorization' is a secret: put it into a file, and give @FILE as its value"
        self.assertEqual(masked(str(error)), sentence)
        parse_argument(f"ws://h/;header.Authorization=@{self.folder}/key;header.format=x")

    def test_bad_files(self) -> None:
        """Each says which file, and what is wrong with it."""
        for content, problem in (
            ("address = ", "bot.toml is no TOML file: Invalid value (at "),
            ("address = 1", "address is text"),
            ("headers = 1", "headers is a table"),
            ("format = []", "bot.toml: format is text, a number, true or false"),
            ('[headers]\nX = "@missing"', f"{self.folder}/missing can't be read: No such file"),
        ):
            with self.subTest(content):
                self.assertIn(problem, str(self.assertRaises(SettingsError, parse_argument, self.file(content))))
        self.assertIn("can't be read", str(self.assertRaises(SettingsError, parse_argument, "@/nowhere.toml")))
