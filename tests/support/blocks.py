"""The literal blocks of the pages, by name."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

__all__ = ["named_block", "named_blocks"]

DOCS = Path(__file__).parents[2] / "docs"


def named_blocks(page: str) -> dict[str, str]:
    """The texts of a page's code blocks that have a ``:name:``, without the page's indentation.

    :param page: such as ``asterisk.rst``.
    """
    lines = (DOCS / page).read_text("utf-8").splitlines()
    blocks: dict[str, str] = {}
    for number, line in enumerate(lines):
        found = re.fullmatch(r"( +):name: (\S+)", line)
        if found is None:
            continue
        indent, name = found.groups()
        options = (later for later, text in enumerate(lines) if later > number and not text.startswith(f"{indent}:"))
        begin = next(options)
        end = next(
            (later for later in range(begin, len(lines)) if lines[later] and not lines[later].startswith(indent)),
            len(lines),
        )
        if name in blocks:
            raise ValueError(f"{page} has two blocks named {name}")
        blocks[name] = textwrap.dedent("\n".join(lines[begin:end])).strip("\n") + "\n"
    return blocks


def named_block(page: str, name: str) -> str:
    """One of them."""
    return named_blocks(page)[name]
