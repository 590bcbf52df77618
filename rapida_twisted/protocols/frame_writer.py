"""How small frames leave: straight into the socket where that is possible, and never into an unbounded buffer.

Twisted's ``transport.write`` queues and asks the reactor to write in its next turn, which for one small frame costs
more than the frame. On a bare TCP or UNIX socket with nothing queued, one ``send()`` does it. What the kernel does not
take at once goes through ``transport.write``, and until that is gone further audio is dropped: a listener who does not
listen loses audio, not our memory.
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
"""What one read takes at the most, and what may be queued in user space: 13 frames of 320 bytes."""

KERNEL_SEND_BYTES = 16384
"""The socket's send buffer (Linux doubles it): about 2 s of slin at 8 kHz instead of minutes."""

UNACKNOWLEDGED_MS = 10_000


class FrameWriter:
    """Where one connection's frames go."""

    def __init__(self, transport: Any) -> None:
        self.full = False
        """Whether the peer is behind: audio is dropped until it has taken what is queued."""
        self.dropped = 0
        """Audio frames that were dropped."""
        self.dropped_in_row = 0
        """Those since the last one that left."""
        self.drained: Callable[[], None] = lambda: None
        """Called when :attr:`full` is over."""
        self._transport = transport

    def send(self, *messages: bytes) -> bool:
        """Send audio, or drop all of it when the peer does not keep up; whether it was sent."""
        if self.full:
            self.dropped += 1
            self.dropped_in_row += 1
            return False
        self.dropped_in_row = 0
        self._write(messages[0] if len(messages) == 1 else b"".join(messages))
        return True

    def send_control(self, data: bytes) -> None:
        """Send what must not be lost (a hangup frame): behind what is queued already."""
        self._transport.write(data)

    def close(self) -> None:
        """Close when what is queued is sent."""
        # A registered producer would keep the transport open.
        self._transport.unregisterProducer()
        self._transport.loseConnection()

    def abort(self) -> None:
        """Close at once, whatever is queued."""
        self._transport.abortConnection()

    def _write(self, data: bytes) -> None:
        raise NotImplementedError


@implementer(IPushProducer)
class _BufferedWriter(FrameWriter):
    """Any transport: it tells us when its buffer is full and when it is empty again."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        transport.registerProducer(self, True)

    def _write(self, data: bytes) -> None:
        self._transport.write(data)

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self.full = True

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self.full = False
        self.drained()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.full = True


class _RecordWriter(_BufferedWriter):
    """TLS: each message in a record of its own.

    Twisted would put those of one turn into one record. Asterisk reads one message whenever its socket has something
    to read. What its TLS took from there in the same record waits for the next one: a mark or a flush, for seconds.
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
        # Not the transport's own write, which aggregates.
        TLSMemoryBIOProtocol.write(self._transport, data)


@implementer(IPullProducer)
class _DirectWriter(FrameWriter):
    """A bare socket: ``send()`` now, and ``transport.write`` only for what the kernel did not take."""

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
            # The connection is broken: the reactor finds out by itself, and tells connectionLost why.
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
        """Let the transport send the rest, and have it call when that is gone."""
        self.full = self._handing_over = True
        self._transport.write(rest)
        # A pull producer is asked for more once at its registration, and then whenever the buffer is empty.
        self._transport.registerProducer(self, False)
        self._handing_over = False

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        if not self._handing_over:
            self.full = False
            self._transport.unregisterProducer()
            self.drained()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.full = True


def tune_socket(transport: Any) -> None:
    """Small frames at once, small buffers, and word of a dead peer: as far as there is a socket beneath."""
    transport.bufferSize = READ_BYTES
    while isinstance(transport, ProtocolWrapper):  # TLS, the PROXY protocol
        transport = transport.transport
    handle = transport.getHandle() if isinstance(transport, tcp.Connection) else None
    if not isinstance(handle, socket.socket):
        return
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_SEND_BYTES)
    if handle.family not in (socket.AF_INET, socket.AF_INET6):
        return  # a UNIX socket, which in Twisted is a kind of TCP transport too
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        # What was sent and is not acknowledged for so long means that the peer is gone.
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)


def make_frame_writer(transport: Any, *, records: bool = False) -> FrameWriter:
    """The writer that suits the transport; to be called once, in ``connectionMade``.

    :param records: whether each message leaves in a TLS record of its own, if there is TLS.
    """
    if isinstance(transport, tcp.Connection) and not transport.TLS:
        return _DirectWriter(transport)
    if records and isinstance(transport, TLSMemoryBIOProtocol):
        return _RecordWriter(transport)
    return _BufferedWriter(transport)
