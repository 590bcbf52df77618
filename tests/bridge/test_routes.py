"""The routes of bridge addresses: valid ones, invalid ones, and their errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.harness.authority import Authority
from rapida_twisted.assistants.environment import make_environment
from rapida_twisted.assistants.registry import parse_assistant
from rapida_twisted.bridge import routes
from rapida_twisted.bridge.routes import AudioSocketRoute, HostedRoute, Route, WebSocketRoute, route_of
from rapida_twisted.errors import SettingsError
from rapida_twisted.net.http_client import make_client
from rapida_twisted.net.tls import tls_options
from rapida_twisted.observe.interface import Metrics
from rapida_twisted.server.transfers import TransferRules
from rapida_twisted.settings.argument import parse_argument, with_options
from tests.bridge.far_ends import KeptUser
from tests.media.fakes import make_context
from tests.support.settings import make_settings

KEY = "rpd-key-of-the-far-one"
UPSTREAM_ID = "11111111-2222-3333-4444-555555555555"
HOSTED = {"upstream_url": "https://far.example/rapida/", "upstream_api_key": KEY}


def route(argument: str = "", **changes: Any) -> Route:
    """The route of an argument."""
    reactor = Clock()
    client, _ = make_client(reactor)
    settings = make_settings(**changes)

    def options(host: str) -> Any:
        return tls_options(host, settings.tls.ca_file)

    parsed = parse_argument(argument)
    upstream = with_options(settings.upstream, parsed)
    return route_of(parsed, upstream, treq_client=client, tls_options=options, reactor=reactor)


class RouteTests(SynchronousTestCase):
    """The three ways."""

    def test_hosted(self) -> None:
        """Without an address it is UPSTREAM__URL's server; the format of its audio is a setting."""
        found = route(**HOSTED)
        self.assertIsInstance(found, HostedRoute)
        self.assertEqual((found.name, found.registers, found.format.encoding), ("far.example:443", True, "ulaw"))
        self.assertEqual(route(**HOSTED, upstream_format="slin16").format.rate_hz, 16000)
        self.assertEqual(route(upstream_url="http://10.0.0.1", upstream_api_key=KEY).name, "10.0.0.1:80")

    def test_ports(self) -> None:
        """A port that is not said is the scheme's; letters may be capitals, an address may be an IPv6 one."""
        for url, name in (
            ("https://far.example:8443/rapida", "far.example:8443"), ("HTTPS://Far.Example/", "far.example:443"),
            ("http://far.example", "far.example:80"), ("https://[2001:db8::5]", "[2001:db8::5]:443"),
            ("http://[::1]:8080/", "[::1]:8080"), ("http://far.example:/", "far.example:80"),
        ):  # fmt: skip
            for argument in ("", "audiosocket://host:1/"):
                found = route(argument, upstream_url=url, upstream_api_key=KEY)
                self.assertEqual(found.name, name if not argument else "host:1")

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
        for changes, registers in ((HOSTED, True), ({}, False)):
            found = route("audiosocket://bot.example.com:9092", **changes)
            self.assertIsInstance(found, AudioSocketRoute)
            self.assertEqual((found.name, found.registers), ("bot.example.com:9092", registers))
            self.assertEqual(found.format.encoding, "slin")
        self.assertEqual(route("audiosocket://[fd00::5]:9092").name, "[fd00::5]:9092")

    def test_urls(self) -> None:
        """Where media goes: behind the path of UPSTREAM__URL, with the key; to a program with the call in the query."""
        urls: list[str] = []

        async def connect(url: str, **changes: Any) -> None:
            urls.append(url)

        self.patch(routes, "connect_websocket", connect)
        context = replace(make_context(), caller="+49 30", called="a&b")
        told = f"contextId={context.context_id}&from=%2B49%2030&to=a%26b"
        ours = f"v1/talk/asterisk/ctx/{UPSTREAM_ID}?x-api-key=k%26y+%2B"
        for argument, url, expected in (
            ("", "https://far.example/rapida/", f"wss://far.example/rapida/{ours}"),
            ("", "HTTP://far.example:80", f"ws://far.example:80/{ours}"),
            ("wss://bot.example", "", f"wss://bot.example?{told}"),
            ("ws://bot.example/?", "", f"ws://bot.example/?&{told}"),
            ("ws://bot.example/m?token=a%20b", "", f"ws://bot.example/m?token=a%20b&{told}"),
        ):
            found = route(argument, upstream_url=url, upstream_api_key="k&y +")
            self.successResultOf(Deferred.fromCoroutine(found.connect(context, UPSTREAM_ID, KeptUser())))
            self.assertEqual(urls.pop(), expected)

    def test_placeholders(self) -> None:
        """An address with placeholders gets no other query. What a call's data holds can't leave its place."""
        opened: list[tuple[str, dict[str, str]]] = []

        async def connect(url: str, *, headers: dict[str, str], **changes: Any) -> None:
            opened.append((url, headers))

        self.patch(routes, "connect_websocket", connect)
        context = replace(
            make_context(), caller="+49 30/?&", called="ä", variables={"ACCOUNT": "7\r\nX-Evil: 1", "P": "100%"}
        )
        found = route(
            "wss://bot.example/{to}/m?uuid={contextId}&who={from}&a={variables.NONE};header.X-Call={variables.ACCOUNT};"
            "header.X-To=to {to} {variables.P}"
        )
        self.successResultOf(Deferred.fromCoroutine(found.connect(context, "", KeptUser())))
        url = f"wss://bot.example/%C3%A4/m?uuid={context.context_id}&who=%2B49%2030%2F%3F%26&a="
        self.assertEqual(opened, [(url, {"X-Call": "7%0D%0AX-Evil: 1", "X-To": "to %C3%A4 100%25"})])

    def test_options(self) -> None:
        """A rule's options win over the settings."""
        found: Any = route("ws://bot.example/;format=slin;control=json;stalled_s=60", upstream_format="ulaw")
        self.assertEqual(found.format.encoding, "slin")
        self.assertEqual((found._settings.control, found._settings.stalled_s), ("json", 60))
        self.assertEqual(route("audiosocket://bot.example:9092;digits=off").name, "bot.example:9092")

    def test_wrong_options(self) -> None:
        """Each is refused with a sentence."""
        for argument, problem in (
            ("ws://h/;fromat=slin", "there is no option 'fromat': is it format?"),
            ("ws://h/;format=mp3", "UPSTREAM__FORMAT (--upstream-format) 'mp3' can't be used: it is one of ulaw"),
            ("ws://h/;format=slin;format=ulaw", "the option 'format' is given twice"),
            ("ws://h/;s3cret", "option 1 behind the address is not NAME=VALUE"),
            (";api_key=s3cret", "the option 'api_key' is a secret: give it as api_key=@FILE"),
            ("ws://h/;header.Authorization=s3cret", "'Authorization' is a secret: put it into a file, and give @FILE"),
            ("ws://h/;header.x-api-key=s3cret", "the header 'x-api-key' is a secret"),
            ("ws://h/;header.Host=other", "the header 'Host' can't be set"),
            ("ws://h/;header.Sec-WebSocket-Key=a", "the header 'Sec-WebSocket-Key' can't be set"),
            ("ws://h/;header.X Y=a", "the header 'X Y' can't be set"),
            ("ws://h/;header.X=@/nowhere", "/nowhere can't be read: No such file or directory"),
            ("ws://h/{who}", "the placeholder {who} is not known; known are {contextId}, {assistantId}, {from}"),
            ("ws://h/;header.X={variables.}", "the placeholder {variables.} is not known"),
            ("ws://{to}/", "the address 'ws://{to}/' is invalid"),
            ("audiosocket://h:1;format=slin16", "AudioSocket has no headers, no control messages, and slin"),
            ("audiosocket://h:1;header.X=a", "AudioSocket has no headers"),
        ):  # fmt: skip
            with self.subTest(argument):
                text = self.refused(argument)
                self.assertIn(problem, text)
                self.assertNotIn("s3cret", text)

    def test_missing_settings(self) -> None:
        """What is missing is named."""
        self.assertIn("needs UPSTREAM__URL", self.refused())
        for argument in ("", "audiosocket://far.example:9092"):
            text = self.refused(argument, upstream_url="https://far.example")
            self.assertIn("UPSTREAM__URL needs UPSTREAM__API_KEY", text)
        # A program's calls are not registered, so that nothing of it is needed.
        self.assertFalse(route("ws://127.0.0.1/", upstream_url="https://far.example").registers)

    def test_addresses(self) -> None:
        """An address that can't be used is quoted, with what is wanted."""
        for argument in (
            "wss://", "wss:///path", "wss://host:port/", "wss://host:99999/", "ws://host:0/", "wss://[::1/",
            "ws://[nothing]/", "ws://::1/", "ws://host/a b", "ws://host/\n", "ws://host\n/", "ws://hóst/",
            "ws://host/media#part", "ws://host/#", "audiosocket://host", "audiosocket://", "audiosocket://:9092",
            "audiosocket://host:0", "audiosocket://host:99999", "audiosocket://host:1/path",
            "audiosocket://host:1#part", "audiosocket://fd00::5:9092", "audiosocket://host:1\n",
        ):  # fmt: skip
            with self.subTest(argument):
                text = self.refused(argument)
                self.assertTrue(text.startswith(f"the address {argument!r} is invalid: after :// it needs HOST"), text)
                self.assertNotIn("\n", text)

    def test_hosted_addresses(self) -> None:
        """UPSTREAM__URL has no query: paths are put behind it. Neither for its media nor for registrations alone."""
        for url, problem in (
            ("https://far.example/?tenant=1", "UPSTREAM__URL must be a server's address"),
            ("https://far.example/?", "UPSTREAM__URL must be a server's address"),
            (" https://far.example", "the address ' https://far.example' is invalid"),
        ):
            for argument in ("", "audiosocket://host:1"):
                self.assertIn(problem, self.refused(argument, upstream_url=url, upstream_api_key=KEY))

    def test_secrets(self) -> None:
        """What may be a password or a token is not quoted back."""
        for argument in (
            "ws://user:s3cret@host/", "ws://s3cret@host/", "ws://user:s3#cret@host/", "ws:///?s3cret@",
            "ws://host:port/?token=s3cret", "ws://host/a b?token=s3cret\n&s3cret", "audiosocket://user:s3cret@host:1",
            "https://user:s3cret@host/", "https://host/?token=s3cret", "audiosocket://host:1?s3cret",
        ):  # fmt: skip
            with self.subTest(argument):
                text = self.refused(argument)
                self.assertRegex(text, r"(?s)^(the address '|bridge:)\w+:.*\.\.\..* is invalid: ")
                self.assertNotRegex(text, "s3|cret")

    def test_names_for_certificates(self) -> None:
        """A name that no certificate can be for is refused at the start, and not in the first call."""
        for host in ("a..b", "my_bot", "x" * 64):
            with self.subTest(host):
                self.assertIn(f"no certificate can be valid for the host '{host}'", self.refused(f"wss://{host}/"))
                text = self.refused(upstream_url=f"https://{host}", upstream_api_key=KEY)
                self.assertIn(f"no certificate can be valid for the host '{host}'", text)
                self.assertEqual(route(f"ws://{host}/").name, f"{host}:80")

    def test_schemes(self) -> None:
        """Other ways are not known; the sentence lists those that are."""
        for argument in ("far.example", "https://far.example", "tcp://far.example:1", "WSS://far.example/", "wss:/x"):
            text = self.refused(argument)
            self.assertTrue(text.startswith(f"bridge:{argument} is invalid: use 'bridge', bridge:wss://"), text)

    def refused(self, argument: str = "", **changes: Any) -> str:
        """The error for this argument."""
        return str(self.assertRaises(SettingsError, route, argument, **changes))


