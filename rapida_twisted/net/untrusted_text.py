"""Cleans text from strangers for log lines, terminals, headers and errors."""

from __future__ import annotations

__all__ = ["escaped", "printable", "shortened"]


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
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw)
