"""Columns of text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rapida_twisted.net.untrusted_text import printable

__all__ = ["table"]

SEPARATOR = "  "


def table(head: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns as wide as their widest cell, without characters that control a terminal."""
    lines = [[printable(cell) for cell in row] for row in ([head] if head else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(SEPARATOR.join(map(str.ljust, line, widths)).rstrip() for line in lines)
