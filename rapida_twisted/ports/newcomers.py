"""Connections that have not proved anything yet, oldest first: they make room for others when a port is full."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

__all__ = ["Newcomers"]


class Newcomers:
    """The newcomers of a port, in the order of their arrival."""

    def __init__(self) -> None:
        self._groups: OrderedDict[Any, int | None] = OrderedDict()
        self._of_group: dict[int | None, OrderedDict[Any, None]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, connection: Any, group: int | None) -> None:
        """Add a connection.

        :param group: of its address, see :func:`~rapida_twisted.net.addresses.group_of`; None if unknown.
        """
        self._groups[connection] = group
        self._of_group.setdefault(group, OrderedDict())[connection] = None

    def discard(self, connection: Any) -> None:
        """It proved itself, or closed. Idempotent."""
        if connection not in self._groups:
            return
        group = self._groups.pop(connection)
        same = self._of_group[group]
        del same[connection]
        if not same:
            del self._of_group[group]

    def take_oldest(self, group: int | None = None) -> Any:
        """Remove and return the oldest, of this group unless that is None; None if there is none."""
        among = self._groups if group is None else self._of_group.get(group)
        if not among:
            return None
        oldest = next(iter(among))
        self.discard(oldest)
        return oldest
