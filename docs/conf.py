"""Sphinx configuration."""

from pathlib import Path

project = "rapida_twisted"
copyright = "2026, the rapida_twisted founders"
release = (
    (Path(__file__).parent.parent / "rapida_twisted" / "__init__.py")
    .read_text()
    .split('__version__ = "')[1]
    .split('"')[0]
)
extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples"]
html_theme = "alabaster"
nitpicky = False
