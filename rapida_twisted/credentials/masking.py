"""Secrets, kept out of whatever is logged: each registers itself here when it becomes known.

A secret is found as it is, in the forms that Python and JSON quote it in, and percent-encoded in whatever way. What
looks like an API key, an Authorization header or a password in a URL is masked even where nobody registered it.
"""

from __future__ import annotations

import json
import re
from threading import Lock

__all__ = ["MASK", "SHORTEST", "Secrets", "keep_out_of_logs", "masked"]

MASK = "***"
SHORTEST = 4
"""What is shorter stands in too many words: masking it would only show where it is."""

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
    """Those that are known. The program has one of these: :func:`keep_out_of_logs` and :func:`masked` are its."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: set[str] = set()
        self._literal: re.Pattern[str] | None = None
        self._encoded: re.Pattern[str] | None = None

    def __repr__(self) -> str:
        return f"<Secrets: {len(self._known)}>"

    def keep(self, *secrets: str) -> None:
        """Mask these from now on, wherever they would be logged. Those that are too short to be one are not taken.

        May be called from any thread, and again with the same.
        """
        with self._lock:
            new = {secret for secret in secrets if len(secret) >= SHORTEST} - self._known
            if not new:
                return
            self._known |= new
            # The longest first: one may begin with another.
            forms = {form for secret in self._known for form in _forms(secret)}
            self._literal = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))
            longest_first = sorted(self._known, key=len, reverse=True)
            self._encoded = re.compile("|".join(_encoded_form(secret) for secret in longest_first))

    def masked(self, text: str) -> str:
        """The text without secrets."""
        if self._literal is not None:
            text = self._literal.sub(MASK, text)
        if "%" in text and self._encoded is not None:
            text = self._encoded.sub(MASK, text)
        text = _KEY.sub(rf"\1{MASK}", text)
        text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
        return _IN_URL.sub(rf"\1{MASK}", text)


def _forms(secret: str) -> set[str]:
    """A secret as it is, and as it stands in quotes."""
    encoded = secret.encode("utf-8", "surrogatepass")
    in_json = (json.dumps(secret, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
    return {secret, repr(secret)[1:-1], repr(encoded)[2:-1], *in_json}


def _encoded_form(secret: str) -> str:
    """A pattern for the secret with any of its characters percent-encoded, and perhaps encoded twice."""
    return "".join(_character(character) for character in secret)


def _character(character: str) -> str:
    codes = "".join(f"%(?:25)?{_digits(byte)}" for byte in character.encode("utf-8", "surrogatepass"))
    plain = r"[ +]" if character == " " else re.escape(character)
    return f"(?:{plain}|{codes})"


def _digits(byte: int) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{byte:02x}")


_OURS = Secrets()
keep_out_of_logs = _OURS.keep
masked = _OURS.masked
