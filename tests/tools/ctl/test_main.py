"""``rapida-media-ctl`` as a process: the vault, the dialplan, and command lines that can't be used."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.vault.master_key import make_master_key
from rapida_twisted.asterisk.vault.vault import open_vault

slow = True  # starts processes: see tests/support/selection.py

CTL = Path(sys.executable).with_name("rapida-media-ctl")
PASSWORD = "Pa55w0rd-of-the-PBX"
API_KEY = "rpd-of-the-control-tests"
SET = ("vault", "set", "pbx", "--ari-url", "http://127.0.0.1:8088", "--ari-user", "rapida", "--trunk", "carrier")


class CtlTestCase(SynchronousTestCase):
    """The program, on a state directory of its own. Whatever it prints must not hold the secrets."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.state = self.folder / "state"
        self.secrets = [PASSWORD, API_KEY]
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "STATE_DIR": str(self.state)}
        # No server answers here, whatever else this machine runs.
        self.environ |= {"ADMIN__HOST": "127.0.0.2", "ADMIN__PORT": "1"}

    def run_ctl(self, *arguments: str, given: str | bytes = "") -> tuple[int, str]:
        """Its exit code and all it printed."""
        done = subprocess.run(
            [CTL, *arguments],
            input=given if isinstance(given, bytes) else given.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environ,
            cwd=self.folder,
            timeout=60,
        )
        said = done.stdout.decode()
        self.check_secrecy(said)
        return done.returncode, said

    def check_secrecy(self, said: str) -> None:
        """No secret and no traceback is in it."""
        for secret in [*self.secrets, *self._key_file().split()]:
            self.assertNotIn(secret, said)
        self.assertNotIn("Traceback", said)

    def _key_file(self) -> str:
        file = self.state / "vault-key"
        return file.read_text() if file.exists() else ""

    def succeeds(self, *arguments: str, given: str | bytes = "") -> str:
        """What it prints when all is well."""
        code, said = self.run_ctl(*arguments, given=given)
        self.assertEqual(code, 0, said)
        return said

    def fails(self, code: int, *arguments: str, given: str | bytes = "") -> str:
        """Its last line, when it ends with this code; with 1 there is no other."""
        ended, said = self.run_ctl(*arguments, given=given)
        self.assertEqual(ended, code, said)
        if code == 1:
            self.assertEqual(said.count("\n"), 1, said)
        return said.splitlines()[-1]

    def password(self, name: str = "pbx") -> str:
        """The password that is kept."""
        return open_vault(self.state, self.environ).get(name).ari_password


