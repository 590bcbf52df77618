"""``rapida-media-ctl key`` as a process, alone and beside a server that runs."""

from __future__ import annotations

import argparse
import json
import stat
import time
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from rapida_twisted.credentials.key_ring import KeyRing, Scope
from rapida_twisted.settings.groups import AriSettings, TlsSettings
from rapida_twisted.tools.ctl.doctor import _Doctor
from rapida_twisted.tools.ctl.server_client import ServerClient
from tests.tools.ctl.test_calls import CTL, ServerTestCase
from tests.tools.ctl.test_main import CtlTestCase

slow = True  # starts processes: see tests/support/selection.py


class KeyTests(CtlTestCase):
    """The commands, on files."""

    def make(self, *arguments: str) -> str:
        """The key, which is the last line of what is printed."""
        return self.succeeds("key", "make", *arguments).splitlines()[-1]

    def test_make_and_list(self) -> None:
        """A key is shown once; the list has names, scopes and limits, and nothing of a key."""
        key = self.make("office", "--scopes", "register,read", "--max-calls", "20")
        ring = KeyRing(self.state / "keys.json")
        entry = ring.find(key)
        assert entry is not None
        self.assertEqual((entry.name, entry.scopes, entry.max_calls), ("office", {Scope.REGISTER, Scope.READ}, 20))
        self.assertEqual(stat.S_IMODE(ring.path.stat().st_mode), 0o600)
        self.secrets.append(key)
        self.make("dialler", "--scopes", "control", "--assistants", "sales, 7")
        head, *rows = self.succeeds("key", "list").splitlines()
        self.assertEqual(head.split(), ["NAME", "SCOPES", "MAX", "CALLS", "ASSISTANTS", "MADE"])
        shown = [row.split()[:4] for row in rows]
        self.assertEqual(shown, [["office", "register,read", "20", "-"], ["dialler", "control", "-", "7,sales"]])
        listed = json.loads(self.succeeds("key", "list", "--json"))
        self.assertEqual(
            [(one["name"], one["scopes"], one["max_calls"], one["assistants"]) for one in listed],
            [("office", ["register", "read"], 20, []), ("dialler", ["control"], None, ["7", "sales"])],
        )
        for part in (key.split("-", 2)[2], json.loads(ring.path.read_text())["keys"][0]["salt"]):
            self.assertNotIn(part, "\n".join(rows))

    def test_revoke(self) -> None:
        """A key is forgotten; one that is not there is told."""
        self.assertIn("no keys", self.succeeds("key", "list"))
        key = self.make("office", "--scopes", "read")
        self.assertEqual(self.succeeds("key", "revoke", "office"), "office: revoked\n")
        self.assertIsNone(KeyRing(self.state / "keys.json").find(key))
        self.assertIn("office", self.fails(1, "key", "revoke", "office"))

    def test_elsewhere(self) -> None:
        """KEYS_FILE and --keys-file name another file."""
        self.environ["KEYS_FILE"] = str(self.folder / "of-the-environment.json")
        self.make("one", "--scopes", "read")
        self.make("two", "--scopes", "read", "--keys-file", str(self.folder / "named.json"))
        self.assertEqual([entry.name for entry in KeyRing(self.folder / "of-the-environment.json").entries()], ["one"])
        self.assertEqual([entry.name for entry in KeyRing(self.folder / "named.json").entries()], ["two"])
        self.assertFalse((self.state / "keys.json").exists())

    def test_bad_words(self) -> None:
        """Each with one sentence, and nothing is made."""
        self.assertIn("scopes are", self.fails(2, "key", "make", "office", "--scopes", "root"))
        self.assertIn("--scopes", self.fails(2, "key", "make", "office"))
        self.fails(2, "key", "make", "office", "--scopes", "read", "--max-calls", "0")
        self.assertIn("by their ids", self.fails(1, "key", "make", "office", "--scopes", "read", "--assistants", "*"))
        self.assertIn("name", self.fails(1, "key", "make", "an office", "--scopes", "read"))
        self.assertFalse((self.state / "keys.json").exists())
        self.make("office", "--scopes", "read")
        self.assertIn("revoke it first", self.fails(1, "key", "make", "office", "--scopes", "read"))

    def test_damaged(self) -> None:
        """A damaged file is told, and not written over."""
        self.state.mkdir()
        (self.state / "keys.json").write_text("{")
        for arguments in (("list",), ("make", "office", "--scopes", "read"), ("revoke", "office")):
            self.assertIn("damaged", self.fails(1, "key", *arguments))
        self.assertEqual((self.state / "keys.json").read_text(), "{")


class RunningServerTests(ServerTestCase):
    """A server that runs sees what the commands do."""

    async def key_command(self, *arguments: str) -> str:
        """What a command prints, without what it says to the person."""
        environ = {**self.environ, "STATE_DIR": str(self.folder / "state")}
        out, error, code = await getProcessOutputAndValue(str(CTL), ["key", *arguments], env=environ)
        self.assertEqual(code, 0, error)
        return out.decode().strip()

    async def status(self, path: str, key: str) -> int:
        """The status of a GET with this key."""
        answer = await treq.get(self.url + path, headers={"x-api-key": key}, persistent=False)
        await answer.content()
        return int(answer.code)

    async def test_made_and_revoked(self) -> None:
        """A new key opens at once what it is for; a revoked one is refused within a second, without a restart."""
        key = await self.key_command("make", "office", "--scopes", "register")
        self.assertEqual(await self.status("/v1/talk/asterisk/call/1?from=100", key), 200)
        self.assertEqual(await self.status("/v1/calls", key), 403)
        await self.key_command("revoke", "office")
        began_s = time.monotonic()
        self.assertEqual(await self.status("/v1/talk/asterisk/call/1?from=100", key), 401)
        self.assertLess(time.monotonic() - began_s, 1)
        self.assertEqual(await self.status("/v1/calls", self.environ["RAPIDA_API_KEY"]), 200)

    async def test_doctor(self) -> None:
        """A key for calls alone is the right one for a dialplan, one for reading is not; both are known."""
        keys = {scope: await self.key_command("make", scope, "--scopes", scope) for scope in ("register", "read")}
        for scope, known, registers in (("register", True, True), ("read", True, False), ("none", False, False)):
            key = keys.get(scope, "rpd-that-nobody-knows")
            server = ServerClient(self.url, key, reactor)
            arguments: Any = argparse.Namespace(http=self.url)
            doctor = _Doctor(arguments, {}, TlsSettings(), AriSettings(), None, server)  # type: ignore[arg-type]
            self.assertEqual(await doctor._accepts_key(key), known, scope)
            self.assertEqual(await doctor._can_register(key), registers, scope)
