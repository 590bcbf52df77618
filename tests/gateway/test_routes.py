"""Where a bridge leads to: which words name a way, which do not, and what is said of those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import SettingsError
from rapida_twisted.gateway.maker import BridgeFactory
from rapida_twisted.gateway.routes import AudioSocketRoute, HostedRoute, Route, WebSocketRoute, route_of
from rapida_twisted.interfaces import AssistantHouse
from rapida_twisted.outgoing import make_client
from rapida_twisted.settings import Settings
from rapida_twisted.transfers import TransferRules
from tests.live.tls import Authority

KEY = "rpd-key-of-the-far-one"
HOSTED = {"upstream_url": "https://far.example/rapida/", "upstream_api_key": KEY}


def route(argument: str = "", **words: Any) -> Route:
    """The way that the words name."""
    reactor = Clock()
    client, _ = make_client(reactor)
    return route_of(argument, Settings(**words), treq_client=client, reactor=reactor)


class RouteTests(SynchronousTestCase):
    """The three ways."""

    def test_hosted(self) -> None:
        """Without an address it is UPSTREAM__URL's server; the format of its audio is a setting."""
        found = route(**HOSTED)
        self.assertIsInstance(found, HostedRoute)
        self.assertEqual((found.name, found.registers, found.format.encoding), ("far.example:443", True, "ulaw"))
        self.assertEqual(route(**HOSTED, upstream_format="slin16").format.rate_hz, 16000)
        self.assertEqual(route(upstream_url="http://10.0.0.1", upstream_api_key=KEY).name, "10.0.0.1:80")

    def test_program(self) -> None:
        """A program of one's own is not registered at, even where UPSTREAM__URL is set for other rules."""
        for address, name in (
            ("wss://bot.example.com/media", "bot.example.com:443"),
            ("ws://127.0.0.1:9001/", "127.0.0.1:9001"),
            ("ws://[::1]/media?token=1", "[::1]:80"),
        ):
            found = route(address, **HOSTED)
            self.assertIsInstance(found, WebSocketRoute)
            self.assertEqual((found.name, found.registers), (name, False))

    def test_audiosocket(self) -> None:
        """An AudioSocket server is registered at exactly if UPSTREAM__URL is set; its audio is slin."""
        for words, registers in ((HOSTED, True), ({}, False)):
            found = route("audiosocket://bot.example.com:9092", **words)
            self.assertIsInstance(found, AudioSocketRoute)
            self.assertEqual((found.name, found.registers), ("bot.example.com:9092", registers))
            self.assertEqual(found.format.encoding, "slin")
        self.assertEqual(route("audiosocket://[fd00::5]:9092").name, "[fd00::5]:9092")

    def test_missing_settings(self) -> None:
        """What is missing is named."""
        self.assertIn("needs UPSTREAM__URL", self.refused())
        for argument in ("", "audiosocket://far.example:9092"):
            text = self.refused(argument, upstream_url="https://far.example")
            self.assertIn("UPSTREAM__URL needs UPSTREAM__API_KEY", text)

    def test_addresses(self) -> None:
        """An address that can't be used is quoted, with what is wanted."""
        for argument in (
            "wss://", "wss:///path", "wss://host:port/", "wss://host:99999/", "wss://[::1/", "ws://user:word@host/",
            "ws://user@host/", "ws://host/a b", "ws://host/\n", "ws://hóst/", "audiosocket://host",
            "audiosocket://:9092", "audiosocket://host:0", "audiosocket://user@host:1",
        ):  # fmt: skip
            with self.subTest(argument):
                self.assertRegex(self.refused(argument), "the address '.*' can't be used: after :// comes HOST")

    def test_schemes(self) -> None:
        """Other ways are not known; the sentence lists those that are."""
        for argument in ("far.example", "https://far.example", "tcp://far.example:1", "WSS://far.example/", "wss:/x"):
            text = self.refused(argument)
            self.assertTrue(text.startswith(f"bridge:{argument} can't be used: it is 'bridge', bridge:wss://"), text)

    def refused(self, argument: str = "", **words: Any) -> str:
        """Why these words can't be used."""
        return str(self.assertRaises(SettingsError, route, argument, **words))


class FactoryTests(SynchronousTestCase):
    """The rule's words, as the server's start reads them."""

    def configure(self, argument: str = "", **words: Any) -> Any:
        """Read them."""
        settings = Settings(**{**HOSTED, **words})
        house = AssistantHouse(Clock(), Path(self.mktemp()), settings, TransferRules(settings.transfer_allow).check)
        return BridgeFactory().configure(argument, house)

    def refused(self, **words: Any) -> str:
        """Why these settings can't be used."""
        return str(self.assertRaises(SettingsError, self.configure, **words))

    def test_health(self) -> None:
        """A bridge tells where it leads, and how that server is."""
        made = self.configure("ws://127.0.0.1:9001/")
        self.assertEqual((made.health()["upstream"], made.health()["state"]), ("127.0.0.1:9001", "closed"))

    def test_ca_file(self) -> None:
        """A file of authorities must be one; certificates are verified against it from the start."""
        authority = Authority(Path(self.mktemp()))
        self.configure(tls_ca_file=str(authority.authority))
        empty = Path(self.mktemp())
        empty.write_text("nothing")
        self.assertRegex(self.refused(tls_ca_file=str(empty)), "^TLS__CA_FILE: .* no certificate in it")
        self.assertRegex(self.refused(tls_ca_file="/nowhere/ca.pem"), "^TLS__CA_FILE: .* can't be read")

    def test_fallbacks(self) -> None:
        """Another assistant, an extension that calls may be transferred to, and nobody, in two spellings."""
        for words in ("echo", "next:PJSIP/200", "next", ""):
            self.configure(upstream_fallback=words, transfer_allow=("PJSIP/2??",))

    def test_fallbacks_that_are_none(self) -> None:
        """Another bridge, an assistant that is not known, an extension that is not allowed or not safe."""
        for words, problem in (
            ("bridge", "can't be another bridge"),
            ("bridge:ws://127.0.0.1:1/", "can't be another bridge"),
            ("nobody", "'nobody' is not known"),
            ("next:", "UPSTREAM__FALLBACK: '' is no dial string"),
            ("next:PJSIP/300", "UPSTREAM__FALLBACK: 'PJSIP/300' is not among the transfers"),
            ("next:PJSIP/200&PJSIP/300", "UPSTREAM__FALLBACK: 'PJSIP/200&PJSIP/300' is no dial string"),
        ):
            with self.subTest(words):
                self.assertIn(problem, self.refused(upstream_fallback=words, transfer_allow=("PJSIP/2??",)))

    def test_no_keys(self) -> None:
        """No refusal and no repr shows the key."""
        for text in (self.refused(upstream_fallback="nobody"), self.refused(upstream_url=""), repr(self.configure())):
            self.assertNotIn(KEY, text)
