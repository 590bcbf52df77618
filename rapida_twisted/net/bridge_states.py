"""Which calls in Stasis have their media in Asterisk's bridge, in memory that processes share."""

from __future__ import annotations

__all__ = ["BridgeStates"]

_ID_BYTES = 36
"""A UUID's canonical form."""


class BridgeStates:
    """Whether Asterisk's bridge has the media of each of the newest 256 calls in Stasis, in memory that other processes
    may see. One process writes it.

    :param memory: ``SIZE`` bytes, all zero at first; this process's own if not given.
    """

    __slots__ = ("_memory", "_next")

    SIZE = 256 * (1 + _ID_BYTES)

    def __init__(self, memory: memoryview | None = None) -> None:
        self._memory = memoryview(bytearray(self.SIZE)) if memory is None else memory
        self._next = 0

    def add(self, context_id: str) -> None:
        """A call whose media is about to connect, and not bridged. The oldest call makes room."""
        place, self._next = self._next, (self._next + 1 + _ID_BYTES) % self.SIZE
        self._memory[place : place + 1 + _ID_BYTES] = b"\0" + _bytes_of(context_id)

    def set_bridged(self, context_id: str) -> None:
        """The bridge has this call's media."""
        place = self._place(context_id)
        if place is not None:
            self._memory[place] = 1

    def get(self, context_id: str) -> bool | None:
        """Whether the bridge has this call's media; None for a call that is not here."""
        place = self._place(context_id)
        return None if place is None else bool(self._memory[place])

    def _place(self, context_id: str) -> int | None:
        wanted, memory = _bytes_of(context_id), self._memory
        places = range(0, self.SIZE, 1 + _ID_BYTES)
        return next((place for place in places if memory[place + 1 : place + 1 + _ID_BYTES] == wanted), None)


def _bytes_of(context_id: str) -> bytes:
    return context_id.encode().ljust(_ID_BYTES, b"\0")[:_ID_BYTES]
