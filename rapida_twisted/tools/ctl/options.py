"""The subcommands of ``rapida-media-ctl``, and the options that they share."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rapida_twisted.net.untrusted_text import printable
from rapida_twisted.tools.command_line import DEFAULT_URL, UsageError, add_key_file, http_url

__all__ = ["COMMANDS", "Run", "UsageError", "add_command", "context_id", "http_url"]

Run = Callable[[argparse.Namespace, Mapping[str, str]], int]
"""Runs a subcommand with its parsed arguments and the environment; returns the exit code."""

COMMANDS = {
    "calls": ("calls", "show the newest calls"),
    "call": ("calls", "show one call"),
    "hangup": ("calls", "hang up a call"),
    "ready": ("calls", "check whether the server can take calls"),
    "dial": ("dial", "place a call"),
    "vault": ("vault", "keep ARI credentials, encrypted"),
    "key": ("key", "make, list and revoke API keys"),
    "dialplan": ("dialplan", "print Asterisk's configuration for this server"),
    "doctor": ("doctor", "check this installation, and advise how to repair it"),
    "completion": ("", "print the script that completes this program's command line in a shell"),
}
"""By name: the module, imported for its commands alone (empty: main.py), and the line of ``--help``."""


def add_command(
    commands: Any, name: str, run: Run, help: str = "", *, server: bool = False, key: bool = False
) -> argparse.ArgumentParser:
    """Add a subcommand.

    :param commands: the result of ``add_subparsers()``.
    :param help: that of :data:`COMMANDS` if empty.
    :param server: adds ``--http``.
    :param key: adds ``--key-file``.
    """
    help = help or COMMANDS[name][1]
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    parser.set_defaults(run=run, parser=parser, asks_server=server)
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        type=Path,
        help="the server's state directory [default: $STATE_DIR, or ~/.local/state/rapida-media]",
    )
    parser.add_argument("--env-file", metavar="FILE", type=Path, help="the server's file of NAME=value settings")
    if server:
        parser.add_argument(
            "--http",
            metavar="URL",
            type=http_url,
            help=f"the server [default: its port for operators (ADMIN__PORT), or without one {DEFAULT_URL}]",
        )
    if key:
        add_key_file(parser)
    return parser


def context_id(text: str) -> str:
    """A contextId in its canonical form."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a contextId is a UUID, not {printable(text)!r}") from None
