"""Text for a terminal: tables and colours. Colours only at a terminal, and not with ``NO_COLOR`` (no-color.org)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from rapida_twisted.net.untrusted_text import printable

__all__ = ["BOLD", "GREEN", "RED", "YELLOW", "has_colour", "paint", "table"]

SEPARATOR = "  "
BOLD, RED, GREEN, YELLOW = 1, 31, 32, 33

_COLOURS = {
    "claimed": GREEN, "answered": GREEN, "completed": GREEN, "pending": YELLOW, "ringing": YELLOW, "expired": RED,
    "failed": RED,
}  # fmt: skip
"""Colours of cells: statuses of calls."""


def has_colour(stream: TextIO | None) -> bool:
    return bool(
        stream and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    )


def paint(text: str, colour: int | None, coloured: bool) -> str:
    return f"\x1b[{colour}m{text}\x1b[m" if coloured and colour is not None else text


def table(head: Sequence[str] | None, rows: Sequence[Sequence[str]], coloured: bool = False) -> str:
    """Rows in columns as wide as their widest cell, without characters that control a terminal."""
    lines = [[printable(cell) for cell in row] for row in ([head] if head else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for number, line in enumerate(lines):
        is_head = head is not None and number == 0
        cells = [
            paint(cell, BOLD if is_head else _COLOURS.get(cell), coloured) + " " * (width - len(cell))
            for cell, width in zip(line, widths, strict=True)
        ]
        text.append(SEPARATOR.join(cells).rstrip())
    return "\n".join(text)
