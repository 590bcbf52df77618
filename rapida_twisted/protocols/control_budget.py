"""Limits the control messages of one connection, so that no call takes the other calls' time.

Ordinary audio is not counted: a packet takes little time for its bytes, and the reactor and the media clock read a
bounded number of bytes of each connection in turn. What is counted takes as much time with next to no bytes: digits,
events, commands, errors, WebSocket pings and pongs, and audio in crumbs. 4,096 bytes, one read, hold 680 empty pings.
"""

from __future__ import annotations

from collections.abc import Callable

from rapida_twisted.net.token_bucket import TokenBucket

__all__ = ["BURST", "CRUMB_BYTES", "CRUMB_MS", "PER_SECOND", "PING_COST", "PROBLEM", "ControlBudget"]

PER_SECOND = 200
"""Far more than any call needs: a digit takes 40 ms, and a program that marks each 20 ms of its audio sends 50."""
BURST = 600
"""Messages at once. A call's queue has at most 256 sources, each with a mark; a network that stood still sends late."""
CRUMB_BYTES = 64
"""Audio shorter than this (8 ms of ulaw, 4 ms of slin at 8 kHz) counts as a control message; at higher rates, audio
shorter than CRUMB_MS."""
CRUMB_MS = 4
PING_COST = 4
"""What a ping, a pong or a crumb of a fragment counts: 30 us each, with 6 bytes."""
UNIT_BYTES = 256
"""A long message counts once more for each of these, since parsing it takes time."""
PROBLEM = f"over {PER_SECOND} control messages, pings or crumbs of audio a second"


class ControlBudget:
    """The control messages of one connection.

    :param seconds: a clock.
    """

    __slots__ = ("_bucket", "_seconds")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._bucket = TokenBucket(PER_SECOND, seconds(), BURST)

    def take(self, size: int = 0, cost: int = 1) -> bool:
        """Count a message; False if the connection has had too many, and must end.

        :param size: of the message (bytes).
        :param cost: as how many it counts.
        """
        return self._bucket.take(self._seconds(), cost + size // UNIT_BYTES)
