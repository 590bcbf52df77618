"""Settings made of values, in one flat list."""

from __future__ import annotations

from typing import Any

from rapida_twisted.settings import Settings, all_settings

__all__ = ["make_settings"]


def make_settings(**values: Any) -> Settings:
    """Settings with these values, by their environment names in lower case: ``http_port=0`` is ``HTTP__PORT``. Without
    a port for operators, which several servers would share, unless there is one among the values."""
    envs = {item.env.lower().replace("__", "_"): item.env for item in all_settings()}
    return Settings.from_values({envs[name]: value for name, value in {"admin_port": 0, **values}.items()})
