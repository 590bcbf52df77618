"""The live suite: the real program, as a process of its own, behind a real Asterisk (see ``script/asterisk``).

Everything under test is another process, so these tests block: each wait has its own deadline, and none needs the
reactor. All traffic stays on the loopback interface, on ports that were free at the start.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from twisted.trial.unittest import FailTest

Found = TypeVar("Found")


def wait_until(what: str, probe: Callable[[], Found | None], timeout_s: float, every_s: float = 0.02) -> Found:
    """Ask ``probe`` until it gives something, and return that.

    :param what: what is waited for, in words, for the message when it does not come.
    :raises FailTest: it did not come in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise FailTest(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)


_given: set[int] = set()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of the loopback interface that nobody has now, and that was not given before: its user may come late."""
    while True:
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def free_udp_block(count: int) -> int:
    """The first, even, of ``count`` UDP ports in a row that nobody has now: for RTP.

    They lie below the kernel's own range, so that no outgoing connection takes one a moment later.
    """
    for _ in range(200):
        first = random.randrange(16000, 32000 - count, 2)
        if all(_udp_port_is_free(port) for port in range(first, first + count)):
            return first
    raise FailTest(f"no {count} free UDP ports in a row")


def _udp_port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
