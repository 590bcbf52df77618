"""The key file: keys come back with their scopes, secrets are not in it, and changes are seen at once."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.credentials.key_ring import KeyRing, Scope, keys_path, parse_scopes
from rapida_twisted.errors import SettingsError, StartError

NOW = 1_795_000_000.25


class KeyRingCase(SynchronousTestCase):
    """With a key file."""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "keys.json"
        self.problems: list[str] = []
        self.ring = KeyRing(self.path, self.problems.append)
        """The one of a server."""
        self.other = KeyRing(self.path)
        """The one of another process."""

    def make(self, name: str = "office", *scopes: Scope, max_calls: int = 0) -> str:
        """Have the other process make a key."""
        return self.other.make(name, scopes or (Scope.REGISTER,), now=NOW, max_calls=max_calls)


class MakingTests(KeyRingCase):
    """make(), entries() and revoke()."""

    def test_comes_back(self) -> None:
        """A key is found by itself, with all that was said of it."""
        key = self.make("office-1", Scope.READ, Scope.REGISTER, max_calls=7)
        self.assertRegex(key, r"^rpd-[0-9a-f]{12}-[A-Za-z0-9_-]{32}$")
        entry = self.ring.find(key)
        assert entry is not None
        self.assertEqual((entry.name, entry.max_calls, entry.made_at), ("office-1", 7, NOW))
        self.assertEqual(entry.scopes, {Scope.REGISTER, Scope.READ})
        self.assertEqual([known.name for known in self.ring.entries()], ["office-1"])

    def test_nothing_near(self) -> None:
        """No other secret, no other id, no part and no other writing of a key is accepted."""
        key, other = self.make("one"), self.make("two")
        _, key_id, secret = key.split("-", 2)
        _, other_id, _ = other.split("-", 2)
        last = "A" if secret[-1] != "A" else "B"
        for wrong in (
            "", key_id, secret, f"rpd-{other_id}-{secret}", f"rpd-{key_id}-{secret[:-1]}{last}", f"rpd-{key_id}-",
            key + "x", key + "\n", " " + key, key.upper(), f"rpd-{key_id}-{secret[:-1]}", "rpd-\udcff", "rpd-ü-\x00",
        ):  # fmt: skip
            self.assertIsNone(self.ring.find(wrong), wrong)
        self.assertIsNotNone(self.ring.find(key))

    def test_no_secret_is_kept(self) -> None:
        """The secret is neither in the file nor in a repr; two keys never share a salt; the file is its owner's."""
        keys = [self.make("one"), self.make("two")]
        self.ring.load()
        shown = self.path.read_text() + repr(self.ring) + repr(self.ring.entries()) + repr(vars(self.ring))
        for key in keys:
            self.assertNotIn(key.split("-", 2)[2], shown)
        salts = {item["salt"] for item in json.loads(self.path.read_text())["keys"]}
        self.assertEqual(len(salts), 2)
        self.assertNotIn(salts.pop(), repr(self.ring.entries()))
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_names(self) -> None:
        """A name is used once, and has no characters that would steer a terminal."""
        self.make("office")
        self.assertIn("office", str(self.assertRaises(SettingsError, self.make, "office")))
        for bad in ("", "a b", "-a", "a\n", "ü", "a" * 65, "\x1b[2J"):
            self.assertRaises(SettingsError, self.make, bad)
        self.assertRaises(SettingsError, self.other.make, "none", (), now=NOW)
        self.assertRaises(SettingsError, self.make, "negative", max_calls=-1)
        self.assertEqual(len(self.ring.entries()), 1)

    def test_revoke(self) -> None:
        """A revoked key is refused at once, by whoever has read the file before; its name is free."""
        key, left = self.make("office"), self.make("other")
        self.assertIsNotNone(self.ring.find(key))
        self.other.revoke("office")
        self.assertIsNone(self.ring.find(key))
        self.assertIsNotNone(self.ring.find(left))
        self.assertRaises(SettingsError, self.other.revoke, "office")
        anew = self.make("office")
        self.assertIsNone(self.ring.find(key))
        self.assertIsNotNone(self.ring.find(anew))

    def test_several_processes(self) -> None:
        """Processes that make keys at the same time lose none."""
        program = (
            "import sys; from pathlib import Path; from rapida_twisted.credentials.key_ring import KeyRing, Scope\n"
            "ring = KeyRing(Path(sys.argv[1]))\n"
            "for number in range(10): ring.make(f'{sys.argv[2]}-{number}', [Scope.READ], now=0.0)\n"
        )
        running = [subprocess.Popen([sys.executable, "-c", program, str(self.path), name]) for name in "abc"]
        self.assertEqual([process.wait(60) for process in running], [0, 0, 0])
        self.assertEqual(len({entry.name for entry in self.ring.entries()}), 30)