class FactoryTests(SynchronousTestCase):
    """The rule's argument, as the server reads it at its start."""

    def configure(self, argument: str = "", **changes: Any) -> Any:
        """Read them."""
        settings = make_settings(**HOSTED | changes)
        environment = make_environment(
            Clock(), Path(self.mktemp()), check_transfer=TransferRules(settings.assistants.transfer_allow).check,
            counters=Metrics(), pages={}, record=print, ca_file=settings.tls.ca_file,
        )  # fmt: skip
        return parse_assistant(f"bridge:{argument}", environment, {"bridge": settings.upstream})

    def refused(self, argument: str = "", **changes: Any) -> str:
        """Why these settings can't be used."""
        return str(self.assertRaises(SettingsError, self.configure, argument, **changes))

    def test_health(self) -> None:
        """A bridge tells where it leads, and how that server is."""
        made = self.configure("ws://127.0.0.1:9001/")
        self.assertEqual((made.health()["upstream"], made.health()["state"]), ("127.0.0.1:9001", "closed"))

    def test_ca_file(self) -> None:
        """A file of authorities must be one; certificates are verified against it from the start."""
        authority = Authority(Path(self.mktemp()))
        self.configure(tls_ca_file=str(authority.authority))
        self.configure("wss://bot.example/", tls_ca_file=str(authority.authority))
        broken = b"-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n"
        for name, content, problem in (
            ("empty.pem", b"", "has no certificate in it"), ("text.pem", b"nothing", "has no certificate in it"),
            ("key.pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "has no certificate in it"),
            ("broken.pem", broken, "has a certificate that can't be read"), ("nowhere.pem", None, "can't be read"),
        ):  # fmt: skip
            path = authority.authority.parent / name
            if content is not None:
                path.write_bytes(content)
            for argument in ("", "wss://bot.example/"):
                with self.subTest((name, argument)):
                    text = self.refused(argument, tls_ca_file=str(path))
                    self.assertTrue(text.startswith(f"TLS__CA_FILE: the CA's file {path} {problem}"), text)

    def test_ca_file_that_goes(self) -> None:
        """What a call needs of that file is read at the start: it may be replaced, or go, while calls are up."""
        given: list[Any] = []

        async def connect(url: str, **changes: Any) -> None:
            given.append(changes["tls_options"])

        self.patch(routes, "connect_websocket", connect)
        authority = Authority(Path(self.mktemp()))
        found = [route(argument, **HOSTED, tls_ca_file=str(authority.authority)) for argument in ("", "wss://far/")]
        found.append(route("ws://far/"))
        authority.authority.unlink()
        for one in found:
            self.successResultOf(Deferred.fromCoroutine(one.connect(make_context(), UPSTREAM_ID, KeptUser())))
        self.assertEqual([options is not None for options in given], [True, True, False])

    def test_fallbacks(self) -> None:
        """Another assistant, an extension for transfers, and none, in two spellings."""
        for changes, somebody in (("echo", True), ("next:PJSIP/200", True), ("next", False), ("", False)):
            made = self.configure("ws://127.0.0.1:9001/", upstream_fallback=changes, transfer_allow=("PJSIP/2??",))
            fallback = made(make_context())._fallback
            self.assertIs(bool(fallback), somebody, changes)

    def test_fallbacks_that_are_none(self) -> None:
        """Another bridge, an assistant that is not known, an extension that is not allowed or not safe."""
        for changes, problem in (
            ("bridge", "can't be another bridge"),
            ("bridge:ws://127.0.0.1:1/", "can't be another bridge"),
            ("nobody", "UPSTREAM__FALLBACK: the assistant 'nobody' is not known"),
            ("play", "UPSTREAM__FALLBACK: play needs a file"),
            ("play:/nowhere.wav", "UPSTREAM__FALLBACK: play can't play '/nowhere.wav'"),
            ("next:", "UPSTREAM__FALLBACK: '' is no dial string"),
            ("next:200", "UPSTREAM__FALLBACK: '200' is no dial string"),
            ("next: PJSIP/200", "UPSTREAM__FALLBACK: ' PJSIP/200' is no dial string"),
            ("next:PJSIP/200\n", "UPSTREAM__FALLBACK: 'PJSIP/200\\n' is no dial string"),
            ("next:PJSIP/300", "UPSTREAM__FALLBACK: 'PJSIP/300' is not among the transfers"),
            ("next:PJSIP/200&PJSIP/300", "UPSTREAM__FALLBACK: 'PJSIP/200&PJSIP/300' is no dial string"),
        ):
            with self.subTest(changes):
                self.assertIn(problem, self.refused(upstream_fallback=changes, transfer_allow=("PJSIP/2??",)))

    def test_no_keys(self) -> None:
        """No refusal and no repr shows the key."""
        texts = [self.refused(upstream_fallback="nobody"), self.refused(upstream_url=""), repr(self.configure())]
        texts += [self.refused(upstream_url="https://a..b"), self.refused(upstream_url="https://far.example/?")]
        texts += [repr(self.configure()(make_context())), str(self.configure().health())]
        for text in texts:
            self.assertNotIn(KEY, text)
