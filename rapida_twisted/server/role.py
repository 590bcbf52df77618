"""What part of the server a process is: all of it, or one of several that share a machine's calls."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rapida_twisted.net.limits import SharedCounter, SharedIds

__all__ = ["ARI", "OPEN", "STANDALONE", "ProcessRole"]

ARI = "ARI"
"""What the socket is called at which the process that speaks with Asterisk's ARI takes requests for outbound calls."""

OPEN = "open"
"""The tally in which a process has 1 while it takes calls."""


@dataclass(frozen=True, kw_only=True)
class ProcessRole:
    """What this process does. By default everything, with ports of its own.

    Asterisk lets one client connect to a Stasis application at a time, so of several processes one speaks ARI. It takes
    no media; all others do, and pass requests for outbound calls on to it.
    """

    ari: bool = True
    """Whether it places outbound calls, and looks after channels in Stasis."""
    media: bool = True
    """Whether it listens for calls."""
    ari_socket: str = ""
    """The path of the UNIX socket at which another process places outbound calls; empty: none does."""
    sockets: Mapping[str, socket.socket] = field(default_factory=dict)
    """Sockets that listen already and that others accept from, too, by what listens on them, such as ``HTTP``."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Where other processes listen, likewise by name."""
    tally: Callable[[str], SharedCounter] = field(default=lambda name: SharedCounter())
    """Makes the count of something that is limited for all processes together."""
    unbridged: SharedIds = field(default_factory=SharedIds)
    """The contextIds of calls whose media is not in Asterisk's bridge yet."""


STANDALONE = ProcessRole()
"""A process that does everything."""
