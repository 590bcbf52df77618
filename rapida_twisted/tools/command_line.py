"""The command lines of the console programs: a parser with one-sentence errors, shared options, argument types."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from rapida_twisted import __version__
from rapida_twisted.net.untrusted_text import printable

__all__ = [
    "DEFAULT_URL", "SHELLS", "CommandLine", "UsageError", "add_key_file", "checked_url", "completion", "http_url",
    "refuse_secret",
    "surviving_a_closed_pipe", "whole_number",
]  # fmt: skip

DEFAULT_URL = "http://127.0.0.1:8080"
SHELLS = ("bash", "zsh")


class UsageError(ValueError):
    """The command line is wrong in a way that the parser does not see."""


class _Help(argparse.HelpFormatter):
    """Help with room for the longest command."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, **{"max_help_position": 32, **kwargs})


class CommandLine(argparse.ArgumentParser):
    """A parser that answers a wrong command line with one sentence and exit code 2."""

    def __init__(self, *, version: bool = False, **kwargs: Any) -> None:
        # With abbreviations --password means --password-file, and an error message would print the password.
        super().__init__(**{"formatter_class": _Help, "allow_abbrev": False, **kwargs})
        if version:
            self.add_argument("--version", action="version", version=f"{self.prog} {__version__}")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message)}; see {self.prog} --help\n")


@contextmanager
def surviving_a_closed_pipe() -> Iterator[None]:
    """A reader that closes standard output early (``| head -1``) causes no traceback."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that completes a program's command line in a shell."""
    import shtab

    for action in _actions(parser):
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


def add_key_file(group: Any) -> None:
    """Add ``--key-file``; refuse an API key on the command line."""
    group.add_argument("--key-file", metavar="FILE", type=Path, help="file of the API key [default: the server's own]")
    refuse_secret(group, "--key", "--api-key", instead="set RAPIDA_API_KEY, or name a file (--key-file)")


def refuse_secret(parser: Any, *options: str, instead: str) -> None:
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
    return checked_url(text, ("http", "https"), DEFAULT_URL).rstrip("/")


def checked_url(text: str, schemes: tuple[str, ...], example: str, *, query: bool = False) -> str:
    """A URL without user or fragment, and without a query unless that is allowed."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    refused = "@#" if query else "@?#"
    if not known or not text.isascii() or not text.isprintable() or set(text) & set(refused):
        raise argparse.ArgumentTypeError(f"expected an address such as {example}, not {printable(text)!r}")
    return text


def whole_number(smallest: int, largest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and smallest <= int(text) <= largest):
            raise argparse.ArgumentTypeError(f"expected a whole number from {smallest} to {largest}, not {text!r}")
        return int(text)

    return parse
