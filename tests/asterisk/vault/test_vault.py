"""The vault: what is kept comes back, what is broken is told, and no secret gets out."""

from __future__ import annotations

import io
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.harness.programs import not_tested
from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.vault.master_key import KeyPlace, make_master_key, split_master_key
from rapida_twisted.asterisk.vault.vault import UnknownCredential, Vault, VaultEntry, open_vault
from rapida_twisted.credentials import secret_file as secretfile
from rapida_twisted.credentials.secret_file import locked
from rapida_twisted.errors import RapidaError, SettingsError, StartError

PASSWORD = "Pa55w0rd-of-the-PBX"
OTHER_PASSWORD = "An0ther-Pa55w0rd"
KEY = make_master_key()
NEW_KEY = make_master_key()


def credential(name: str = "pbx", password: str = PASSWORD, **values: str) -> AriCredential:
    """One to keep."""
    return AriCredential(name=name, ari_url="http://127.0.0.1:8088", ari_user="rapida", ari_password=password, **values)


class VaultTestCase(SynchronousTestCase):
    """A vault in a folder of its own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.path = self.folder / "vault.json"
        self.vault = Vault(self.path, KEY)

    def content(self) -> dict[str, Any]:
        """What is in the file."""
        result: dict[str, Any] = json.loads(self.path.read_text())
        return result

    def refusal(self, kind: type[RapidaError], function: Callable[..., Any], *arguments: Any) -> str:
        """The sentence of a refusal, in whose traceback there is no secret."""
        with self.assertRaises(kind) as caught:
            function(*arguments)
        error = caught.exception
        secrets = (PASSWORD, OTHER_PASSWORD, KEY, NEW_KEY)
        text = "".join(traceback.format_exception(error)) + Failure(error).getTraceback()
        for one in (error, error.__context__, error.__cause__):
            text += repr(one) + repr(getattr(one, "__dict__", ""))
        for secret in secrets:
            self.assertNotIn(secret, text)
        self.assertNotIn("\n", str(error))
        return str(error)


class KeepingTests(VaultTestCase):
    def test_comes_back(self) -> None:
        """What was kept comes back, in this vault and in another one of the same file."""
        kept = credential(trunk="carrier", endpoint_technology="IAX2")
        self.assertFalse(self.vault.set(kept))
        self.assertEqual(self.vault.get("pbx"), kept)
        self.assertEqual(Vault(self.path, KEY).get("pbx"), kept)

    def test_replaced(self) -> None:
        """A credential of the same name takes the place of the one before."""
        self.vault.set(credential())
        self.assertTrue(self.vault.set(credential(password=OTHER_PASSWORD)))
        self.assertEqual(self.vault.get("pbx").ari_password, OTHER_PASSWORD)
        self.assertEqual(len(self.vault.list()), 1)

    def test_password_of_any_characters(self) -> None:
        """A password may hold any character."""
        for password in ('"\\\n\0', "pässwörd ☎", "x" * 5000, "${EXTEN}"):
            self.vault.set(credential(password=password))
            self.assertEqual(Vault(self.path, KEY).get("pbx").ari_password, password)

    def test_list(self) -> None:
        """A list has all but the passwords, by name."""
        self.vault.set(credential("b", trunk="t"))
        self.vault.set(credential("a"))
        self.assertEqual([entry.name for entry in self.vault.list()], ["a", "b"])
        self.assertEqual(
            self.vault.list()[1],
            VaultEntry(
                name="b",
                provider="asterisk",
                ari_url="http://127.0.0.1:8088",
                ari_user="rapida",
                endpoint_technology="PJSIP",
                trunk="t",
            ),
        )
        self.assertNotIn(PASSWORD, repr(self.vault.list()))

    def test_removed(self) -> None:
        """What was removed is unknown, and can't be removed again."""
        self.vault.set(credential())
        self.vault.remove("pbx")
        self.assertEqual(self.vault.list(), ())
        self.refusal(UnknownCredential, self.vault.get, "pbx")
        self.refusal(UnknownCredential, self.vault.remove, "pbx")

    def test_no_file(self) -> None:
        """A vault without a file is an empty one, and a good one."""
        for vault in (self.vault, Vault(self.path, "")):
            self.assertEqual(vault.list(), ())
            self.assertIn("'pbx'", self.refusal(UnknownCredential, vault.get, "pbx"))
        self.assertFalse(self.path.exists())

    def test_seen_by_another(self) -> None:
        """What one vault writes, another that was open before sees at once."""
        server = Vault(self.path, KEY)
        server.list()
        self.vault.set(credential())
        self.assertEqual(server.get("pbx").ari_password, PASSWORD)
        self.vault.set(credential(password=OTHER_PASSWORD))
        self.assertEqual(server.get("pbx").ari_password, OTHER_PASSWORD)
        self.vault.remove("pbx")
        self.assertRaises(UnknownCredential, server.get, "pbx")
        self.path.unlink()
        self.assertEqual(server.list(), ())

    def test_file_mode(self) -> None:
        """The file is for its owner alone, whatever the umask and the file before; nothing else stays behind."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.path.touch(mode=0o666)
        self.path.unlink()
        self.vault.set(credential())
        self.path.chmod(0o644)
        self.vault.set(credential())
        for file in self.folder.iterdir():
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600, file)
        self.assertEqual(sorted(file.name for file in self.folder.iterdir()), ["vault.json", "vault.json.lock"])

    def test_made_by_root(self) -> None:
        """What root makes belongs to the owner of the directory, who runs the server."""
        if os.geteuid() != 0:
            not_tested("only root can give files away")
        os.chown(self.folder, 12345, 12346)
        self.vault.set(credential())
        for file in self.folder.iterdir():
            self.assertEqual((file.stat().st_uid, file.stat().st_gid), (12345, 12346))


class DamageTests(VaultTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.vault.set(credential("a"))
        self.vault.set(credential("b", OTHER_PASSWORD, trunk="carrier"))

    def change(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change the file by hand."""
        content = self.content()
        change(content["entries"])
        self.path.write_text(json.dumps(content))

    def test_swapped_secrets(self) -> None:
        """The password of one entry does not go to the address of another."""

        def swap(entries: dict[str, Any]) -> None:
            entries["a"]["sealed"], entries["b"]["sealed"] = entries["b"]["sealed"], entries["a"]["sealed"]

        self.change(swap)
        for name in "ab":
            self.assertIn(f"credential '{name}' is not valid", self.refusal(StartError, self.vault.get, name))
        self.refusal(StartError, self.vault.list)

    def test_swapped_entries(self) -> None:
        """A whole entry under another's name is noticed."""
        self.change(lambda entries: entries.update(a=entries["b"], b=entries["a"]))
        self.refusal(StartError, self.vault.get, "a")

    def test_changed_plain_part(self) -> None:
        """A plain part that was changed, added to or cut is noticed, each part of it."""
        for key in ("ari_url", "ari_user", "trunk", "endpoint_technology", "provider", "name"):
            whole = self.path.read_text()
            for value in ("http://evil.example", "x", None, 7):
                self.change(lambda entries, key=key, value=value: entries["a"].update({key: value}))
                self.refusal(StartError, self.vault.get, "a")
            self.path.write_text(whole)
            self.change(lambda entries, key=key: entries["a"].pop(key))
            self.refusal(StartError, self.vault.list)
            self.path.write_text(whole)
        self.change(lambda entries: entries["a"].update(more="x"))
        self.refusal(StartError, self.vault.get, "a")

    def test_damaged_entry_alone(self) -> None:
        """A damaged entry does not spoil the others, and can be removed or set again."""
        self.change(lambda entries: entries["a"].update(sealed=entries["a"]["sealed"][:-9] + "AAAAAAAAA"))
        self.assertEqual(self.vault.get("b").ari_password, OTHER_PASSWORD)
        self.refusal(StartError, self.vault.list)
        self.vault.set(credential("a"))
        self.vault.list()
        self.change(lambda entries: entries.update(a="nonsense"))
        self.vault.remove("a")
        self.vault.list()

    def test_damaged_file(self) -> None:
        """A file that is no vault is told as that by whatever is done with it, and is not overwritten."""
        whole = self.path.read_bytes()
        for data in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"version": 1}', whole[:-30], b" " * 5_000_000):
            self.path.write_bytes(data)
            self.assertIn("is damaged", self.refusal(StartError, self.vault.list))
            self.refusal(StartError, self.vault.set, credential("c"))
            self.refusal(StartError, self.vault.remove, "a")
            self.refusal(StartError, self.vault.rotate, NEW_KEY)
            self.assertEqual(self.path.read_bytes(), data)

    def test_cut_at_every_place(self) -> None:
        """However a file was cut, there is a sentence."""
        whole = self.path.read_bytes()
        for end in range(0, len(whole) - 2, 7):
            self.path.write_bytes(whole[:end])
            self.refusal(StartError, Vault(self.path, KEY).list)

    def test_another_version(self) -> None:
        """A file of another version is not guessed at."""
        content = self.content()
        self.path.write_text(json.dumps({**content, "version": 2}))
        self.assertIn("another version", self.refusal(StartError, self.vault.list))

    def test_unreadable(self) -> None:
        """A file that can't be read is a sentence, not an empty vault."""
        self.path.unlink()
        self.path.mkdir()
        self.assertIn("can't be read", self.refusal(StartError, self.vault.list))

    def test_unwritable(self) -> None:
        """A vault that can't be written is a sentence, and the one before stays."""
        whole = self.path.read_bytes()

        def full_disk(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", full_disk)
        self.assertIn("No space left", self.refusal(StartError, self.vault.set, credential("c")))
        self.assertEqual(self.path.read_bytes(), whole)
        self.assertEqual(len(list(self.folder.iterdir())), 2)


class MasterKeyTests(VaultTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.vault.set(credential())

    def test_wrong_key(self) -> None:
        """With another key nothing is read and nothing is written."""
        whole = self.path.read_bytes()
        wrong = Vault(self.path, NEW_KEY)
        for function, *arguments in (
            (wrong.list,), (wrong.list,), (wrong.get, "pbx"), (wrong.set, credential("x")), (wrong.remove, "pbx"),
            (wrong.rotate, KEY),
        ):  # fmt: skip
            self.assertIn("does not open the vault", self.refusal(SettingsError, function, *arguments))
        self.assertEqual(self.path.read_bytes(), whole)

    def test_missing_key(self) -> None:
        """A vault without its key is told with what to do."""
        self.assertIn("VAULT__MASTER_KEY", self.refusal(SettingsError, Vault(self.path, "").list))
        self.path.unlink()
        self.refusal(SettingsError, Vault(self.path, "").set, credential())

    def test_malformed_key(self) -> None:
        """What is no key is refused without being repeated."""
        for text in (PASSWORD, KEY[:-1], KEY + "x", KEY + "," + PASSWORD, KEY[:-2] + "!=", "é" * 44):
            self.assertIn("is no master key", self.refusal(SettingsError, Vault, self.path, text))

    def test_key_of_openssl(self) -> None:
        """Plain base64 is taken as well as the URL-safe one."""
        key = make_master_key()
        while "-" not in key or "_" not in key:
            key = make_master_key()
        self.assertEqual(split_master_key(key.replace("-", "+").replace("_", "/")), (key,))

    def test_several_keys(self) -> None:
        """Any of several keys opens the vault; the first one writes."""
        Vault(self.path, f"{NEW_KEY},{KEY}").set(credential("new"))
        self.assertEqual(Vault(self.path, f"{KEY}\n{NEW_KEY}\n").get("new").ari_password, PASSWORD)
        Vault(self.path, f"{NEW_KEY} {KEY}").list()

    def test_rotated(self) -> None:
        """After a rotation the new key opens all, and the old one nothing, not even what stands there."""
        self.vault.set(credential("b", OTHER_PASSWORD))
        before = self.content()
        self.vault.rotate(NEW_KEY)
        self.refusal(SettingsError, Vault(self.path, KEY).list)
        new = Vault(self.path, NEW_KEY)
        self.assertEqual([new.get(name).ari_password for name in ("pbx", "b")], [PASSWORD, OTHER_PASSWORD])
        self.assertEqual(self.vault.get("b").ari_password, OTHER_PASSWORD)
        for name in ("pbx", "b"):
            self.assertNotEqual(self.content()["entries"][name]["sealed"], before["entries"][name]["sealed"])

    def test_rotation_has_no_gap(self) -> None:
        """At each step of a rotation what is stored opens the vault; a crash there loses nothing."""
        stored = [KEY]

        def store(text: str) -> None:
            Vault(self.path, stored[-1]).list()
            Vault(self.path, text).list()
            stored.append(text)

        self.vault.rotate(NEW_KEY, store)
        Vault(self.path, stored[1]).list()
        self.assertEqual(stored[1:], [f"{NEW_KEY}\n{KEY}", NEW_KEY])

    def test_rotation_that_fails(self) -> None:
        """A rotation whose key can't be stored changes nothing; nor does one of a damaged vault."""

        def refuse(text: str) -> None:
            raise StartError("the disk is full")

        self.refusal(StartError, self.vault.rotate, NEW_KEY, refuse)
        self.vault.set(credential("b"))
        Vault(self.path, f"{KEY},{NEW_KEY}").list()
        self.refusal(SettingsError, self.vault.rotate, f"{KEY},{NEW_KEY}")
        self.refusal(SettingsError, self.vault.rotate, PASSWORD)

    def test_server_follows_a_rotation(self) -> None:
        """A vault that was open before a rotation asks for the new key, and goes on."""
        key = [KEY]
        server = Vault(self.path, KEY, lambda: key[0])
        server.list()
        self.vault.rotate(NEW_KEY, lambda text: key.__setitem__(0, text))
        self.assertEqual(server.get("pbx").ari_password, PASSWORD)


class KeyPlaceTests(VaultTestCase):
    def place(self, **environ: str) -> KeyPlace:
        """A place with these words in the environment."""
        return KeyPlace(self.folder, environ)

    def test_made_once(self) -> None:
        """The key is made for its owner alone, and is the same from then on."""
        made = self.place().read_or_make()
        file = self.folder / "vault-key"
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertEqual(self.place().read_or_make().strip(), made)
        Fernet(made)

    def test_never_made_in_the_place_of_a_lost_one(self) -> None:
        """Where there is a vault, no new key hides that its key is lost."""
        self.vault.set(credential())
        self.assertIn("if the key is lost", self.refusal(SettingsError, self.place().read_or_make))
        self.assertFalse((self.folder / "vault-key").exists())
        self.refusal(SettingsError, open_vault(self.folder, {}).list)

    def test_order(self) -> None:
        """The environment wins over a named file, and that over the state directory."""
        (self.folder / "vault-key").write_text(KEY)
        named = self.folder / "named"
        named.write_text(NEW_KEY + "\n")
        self.assertEqual(self.place().read().strip(), KEY)
        self.assertEqual(self.place(VAULT__MASTER_KEY_FILE=str(named)).read().strip(), NEW_KEY)
        self.assertEqual(self.place(VAULT__MASTER_KEY_FILE=str(named), VAULT__MASTER_KEY=KEY).read(), KEY)

    def test_wrong_places(self) -> None:
        """A named file that is not there, is empty or holds something else is a sentence; none is made."""
        named = self.folder / "named"
        place = self.place(VAULT__MASTER_KEY_FILE=str(named))
        self.assertIn("does not exist", self.refusal(SettingsError, place.read_or_make))
        for data in (b"", b"\n", PASSWORD.encode(), b"\xff" * 44, KEY.encode()[:-3]):
            named.write_bytes(data)
            self.assertIn("master key", self.refusal(SettingsError, place.read))
        self.refusal(SettingsError, self.place(VAULT__MASTER_KEY=PASSWORD).read)
        self.refusal(SettingsError, self.place(VAULT__MASTER_KEY=KEY).store, NEW_KEY)

    def test_rotation_in_the_file(self) -> None:
        """A rotation through the place leaves the new key in the file, and a server that was up goes on."""
        place = self.place()
        vault = Vault(place.vault_path, place.read_or_make(), place.read)
        vault.set(credential())
        server = open_vault(self.folder, {})
        vault.rotate(NEW_KEY, place.store)
        self.assertEqual((self.folder / "vault-key").read_text(), NEW_KEY + "\n")
        self.assertEqual(server.get("pbx").ari_password, PASSWORD)

    def test_server_before_the_first_credential(self) -> None:
        """A server that started without vault and key sees the first credential."""
        server = open_vault(self.folder, {})
        server.list()
        place = self.place()
        Vault(place.vault_path, place.read_or_make()).set(credential())
        self.assertEqual(server.get("pbx").ari_password, PASSWORD)


class TwoWritersTests(VaultTestCase):
    def test_processes(self) -> None:
        """Several processes that write at once lose nothing of one another."""
        script = (
            "import sys; from pathlib import Path; from rapida_twisted.asterisk.ari.credential import AriCredential\n"
            "from rapida_twisted.asterisk.vault.vault import Vault\n"
            "from rapida_twisted.asterisk.vault.master_key import KeyPlace\n"
            "place = KeyPlace(Path(sys.argv[1]), {}); sys.stdin.read()\n"
            "vault = Vault(place.vault_path, place.read_or_make(), place.read)\n"
            "for n in range(20):\n"
            "    name = f'{sys.argv[2]}-{n}'\n"
            "    vault.set(AriCredential(name=name, ari_url='http://h', ari_user='u', ari_password=f'{n}'))\n"
            "    if n % 5 == 4: vault.remove(name)\n"
        )
        writers = [
            subprocess.Popen([sys.executable, "-c", script, str(self.folder), name], stdin=subprocess.PIPE)
            for name in "abc"
        ]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.close()  # go
        for writer in writers:
            self.assertEqual(writer.wait(60), 0)
        vault = open_vault(self.folder, {})
        self.assertEqual(len(vault.list()), 3 * 16)
        self.assertEqual(vault.get("b-7").ari_password, "7")

    def test_readers_meanwhile(self) -> None:
        """Who reads while another writes sees a whole vault."""
        self.vault.set(credential())
        done = threading.Event()
        problems: list[Exception] = []

        def read() -> None:
            while not done.is_set():
                try:
                    Vault(self.path, KEY).get("pbx")
                except Exception as error:
                    problems.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        for turn in range(50):
            self.vault.set(credential(f"n-{turn % 3}"))
        done.set()
        reader.join()
        self.assertEqual(problems, [])

    def test_held_lock(self) -> None:
        """A writer that never ends is not waited for without an end."""
        self.patch(secretfile, "LOCK_WAIT_S", 0.05)
        with locked(self.path):
            self.assertIn("locked", self.refusal(StartError, self.vault.set, credential()))
        self.vault.set(credential())


class SecrecyTests(VaultTestCase):
    def test_nothing_gets_out(self) -> None:
        """No repr, no string and no file but the key's holds a password or a key."""
        log = io.StringIO()
        handler = logging.StreamHandler(log)
        logging.getLogger().addHandler(handler)
        self.addCleanup(logging.getLogger().removeHandler, handler)
        place = KeyPlace(self.folder, {"VAULT__MASTER_KEY": KEY})
        vault = Vault(place.vault_path, place.read(), place.read)
        vault.set(credential())
        shown = [vault, place, vault.list(), vault.get("pbx"), *vault.list()]
        text = "".join(f"{one!r} {one}" for one in shown) + log.getvalue()
        text += "".join(file.read_text() for file in self.folder.iterdir())
        self.assertNotIn(PASSWORD, text)
        self.assertNotIn(KEY, text)
