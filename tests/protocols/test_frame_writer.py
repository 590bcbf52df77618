"""The frame writers: on fake transports, and on real socket pairs without a reactor."""

from __future__ import annotations

import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import tcp
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.protocols.frame_writer import READ_BYTES, make_frame_writer, tune_socket

FRAME = 323


class BufferedTests(SynchronousTestCase):
    """Any transport that tells when its buffer is full."""

    def setUp(self) -> None:
        self.transport = StringTransport()
        self.writer = make_frame_writer(self.transport)

    def test_sends(self) -> None:
        """While the transport takes it, everything is written."""
        self.assertTrue(self.writer.send(b"a"))
        self.writer.send_control(b"b")
        self.assertEqual(self.transport.value(), b"ab")
        self.assertTrue(self.transport.streaming)

    def test_full(self) -> None:
        """While its buffer is full, audio is dropped and counted; what must not be lost is written."""
        self.transport.producer.pauseProducing()
        self.assertEqual([self.writer.send(b"a"), self.writer.send(b"b")], [False, False])
        self.writer.send_control(b"c")
        self.assertEqual((self.transport.value(), self.writer.full), (b"c", True))
        self.assertEqual((self.writer.dropped, self.writer.dropped_in_row), (2, 2))

    def test_empty_again(self) -> None:
        """When it is empty again, audio is sent; the count in a row begins anew with it."""
        self.transport.producer.pauseProducing()
        self.writer.send(b"a")
        self.transport.producer.resumeProducing()
        self.assertTrue(self.writer.send(b"b"))
        self.assertEqual((self.writer.dropped, self.writer.dropped_in_row), (1, 0))

    def test_gone(self) -> None:
        """When the connection is gone, audio is dropped without an error."""
        self.transport.producer.stopProducing()
        self.assertFalse(self.writer.send(b"a"))

    def test_close(self) -> None:
        """To close, it lets go of the transport, which would stay open otherwise."""
        self.writer.close()
        self.assertIsNone(self.transport.producer)
        self.assertEqual((self.transport.disconnecting, self.transport.disconnected), (True, False))

    def test_abort(self) -> None:
        """To abort is to close at once."""
        self.writer.abort()
        self.assertTrue(self.transport.disconnected)

    def test_tuning_of_what_is_no_socket(self) -> None:
        """A transport that is no TCP socket only gets its buffer size."""
        tune_socket(self.transport)
        self.assertEqual(self.transport.bufferSize, READ_BYTES)  # type: ignore[attr-defined]


class HandReactor:
    """A reactor that only records which transports wait to write; the test does its work."""

    def __init__(self) -> None:
        self.writers: set[Any] = set()

    def addWriter(self, writer: Any) -> None:  # noqa: N802
        """Note it."""
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:  # noqa: N802
        """Forget it."""
        self.writers.discard(writer)

    def removeReader(self, reader: Any) -> None:  # noqa: N802
        """Nothing is read here."""

    def write(self) -> None:
        """One reactor turn for the transports that wait to write."""
        for writer in tuple(self.writers):
            if writer.doWrite() is not None:
                self.writers.discard(writer)