class VaultTests(CtlTestCase):
    def test_from_a_pipe(self) -> None:
        """A password from standard input is kept without its line's end, in files for their owner alone."""
        for given in (PASSWORD, f"{PASSWORD}\n", f"{PASSWORD}\r\n"):
            self.succeeds(*SET, given=given)
            self.assertEqual(self.password(), PASSWORD)
        self.assertEqual(stat.S_IMODE(self.state.stat().st_mode), 0o700)
        for file in self.state.iterdir():
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600, file)

    def test_from_a_file(self) -> None:
        """A password may stand in a file."""
        (self.folder / "password").write_text(PASSWORD + "\n")
        self.succeeds(*SET, "--password-file", "password")
        self.assertEqual(self.password(), PASSWORD)
        self.assertIn("nowhere does not exist", self.fails(1, *SET, "--password-file", "nowhere"))

    def at_a_terminal(self, *typed: str) -> tuple[int, str]:
        """The exit code, and what a terminal showed to whoever typed these lines."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [CTL, *SET], stdin=theirs, stdout=theirs, stderr=theirs, env=self.environ, start_new_session=True
        )
        os.close(theirs)
        shown = b""
        lines = list(typed)
        while True:
            try:
                shown += os.read(ours, 1024)
            except OSError:  # so ends a terminal that nobody has open any more
                break
            if lines and shown.endswith((b"password: ", b"more: ")):
                os.write(ours, lines.pop(0).encode() + b"\n")
                shown += b"\n"
        os.close(ours)
        self.check_secrecy(shown.decode())
        return process.wait(30), shown.decode()

    def test_from_a_terminal(self) -> None:
        """At a terminal the password is asked for twice, and not shown."""
        code, shown = self.at_a_terminal(PASSWORD, PASSWORD)
        self.assertEqual((code, self.password()), (0, PASSWORD), shown)

    def test_mistyped(self) -> None:
        """Two different passwords change nothing."""
        code, shown = self.at_a_terminal(PASSWORD, PASSWORD + "x")
        self.assertEqual(code, 1)
        self.assertIn("two passwords differ", shown)
        self.assertFalse((self.state / "vault.json").exists())

    def test_bad_passwords(self) -> None:
        """An empty password, several lines or no text are refused, and nothing is kept."""
        for given in ("", "\n", f"{PASSWORD}\n{PASSWORD}\n", "x" * 2000, "\0", b"\xff\xfe" + PASSWORD.encode()):
            self.assertIn("the password", self.fails(1, *SET, given=given))
        self.assertFalse((self.state / "vault.json").exists())

    def test_never_an_option(self) -> None:
        """An option that would take a password or a key is refused, and it is not repeated."""
        for option in ("--ari-password", "--password"):
            self.assertIn("every user of this machine", self.fails(2, *SET, option, PASSWORD, given=PASSWORD))
            self.assertIn("every user of this machine", self.fails(2, *SET, f"{option}={PASSWORD}", given=PASSWORD))
        self.assertIn("RAPIDA_API_KEY", self.fails(2, "calls", "--api-key", API_KEY))
        self.assertFalse((self.state / "vault.json").exists())

    def test_list_and_show(self) -> None:
        """All but the password is shown."""
        self.assertIn("empty", self.succeeds("vault", "list"))
        self.succeeds(*SET, given=PASSWORD)
        self.assertEqual(
            self.succeeds("vault", "list").splitlines(),
            [
                "NAME  PROVIDER  ARI URL                ARI USER  CALLS LEAVE BY",
                "pbx   asterisk  http://127.0.0.1:8088  rapida    PJSIP, trunk carrier",
            ],
        )
        shown = self.succeeds("vault", "show", "pbx")
        for word in ("http://127.0.0.1:8088", "rapida", "PJSIP", "carrier", "(not shown)"):
            self.assertIn(word, shown)

    def test_json(self) -> None:
        """The same as JSON, without a password either."""
        self.assertEqual(json.loads(self.succeeds("vault", "list", "--json")), [])
        self.succeeds(*SET, given=PASSWORD)
        wanted = {
            "name": "pbx", "provider": "asterisk", "ari_url": "http://127.0.0.1:8088", "ari_user": "rapida",
            "endpoint_technology": "PJSIP", "trunk": "carrier",
        }  # fmt: skip
        self.assertEqual(json.loads(self.succeeds("vault", "list", "--json")), [wanted])
        self.assertEqual(json.loads(self.succeeds("vault", "show", "pbx", "--json")), wanted)

    def test_remove(self) -> None:
        """A credential can be forgotten, once."""
        self.succeeds(*SET, given=PASSWORD)
        self.succeeds("vault", "remove", "pbx")
        self.assertIn("no credential 'pbx'", self.fails(1, "vault", "remove", "pbx"))
        self.assertIn("no credential 'pbx'", self.fails(1, "vault", "show", "pbx"))

    def test_rotate(self) -> None:
        """A rotation puts a new key in the place of the old one, made here or brought in a file."""
        self.assertIn("there is no vault", self.fails(1, "vault", "rotate"))
        self.succeeds(*SET, given=PASSWORD)
        keys = {self._key_file()}
        self.succeeds("vault", "rotate")
        keys.add(self._key_file())
        brought = make_master_key()
        (self.folder / "new").write_text(brought)
        self.secrets.append(brought)
        self.succeeds("vault", "rotate", "--new-key-file", "new")
        keys.add(self._key_file())
        self.assertEqual(len(keys), 3)
        self.assertEqual(self._key_file().strip(), brought)
        self.assertEqual(self.password(), PASSWORD)
        (self.folder / "new").write_text(PASSWORD)
        self.assertIn("is no master key", self.fails(1, "vault", "rotate", "--new-key-file", "new"))
        self.assertIn("does not exist", self.fails(1, "vault", "rotate", "--new-key-file", "nowhere"))

    def test_key_in_the_environment(self) -> None:
        """A key of the environment makes no file; it is rotated from a file, and changed there by its owner."""
        old, new = make_master_key(), make_master_key()
        self.secrets += [old, new]
        self.environ["VAULT__MASTER_KEY"] = old
        self.succeeds(*SET, given=PASSWORD)
        self.assertFalse((self.state / "vault-key").exists())
        self.assertIn("--new-key-file", self.fails(1, "vault", "rotate"))
        (self.folder / "new").write_text(new)
        self.assertIn("set VAULT__MASTER_KEY", self.succeeds("vault", "rotate", "--new-key-file", "new"))
        self.assertIn("does not open the vault", self.fails(1, "vault", "list"))
        self.environ["VAULT__MASTER_KEY"] = new
        self.assertEqual(self.password(), PASSWORD)

    def test_env_file(self) -> None:
        """The server's env file is read for the state directory and the key; the environment wins."""
        key = make_master_key()
        self.secrets.append(key)
        del self.environ["STATE_DIR"]
        (self.folder / "server.env").write_text(f"STATE_DIR={self.state}\nVAULT__MASTER_KEY='{key}'\n")
        self.succeeds(*SET, "--env-file", "server.env", given=PASSWORD)
        self.assertIn("pbx", self.succeeds("vault", "list", "--env-file", "server.env"))
        self.assertIn("can't be read", self.fails(1, "vault", "list", "--env-file", "nowhere"))
        self.environ["VAULT__MASTER_KEY"] = make_master_key()
        self.assertIn("does not open", self.fails(1, "vault", "list", "--env-file", "server.env"))

    def test_wrong_missing_and_malformed_key(self) -> None:
        """Each is a sentence, and a vault is not written with another key than it was."""
        self.succeeds(*SET, given=PASSWORD)
        key = self.state / "vault-key"
        for text in (make_master_key(), PASSWORD, "", None):
            key.unlink(missing_ok=True)
            if text is not None:
                key.write_text(text)
            for arguments in (("list",), ("show", "pbx"), ("remove", "pbx"), ("rotate",), SET[1:]):
                self.assertIn("master key", self.fails(1, "vault", *arguments, given=PASSWORD))

    def test_damaged_vault(self) -> None:
        """A damaged vault is a sentence."""
        self.succeeds(*SET, given=PASSWORD)
        (self.state / "vault.json").write_text(PASSWORD)
        self.assertIn("is damaged", self.fails(1, "vault", "list"))
        self.assertIn("is damaged", self.fails(1, *SET, given=PASSWORD))

    def test_bad_words(self) -> None:
        """Words that can't be used are refused before a password is asked for."""
        for name, url, more in (
            ("a b", "http://h", ()),
            ("a", "ftp://h", ()),
            ("a", "http://u:p@h", ()),
            ("a", "http://[::1", ()),
            ("a", "http://h", ("--trunk", "a,b")),
            ("a", "http://h", ("--endpoint-technology", "P/J")),
        ):
            self.fails(2, "vault", "set", name, "--ari-url", url, "--ari-user", "u", *more, given=PASSWORD)
        self.assertFalse((self.state / "vault.json").exists())

    def test_state_dir_that_is_a_file(self) -> None:
        """A state directory that can't be used is a sentence."""
        self.state.write_text("")
        self.assertIn(str(self.state), self.fails(1, *SET, given=PASSWORD))


