"""Reads JSON from strangers, and cleans their text for log lines, terminals, headers and errors."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["escaped", "json_object", "printable", "shortened"]


def json_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object in the data; None if they are anything else."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def printable(text: str, longest: int | None = None) -> str:
    """The text with ``?`` in the place of control characters and the like, which could steer a terminal.

    :param longest: how many characters it may have.
    """
    return shortened("".join(letter if letter.isprintable() else "?" for letter in text), longest)


def shortened(text: str, longest: int | None) -> str:
    """The text, or its beginning and three dots."""
    return text if longest is None or len(text) <= longest else text[: longest - 3] + "..."


def escaped(raw: bytes) -> str:
    r"""Bytes as ASCII, all that is not printable as ``\x0a``."""
    text = raw.decode("latin-1")
    if text.isascii() and text.isprintable():
        return text
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw)
