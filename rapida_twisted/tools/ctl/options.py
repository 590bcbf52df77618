"""What the subcommands of ``rapida-media-ctl`` have in common: their options, and the words in them."""

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
"""Does what a command line says; gives the exit code."""

DEFAULT_URL = "http://127.0.0.1:8080"


class UsageError(ValueError):
    """The command line can't be used; found out only after it was parsed."""


class GroupedHelp(argparse.HelpFormatter):
    """Help with room for the commands' names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


def add_command(
    commands: Any, name: str, run: Run, help: str, *, server: bool = False, key: bool = False
) -> argparse.ArgumentParser:
    """Add a subcommand.

    :param commands: what ``add_subparsers()`` gave.
    :param server: whether it talks to the server.
    :param key: whether it needs an API key.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        # Else --password would be --password-file, and a password the name of a file, which errors tell.
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        type=Path,
        help="the server's state directory [default: $STATE_DIR, or ~/.local/state/rapida-media]",
    )
    parser.add_argument("--env-file", metavar="FILE", type=Path, help="the server's file of NAME=value lines")
    if server:
        parser.add_argument(
            "--http", metavar="URL", type=http_url, default=DEFAULT_URL, help=f"the server [default: {DEFAULT_URL}]"
        )
    if key:
        parser.add_argument(
            "--key-file", metavar="FILE", type=Path, help="file of the API key [default: the server's own]"
        )
        refuse_secret(parser, "--key", "--api-key", instead="set RAPIDA_API_KEY, or name a file (--key-file)")
    return parser


def refuse_secret(parser: argparse.ArgumentParser, *options: str, instead: str) -> None:
    """Refuse options that would put a secret on the command line, without repeating what was given.

    :param instead: what to do instead.
    """

    class Refusal(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
            parser.error(
                f"{self.option_strings[0]} is refused, since every user of this machine can read a command line:"
                f" {instead}"
            )

    parser.add_argument(*options, action=Refusal, help=argparse.SUPPRESS)


def http_url(word: str) -> str:
    """The address of an HTTP server, without a slash at its end."""
    try:
        parts = urlsplit(word)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known or not word.isascii() or not word.isprintable() or "@" in word or "?" in word or "#" in word:
        raise argparse.ArgumentTypeError(f"expected an address such as {DEFAULT_URL}, not {printable(word)!r}")
    return word.rstrip("/")


def context_id(word: str) -> str:
    """A contextId in its canonical form."""
    try:
        return str(uuid.UUID(word))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a contextId is a UUID, not {printable(word)!r}") from None


def whole_number(smallest: int, largest: int) -> Callable[[str], int]:
    """A whole number within limits."""

    def parse(word: str) -> int:
        if not (word.isascii() and word.isdigit() and len(word) < 10 and smallest <= int(word) <= largest):
            raise argparse.ArgumentTypeError(f"expected a whole number from {smallest} to {largest}, not {word!r}")
        return int(word)

    return parse
