"""Attacks on the real program, with calls beside them that must not notice.

Each module here but ``stage`` holds attacks, which its decorator registers.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module


def load() -> None:
    """Import all modules with attacks."""
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
