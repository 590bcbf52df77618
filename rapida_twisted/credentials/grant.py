"""What an API key allows. Imports nothing heavy, since the interfaces import it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["ALL_SCOPES", "FULL_GRANT", "Grant", "Scope"]


class Scope(StrEnum):
    """What a key allows."""

    REGISTER = "register"
    """Register calls, connect their media, ask for their next hop: for dialplans."""
    READ = "read"
    """Read calls, the clock, metrics, and the details of readiness."""
    CONTROL = "control"
    """Place calls, hang up calls, reset figures."""


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True)
class Grant:
    """What a key allows."""

    key_name: str
    """The key's name in the key file; empty for the server's own key and those of the environment."""
    scopes: frozenset[Scope]
    max_calls: int = 0
    """Maximum calls of this key that wait or are up; 0: no limit."""
    assistants: frozenset[str] = frozenset()
    """The ids of the assistants whose calls exist for this key; empty: all."""

    def covers(self, assistant_id: str) -> bool:
        """Whether the calls of an assistant exist for this key."""
        return not self.assistants or assistant_id in self.assistants


FULL_GRANT = Grant("", ALL_SCOPES)
