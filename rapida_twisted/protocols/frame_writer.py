"""Writes audio frames directly to the socket, and drops frames for a peer that reads too slowly.

Twisted's ``transport.write`` queues data for the reactor's next turn, which costs more than a small frame itself. On a
bare TCP or UNIX socket with nothing queued, one ``send()`` is enough. Data that the kernel does not accept goes through
``transport.write``; until that is sent, further audio is dropped, so that a slow peer costs no memory.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

__all__ = ["FrameWriter", "make_frame_writer", "tune_socket"]

READ_BYTES = 4096
"""The largest read, and the limit of Twisted's own send buffer: 13 frames of 320 bytes."""

KERNEL_SEND_BYTES = 16384
"""The socket's send buffer (Linux doubles it): about 2 s of slin at 8 kHz. The default would hold minutes."""

UNACKNOWLEDGED_S = 10.0
"""The kernel closes the connection if the peer acknowledges nothing, or leaves its window closed, for this long."""


class FrameWriter:
    """Writes the frames of one connection."""

    def __init__(self, transport: Any) -> None:
        self.full = False
        """True while data is queued: audio is dropped until the peer has read it."""
        self.dropped = 0
        """Audio frames dropped."""
        self.dropped_in_row = 0
        """Audio frames dropped since the last one sent."""
        self.drained: Callable[[], None] = lambda: None
        """Called when :attr:`full` becomes False."""
        self._transport = transport

    def send(self, *messages: bytes) -> bool:
        """Send audio, or drop all of it if the peer reads too slowly; True if it was sent."""
        if self.full:
            self.dropped += 1
            self.dropped_in_row += 1
            return False
        self.dropped_in_row = 0
        self._write(messages[0] if len(messages) == 1 else b"".join(messages))
        return True

    def send_control(self, data: bytes) -> None:
        """Send data that must not be dropped (a hangup frame), after the data already queued."""
        self._transport.write(data)

    def close(self) -> None:
        """Close once the queued data is sent."""
        # A registered producer would keep the transport open.
        self._transport.unregisterProducer()
        self._transport.loseConnection()

    def abort(self) -> None:
        """Close at once and drop the queued data."""
        self._transport.abortConnection()

    def _write(self, data: bytes) -> None:
        raise NotImplementedError


@implementer(IPushProducer)
class _BufferedWriter(FrameWriter):
    """Any transport: the transport reports when its buffer is full and when it is empty again."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        transport.registerProducer(self, True)

    def _write(self, data: bytes) -> None:
        self._transport.write(data)

    def pauseProducing(self) -> None:
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False
        self.drained()

    stopProducing = pauseProducing


class _RecordWriter(_BufferedWriter):
    """TLS: puts each message into a record of its own.

    Twisted would combine the messages of one turn in one record. Asterisk reads one message each time its socket is
    readable, and the rest of the record stays in its TLS buffer until the next record comes: a mark or a flush would
    wait for seconds.
    """

    def send(self, *messages: bytes) -> bool:
        if not super().send(messages[0]):
            return False
        for message in messages[1:]:
            self._write(message)
        return True

    def send_control(self, data: bytes) -> None:
        self._write(data)

    def _write(self, data: bytes) -> None:
        # The transport's own write() would combine messages.
        TLSMemoryBIOProtocol.write(self._transport, data)


@implementer(IPullProducer)
class _DirectWriter(FrameWriter):
    """A bare socket: ``send()`` at once, and ``transport.write`` for the data that the kernel does not accept."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self._socket_send = transport.getHandle().send
        self._handing_over = False

    def _write(self, data: bytes) -> None:
        try:
            sent = self._socket_send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The connection is broken: the reactor notices, and calls connectionLost with the cause.
            self.full = True
            return
        if sent < len(data):
            self._hand_over(data[sent:])

    def send_control(self, data: bytes) -> None:
        if self.full:
            self._transport.write(data)
        else:
            self._write(data)

    def _hand_over(self, rest: bytes) -> None:
        """Let the transport send the rest, and call us when its buffer is empty."""
        self.full = self._handing_over = True
        self._transport.write(rest)
        # The transport calls a pull producer once at its registration, and then whenever the buffer is empty.
        self._transport.registerProducer(self, False)
        self._handing_over = False

    def resumeProducing(self) -> None:
        if not self._handing_over:
            self.full = False
            self._transport.unregisterProducer()
            self.drained()

    def stopProducing(self) -> None:
        self.full = True


def tune_socket(transport: Any, unacknowledged_s: float = UNACKNOWLEDGED_S) -> None:
    """Disable Nagle's algorithm, shrink the buffers and detect dead peers, as far as the transport has a socket."""
    transport.bufferSize = READ_BYTES
    while isinstance(transport, ProtocolWrapper):  # TLS, the PROXY protocol
        transport = transport.transport
    handle = transport.getHandle() if isinstance(transport, tcp.Connection) else None
    if not isinstance(handle, socket.socket):
        return
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_SEND_BYTES)
    if handle.family not in (socket.AF_INET, socket.AF_INET6):
        return  # Twisted's UNIX transports are subclasses of its TCP transports.
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(unacknowledged_s * 1000))


def make_frame_writer(transport: Any, *, records: bool = False) -> FrameWriter:
    """The writer that suits the transport. Call it once, in ``connectionMade``.

    :param records: put each message into a TLS record of its own, if there is TLS.
    """
    if isinstance(transport, tcp.Connection) and not transport.TLS:
        return _DirectWriter(transport)
    if records and isinstance(transport, TLSMemoryBIOProtocol):
        return _RecordWriter(transport)
    return _BufferedWriter(transport)