class ChangesTests(KeyRingCase):
    """What a server that runs sees of the file."""

    def test_no_file(self) -> None:
        """No file holds no keys, and one that appears holds some; one that is removed holds none again."""
        self.ring.load()
        self.assertIsNone(self.ring.find("rpd-0123456789ab-" + "x" * 32))
        key = self.make()
        self.assertIsNotNone(self.ring.find(key))
        self.path.unlink()
        self.assertIsNone(self.ring.find(key))
        self.assertEqual(self.problems, [])

    def test_damaged_while_running(self) -> None:
        """A file that was spoilt is told once; the keys of before stay until it can be read again."""
        key = self.make()
        self.assertIsNotNone(self.ring.find(key))
        good = self.path.read_bytes()
        self.path.write_bytes(good[:-20])
        for _ in range(3):
            self.assertIsNotNone(self.ring.find(key))
        self.assertEqual(len(self.problems), 1)
        self.assertIn("damaged", self.problems[0])
        self.path.write_text('{"version": 1, "keys": []}')
        self.assertIsNone(self.ring.find(key))

    def test_damaged(self) -> None:
        """What is no key file is refused with one sentence, which holds nothing of the file."""
        self.make("office")
        content = json.loads(self.path.read_text())
        entry = content["keys"][0]
        wrong: list[object] = [
            [], {}, {"version": 1}, {"version": 1, "keys": [{}]}, {"version": 1, "keys": {"a": 1}},
            {"version": 1, "keys": [entry, entry]},
            *(
                {"version": 1, "keys": [{**entry, **change}]}
                for change in (
                    {"id": "x"}, {"id": 1}, {"name": ""}, {"scopes": []}, {"scopes": ["root"]}, {"salt": "00"},
                    {"salt": "zz"}, {"digest": ""}, {"max_calls": -1}, {"max_calls": "1"}, {"made_at": None},
                    {"assistants": [1]}, {"assistants": [""]}, {"assistants": 7},
                )
            ),
        ]  # fmt: skip
        for text in (*map(json.dumps, wrong), "", "\xff", "{"):
            self.path.write_text(text, "latin-1")
            error = self.assertRaises(StartError, self.ring.load)
            self.assertIn("damaged", str(error), text)
            self.assertNotIn(entry["digest"], str(error) + repr(error.__context__))
        self.path.write_text('{"version": 3, "keys": []}')
        self.assertIn("version 3", str(self.assertRaises(StartError, self.ring.load)))

    def test_unreadable(self) -> None:
        """What can't be read at all is told, too."""
        self.path.mkdir()
        self.assertRaises(StartError, self.ring.load)

    def test_speed(self) -> None:
        """A look-up among 1,000 keys, the file's times looked at, takes far less than 1 ms even on a busy machine."""
        key = self.make()
        content = json.loads(self.path.read_text())
        entry = content["keys"][0]
        content["keys"] += [{**entry, "id": f"{n:012x}", "name": f"n{n}"} for n in range(1000)]
        self.path.write_text(json.dumps(content))
        self.assertIsNotNone(self.ring.find(key))
        took_s = []
        for _ in range(200):
            began_s = time.perf_counter()
            self.ring.find(key)
            took_s.append(time.perf_counter() - began_s)
        self.assertLess(sorted(took_s)[100], 50e-6)


class WordsTests(SynchronousTestCase):
    """Words of the command line and of the settings."""

    def test_scopes(self) -> None:
        """Scopes with commas; anything else is refused."""
        self.assertEqual(parse_scopes("register, read"), {Scope.REGISTER, Scope.READ})
        self.assertEqual(parse_scopes("control"), {Scope.CONTROL})
        for bad in ("", ",", "all", "Read", "read;control"):
            self.assertRaises(ValueError, parse_scopes, bad)

    def test_path(self) -> None:
        """The file that is named, else keys.json in the state directory."""
        self.assertEqual(keys_path("", Path("/srv/state")), Path("/srv/state/keys.json"))
        self.assertEqual(keys_path("/etc/keys", Path("/srv/state")), Path("/etc/keys"))
        self.assertEqual(keys_path("~/keys", Path("/srv")), Path(os.path.expanduser("~")) / "keys")
