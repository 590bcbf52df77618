"""Sphinx configuration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "rapida_twisted"
copyright = "2026, the rapida_twisted founders"
release = (
    (Path(__file__).parent.parent / "rapida_twisted" / "__init__.py")
    .read_text()
    .split('__version__ = "')[1]
    .split('"')[0]
)
extensions = ["sphinx.ext.autodoc", "sphinx_copybutton", "sphinx_design", "reference"]
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

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 100

nitpicky = True
# Other projects' names are not linked, for the pages are built without a network.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(twisted|zope|autobahn|numpy|treq|collections|pathlib|typing|uuid|socket|time|ipaddress|datetime|enum)\..*",
    ),
    (r"py:.*", r"Deferred|UUID|Path|ConnectionDeny"),
    (r"py:class", r"rapida_twisted\.media\.requests\.Requests?"),  # internal
    (r"py:.*", r"rapida_twisted\.(net|observe|ports)\..*"),  # internal: the reference leaves them out
    (r"py:.*", r"(rapida_twisted\.settings\.\w+\.)?(Parser|Group|G|T)"),
    (r"py:attr", r"rate_hz"),  # in ICallPlumbing, which inherits it
]
