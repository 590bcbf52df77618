"""The argument of an assistant: an address, and options for this rule alone.

``ws://host/media;format=slin;digits=off`` has them behind the address; ``@bot.toml`` has all of it in a file::

    address = "wss://bot.example.com/media?uuid={contextId}"
    format = "slin"
    [headers]
    Authorization = "@/run/secrets/bot"     # the content of a file
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from rapida_twisted.credentials.masking import keep_out_of_logs
from rapida_twisted.errors import SettingsError
from rapida_twisted.settings.setting import Group, settings_of

__all__ = ["Argument", "parse_argument", "with_options"]

G = TypeVar("G", bound=Group)

_HEADER = "header."
_SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "x-api-key")


@dataclass(frozen=True)
class Argument:
    """An assistant's argument."""

    address: str
    """What the assistant is about: a URL, a file; may be empty."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Settings of its group, by their names in it."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """HTTP headers. They may hold secrets."""
    visible: frozenset[str] = frozenset()
    """The options whose values stand in the command line, where every user of the machine can read them."""


def parse_argument(text: str) -> Argument:
    """Parse ``ADDRESS[;NAME=VALUE]...`` or ``@FILE``, a TOML file. A value ``@FILE`` is the first line of that file,
    which the log masks like every secret.

    :raises SettingsError: it can't be used; the text is one sentence.
    """
    if text.startswith("@"):
        return _from_file(Path(text[1:]))
    address, *pairs = text.split(";")
    options: dict[str, str] = {}
    headers: dict[str, str] = {}
    visible: set[str] = set()
    for number, pair in enumerate(pairs, 1):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (name and equals):
            raise SettingsError(
                f"option {number} behind the address is not NAME=VALUE; write a ';' that is part of the address as %3B"
            )
        target, name = (headers, name.removeprefix(_HEADER)) if name.startswith(_HEADER) else (options, name)
        if name in target:
            raise SettingsError(f"the option {name!r} is given twice")
        if target is headers and name.lower() in _SECRET_HEADERS and not value.startswith(("@", "{")):
            raise SettingsError(f"the header {name!r} is a secret: put it into a file, and give @FILE as its value")
        target[name] = _value(value, Path())
        if target is options and not value.startswith("@"):
            visible.add(name)
    return Argument(address, options, headers, frozenset(visible))


def with_options(group: G, argument: Argument) -> G:
    """The group with the argument's options in place of its own values.

    :raises SettingsError: an option is no setting of the group, can't be used, or is a secret in the command line.
    """
    known = {item.attribute: item for item in settings_of(type(group))}
    for name in argument.options:
        if name not in known:
            near = get_close_matches(name, known, 1, 0.6)
            hint = f": is it {near[0]}?" if near else f"; options are {', '.join(known)}"
            raise SettingsError(f"there is no option {name!r}{hint}")
        if known[name].secret and name in argument.visible:
            raise SettingsError(f"the option {name!r} is a secret: give it as {name}=@FILE")
        if known[name].secret:
            keep_out_of_logs(argument.options[name])
    return replace(group, **{name: known[name].parse(text) for name, text in argument.options.items()})


def _from_file(path: Path) -> Argument:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} is no TOML file: {error}") from None
    headers = content.pop("headers", {})
    address = content.pop("address", "")
    if not isinstance(address, str) or not isinstance(headers, dict):
        raise SettingsError(f"{path}: address is text, and headers is a table of texts")
    options, headers = (
        {name: _value(_text_of(path, name, value), path.parent) for name, value in table.items()}
        for table in (content, headers)
    )
    keep_out_of_logs(*(value for name, value in headers.items() if name.lower() in _SECRET_HEADERS))
    return Argument(address, options, headers)


def _text_of(path: Path, name: str, value: Any) -> str:
    """A value of TOML as the text of a setting."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | int | float):
        return str(value)
    raise SettingsError(f"{path}: {name} is text, a number, true or false")


def _value(text: str, folder: Path) -> str:
    """The text, or the first line of the file that ``@FILE`` names, relative to the folder."""
    if not text.startswith("@"):
        return text
    path = folder / text[1:]
    try:
        secret = path.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} can't be read: {getattr(error, 'strerror', error)}") from None
    keep_out_of_logs(secret)
    return secret
