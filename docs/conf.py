"""Sphinx configuration."""

from pathlib import Path

project = "rapida_twisted"
copyright = "2026, the rapida_twisted founders"
release = (Path(__file__).parent.parent / "rapida_twisted" / "_version.py").read_text().split('"')[1]
extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples"]
html_theme = "alabaster"
nitpicky = False
