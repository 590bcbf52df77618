"""Placeholders of a bridge's address and headers: ``{contextId}``, ``{from}``, ``{variables.ACCOUNT}``."""

from __future__ import annotations

import re
import string
from urllib.parse import quote

from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError

__all__ = ["check_placeholders", "fill", "has_placeholders"]

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_VARIABLES = "variables."
_KNOWN = re.compile(r"contextId|assistantId|from|to|variables\.\w+")
_IN_HEADERS = string.punctuation.replace("%", "") + " "


def has_placeholders(template: str) -> bool:
    """Whether any part of it depends on the call."""
    return _PLACEHOLDER.search(template) is not None


def check_placeholders(template: str) -> None:
    """:raises SettingsError: it has a placeholder that no call can fill."""
    for name in _PLACEHOLDER.findall(template):
        if not _KNOWN.fullmatch(name):
            raise SettingsError(
                f"the placeholder {{{name}}} is not known; known are {{contextId}}, {{assistantId}}, {{from}}, {{to}}"
                " and {variables.NAME}"
            )


def fill(template: str, context: CallContext, *, in_url: bool) -> str:
    """The template for one call. A variable that the call lacks is empty.

    :param in_url: values are percent-encoded whole; otherwise only what can't be in a header.
    """
    known = {
        "contextId": context.context_id,
        "assistantId": context.assistant_id,
        "from": context.caller,
        "to": context.called,
    }

    def value(match: re.Match[str]) -> str:
        name = match[1]
        text = known[name] if name in known else context.variables.get(name.removeprefix(_VARIABLES), "")
        return quote(text, safe="" if in_url else _IN_HEADERS)

    return _PLACEHOLDER.sub(value, template)
