"""``rapida-media-ctl vault``: the credentials of the state directory. No server is needed."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping
from getpass import GetPassWarning, getpass
from pathlib import Path
from typing import Any

from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.vault.master_key import KeyPlace, make_master_key
from rapida_twisted.asterisk.vault.vault import Vault, VaultEntry, open_vault
from rapida_twisted.credentials.secret_file import read_file
from rapida_twisted.errors import SettingsError
from rapida_twisted.tools.api_key import state_directory
from rapida_twisted.tools.ctl.options import UsageError, add_command, refuse_secret
from rapida_twisted.tools.ctl.table import table

__all__ = ["add_commands"]

LONGEST_PASSWORD = 1024


def add_commands(commands: Any) -> None:
    """Add ``vault`` and its own subcommands."""
    vault = commands.add_parser(
        "vault",
        help="keep ARI credentials, encrypted",
        description="Keeps ARI credentials in the state directory, encrypted. A running server sees each change.",
    )
    below = vault.add_subparsers(title="commands", metavar="COMMAND", required=True)
    setting = add_command(below, "set", _set, "keep a credential, in the place of the one of the same name")
    setting.add_argument("name", metavar="NAME", help="what it is called")
    setting.add_argument("--ari-url", metavar="URL", required=True, help="such as http://127.0.0.1:8088")
    setting.add_argument("--ari-user", metavar="USER", required=True, help="the section's name in ari.conf")
    setting.add_argument(
        "--password-file",
        metavar="FILE",
        type=Path,
        help="file of the password [default: asked for; or standard input, if that is no terminal]",
    )
    refuse_secret(setting, "--ari-password", "--password", instead="it is asked for, or name a file (--password-file)")
    setting.add_argument("--endpoint-technology", metavar="TECH", default="PJSIP", help="[default: PJSIP]")
    setting.add_argument("--trunk", metavar="NAME", default="", help="the endpoint or peer that calls leave by")
    add_command(below, "list", _list, "show what is in the vault, without passwords")
    showing = add_command(below, "show", _show, "show a credential, without its password")
    showing.add_argument("name", metavar="NAME")
    removing = add_command(below, "remove", _remove, "forget a credential")
    removing.add_argument("name", metavar="NAME")
    rotating = add_command(below, "rotate", _rotate, "encrypt the vault anew, with a new master key")
    rotating.add_argument(
        "--new-key-file", metavar="FILE", type=Path, help="file of the new master key [default: one is made]"
    )


def _set(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    place = _place(words, environ)
    # All but the password is checked before that is asked for.
    _credential(words, "x")
    credential = _credential(words, _password(words.password_file))
    vault = Vault(place.vault_path, place.read_or_make(), place.read)
    replaced = vault.set(credential)
    print(f"{credential.name}: {'replaced' if replaced else 'kept'} in {place.vault_path}")
    return 0


def _credential(words: argparse.Namespace, password: str) -> AriCredential:
    try:
        return AriCredential(
            name=words.name,
            ari_url=words.ari_url,
            ari_user=words.ari_user,
            ari_password=password,
            endpoint_technology=words.endpoint_technology,
            trunk=words.trunk,
        )
    except (SettingsError, ValueError) as error:
        raise UsageError(str(error)) from None


def _list(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    entries = _vault(words, environ).list()
    if not entries:
        print("the vault is empty")
        return 0
    rows = [(entry.name, entry.provider, entry.ari_url, entry.ari_user, _calls_leave_by(entry)) for entry in entries]
    print(table(("NAME", "PROVIDER", "ARI URL", "ARI USER", "CALLS LEAVE BY"), rows))
    return 0


def _calls_leave_by(entry: VaultEntry) -> str:
    return f"{entry.endpoint_technology}, trunk {entry.trunk}" if entry.trunk else entry.endpoint_technology


def _show(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    credential = _vault(words, environ).get(words.name)
    rows = [
        ("name", credential.name),
        ("provider", "asterisk"),
        ("ari_url", credential.ari_url),
        ("ari_user", credential.ari_user),
        ("ari_password", "(not shown)"),
        ("endpoint_technology", credential.endpoint_technology),
        ("trunk", credential.trunk or "(none)"),
    ]
    print(table(None, rows))
    return 0


def _remove(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    _vault(words, environ).remove(words.name)
    print(f"{words.name}: removed")
    return 0


def _rotate(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    place = _place(words, environ)
    if not place.vault_path.exists():
        raise SettingsError(f"there is no vault in {place.state_dir}")
    if place.path is None and words.new_key_file is None:
        raise SettingsError(
            "the master key is in VAULT__MASTER_KEY, which can't be changed from here: put a new one into a file, name"
            " it (--new-key-file), and set VAULT__MASTER_KEY to it afterwards"
        )
    vault = open_vault(place.state_dir, environ)
    new_key = make_master_key() if words.new_key_file is None else _read_secret(words.new_key_file, "master key")
    if place.path is None:
        vault.rotate(new_key)
        print(f"the vault is encrypted anew; set VAULT__MASTER_KEY to the key in {words.new_key_file}, and restart")
    else:
        vault.rotate(new_key, place.store)
        print(f"the vault is encrypted anew; its master key is in {place.path}")
    return 0


def _place(words: argparse.Namespace, environ: Mapping[str, str]) -> KeyPlace:
    return KeyPlace(state_directory(words.state_dir, environ), environ)


def _vault(words: argparse.Namespace, environ: Mapping[str, str]) -> Vault:
    return open_vault(state_directory(words.state_dir, environ), environ)


# Secrets: from a file, a pipe or a terminal


def _password(file: Path | None) -> str:
    if file is not None:
        return _read_secret(file, "password")
    if sys.stdin is None or not sys.stdin.isatty():
        return _one_line(sys.stdin.buffer.read(LONGEST_PASSWORD + 3) if sys.stdin else b"", "the password")
    with warnings.catch_warnings():
        # Rather no password than one that is seen.
        warnings.simplefilter("error", GetPassWarning)
        try:
            password = getpass("ARI password: ")
            again = getpass("Once more: ")
        except (GetPassWarning, EOFError):
            raise SettingsError("the password can't be asked for here: name a file (--password-file)") from None
    if password != again:
        raise SettingsError("these were two passwords; nothing was changed")
    return _one_line(password.encode("utf-8", "surrogateescape"), "the password")


def _read_secret(path: Path, what: str) -> str:
    data = read_file(path, f"the {what} file")
    if data is None:
        raise SettingsError(f"the {what} file {path} is not there")
    return _one_line(data, f"the {what} file {path}")


def _one_line(data: bytes, what: str) -> str:
    """The one line of text that the data are, without its end."""
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    # Not strictly: that error would hold the bytes.
    text = line.decode("utf-8", "replace")
    if not text:
        raise SettingsError(f"{what} is empty")
    if len(line) > LONGEST_PASSWORD or not text.isprintable() or "\ufffd" in text:
        raise SettingsError(f"{what} must be one line of text, of at most {LONGEST_PASSWORD} bytes")
    return text
