"""``rapida-media-ctl key``: the API keys of the key file. No server is needed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rapida_twisted.credentials.key_file import make_state_dir
from rapida_twisted.credentials.key_ring import LARGEST_MAX_CALLS, KeyEntry, KeyRing, Scope, keys_path, parse_scopes
from rapida_twisted.net.untrusted_text import printable
from rapida_twisted.tools.api_key import state_directory
from rapida_twisted.tools.ctl.options import add_command, whole_number
from rapida_twisted.tools.ctl.table import table

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add ``key`` and its own subcommands."""
    key = commands.add_parser(
        "key",
        help="make, list and revoke API keys",
        description="API keys with names and scopes, of which a file keeps salted hashes. A running server sees each"
        " change within a second.",
    )
    below = key.add_subparsers(title="commands", metavar="COMMAND", required=True)
    making = _add(below, "make", _make, "make a key and print it, this once")
    making.add_argument("name", metavar="NAME", help="what it is called")
    making.add_argument(
        "--scopes",
        metavar="SCOPES",
        type=_scopes,
        required=True,
        help="what it is for, with commas: register (calls and their media, for a dialplan), read (calls, figures),"
        " control (place calls, hang up)",
    )
    making.add_argument(
        "--max-calls",
        metavar="N",
        type=whole_number(1, LARGEST_MAX_CALLS),
        default=0,
        help="calls that may be waiting or up at once for it [default: no limit of its own]",
    )
    _add(below, "list", _list, "show the keys' names, scopes and limits")
    revoking = _add(below, "revoke", _revoke, "forget a key: it is refused from then on")
    revoking.add_argument("name", metavar="NAME")


def _add(below: Any, name: str, run: Any, help: str) -> argparse.ArgumentParser:
    parser = add_command(below, name, run, help)
    parser.add_argument(
        "--keys-file",
        metavar="FILE",
        type=Path,
        help="the key file [default: $KEYS_FILE, or keys.json in the state directory]",
    )
    return parser


def _make(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    ring = _ring(words, environ)
    state_dir = state_directory(words.state_dir, environ)
    if ring.path.parent == state_dir:
        # The server may not have been started yet.
        make_state_dir(state_dir)
    key = ring.make(words.name, words.scopes, now=time.time(), max_calls=words.max_calls)
    # The key alone on standard output, so that it can go straight into a file.
    print(f"{words.name}: kept in {ring.path}; this is the only time that the key is shown", file=sys.stderr)
    print(key)
    return 0


def _list(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    ring = _ring(words, environ)
    entries = ring.entries()
    if not entries:
        print(f"there are no keys in {ring.path}")
        return 0
    print(table(("NAME", "SCOPES", "MAX CALLS", "MADE"), [_row(entry) for entry in entries]))
    return 0


def _row(entry: KeyEntry) -> tuple[str, str, str, str]:
    made = datetime.fromtimestamp(entry.made_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    scopes = ",".join(scope.value for scope in Scope if scope in entry.scopes)
    return entry.name, scopes, str(entry.max_calls or "-"), made


def _revoke(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    _ring(words, environ).revoke(words.name)
    print(f"{words.name}: revoked")
    return 0


def _ring(words: argparse.Namespace, environ: Mapping[str, str]) -> KeyRing:
    named = str(words.keys_file or environ.get("KEYS_FILE", ""))
    return KeyRing(keys_path(named, state_directory(words.state_dir, environ)))


def _scopes(word: str) -> frozenset[Scope]:
    try:
        return parse_scopes(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {printable(word)!r}") from None
