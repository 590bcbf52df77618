"""The lines of Asterisk's configuration beside the dialplan."""

from __future__ import annotations

import configparser

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.asterisk_conf import (
    AriValues,
    ari_conf,
    audiosocket_modules,
    http_conf,
    modules_conf,
    stasis_modules,
    websocket_modules,
)
from rapida_twisted.errors import SettingsError


def sections(text: str) -> configparser.ConfigParser:
    """The text, read as Asterisk reads it."""
    parser = configparser.ConfigParser(comment_prefixes=";", inline_comment_prefixes=";", interpolation=None)
    parser.read_string(text)
    return parser


class AsteriskConfTests(SynchronousTestCase):
    def test_http(self) -> None:
        """ARI listens where its URL says, and at all addresses if that is a name."""
        for url, address, port in (
            ("http://127.0.0.1:8088", "127.0.0.1", "8088"),
            ("http://localhost:8088", "127.0.0.1", "8088"),
            ("http://pbx.example", "0.0.0.0", "80"),
            ("http://[2001:db8::1]:8088", "[2001:db8::1]", "8088"),
        ):
            general = sections(http_conf(AriValues(url=url)))["general"]
            self.assertEqual((general["bindaddr"], general["bindport"]), (address, port))

    def test_https(self) -> None:
        """With TLS the plain port is for the machine itself alone."""
        general = sections(http_conf(AriValues(url="https://10.1.2.3")))["general"]
        self.assertEqual((general["bindaddr"], general["tlsbindaddr"]), ("127.0.0.1", "10.1.2.3:443"))

    def test_bad_port(self) -> None:
        """A URL whose port is none is refused."""
        self.assertRaises(SettingsError, http_conf, AriValues(url="http://h:99999"))

    def test_ari(self) -> None:
        """The user may act, and his name can't break out of its line."""
        user = sections(ari_conf(AriValues(user="us", password="p")))["us"]
        self.assertEqual((user["type"], user["read_only"], user["password"]), ("user", "no", "p"))
        for name in ("a]b", "a\nb", "", "a;b"):
            self.assertRaises(SettingsError, ari_conf, AriValues(user=name))

    def test_modules(self) -> None:
        """Each module is loaded once, and what websocket_client needs comes before it."""
        for modules in (audiosocket_modules(), websocket_modules(), stasis_modules()):
            lines = [line for line in modules_conf(modules).splitlines() if not line.startswith(";")]
            self.assertEqual(len(lines), len(set(lines)))
            self.assertLess(lines.index("load = res_sorcery_config.so"), lines.index("load = res_websocket_client.so"))

    def test_modules_of_each_way(self) -> None:
        """Each way has the modules of its own media, and no other's."""
        self.assertIn("app_audiosocket", audiosocket_modules())
        self.assertIn("chan_websocket", websocket_modules())
        self.assertIn("chan_audiosocket", stasis_modules())
        self.assertNotIn("app_audiosocket", (*websocket_modules(), *stasis_modules()))
        self.assertIn("func_curl", audiosocket_modules())
        self.assertIn("func_curl", websocket_modules())
        self.assertNotIn("func_curl", stasis_modules())
        self.assertIn("load = app_stasis.so\n", modules_conf(stasis_modules()))
