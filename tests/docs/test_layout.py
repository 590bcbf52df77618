"""The pages fit a window of 1,280 px, and the committed diagrams are what their script draws."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from tests.support.blocks import DOCS
from tests.test_layers import LAYERS

WIDEST = 136
"""Characters that fit into a code block at 1,280 px; measured in a browser with docs/_static/wide.css."""


def code_blocks(text: str) -> Iterator[list[str]]:
    """The lines of each literal block of a page, without their indentation."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not re.match(r" *\.\. code-block::", line) and (line.strip().startswith("..") or not line.endswith("::")):
            continue
        margin = len(line) - len(line.lstrip())
        block = []
        for later in lines[number + 1 :]:
            if later.strip() and len(later) - len(later.lstrip()) <= margin:
                break
            block.append(later)
        indents = [len(text) - len(text.lstrip()) for text in block if text.strip()]
        yield [text[min(indents, default=0) :] for text in block]


def draw_script() -> ModuleType:
    """docs/diagrams/draw.py, imported."""
    spec = importlib.util.spec_from_file_location("draw", DOCS / "diagrams" / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class WidthTests(SynchronousTestCase):
    """No command is cut or wrapped beside the navigation."""

    def test_blocks(self) -> None:
        """Each line of each code block fits."""
        found = 0
        for page in DOCS.rglob("*.rst"):
            for block in code_blocks(page.read_text("utf-8")):
                found += 1
                for line in block:
                    self.assertLessEqual(len(line), WIDEST, f"{page.name}: {line}")
        self.assertGreater(found, 50)

    def test_included_files(self) -> None:
        """Each line of each file that a page includes as code fits."""
        for page in DOCS.rglob("*.rst"):
            for name in re.findall(r"literalinclude:: (\S+)", page.read_text("utf-8")):
                for line in (page.parent / name).read_text("utf-8").splitlines():
                    self.assertLessEqual(len(line), WIDEST, f"{name}: {line}")


class DiagramTests(SynchronousTestCase):
    """docs/diagrams."""

    def test_files(self) -> None:
        """The SVG files are what the script draws."""
        drawn = draw_script().diagrams()
        self.assertEqual({path.name for path in (DOCS / "diagrams").glob("*.svg")}, set(drawn))
        for name, text in drawn.items():
            self.assertEqual((DOCS / "diagrams" / name).read_text("utf-8"), text, f"run docs/diagrams/draw.py: {name}")

    def test_layers(self) -> None:
        """The rooms are drawn in the layers that tests/test_layers.py holds."""
        drawn = [set(rooms) for _, rooms in reversed(draw_script().LAYERS)]
        self.assertEqual(drawn, list(LAYERS))


class PromptTests(SynchronousTestCase):
    """What is copied from a block can be pasted into a shell."""

    def test_no_prompts(self) -> None:
        """No block mixes prompts or output with commands."""
        for page in (*DOCS.rglob("*.rst"), *DOCS.parent.glob("*.md")):
            text = page.read_text("utf-8")
            self.assertNotIn("code-block:: console", text, page.name)
            self.assertEqual(re.findall(r"^ +\$ .*", text, re.MULTILINE), [], page.name)


class ArchitecturePageTests(SynchronousTestCase):
    """The page "Architecture" names what there is."""

    def test_paths(self) -> None:
        """Each file and folder that it names is in the package or beside it."""
        named = re.findall(
            r"``([a-z_]+(?:/[a-z_]+)+(?:\.py)?|[a-z_]+\.py)``", (DOCS / "architecture.rst").read_text("utf-8")
        )
        self.assertGreater(len(named), 20)
        for name in named:
            self.assertTrue((DOCS.parent / "rapida_twisted" / name).exists() or (DOCS.parent / name).exists(), name)

    def test_rooms(self) -> None:
        """It says of each room what is in it."""
        page = (DOCS / "architecture.rst").read_text("utf-8")
        for room in set().union(*LAYERS) - {"errors"}:
            self.assertRegex(page, rf"``{room}(\.py)?``")