class DialplanTests(CtlTestCase):
    def test_audiosocket(self) -> None:
        """The lines name this server, and where its key is, not the key."""
        self.environ |= {"PUBLIC_ASSISTANT_HOST": "media.example", "HTTP__PORT": "8081", "ASSISTANT": "*=echo,42=play"}
        said = self.succeeds("dialplan", "--transport", "audiosocket")
        for line in (
            f"RAPIDA_API_KEY = <the key in {self.state}/api-key>",
            "RAPIDA_URL = http://media.example:8081",
            "RAPIDA_AS_HOST = media.example",
            "RAPIDA_PORT = 4573",
            "ASSISTANT_ID = 42",
            "load = app_audiosocket.so",
            "load = res_ari_channels.so",
            "bindaddr = 127.0.0.1",
            "bindport = 8088",
        ):
            self.assertIn(line, said.splitlines())
        self.assertNotIn("websocket_client.conf", said)

    def test_websocket(self) -> None:
        """Over WebSocket the client's lines come with the dialplan's, with TLS where the server has it."""
        self.environ["HTTPS"] = "ssl:8443:privateKey=key.pem:certKey=chain.pem"
        said = self.succeeds("dialplan", "--transport", "websocket", "--host", "media.example", "--assistant", "7")
        for line in (
            "ASSISTANT_ID = 7",
            "RAPIDA_URL = https://media.example:8443",
            "uri = wss://media.example:8443/v1/talk/asterisk/ctx",
            "tls_enabled = yes",
            "load = chan_websocket.so",
            "load = res_websocket_client.so",
        ):
            self.assertIn(line, said.splitlines())
        said = self.succeeds("dialplan", "--transport", "websocket", "--ca-file", "/etc/own-ca.pem")
        self.assertIn("ca_list_file = /etc/own-ca.pem", said)

    def test_key(self) -> None:
        """The key is put in only where that is asked for."""
        self.environ["RAPIDA_API_KEY"] = API_KEY
        self.assertIn("<the key in $RAPIDA_API_KEY>", self.succeeds("dialplan"))
        self.assertNotIn("/next?", self.succeeds("dialplan"))
        for transport in ("audiosocket", "websocket"):
            said = self.succeeds("dialplan", "--transfer", "--transport", transport)
            self.assertIn("/v1/talk/asterisk/ctx/${CTX}/next?", said)
        self.secrets.remove(API_KEY)
        self.assertIn(f"RAPIDA_API_KEY = {API_KEY}\n", self.succeeds("dialplan", "--with-key"))
        del self.environ["RAPIDA_API_KEY"]
        self.assertIn("there is no API key", self.fails(2, "dialplan", "--with-key"))

    def test_credential(self) -> None:
        """ARI's lines fit a credential of the vault, without its password."""
        self.succeeds("vault", "set", "pbx", "--ari-url", "https://10.1.2.3:8089", "--ari-user", "us", given=PASSWORD)
        lines = self.succeeds("dialplan", "--credential", "pbx").splitlines()
        for line in ("[us]", "password = <the ari_password of credential pbx>", "tlsbindaddr = 10.1.2.3:8089"):
            self.assertIn(line, lines)
        self.assertIn("no credential", self.fails(1, "dialplan", "--credential", "other"))

    def test_outbound(self) -> None:
        """The lines for calls that are placed stand below, in the same file."""
        for transport, context in (("audiosocket", "[rapida-outbound]"), ("websocket", "[rapida-outbound-ws]")):
            said = self.succeeds("dialplan", "--transport", transport)
            extensions = said.partition("; /etc/asterisk/extensions.conf")[2].partition("; /etc/asterisk/")[0]
            self.assertIn(f"\n\n{context}\nexten => s,1,", extensions)
            self.assertNotIn("/next?", extensions)
            said = self.succeeds("dialplan", "--transport", transport, "--transfer", "--ca-file", "/etc/own.pem")
            self.assertEqual(said.count("/v1/talk/asterisk/ctx/${CTX}/next?"), 2)
            self.assertEqual(said.count("ssl_cainfo"), 2 if transport == "websocket" else 0)

    def test_stasis(self) -> None:
        """Calls for Stasis: the application of the vault's credential, its ARI, no key, and the modules."""
        self.environ |= {"RAPIDA_API_KEY": API_KEY, "ARI__APP": "other", "AUDIOSOCKET__PORT": "0"}
        self.succeeds(*SET, given=PASSWORD)
        said = self.succeeds("dialplan", "--stasis", "--assistant", "42")
        for line in (
            "[rapida-inbound-stasis]", " same => n,Stasis(other-pbx,42)", "bindport = 8088", "[rapida]",
            "password = <the ari_password of credential pbx>", "load = app_stasis.so", "load = chan_audiosocket.so",
        ):  # fmt: skip
            self.assertIn(line, said.splitlines())
        for word in ("CURL(", "API_KEY", "RAPIDA_NEXT", "websocket_client.conf"):
            self.assertNotIn(word, said)
        self.assertIn(" same => n,Dial(${RAPIDA_NEXT})\n", self.succeeds("dialplan", "--stasis", "--transfer"))

    def test_freepbx(self) -> None:
        """One file for each transport, for the extension s, with the number of the inbound route."""
        said = self.succeeds("dialplan", "--freepbx", "--transfer")
        self.assertTrue(said.startswith("; /etc/asterisk/extensions_custom.conf\n[globals]\n"))
        self.assertEqual(said.count("; /etc/asterisk/"), 1)
        for word in ("exten => s,1,Answer()", "${FROM_DID}", "&to=${TO}&", "[rapida-outbound]", "/next?"):
            self.assertIn(word, said)
        for word in ("${EXTEN}", "_X."):
            self.assertNotIn(word, said)
        said = self.succeeds("dialplan", "--freepbx", "--transport", "websocket")
        self.assertEqual(said.count("; /etc/asterisk/"), 2)
        self.assertIn("[rapida-inbound-ws]\nexten => s,1,Answer()\n", said)
        folder = self.folder / "freepbx"
        self.succeeds("dialplan", "--freepbx", "--write", str(folder))
        self.assertEqual([path.name for path in folder.iterdir()], ["extensions_custom.conf"])
        self.assertIn("--stasis", self.fails(2, "dialplan", "--freepbx", "--stasis"))

    def test_stasis_of_which_credential(self) -> None:
        """Where the vault has none, or several, one must be named."""
        self.assertIn("--credential", self.fails(2, "dialplan", "--stasis"))
        for name in ("one", "two"):
            self.succeeds("vault", "set", name, *SET[3:], given=PASSWORD)
        self.assertIn("--credential", self.fails(2, "dialplan", "--stasis"))
        self.assertIn("Stasis(rapida-media-two,", self.succeeds("dialplan", "--stasis", "--credential", "two"))
        self.assertIn("no credential", self.fails(1, "dialplan", "--stasis", "--credential", "three"))

    def test_stasis_over_websocket(self) -> None:
        """There is no such thing."""
        self.assertIn("AudioSocket", self.fails(2, "dialplan", "--stasis", "--transport", "websocket"))

    def test_ipv6(self) -> None:
        """An IPv6 address stands in brackets."""
        for host in ("2001:db8::1", "[2001:db8::1]"):
            said = self.succeeds("dialplan", "--host", host)
            self.assertIn("RAPIDA_URL = http://[2001:db8::1]:8080\n", said)
            self.assertIn("RAPIDA_AS_HOST = [2001:db8::1]\n", said)

    def test_unknown_ports(self) -> None:
        """Where the settings do not say the port, an address is asked for."""
        self.environ["HTTP__PORT"] = "0"
        self.assertIn("--http", self.fails(2, "dialplan"))
        self.assertIn("http://h:1", self.succeeds("dialplan", "--http", "http://h:1/"))
        self.environ["AUDIOSOCKET__PORT"] = "0"
        self.assertIn("AUDIOSOCKET__PORT", self.fails(2, "dialplan", "--http", "http://h:1"))
        self.environ["AUDIOSOCKET__PORT"] = "x"
        self.assertIn("AUDIOSOCKET__PORT", self.fails(1, "dialplan"))

    def test_one_file(self) -> None:
        """One file alone is what stands in the whole, and those of another transport are refused."""
        whole = self.succeeds("dialplan", "--transport", "websocket")
        names = ("extensions.conf", "websocket_client.conf", "http.conf", "ari.conf", "modules.conf")
        parts = [self.succeeds("dialplan", "--transport", "websocket", "--file", name) for name in names]
        self.assertEqual("\n".join(parts), whole)
        for name, part in zip(names, parts, strict=True):
            self.assertTrue(part.startswith(f"; /etc/asterisk/{name}"), part)
        self.assertIn("there is no websocket_client.conf", self.fails(2, "dialplan", "--file", "websocket_client.conf"))

    def test_write(self) -> None:
        """Files are written where there are none; one that exists stops all of it, unless it may be replaced."""
        folder = self.folder / "asterisk"
        written = self.succeeds("dialplan", "--write", str(folder)).split()
        names = ["extensions.conf", "http.conf", "ari.conf", "modules.conf"]
        self.assertEqual(written, [str(folder / name) for name in names])
        text = (folder / "extensions.conf").read_text()
        self.assertEqual(text, self.succeeds("dialplan", "--file", "extensions.conf"))
        self.assertEqual(stat.S_IMODE((folder / "extensions.conf").stat().st_mode) & 0o007, 0)
        (folder / "ari.conf").write_text("mine")
        (folder / "http.conf").unlink()
        said = self.fails(2, "dialplan", "--write", str(folder))
        self.assertIn("extensions.conf, ari.conf, modules.conf already: nothing is written", said)
        self.assertFalse((folder / "http.conf").exists())
        self.assertEqual((folder / "ari.conf").read_text(), "mine")
        self.succeeds("dialplan", "--write", str(folder), "--file", "ari.conf", "--overwrite")
        self.assertIn("[rapida]", (folder / "ari.conf").read_text())
        (self.folder / "file").write_text("")
        self.assertIn("cannot write", self.fails(2, "dialplan", "--write", str(self.folder / "file")))

    def test_words_that_break_out(self) -> None:
        """What would end an argument or be expanded in a dialplan is refused."""
        for option in ("--assistant", "--host", "--http", "--ca-file"):
            for word in ("a,b", "${X}", "a)b", "a\nb", "a;b", "a b", 'a"b', "x" * 400, "http://h/\n[x]"):
                self.assertIn(option, self.fails(2, "dialplan", option, word))


class CommandLineTests(CtlTestCase):
    def test_help(self) -> None:
        """Each command has a help of its own."""
        for arguments in (
            (), ("calls",), ("call",), ("hangup",), ("ready",), ("dialplan",), ("vault",), ("vault", "set"),
            ("vault", "list"), ("vault", "show"), ("vault", "remove"), ("vault", "rotate"),
        ):  # fmt: skip
            self.assertIn("usage: rapida-media-ctl", self.succeeds(*arguments, "--help"))

    def test_no_command(self) -> None:
        """Without a command there is nothing to do."""
        self.assertIn("COMMAND", self.fails(2))
        self.assertIn("COMMAND", self.fails(2, "vault"))
