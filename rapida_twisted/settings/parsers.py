"""Parsers of settings: text to a value, and the check that a value passes however it was made."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

__all__ = ["Parser", "choice", "number", "seconds"]

T = TypeVar("T")

_DECIMAL = re.compile(r"\d{1,9}(\.\d{0,9})?|\.\d{1,9}", re.ASCII)
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)
_ANY_FLOAT = re.compile(rf"\s*\+?({_DECIMAL.pattern})(e[+-]?\d{{1,2}})?\s*", re.ASCII | re.IGNORECASE)
"""Durations may have blanks, a plus and an exponent (``1e6``), too."""


@dataclass(frozen=True)
class Parser(Generic[T]):
    """Converts text, and checks values. Both raise ValueError with the reason."""

    convert: Callable[[str], T]
    check: Callable[[Any], object]

    def __call__(self, given: str) -> T:
        """The checked value of a text."""
        value = self.convert(given)
        self.check(value)
        return value


def _checker(is_valid: Callable[[Any], object], expected: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not is_valid(value):
            raise ValueError(expected)

    return check


def number(
    kind: type[T], lowest: float, highest: float, expected: str, form: re.Pattern[str] | None = None
) -> Parser[T]:
    """A number from ``lowest`` to ``highest``, in plain digits if no other form is given; ``expected`` says so in the
    error."""
    form = form or (_WHOLE if kind is int else _DECIMAL)
    accepted = int if kind is int else (int, float)

    def convert(given: str) -> T:
        if not form.fullmatch(given):
            raise ValueError(expected)
        return kind(given)  # type: ignore[call-arg]

    def is_valid(value: Any) -> bool:
        return isinstance(value, accepted) and not isinstance(value, bool) and lowest <= value <= highest

    return Parser(convert, _checker(is_valid, expected))


def choice(*words: str) -> Parser[str]:
    """One of a few words."""
    before = ", ".join(words[:-1])
    expected = f"it is one of {before} and {words[-1]}" if len(words) > 2 else f"it is {before} or {words[-1]}"
    return Parser(str, _checker(words.__contains__, expected))


def _matching(pattern: str, expected: str) -> Parser[str]:
    form = re.compile(pattern, re.ASCII)
    return Parser(str, _checker(lambda value: isinstance(value, str) and form.fullmatch(value), expected))


PORT = number(int, 0, 65535, "a port is a number from 0 (any free one) to 65535")
COUNT = number(int, 1, 999_999_999, "a limit is a whole number from 1 to 999999999")
TEXT = Parser(str, _checker(lambda value: isinstance(value, str), "it is text"))
WORD = _matching(r"[A-Za-z0-9_.-]{1,79}", "it is a word of letters, digits, '_', '.' and '-'")
HOST = _matching(r"[A-Za-z0-9._:-]*", "a host is a name or an address, without a port and without brackets")


def seconds(lowest: float, highest: float) -> Parser[float]:
    """A duration (s)."""
    return number(float, lowest, highest, f"it is a number of seconds from {lowest:g} to {highest:g}", _ANY_FLOAT)


SECONDS = number(float, 0, 31_536_000, "a time is a number of seconds, not negative and at most a year", _ANY_FLOAT)


def _boolean(given: str) -> bool:
    if given.lower() not in ("true", "false"):
        raise ValueError("it is true or false")
    return given.lower() == "true"


BOOLEAN = Parser(_boolean, _checker(lambda value: isinstance(value, bool), "it is true or false"))

_processes = number(int, 0, 64, "it is a number of processes from 0 (one for each core) to 64")


def _workers(given: str) -> int:
    return _processes(given) or len(os.sched_getaffinity(0))


WORKERS = Parser(_workers, _checker(lambda value: isinstance(value, int) and value > 0, "it is a number of processes"))


def _split(given: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in given.split(",") if part.strip())


def _is_tuple_of(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(isinstance(item, kinds) for item in value)


TEXT_LIST = Parser(_split, _checker(_is_tuple_of(str), "it is a tuple of texts"))


def _is_key(key: str) -> bool:
    return len(key) >= 8 and key.isascii() and key.isprintable() and " " not in key


API_KEYS = Parser(
    _split,
    _checker(
        lambda value: _is_tuple_of(str)(value) and all(map(_is_key, value)),
        "a key has 8 or more printable characters, no spaces",
    ),
)


def _networks(given: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(map(ip_network, _split(given)))
    except ValueError as error:
        raise ValueError(f"networks are as 192.0.2.0/24 or 2001:db8::/32, with commas between them: {error}") from None


NETWORKS = Parser(_networks, _checker(_is_tuple_of(IPv4Network, IPv6Network), "it is a tuple of networks"))


def _is_url(value: Any) -> bool:
    if value == "":
        return True
    try:
        parts = urlsplit(value)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except (ValueError, AttributeError, TypeError):
        return False
    return bool(known) and "@" not in parts.netloc and "#" not in value and value.isascii() and value.isprintable()


URL = Parser(str, _checker(_is_url, "it is an address such as https://example.com/calls, without a password in it"))


def _directory(given: str) -> Path:
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError:
        raise ValueError("there is no such user") from None


def _check_directory(value: Any) -> None:
    if not isinstance(value, Path):
        raise ValueError("it is a path")
    try:
        is_file = value.exists() and not value.is_dir()
    except OSError as error:
        raise ValueError(error.strerror) from None
    if is_file:
        raise ValueError("that is a file, and a directory is wanted")


DIRECTORY = Parser(_directory, _check_directory)
