"""Who reads a connection: the reactor, whenever it says that something came, or the media clock, once a period.

To be told that something came costs more than to read it. With many calls the clock therefore takes their sockets out
of the reactor's poll, and reads each once a period, right before the call's next frame leaves. Whatever is not data
(the end of the stream, an error) is the reactor's again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.interfaces import IPolledReader
from rapida_twisted.protocols.frame_writer import READ_BYTES

__all__ = ["MAX_READS", "PolledReader", "make_polled_reader"]

MAX_READS = 4
"""What a poll reads at the most, in times of READ_BYTES: 1 s of slin at 8 kHz. More than that waits in the socket."""


@implementer(IPolledReader)
class PolledReader:
    """One TCP or UNIX connection without TLS.

    :param transport: a Twisted transport that has a socket.
    :param received: gets the bytes: the protocol's ``dataReceived``.
    """

    _log = Logger()

    def __init__(self, transport: Any, received: Callable[[bytes], None]) -> None:
        self.polled = False
        self._transport = transport
        self._recv = transport.getHandle().recv
        self._received = received

    def take_over(self) -> None:
        """The clock reads from now on."""
        self.polled = True
        self._transport.pauseProducing()

    def give_back(self) -> None:
        """The reactor reads from now on; of a connection that is closing or gone nobody does."""
        if self.polled:
            self.polled = False
            self._transport.resumeProducing()

    def poll(self) -> bool:
        """Read what has come; whether anything had."""
        if not self.polled:
            return False
        try:
            data = self._recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            self._lost(Failure(ConnectionLost()))
            return False
        if not data:
            # The reactor finds the end of the stream too, and closes.
            self.give_back()
            return False
        try:
            self._received(data)
            if len(data) == READ_BYTES:
                self._read_on()
        except Exception:
            # As the reactor does with a protocol that raises.
            failure = Failure()
            self._log.failure("a protocol failed at what it received, and its connection is closed", failure)
            self._lost(failure)
        return True

    def _read_on(self) -> None:
        """Take the rest of a burst, or it would be late for ever; but no flood."""
        for _ in range(MAX_READS - 1):
            # What was received may have ended the call.
            if not self.polled:
                return
            try:
                data = self._recv(READ_BYTES)
            except OSError:
                return  # The next poll finds it too.
            if not data:
                return
            self._received(data)
            if len(data) < READ_BYTES:
                return

    def _lost(self, failure: Failure) -> None:
        self.polled = False
        # The error was taken out of the socket by our read: the reactor would find an orderly end.
        self._transport.connectionLost(failure)


def make_polled_reader(transport: Any, received: Callable[[bytes], None]) -> PolledReader | None:
    """What lets the clock read this transport; None where only the reactor can (TLS, the PROXY protocol)."""
    if isinstance(transport, tcp.Connection) and not transport.TLS:
        return PolledReader(transport, received)
    return None
