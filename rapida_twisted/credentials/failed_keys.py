"""Slows those who try keys: the refusals of an address that sends many wrong ones come late. Pure.

The right key is never delayed, so nobody can lock out a client that shares its address.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

__all__ = ["FREE_PER_MINUTE", "FailedKeys"]

FREE_PER_MINUTE = 60
"""Refusals of an address that come at once."""
DELAY_S = 1.0
KNOWN_ADDRESSES = 4096
"""Failures are counted for the N most recently seen addresses."""


class FailedKeys:
    """Counts the wrong keys of each address, minute by minute."""

    def __init__(self) -> None:
        self._counted: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        """By address: when its minute began, and the wrong keys since then."""

    def delay_s(self, address: Hashable, now_s: float) -> float:
        """Count a wrong key; returns how long (s) its refusal is to wait.

        :param now_s: the time of a clock that may step.
        """
        began_s, count = self._counted.get(address, (now_s, 0))
        if not 0 <= now_s - began_s < 60:
            began_s, count = now_s, 0
        self._counted[address] = began_s, count + 1
        self._counted.move_to_end(address)
        if len(self._counted) > KNOWN_ADDRESSES:
            self._counted.popitem(last=False)
        return DELAY_S if count >= FREE_PER_MINUTE else 0.0
