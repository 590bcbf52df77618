"""Ports of the loopback interface for processes under test.

Test processes run side by side (``trial -j``, several Asterisks, other checkouts on the same machine). Each takes the
lowest free instance number and draws ports from the range of that instance alone, so that none hands out the port of
another. The kernel takes ports for
outgoing connections from 32768 up, which is above all ranges.
"""

from __future__ import annotations

import socket
from functools import cache

from twisted.trial.unittest import FailTest

__all__ = ["PortRange", "free_port", "free_udp_block", "instance", "release"]

FIRST_PORT = 10_000
PORTS = 800
"""Per instance: a half of the live suite draws some 400."""
INSTANCES = 27

_claims: list[socket.socket] = []


@cache
def instance() -> int:
    """The number of this process among those that test on this machine now.

    An abstract Unix socket is the claim: the kernel frees it when the process ends, however it ends.
    """
    for number in range(INSTANCES):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0rapida-twisted-tests-{number}")
        except OSError:
            claim.close()
        else:
            _claims.append(claim)
            return number
    raise FailTest(f"{INSTANCES} processes test on this machine already")


class PortRange:
    """Hands out the ports of one range in turn, so that a port comes again as late as possible."""

    def __init__(self, first: int, count: int) -> None:
        self._first = first
        self._count = count
        self._next = 0
        self._kept: set[int] = set()

    def take(self, kind: socket.SocketKind, count: int = 1, *, keep: bool = False) -> int:
        """The first of ``count`` adjacent ports that are free now; even if there are several (RTP).

        :param keep: hand them out to nobody else before :meth:`release`: their user binds them late, or never.
        :raises FailTest: there are none.
        """
        for _ in range(2 * self._count):
            if self._next + count > self._count:
                self._next = 0
            port = self._first + self._next
            if count > 1 and port % 2:
                self._next += 1
                continue
            wanted = range(port, port + count)
            taken = [number for number in wanted if number in self._kept or not _is_free(number, kind)]
            if taken:
                self._next = taken[-1] + 1 - self._first
                continue
            self._next += count
            if keep:
                self._kept.update(wanted)
            return port
        raise FailTest(f"no {count} adjacent free ports from {self._first} to {self._first + self._count - 1}")

    def release(self, first: int, count: int = 1) -> None:
        """End what ``keep`` began."""
        self._kept.difference_update(range(first, first + count))


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@cache
def _ports() -> PortRange:
    return PortRange(FIRST_PORT + instance() * PORTS, PORTS)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM, *, keep: bool = False) -> int:
    """A free port of this process's range, see :meth:`PortRange.take`."""
    return _ports().take(kind, keep=keep)


def free_udp_block(count: int, *, keep: bool = False) -> int:
    """The first, even, of ``count`` adjacent UDP ports: for RTP."""
    return _ports().take(socket.SOCK_DGRAM, count, keep=keep)


def release(first: int, count: int = 1) -> None:
    """Give back ports that were taken with ``keep``."""
    _ports().release(first, count)
