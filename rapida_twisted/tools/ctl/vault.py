"""``rapida-media-ctl vault``: manages the ARI credentials of the state directory, without a server."""

from __future__ import annotations

import argparse
import json
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
from rapida_twisted.tools.command_line import UsageError, refuse_secret
from rapida_twisted.tools.ctl.options import COMMANDS, add_command
from rapida_twisted.tools.terminal import has_colour, table

__all__ = ["add_commands"]

LONGEST_PASSWORD = 1024

_SHOWN = ("name", "provider", "ari_url", "ari_user", "endpoint_technology", "trunk")


def add_commands(commands: Any) -> None:
    vault = commands.add_parser(
        "vault",
        help=COMMANDS["vault"][1],
        description="Keeps ARI credentials in the state directory, encrypted. A running server reads each change.",
    )
    subcommands = vault.add_subparsers(title="commands", metavar="COMMAND", required=True)
    set_ = add_command(subcommands, "set", _set, "add a credential, or replace the one of the same name")
    set_.add_argument("name", metavar="NAME", help="name of the credential")
    set_.add_argument("--ari-url", metavar="URL", required=True, help="such as http://127.0.0.1:8088")
    set_.add_argument("--ari-user", metavar="USER", required=True, help="section name in ari.conf")
    set_.add_argument(
        "--password-file",
        metavar="FILE",
        type=Path,
        help="file of the password [default: a prompt at a terminal, else standard input]",
    )
    refuse_secret(
        set_, "--ari-password", "--password", instead="type it at the prompt, or name a file (--password-file)"
    )
    set_.add_argument("--endpoint-technology", metavar="TECH", default="PJSIP", help="[default: PJSIP]")
    set_.add_argument("--trunk", metavar="NAME", default="", help="endpoint or peer for outbound calls")
    list_ = add_command(subcommands, "list", _list, "list the credentials, without passwords")
    show = add_command(subcommands, "show", _show, "show a credential, without its password")
    show.add_argument("name", metavar="NAME")
    for parser in (list_, show):
        parser.add_argument("--json", action="store_true", help="print JSON")
    remove = add_command(subcommands, "remove", _remove, "remove a credential")
    remove.add_argument("name", metavar="NAME")
    rotate = add_command(subcommands, "rotate", _rotate, "encrypt the vault with a new master key")
    rotate.add_argument(
        "--new-key-file", metavar="FILE", type=Path, help="file of the new master key [default: generate one]"
    )


def _set(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    place = KeyPlace(arguments.state_dir, environ)
    # Check everything else before the password prompt.
    _credential(arguments, "x")
    credential = _credential(arguments, _password(arguments.password_file))
    vault = Vault(place.vault_path, place.read_or_make(), place.read)
    replaced = vault.set(credential)
    print(f"{credential.name}: {'replaced' if replaced else 'kept'} in {place.vault_path}")
    return 0


def _credential(arguments: argparse.Namespace, password: str) -> AriCredential:
    try:
        return AriCredential(
            name=arguments.name,
            ari_url=arguments.ari_url,
            ari_user=arguments.ari_user,
            ari_password=password,
            endpoint_technology=arguments.endpoint_technology,
            trunk=arguments.trunk,
        )
    except (SettingsError, ValueError) as error:
        raise UsageError(str(error)) from None


def _list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    entries = open_vault(arguments.state_dir, environ).list()
    if arguments.json:
        print(json.dumps([{name: getattr(entry, name) for name in _SHOWN} for entry in entries]))
    elif entries:
        rows = [(*(getattr(entry, name) for name in _SHOWN[:4]), _calls_leave_by(entry)) for entry in entries]
        print(table(("NAME", "PROVIDER", "ARI URL", "ARI USER", "CALLS LEAVE BY"), rows, has_colour(sys.stdout)))
    else:
        print("the vault is empty")
    return 0


def _calls_leave_by(entry: VaultEntry) -> str:
    return f"{entry.endpoint_technology}, trunk {entry.trunk}" if entry.trunk else entry.endpoint_technology


def _show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    credential = open_vault(arguments.state_dir, environ).get(arguments.name)
    shown = {"provider": "asterisk"} | {name: getattr(credential, name) for name in _SHOWN if name != "provider"}
    if arguments.json:
        print(json.dumps({name: shown[name] for name in _SHOWN}))
    else:
        rows = [(name, shown[name] or "(none)") for name in _SHOWN]
        print(table(None, [*rows, ("ari_password", "(not shown)")], has_colour(sys.stdout)))
    return 0


def _remove(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    open_vault(arguments.state_dir, environ).remove(arguments.name)
    print(f"{arguments.name}: removed")
    return 0


def _rotate(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    place = KeyPlace(arguments.state_dir, environ)
    if not place.vault_path.exists():
        raise SettingsError(f"there is no vault in {place.state_dir}")
    if place.path is None and arguments.new_key_file is None:
        raise SettingsError(
            "the master key is in VAULT__MASTER_KEY, which this command cannot change: put a new key into a file, name"
            " the file (--new-key-file), then set VAULT__MASTER_KEY to the new key"
        )
    vault = open_vault(place.state_dir, environ)
    new_key = (
        make_master_key() if arguments.new_key_file is None else _read_secret(arguments.new_key_file, "master key")
    )
    if place.path is None:
        vault.rotate(new_key)
        print(
            f"the vault has a new master key; set VAULT__MASTER_KEY to the key in {arguments.new_key_file}, and restart"
        )
    else:
        vault.rotate(new_key, place.store)
        print(f"the vault has a new master key, in {place.path}")
    return 0


# Secrets: from a file, a pipe or a terminal


def _password(file: Path | None) -> str:
    if file is not None:
        return _read_secret(file, "password")
    if sys.stdin is None or not sys.stdin.isatty():
        return _one_line(sys.stdin.buffer.read(LONGEST_PASSWORD + 3) if sys.stdin else b"", "the password")
    with warnings.catch_warnings():
        # Fail rather than echo the password.
        warnings.simplefilter("error", GetPassWarning)
        try:
            password = getpass("ARI password: ")
            again = getpass("Once more: ")
        except (GetPassWarning, EOFError):
            raise SettingsError("this terminal cannot hide a password: name a file (--password-file)") from None
    if password != again:
        raise SettingsError("the two passwords differ; nothing was changed")
    return _one_line(password.encode("utf-8", "surrogateescape"), "the password")


def _read_secret(path: Path, what: str) -> str:
    data = read_file(path, f"the {what} file")
    if data is None:
        raise SettingsError(f"the {what} file {path} does not exist")
    return _one_line(data, f"the {what} file {path}")


def _one_line(data: bytes, what: str) -> str:
    """The data as one line of text, without its line ending."""
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    # A strict decoder's error would hold the secret.
    text = line.decode("utf-8", "replace")
    if not text:
        raise SettingsError(f"{what} is empty")
    if len(line) > LONGEST_PASSWORD or not text.isprintable() or "\ufffd" in text:
        raise SettingsError(f"{what} must be one line of text, of at most {LONGEST_PASSWORD} bytes")
    return text
