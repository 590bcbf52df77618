"""Options and argument types that the subcommands of ``rapida-media-ctl`` share."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rapida_twisted.net.untrusted_text import printable

__all__ = [
    "DEFAULT_URL",
    "GroupedHelp",
    "Run",
    "UsageError",
    "add_command",
    "context_id",
    "http_url",
    "refuse_secret",
    "whole_number",
]

Run = Callable[[argparse.Namespace, Mapping[str, str]], int]
"""Runs a subcommand with its parsed arguments and the environment; returns the exit code."""

DEFAULT_URL = "http://127.0.0.1:8080"


class UsageError(ValueError):
    """The command line is wrong in a way that the parser does not see."""


class GroupedHelp(argparse.HelpFormatter):
    """Help with room for the longest command."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


def add_command(
    commands: Any, name: str, run: Run, help: str, *, server: bool = False, key: bool = False
) -> argparse.ArgumentParser:
    """Add a subcommand.

    :param commands: the result of ``add_subparsers()``.
    :param server: adds ``--http``.
    :param key: adds ``--key-file``.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        # With abbreviations --password means --password-file, and an error message would print the password.
        allow_abbrev=False,
    )
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
        parser.add_argument(
            "--key-file", metavar="FILE", type=Path, help="file of the API key [default: the server's own]"
        )
        refuse_secret(parser, "--key", "--api-key", instead="set RAPIDA_API_KEY, or name a file (--key-file)")
    return parser


def refuse_secret(parser: argparse.ArgumentParser, *options: str, instead: str) -> None:
    """Refuse options that would put a secret on the command line, without repeating the secret.

    :param instead: how to pass the secret, for the message.
    """

    class Refusal(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
            parser.error(
                f"{self.option_strings[0]} is refused, since every user of this machine can read a command line:"
                f" {instead}"
            )

    parser.add_argument(*options, action=Refusal, help=argparse.SUPPRESS)


def http_url(text: str) -> str:
    """The address of an HTTP server, without a trailing slash."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known or not text.isascii() or not text.isprintable() or "@" in text or "?" in text or "#" in text:
        raise argparse.ArgumentTypeError(f"expected an address such as {DEFAULT_URL}, not {printable(text)!r}")
    return text.rstrip("/")


def context_id(text: str) -> str:
    """A contextId in its canonical form."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a contextId is a UUID, not {printable(text)!r}") from None


def whole_number(smallest: int, largest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and smallest <= int(text) <= largest):
            raise argparse.ArgumentTypeError(f"expected a whole number from {smallest} to {largest}, not {text!r}")
        return int(text)

    return parse