class SocketPair:
    """A direct writer on one end of a socket pair, and the peer's end, both with the smallest buffers."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        for end in (ours, self.peer):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self.reactor = HandReactor()
        self.transport: Any = tcp.Connection(ours, Protocol(), self.reactor)
        self.transport.connected = True
        self.writer = make_frame_writer(self.transport)

    def fill(self) -> list[bytes]:
        """Send frames until one is dropped; those that were taken."""
        taken: list[bytes] = []
        while self.writer.send(frame := bytes((len(taken) % 251,)) * FRAME):
            taken.append(frame)
            assert len(taken) < 10_000
        return taken

    def read(self, size: int = 1 << 20) -> bytes:
        """What the peer finds in its socket."""
        try:
            return self.peer.recv(size)
        except BlockingIOError:
            return b""

    def drain(self) -> bytes:
        """Let the peer read all there is, and the reactor write what waits."""
        data = b""
        while True:
            self.reactor.write()
            piece = self.read()
            if not piece:
                return data
            data += piece

    @property
    def queued(self) -> int:
        """The bytes that wait in this process."""
        return len(self.transport.dataBuffer) + self.transport._tempDataLen

    def close(self) -> None:
        """Both ends."""
        self.transport.socket.close()
        self.peer.close()


class DirectTests(SynchronousTestCase):
    """A bare socket."""

    def setUp(self) -> None:
        self.pair = SocketPair()
        self.addCleanup(self.pair.close)
        self.writer = self.pair.writer

    def test_at_once(self) -> None:
        """A frame is in the socket when send() returns: no turn of the reactor is waited for."""
        self.assertTrue(self.writer.send(b"audio"))
        self.writer.send_control(b"control")
        self.assertEqual((self.pair.read(), self.pair.reactor.writers), (b"audiocontrol", set()))

    def test_full(self) -> None:
        """When the kernel takes no more, at most one frame waits here and what follows is dropped."""
        self.pair.fill()
        for _ in range(1000):
            self.assertFalse(self.writer.send(bytes(FRAME)))
        self.assertLessEqual(self.pair.queued, FRAME)
        self.assertEqual((self.writer.full, self.writer.dropped, self.writer.dropped_in_row), (True, 1001, 1001))

    def test_only_whole_frames(self) -> None:
        """What a slow peer reads in the end is every frame that was taken, whole, and then what is sent anew."""
        taken = self.pair.fill()
        self.assertEqual(self.pair.drain(), b"".join(taken))
        self.assertEqual((self.writer.full, self.pair.transport.producer), (False, None))
        self.assertTrue(self.writer.send(b"new"))
        self.assertEqual((self.pair.read(), self.writer.dropped_in_row), (b"new", 0))

    def test_control_waits_behind(self) -> None:
        """A hangup frame for a slow peer goes behind what was taken, and is not lost."""
        taken = self.pair.fill()
        self.writer.send_control(b"\x00\x00\x00")
        self.assertEqual(self.pair.drain(), b"".join(taken) + b"\x00\x00\x00")

    def test_control_alone(self) -> None:
        """A control frame that meets a full kernel is handed over as well, and audio waits for it."""
        for _ in range(10_000):
            if self.writer.full:
                break
            self.writer.send_control(bytes(FRAME))
        self.assertTrue(self.writer.full)
        self.assertFalse(self.writer.send(b"audio"))
        self.assertEqual(len(self.pair.drain()) % FRAME, 0)
        self.assertTrue(self.writer.send(b"audio"))

    def test_broken(self) -> None:
        """A socket that is broken drops audio without an error; the reactor finds out why."""
        self.pair.peer.close()
        self.assertEqual([self.writer.send(b"a") for _ in range(3)][1:], [False, False])
        self.writer.send_control(b"bye")
        self.assertGreaterEqual(self.writer.dropped_in_row, 2)

    def test_close_while_full(self) -> None:
        """To close, it lets go of the transport, so that the connection ends with what is queued."""
        self.pair.fill()
        self.writer.close()
        self.assertTrue(self.pair.transport.disconnecting)
        self.assertIsNone(self.pair.transport.producer)


class AnyReaderTests(SynchronousTestCase):
    """A peer that reads when and as much as it likes."""

    @given(st.lists(st.one_of(st.integers(1, 4000), st.just(0), st.none()), max_size=60))
    def test_never_a_torn_frame(self, steps: list[int | None]) -> None:
        """Frames are sent or dropped whole, in order, and never more than one waits here."""
        pair = SocketPair()
        try:
            sent, received = b"", b""
            for number, step in enumerate(steps * 4):
                if step is None:
                    frame = bytes((number % 251,)) * FRAME
                    sent += frame if pair.writer.send(frame) else b""
                    assert pair.queued <= FRAME
                elif step == 0:
                    pair.reactor.write()
                else:
                    received += pair.read(step)
            assert received + pair.drain() == sent
            assert pair.writer.send(b"x")
        finally:
            pair.close()
