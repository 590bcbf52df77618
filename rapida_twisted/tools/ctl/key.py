"""``rapida-media-ctl key``: makes, lists and revokes the API keys of the key file, without a server."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rapida_twisted.credentials.key_file import make_state_dir
from rapida_twisted.credentials.key_ring import LARGEST_MAX_CALLS, KeyEntry, KeyRing, Scope, keys_path, parse_scopes
from rapida_twisted.net.untrusted_text import printable
from rapida_twisted.tools.command_line import whole_number
from rapida_twisted.tools.ctl.options import COMMANDS, add_command
from rapida_twisted.tools.terminal import has_colour, table

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    key = commands.add_parser(
        "key",
        help=COMMANDS["key"][1],
        description="Manages named API keys with scopes. The key file holds salted hashes; a running server reads each"
        " change within a second.",
    )
    subcommands = key.add_subparsers(title="commands", metavar="COMMAND", required=True)
    make = _add(subcommands, "make", _make, "make a key and print it, this once")
    make.add_argument("name", metavar="NAME", help="name of the key")
    make.add_argument(
        "--scopes",
        metavar="SCOPES",
        type=_scopes,
        required=True,
        help="what the key allows, separated by commas: register (calls and their media, for a dialplan), read (calls,"
        " figures), control (place calls, hang up)",
    )
    make.add_argument(
        "--max-calls",
        metavar="N",
        type=whole_number(1, LARGEST_MAX_CALLS),
        default=0,
        help="maximum concurrent calls, waiting or up, of this key [default: no limit]",
    )
    make.add_argument(
        "--assistants",
        metavar="IDS",
        type=lambda text: frozenset(filter(None, map(str.strip, text.split(",")))),
        default=frozenset(),
        help="ids of assistants, separated by commas: for this key there are no others, nor their calls [default: all]",
    )
    list_ = _add(subcommands, "list", _list, "show the keys' names, scopes and limits")
    list_.add_argument("--json", action="store_true", help="print JSON")
    revoke = _add(subcommands, "revoke", _revoke, "revoke a key: the server refuses it from then on")
    revoke.add_argument("name", metavar="NAME")


def _add(subcommands: Any, name: str, run: Any, help: str) -> argparse.ArgumentParser:
    parser = add_command(subcommands, name, run, help)
    parser.add_argument(
        "--keys-file",
        metavar="FILE",
        type=Path,
        help="the key file [default: $KEYS_FILE, or keys.json in the state directory]",
    )
    return parser


def _make(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    ring = _ring(arguments, environ)
    if ring.path.parent == arguments.state_dir:
        # Before its first start the server has not made it yet.
        make_state_dir(arguments.state_dir)
    key = ring.make(
        arguments.name,
        arguments.scopes,
        now=time.time(),
        max_calls=arguments.max_calls,
        assistants=arguments.assistants,
    )
    # Standard output holds the key alone, so that a shell can redirect it into a file.
    print(f"{arguments.name}: kept in {ring.path}; the key is shown only this once", file=sys.stderr)
    print(key)
    return 0


def _list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    ring = _ring(arguments, environ)
    records = [_record(entry) for entry in ring.entries()]
    if arguments.json:
        print(json.dumps(records))
    elif records:
        rows = [
            (
                record["name"],
                ",".join(record["scopes"]),
                str(record["max_calls"] or "-"),
                ",".join(record["assistants"]) or "-",
                record["made"],
            )
            for record in records
        ]
        print(table(("NAME", "SCOPES", "MAX CALLS", "ASSISTANTS", "MADE"), rows, has_colour(sys.stdout)))
    else:
        print(f"there are no keys in {ring.path}")
    return 0


def _record(entry: KeyEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "scopes": [scope.value for scope in Scope if scope in entry.scopes],
        "assistants": sorted(entry.assistants),
        "max_calls": entry.max_calls or None,
        "made": datetime.fromtimestamp(entry.made_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
    }


def _revoke(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    _ring(arguments, environ).revoke(arguments.name)
    print(f"{arguments.name}: revoked")
    return 0


def _ring(arguments: argparse.Namespace, environ: Mapping[str, str]) -> KeyRing:
    named = str(arguments.keys_file or environ.get("KEYS_FILE", ""))
    return KeyRing(keys_path(named, arguments.state_dir))


def _scopes(text: str) -> frozenset[Scope]:
    try:
        return parse_scopes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {printable(text)!r}") from None
