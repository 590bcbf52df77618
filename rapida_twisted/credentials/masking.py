"""Masks secrets in log lines. Each secret is registered here when the process learns it.

A secret is found verbatim, as Python and JSON quote it, and percent-encoded. API keys, Authorization headers and
passwords in URLs are masked even if they are not registered.
"""

from __future__ import annotations

import json
import re
from functools import cache
from threading import Lock

__all__ = ["MASK", "SHORTEST", "Secrets", "keep_out_of_logs", "masked"]

MASK = "***"
SHORTEST = 4
"""Shorter secrets are not masked: they occur in ordinary words."""

_X = r"(?:x|%78)(?:[-_]|%2d|%5f)api(?:[-_]|%2d|%5f)key"
_QUOTES = r"(?:\\?[\"'\[(]|\bb(?=[\"']))*"
_AFTER = r"(?:\\?[\"'\])]*\s*(?:[=:]|%3d|%3a)\s*|[\"'\])]+\s*,\s*)" + _QUOTES
_KEY = re.compile(rf"({_X}{_AFTER})[^\s&;?#\"'\\,)\]}}<>]+", re.IGNORECASE)
_AUTHORIZATION = re.compile(
    rf"(authorization{_AFTER}(?:(?:basic|bearer|digest|token)\s+)?)(?!(?:basic|bearer|digest|token)\s)[^\s\"'\\,)\]}}<>]+",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(://[^\s/?#:@\"']*:)[^\s/?#\"']+(?=@)")


class Secrets:
    """The known secrets. The program has one instance; :func:`keep_out_of_logs` and :func:`masked` are its methods."""

    def __init__(self) -> None:
        self._lock = Lock()
        # Longest first: one secret may begin with another.
        self._known: list[str] = []
        self._forms: list[str] = []

    def __repr__(self) -> str:
        return f"<Secrets: {len(self._known)}>"

    def keep(self, *secrets: str) -> None:
        """Mask these secrets from now on. Thread-safe; secrets that are too short are ignored."""
        with self._lock:
            new = {secret for secret in secrets if len(secret) >= SHORTEST}.difference(self._known)
            if new:
                forms = {form for secret in new for form in _forms(secret)}
                self._known = sorted(new.union(self._known), key=len, reverse=True)
                self._forms = sorted(forms.union(self._forms), key=len, reverse=True)

    def masked(self, text: str) -> str:
        """The text without secrets."""
        for form in self._forms:
            text = text.replace(form, MASK)
        for secret in self._known if "%" in text else ():
            text = _encoded(secret).sub(MASK, text)
        text = _KEY.sub(rf"\1{MASK}", text)
        text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
        return _IN_URL.sub(rf"\1{MASK}", text)


def _forms(secret: str) -> set[str]:
    """A secret verbatim and as it appears in quotes."""
    encoded = secret.encode("utf-8", "surrogatepass")
    in_json = (json.dumps(secret, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
    return {secret, repr(secret)[1:-1], repr(encoded)[2:-1], *in_json}


@cache
def _encoded(secret: str) -> re.Pattern[str]:
    """Finds a secret, any of its characters percent-encoded. Takes milliseconds to make: none before it is needed."""
    return re.compile("".join(map(_character, secret)))


def _character(character: str) -> str:
    """A pattern for a secret's character, plain or percent-encoded, once or twice."""
    codes = "".join(f"%(?:25)?{_digits(byte)}" for byte in character.encode("utf-8", "surrogatepass"))
    plain = r"[ +]" if character == " " else re.escape(character)
    return f"(?:{plain}|{codes})"


def _digits(byte: int) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{byte:02x}")


_OURS = Secrets()
keep_out_of_logs = _OURS.keep
masked = _OURS.masked
