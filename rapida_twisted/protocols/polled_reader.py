"""Lets the media clock read a connection once each 20 ms, in place of the reactor.

Polling saves one reactor wake-up per packet, which costs more than the read itself. With many calls the clock takes
their sockets out of the reactor's poll and reads each once a period, just before the call's next frame leaves. The end
of the stream and errors go back to the reactor.
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
"""Maximum reads of READ_BYTES per poll: together 1 s of slin at 8 kHz. The rest waits in the socket."""


@implementer(IPolledReader)
class PolledReader:
    """Reads one TCP or UNIX connection without TLS.

    :param transport: a Twisted transport that has a socket.
    :param received: the protocol's ``dataReceived``.
    """

    _log = Logger()

    def __init__(self, transport: Any, received: Callable[[bytes], None]) -> None:
        self.polled = False
        self._transport = transport
        self._recv = transport.getHandle().recv
        self._received = received

    def take_over(self) -> None:
        self.polled = True
        self._transport.pauseProducing()

    def give_back(self) -> None:
        """Stop polling: the reactor reads the connection again, unless it is closing or closed."""
        if self.polled:
            self.polled = False
            self._transport.resumeProducing()

    def poll(self) -> bool:
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
            # The reactor reads the end of the stream again, and closes.
            self.give_back()
            return False
        try:
            self._received(data)
            if len(data) == READ_BYTES:
                self._read_burst()
        except Exception:
            # As the reactor does with a protocol that raises.
            failure = Failure()
            self._log.failure("a protocol failed in dataReceived: its connection is closed", failure)
            self._lost(failure)
        return True

    def _read_burst(self) -> None:
        """Read the rest of a burst, up to MAX_READS: left unread, it would delay the call's audio to its end."""
        for _ in range(MAX_READS - 1):
            # The data received so far may have ended the call.
            if not self.polled:
                return
            try:
                data = self._recv(READ_BYTES)
            except OSError:
                return  # The next poll gets the error again.
            if not data:
                return
            self._received(data)
            if len(data) < READ_BYTES:
                return

    def _lost(self, failure: Failure) -> None:
        self.polled = False
        # Our read cleared the socket's error: the reactor would see an orderly end.
        self._transport.connectionLost(failure)


def make_polled_reader(transport: Any, received: Callable[[bytes], None]) -> PolledReader | None:
    """The polled reader of a transport; None where only the reactor can read (TLS, the PROXY protocol)."""
    if isinstance(transport, tcp.Connection) and not transport.TLS:
        return PolledReader(transport, received)
    return None
