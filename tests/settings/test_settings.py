"""The settings: which word wins, and one sentence for each word that can't be used."""

from __future__ import annotations

import os
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import SettingsError
from rapida_twisted.settings import Settings, all_settings, default_state_dir, known_names, load
from rapida_twisted.settings.groups import (
    AudioSocketSettings,
    HttpSettings,
    KeySettings,
    LimitSettings,
    ProcessSettings,
    StoreSettings,
    UpstreamSettings,
    WebhookSettings,
)
from rapida_twisted.tap import Options

KEY = "a-key-of-the-test"


class NamesTests(SynchronousTestCase):
    """How settings are named."""

    def test_options(self) -> None:
        """The option is the environment's name in lower case with dashes."""
        options = {setting.env: setting.option for setting in all_settings()}
        self.assertEqual(options["AUDIOSOCKET__PORT"], "audiosocket-port")
        self.assertEqual(options["PUBLIC_ASSISTANT_HOST"], "public-assistant-host")
        self.assertEqual(options["RAPIDA_API_KEY"], "rapida-api-key")
        self.assertEqual(len(set(options.values())), len(options))

    def test_names_of_the_issue(self) -> None:
        """The names that a deployment may rely on are all there."""
        names = {setting.env for setting in all_settings()}
        promised = (
            "AUDIOSOCKET__HOST AUDIOSOCKET__PORT PUBLIC_ASSISTANT_HOST HTTP__HOST HTTP__PORT RAPIDA_API_KEY"
            " STATE_DIR STORE__URL ASSISTANT DRAIN_S CONTEXT_TTL_S"
        )
        self.assertEqual(set(promised.split()) - names, set())

    def test_every_setting_is_explained(self) -> None:
        """Each has a line for --help, and those that are no secret have an option."""
        known = Options()
        for setting in all_settings():
            self.assertTrue(setting.help)
            self.assertTrue(setting.secret or setting.option in known or setting.env == "ASSISTANT")


