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
extensions = ["sphinx.ext.autodoc", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["_build", "examples"]
highlight_language = "none"

html_theme = "furo"
html_title = f"rapida_twisted {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sourcelink = False

# What is pasted into a shell is what runs: neither prompts nor output are copied from a console block.
copybutton_exclude = ".linenos, .gp, .go"

nitpicky = False
