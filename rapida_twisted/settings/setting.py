"""What one setting is: its names, parser, default and help; and groups of settings, which check themselves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from rapida_twisted.errors import SettingsError
from rapida_twisted.settings.parsers import TEXT, Parser

__all__ = ["Group", "Setting", "load", "setting", "settings_of", "unknown_names"]

G = TypeVar("G", bound="Group")


@dataclass(frozen=True)
class Setting:
    """How one setting is named, parsed and explained."""

    env: str
    """Its name in the environment, such as ``AUDIOSOCKET__PORT``."""
    parser: Parser[Any]
    default: str
    help: str
    secret: bool = False
    attribute: str = ""
    """Its name in its group."""

    @property
    def option(self) -> str:
        """Its name on the command line, without the leading dashes."""
        return self.env.lower().replace("__", "-").replace("_", "-")

    def parse(self, given: str) -> Any:
        """The value of a text.

        :raises SettingsError: it can't be used; the text is one sentence that names the setting.
        """
        try:
            return self.parser(given)
        except ValueError as error:
            raise self._error(given, error) from None

    def check(self, value: Any) -> None:
        """:raises SettingsError: the value can't be used."""
        try:
            self.parser.check(value)
        except ValueError as error:
            raise self._error(value, error) from None

    def _error(self, value: Any, reason: ValueError) -> SettingsError:
        shown = repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
        if self.secret:
            return SettingsError(f"{self.env} can't be used: {reason}")
        # A URL may contain a password.
        return SettingsError(
            f"{self.env} (--{self.option}){'' if '@' in shown else ' ' + shown} can't be used: {reason}"
        )


def setting(
    env: str,
    help: str,
    parser: Parser[Any] = TEXT,
    default: str = "",
    *,
    secret: bool = False,
    hidden: bool = False,
    factory: Any = None,
) -> Any:
    """Declare a setting as a field of a :class:`Group`.

    :param default: as text.
    :param secret: it is no option, and is never shown.
    :param hidden: it is not in the group's repr, since it may contain a password.
    :param factory: makes the default in place of ``default``.
    """
    return field(
        default_factory=factory or (lambda: parser(default)),
        repr=not (secret or hidden),
        metadata={"setting": Setting(env, parser, default, help, secret)},
    )


@dataclass(frozen=True, kw_only=True)
class Group:
    """Settings that belong together. Every instance is checked when it is made."""

    def __post_init__(self) -> None:
        for item in settings_of(type(self)):
            item.check(getattr(self, item.attribute))


def settings_of(group: type[Group]) -> Iterator[Setting]:
    """The settings of a group, in the order of their definition."""
    return (replace(item.metadata["setting"], attribute=item.name) for item in fields(group))


def load(group: type[G], *sources: Mapping[str, str]) -> G:
    """A group made from texts by their environment names; an earlier source wins. Empty texts and other names are
    ignored.

    :raises SettingsError: a text can't be used; the message names the setting and is one sentence.
    """
    values = {}
    for item in settings_of(group):
        given = next((source[item.env] for source in sources if source.get(item.env)), None)
        if given is not None:
            values[item.attribute] = item.parse(given)
    return group(**values)


def unknown_names(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """A sentence for each name that is no setting, with the nearest one that is."""
    known = list(known)
    found = []
    for name in names:
        if name not in known:
            near = get_close_matches(name.upper(), known, 1, 0.75)
            found.append(f"{name} is no setting" + (f": is it {near[0]}?" if near else ""))
    return found