class DefaultsTests(SynchronousTestCase):
    """What holds when nothing is said."""

    def test_defaults(self) -> None:
        """AudioSocket on 4573 and HTTP on 8080, both on this machine alone; the greeter answers everybody."""
        settings = Settings.from_mapping()
        self.assertEqual((settings.audiosocket.host, settings.audiosocket.port), ("127.0.0.1", 4573))
        self.assertEqual((settings.http.host, settings.http.port), ("127.0.0.1", 8080))
        self.assertEqual((settings.assistants.rules, settings.keys.api_keys), (("*=greeter",), ()))
        self.assertEqual(
            (settings.store.url, settings.process.drain_s, settings.limits.context_ttl_s), ("sqlite:", 20.0, 300.0)
        )
        self.assertEqual(settings, Settings())

    def test_defaults_as_told(self) -> None:
        """The defaults that --help shows are those that hold."""
        values = Settings().values
        for setting in all_settings():
            if setting.env != "STATE_DIR":
                self.assertEqual(values[setting.env], setting.parse(setting.default))

    def test_state_dir(self) -> None:
        """systemd's directory, else the user's XDG state directory, else the usual place in the home."""
        for variable in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
            self.patch_environment(variable, "")
        self.patch_environment("HOME", "/home/ada")
        self.assertEqual(default_state_dir(), Path("/home/ada/.local/state/rapida-media"))
        self.patch_environment("XDG_STATE_HOME", "/xdg")
        self.assertEqual(default_state_dir(), Path("/xdg/rapida-media"))
        self.patch_environment("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
        self.assertEqual(default_state_dir(), Path("/var/lib/one"))
        self.assertEqual(Settings().process.state_dir, Path("/var/lib/one"))

    def patch_environment(self, name: str, value: str) -> None:
        """Set a variable for this test."""
        self.patch(os, "environ", {**os.environ, name: value})


class PrecedenceTests(SynchronousTestCase):
    """Options over environment over the env file over defaults."""

    def test_sources(self) -> None:
        """The earlier source wins; empty words do not count."""
        settings = Settings.from_mapping(
            {"HTTP__PORT": "1"},
            {"HTTP__PORT": "2", "AUDIOSOCKET__PORT": "2"},
            {"HTTP__PORT": "3", "AUDIOSOCKET__PORT": "3", "DRAIN_S": "3", "HTTP__HOST": ""},
        )
        self.assertEqual((settings.http.port, settings.audiosocket.port, settings.process.drain_s), (1, 2, 3.0))
        self.assertEqual(settings.http.host, "127.0.0.1")

    def options(self, environ: dict[str, str], file: str, *argv: str) -> Settings:
        """What the command line makes of these sources."""
        path = Path(self.mktemp())
        path.write_text(file)
        self.patch(os, "environ", environ)
        options = Options()
        options.parseOptions([f"--env-file={path}", *argv])
        return options.settings

    def test_on_the_command_line(self) -> None:
        """The same through the options of twistd."""
        file = "DRAIN_S=1\nCONTEXT_TTL_S=1\nHTTP__PORT=1"
        settings = self.options({"CONTEXT_TTL_S": "2", "HTTP__PORT": "2"}, file, "--http-port", "3")
        self.assertEqual((settings.process.drain_s, settings.limits.context_ttl_s, settings.http.port), (1.0, 2.0, 3))
        self.assertEqual(settings.audiosocket.port, 4573)

    def test_assistants(self) -> None:
        """The option may be given several times, and then all of the environment's are out."""
        environ = {"ASSISTANT": "*=echo"}
        settings = self.options(environ, "", "--assistant", "1=greeter", "--assistant", "2=play:/a.wav")
        self.assertEqual(settings.assistants.rules, ("1=greeter", "2=play:/a.wav"))
        self.assertEqual(self.options(environ, "").assistants.rules, ("*=echo",))

    def test_empty_in_the_environment(self) -> None:
        """An empty variable, as compose files like to leave, does not hide the env file."""
        self.assertEqual(self.options({"DRAIN_S": ""}, "DRAIN_S=7").process.drain_s, 7.0)


class GoodWordsTests(SynchronousTestCase):
    """Words that can be used."""

    def test_lists(self) -> None:
        """Several keys, or assistants, with commas; blanks around them do not count."""
        settings = Settings.from_mapping({"RAPIDA_API_KEY": f" {KEY}, {KEY}-2 ,", "ASSISTANT": "1=echo, *=greeter"})
        self.assertEqual(settings.keys.api_keys, (KEY, f"{KEY}-2"))
        self.assertEqual(settings.assistants.rules, ("1=echo", "*=greeter"))

    def test_numbers(self) -> None:
        """The least and the greatest of each kind."""
        for env, word, value in (
            ("HTTP__PORT", "0", 0),
            ("HTTP__PORT", "65535", 65_535),
            ("DRAIN_S", "0", 0.0),
            ("DRAIN_S", "0.5", 0.5),
            ("KEEP_S", "31536000", 31_536_000.0),
            ("KEEP_S", "1e6", 1_000_000.0),
            ("DRAIN_S", "20 ", 20.0),
            ("IDLE_S", "+5", 5.0),
            ("MAX_CALLS", "1", 1),
            ("MAX_CALLS", "999999999", 999_999_999),
            ("WEBSOCKET__LEAD_MS", "20", 20.0),
            ("WEBSOCKET__LEAD_MS", "10000", 10_000.0),
        ):
            self.assertEqual(Settings.from_mapping({env: word}).values[env], value)

    def test_state_dir(self) -> None:
        """A directory may be there already or not, be relative, or begin at the home."""
        here = Path(self.mktemp())
        here.mkdir()
        for word, path in (
            (str(here), here.absolute()),
            (str(here / "new"), (here / "new").absolute()),
            ("~/state", Path.home() / "state"),
        ):
            self.assertEqual(Settings.from_mapping({"STATE_DIR": word}).process.state_dir, path)

    def test_public_host(self) -> None:
        """The dialplan's host is the one that is told, else the one that is listened on, else this machine."""
        for words, host in (
            ({}, "127.0.0.1"),
            ({"AUDIOSOCKET__HOST": "192.0.2.1"}, "192.0.2.1"),
            ({"AUDIOSOCKET__HOST": "0.0.0.0"}, "127.0.0.1"),
            ({"AUDIOSOCKET__HOST": "::"}, "127.0.0.1"),
            ({"AUDIOSOCKET__HOST": "2001:db8::1"}, "[2001:db8::1]"),
            ({"AUDIOSOCKET__HOST": "0.0.0.0", "PUBLIC_ASSISTANT_HOST": "pbx.example"}, "pbx.example"),
        ):
            settings = Settings.from_mapping(words)
            self.assertEqual(settings.public.host_for(settings.audiosocket.host), host)

    def test_password_in_a_url(self) -> None:
        """What is refused and may hold a password is not repeated."""
        for env in ("UPSTREAM__URL", "STATUS_WEBHOOK__URL", "STORE__URL"):
            word = {env: "htp://someone:very-secret@example.com/"}
            try:
                Settings.from_mapping(word)
            except SettingsError as error:
                self.assertIn(env, str(error))
                self.assertNotIn("very-secret", str(error))

    def test_public_host_is_a_host(self) -> None:
        """What would break the dialplan's line is refused."""
        self.assertRaises(SettingsError, Settings.from_mapping, {"PUBLIC_ASSISTANT_HOST": "pbx example;x"})

    def test_frozen(self) -> None:
        """What was checked stays as it is."""
        self.assertRaises(AttributeError, setattr, Settings(), "http", None)
        self.assertRaises(AttributeError, setattr, Settings().http, "port", 1)


class BadWordsTests(SynchronousTestCase):
    """Words that can't be used: one sentence that names the setting both ways, shows the word and says why."""

    def assert_refused(self, env: str, option: str, word: str, why: str) -> None:
        """This word is refused in these words."""
        error = self.assertRaises(SettingsError, Settings.from_mapping, {env: word})
        self.assertEqual(str(error), f"{env} (--{option}) {word!r} can't be used: {why}")

    def test_ports(self) -> None:
        """A port is a whole number up to 65535, in plain digits."""
        why = "a port is a number from 0 (any free one) to 65535"
        for env, option in (("HTTP__PORT", "http-port"), ("AUDIOSOCKET__PORT", "audiosocket-port")):
            for word in ("x", "-1", "65536", "80.0", "1e3", " 80", "\u0663", "\u00b2", "9" * 5000):
                self.assert_refused(env, option, word, why)

    def test_seconds(self) -> None:
        """A time is a finite number of seconds that is not negative."""
        why = "a time is a number of seconds, not negative and at most a year"
        for env, option in (("DRAIN_S", "drain-s"), ("CONTEXT_TTL_S", "context-ttl-s"), ("KEEP_S", "keep-s")):
            for word in ("x", "-1", "nan", "inf", "-inf", "31536001", "1 s"):
                self.assert_refused(env, option, word, why)

    def test_limits(self) -> None:
        """A limit lets at least one through."""
        why = "a limit is a whole number from 1 to 999999999"
        for env, option in (("MAX_CALLS", "max-calls"), ("MAX_WAITING", "max-waiting")):
            for word in ("0", "-1", "1.5", "many", "1000000000"):
                self.assert_refused(env, option, word, why)

    def test_networks(self) -> None:
        """Networks are networks: without bits behind the mask, and no names."""
        settings = Settings.from_mapping({"AUDIOSOCKET__ALLOW": "192.0.2.0/24, 2001:db8::/32,198.51.100.7"})
        self.assertEqual(
            [str(network) for network in settings.audiosocket.allow],
            ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"],
        )
        for env in ("AUDIOSOCKET__ALLOW", "PROXY__ALLOW"):
            for word in ("pbx", "192.0.2.1/24", "192.0.2.0/33", "192.0.2.0-192.0.2.9", "192.0.2.0/24;10.0.0.0/8"):
                error = self.assertRaises(SettingsError, Settings.from_mapping, {env: word})
                self.assertIn(f"{word!r} can't be used: networks", str(error))

    def test_sizes_and_speeds(self) -> None:
        """What would shut everybody out, or let everything in, is refused."""
        for word in ("1023", "16777217", "64k", "-1"):
            self.assert_refused(
                "HTTP__BODY_BYTES", "http-body-bytes", word, "a size is a number of bytes from 1024 to 16777216"
            )
        for word in ("0", "0.5", "100001", "inf", "x"):
            why = "it is a number a second from 1 to 100000"
            self.assert_refused("CONNECTIONS__RATE", "connections-rate", word, why)
        for env, word in (("AUDIOSOCKET__UUID_S", "0"), ("AUDIOSOCKET__UUID_S", "61"), ("HTTP__REQUEST_S", "0.5")):
            self.assertIn(env, str(self.assertRaises(SettingsError, Settings.from_mapping, {env: word})))

    def test_lead(self) -> None:
        """How far ahead is sent lies between one frame and ten seconds."""
        why = "a lead is a number of milliseconds from 20 to 10000"
        for word in ("19", "10001", "x", "-20", "1e3", "nan"):
            self.assert_refused("WEBSOCKET__LEAD_MS", "websocket-lead-ms", word, why)

    def test_state_dir(self) -> None:
        """A file is no directory; nobody's home, and a name that is too long, are nowhere."""
        path = Path(self.mktemp())
        path.write_text("")
        self.assert_refused("STATE_DIR", "state-dir", str(path), "that is a file, and a directory is wanted")
        self.assert_refused("STATE_DIR", "state-dir", "~no-such-user/state", "there is no such user")
        self.assert_refused("STATE_DIR", "state-dir", "/" + "x" * 300, "File name too long")

    def test_keys(self) -> None:
        """A key that is short, or can't stand in a header or an address, is refused without being shown."""
        for word in ("secret", "a secret with blanks", "geheimschl\u00fcssel", "secret\x7fsecret", f"{KEY},secret"):
            error = self.assertRaises(SettingsError, Settings.from_mapping, {"RAPIDA_API_KEY": word})
            self.assertEqual(
                str(error), "RAPIDA_API_KEY can't be used: a key has 8 or more printable characters, no spaces"
            )

    def test_one_line_on_the_command_line(self) -> None:
        """A wrong word on the command line ends the program with that one line."""
        error = self.assertRaises(SystemExit, Options().parseOptions, ["--http-port", "x"])
        self.assertEqual(
            error.code,
            "rapida-media: HTTP__PORT (--http-port) 'x' can't be used:"
            " a port is a number from 0 (any free one) to 65535",
        )


class SecretsTests(SynchronousTestCase):
    """What must not be seen."""

    def test_repr(self) -> None:
        """The keys are in no text that shows the settings."""
        settings = Settings.from_mapping({"RAPIDA_API_KEY": KEY})
        self.assertEqual(settings.keys.api_keys, (KEY,))
        self.assertNotIn(KEY, f"{settings} {settings!r}")

    def test_command_line(self) -> None:
        """A key on the command line, where all users can read it, is refused."""
        said = StringIO()
        with redirect_stderr(said):
            error = self.assertRaises(SystemExit, Options().parseOptions, ["--rapida-api-key", KEY])
        self.assertEqual(error.code, 2)
        self.assertNotIn(KEY, said.getvalue())
        self.assertIn("RAPIDA_API_KEY in the environment", said.getvalue())


class OutboundSettingsTests(SynchronousTestCase):
    """What is said of calls that are placed."""

    def refused(self, **words: str) -> str:
        """The sentence about a word that can't be used."""
        return str(self.assertRaises(SettingsError, Settings.from_mapping, words))

    def test_good(self) -> None:
        """Words of each kind."""
        settings = Settings.from_mapping(
            {
                "OUTBOUND__CONTEXT": "rapida-outbound-ws", "OUTBOUND__RATE": "0.5", "OUTBOUND__LONGEST_S": "0",
                "STATUS_WEBHOOK__URL": "https://example.com/calls?x=1", "STATUS_WEBHOOK__SECRET": "s" * 16,
                "VAULT__MASTER_KEY_FILE": "/run/key",
            }
        )  # fmt: skip
        self.assertEqual((settings.outbound.context, settings.outbound.rate), ("rapida-outbound-ws", 0.5))
        self.assertEqual(settings.vault.environ, {"VAULT__MASTER_KEY": "", "VAULT__MASTER_KEY_FILE": "/run/key"})
        self.assertNotIn("s" * 16, repr(settings))

    def test_bad(self) -> None:
        """Each is told by its name, and a secret is not repeated."""
        for name, word in [
            ("OUTBOUND__CONTEXT", "a,b"), ("OUTBOUND__CONTEXT", "x" * 80), ("OUTBOUND__RATE", "0"),
            ("OUTBOUND__RATE", "inf"), ("OUTBOUND__CALLS", "0"), ("OUTBOUND__ANSWER_S", "0"),
            ("OUTBOUND__ANSWER_S", "601"), ("ARI__TIMEOUT_S", "0"), ("ARI__APP", "a b"),
            ("STATUS_WEBHOOK__URL", "ftp://x"), ("STATUS_WEBHOOK__URL", "https://user:word@x/"),
            ("STATUS_WEBHOOK__URL", "http://[x"), ("STATUS_WEBHOOK__URL", "https://x/\n"),
        ]:  # fmt: skip
            self.assertIn(name, self.refused(**{name: word}), word)

    def test_webhook_needs_a_secret(self) -> None:
        """A webhook whose POSTs anybody could forge is refused, and so is a secret that can be guessed."""
        for words in ({}, {"STATUS_WEBHOOK__SECRET": "tooshort-secret"}):
            said = self.refused(STATUS_WEBHOOK__URL="https://example.com", **words)
            self.assertIn("needs STATUS_WEBHOOK__SECRET", said)
            self.assertNotIn("tooshort", said)


class GroupsTests(SynchronousTestCase):
    """Settings check themselves, however they are made."""

    def test_values(self) -> None:
        """A value of a wrong kind, or out of its range, is refused with the setting's name; a secret is not shown."""
        for group, values, why in (
            (HttpSettings, {"port": 65536}, "HTTP__PORT (--http-port) 65536 can't be used: a port is"),
            (HttpSettings, {"port": "80"}, "HTTP__PORT (--http-port) '80' can't be used: a port is"),
            (HttpSettings, {"metrics_public": 1}, "METRICS__PUBLIC (--metrics-public) 1 can't be used: it is true"),
            (LimitSettings, {"context_ttl_s": float("nan")}, "CONTEXT_TTL_S (--context-ttl-s) nan can't be used"),
            (LimitSettings, {"max_calls": True}, "MAX_CALLS (--max-calls) True can't be used: a limit is"),
            (UpstreamSettings, {"format": "mp3"}, "it is one of ulaw, alaw, slin and slin16"),
            (UpstreamSettings, {"url": 7}, "it is an address such as"),
            (ProcessSettings, {"log_format": "xml"}, "it is text or json"),
            (ProcessSettings, {"state_dir": "/srv"}, "it is a path"),
            (ProcessSettings, {"workers": 0}, "it is a number of processes"),
            (AudioSocketSettings, {"allow": ("10.0.0.0/8",)}, "it is a tuple of networks"),
            (KeySettings, {"api_keys": ("secret",)}, "RAPIDA_API_KEY can't be used: a key has 8 or more"),
            (WebhookSettings, {"url": "https://example.com", "secret": "short"}, "needs STATUS_WEBHOOK__SECRET"),
        ):
            error = self.assertRaises(SettingsError, group, **values)
            self.assertIn(why, str(error))
            self.assertNotIn("secret'", str(error))

    def test_together(self) -> None:
        """So do those that concern several groups."""
        process, store = ProcessSettings(workers=2), StoreSettings(url="memory:")
        self.assertRaises(SettingsError, Settings, process=process, store=store)
        for name in ("HTTP__ENDPOINT", "AUDIOSOCKET__ENDPOINT", "HTTPS"):
            error = self.assertRaises(SettingsError, Settings.from_mapping, {name: "haproxy:tcp:0"})
            self.assertIn("needs PROXY__ALLOW", str(error))
            Settings.from_mapping({name: "haproxy:tcp:0", "PROXY__ALLOW": "127.0.0.1/32"})
            Settings.from_mapping({name: "haproxy:unix:/run/x"})

    def test_placeholder_key(self) -> None:
        """The key of the documentation's samples, which everyone can read, is refused."""
        for key in ("put-a-long-random-word-here", "rpd-xxx-your-api-key"):
            error = self.assertRaises(SettingsError, Settings.from_mapping, {"RAPIDA_API_KEY": f"{KEY},{key}"})
            self.assertIn("a sample", str(error))

    def test_unknown_names(self) -> None:
        """A name that is no setting is refused, with the nearest one; a process's environment is filtered first."""
        error = self.assertRaises(SettingsError, Settings.from_mapping, {}, {"HTTP__PROT": "1"})
        self.assertEqual(str(error), "HTTP__PROT is no setting: is it HTTP__PORT?")
        error = self.assertRaises(SettingsError, Settings.from_mapping, {"PATH": ""})
        self.assertEqual(str(error), "PATH is no setting")
        self.assertEqual(known_names({"PATH": "/bin", "DRAIN_S": "1"}), {"DRAIN_S": "1"})

    def test_one_group(self) -> None:
        """A program that needs one group loads that alone."""
        environ = {"HTTP__PORT": "81", "AUDIOSOCKET__PORT": "x", "PATH": "/bin"}
        self.assertEqual(load(HttpSettings, environ), HttpSettings(port=81))

    def test_values_there_and_back(self) -> None:
        """All values by their names make the same settings; names that are no settings are ignored."""
        settings = Settings.from_mapping({"RAPIDA_API_KEY": KEY, "DRAIN_S": "7", "AUDIOSOCKET__ALLOW": "10.0.0.0/8"})
        self.assertEqual(Settings.from_values({**settings.values, "OF_OLD": 1}), settings)
