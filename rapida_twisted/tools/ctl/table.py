"""Columns of text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rapida_twisted.net.untrusted_text import printable

__all__ = ["table"]

BETWEEN = "  "


def table(head: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, as wide as their widest word; what would steer a terminal is taken out."""
    lines = [[printable(word) for word in row] for row in ([head] if head else []) + list(rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        BETWEEN.join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
