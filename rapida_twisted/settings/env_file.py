"""Reads env files: a ``NAME=value`` a line, ``#`` comments, shell quotes, ``export`` allowed."""

from __future__ import annotations

import re
from pathlib import Path

from rapida_twisted.errors import SettingsError

__all__ = ["read_env_file"]


def read_env_file(path: str) -> dict[str, str]:
    """The values of an env file by name.

    :raises SettingsError: it can't be read, or a line has another form.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the env file {path} can't be read: {error}") from None
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip().removeprefix("export ").lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not name.strip().isidentifier():
            raise SettingsError(f"the env file {path}, line {number}: expected NAME=value")
        values[name.strip()] = _unquoted(value, f"the env file {path}, line {number}")
    return values


def _unquoted(value: str, where: str) -> str:
    """A value without its quotes and without the comment behind it."""
    stripped = value.strip()
    if stripped[:1] not in ("'", '"'):
        return re.split(r"\s#", value, maxsplit=1)[0].strip()
    inside, closed, behind = stripped[1:].partition(stripped[0])
    if not closed:
        raise SettingsError(f"{where}: a quote is not closed")
    if behind and not re.match(r"\s+#", behind):
        raise SettingsError(f"{where}: there is text behind the closing quote")
    return inside
