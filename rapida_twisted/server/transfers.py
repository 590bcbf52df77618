"""The whitelist of transfers: callers may talk an assistant into dialling anything."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from rapida_twisted.errors import SettingsError, TransferRefused

__all__ = ["NO_TRANSFERS", "TransferRules"]

_SAFE = re.compile(r"[A-Za-z0-9]{1,16}/[A-Za-z0-9_+*#.:@/-]{1,120}")
"""A technology and a resource, without characters that end an argument of ``Dial()``, add a second destination, or are
expanded by the dialplan: ``, & $ { } [ ] ( ) ; | ^ " '``, blanks and control characters."""
_PATTERN = re.compile(r"[A-Za-z0-9_+*#.:@/?!\[\]-]{1,160}")


class TransferRules:
    """Checks dial strings.

    :param patterns: shell patterns, such as ``PJSIP/2??`` or ``Local/*@internal``; case counts.
    :raises SettingsError: a pattern that could match no safe dial string.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = tuple(patterns)
        for pattern in self._patterns:
            if not _PATTERN.fullmatch(pattern) or "/" not in pattern:
                raise SettingsError(
                    f"TRANSFER__ALLOW: {pattern!r} can't be used: a pattern is a dial string with * and ?, such as"
                    " PJSIP/2??"
                )

    def check(self, dial_string: str) -> None:
        """:raises TransferRefused: a call may not go there."""
        if not _SAFE.fullmatch(dial_string):
            raise TransferRefused(f"{dial_string!r} is no dial string that is safe in a dialplan")
        if not any(fnmatchcase(dial_string, pattern) for pattern in self._patterns):
            raise TransferRefused(f"{dial_string!r} is not among the transfers that TRANSFER__ALLOW allows")


NO_TRANSFERS = TransferRules(())
