"""What a process does: everything, or one share of the work of several that split a machine's calls."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rapida_twisted.net.bridge_states import BridgeStates
from rapida_twisted.net.shared_counter import SharedCounter

__all__ = ["ACCEPTING", "ARI", "BEAT", "STANDALONE", "ProcessRole"]

ARI = "ARI"
"""Names the UNIX socket on which the process that speaks with Asterisk's ARI takes requests for outbound calls."""

ACCEPTING = "open"
"""Names the counter in which a process has 1 while it takes calls."""

BEAT = "beat"
"""Names the counter in which a process has the time of its last heartbeat: monotonic ms; 0 before the first."""


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
    """Listening sockets that several processes accept from, by port name, such as ``HTTP``."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """The port numbers on which other processes listen, by port name."""
    counter: Callable[[str], SharedCounter] = field(default=lambda name: SharedCounter())
    """Makes the counter of something that is limited for all processes together."""
    bridges: BridgeStates = field(default_factory=BridgeStates)
    """Which calls in Stasis are bridged."""


STANDALONE = ProcessRole()
"""A process that does everything."""
