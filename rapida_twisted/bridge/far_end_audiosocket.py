"""The far end of a bridged call over AudioSocket: sends the UUID, then relays audio in both directions."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import UUID

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.audio.convert import Converter, converter
from rapida_twisted.audio.drift import Step
from rapida_twisted.audio.formats import FRAME_MS, SLIN, AudioFormat
from rapida_twisted.bridge.far_end import FarEnd, connect
from rapida_twisted.interfaces import IFarEnd, IFarEndUser
from rapida_twisted.net.addresses import host_and_port
from rapida_twisted.protocols.audiosocket_asterisk import AsteriskProtocol
from rapida_twisted.protocols.frame_writer import tune_socket
from rapida_twisted.wire.audiosocket import ErrorBits

__all__ = ["AudioSocketFarEnd", "connect_audiosocket"]

MAX_QUEUED_FRAMES = 3
"""60 ms. A larger packet raises the limit to its own size."""


@implementer(IFarEnd)
class AudioSocketFarEnd(FarEnd):
    """One call at an AudioSocket server.

    :param uuid: identifies the call to the server.
    """

    connection: _Connection

    def __init__(
        self,
        uuid: UUID,
        user: IFarEndUser,
        name: str,
        stalled_s: float,
        reactor: Any,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(user, name, SLIN, stalled_s, reactor, now)
        self.connection = _Connection(self, uuid)
        self._frames: deque[bytes] = deque()
        self._rest = b""
        self._rate_hz = SLIN.rate_hz
        self._convert: Converter | None = None
        self._max_frames = MAX_QUEUED_FRAMES
        self._has_sent = False

    # IFarEnd

    @property
    def queued_ms(self) -> float:
        return len(self._frames) * FRAME_MS + SLIN.ms(len(self._rest))

    def take(self) -> bytes | None:
        frames, guard = self._frames, self._guard
        while frames:
            step = guard.due(frames[0], self._now())
            if step is Step.REPEAT:
                return frames[0]
            frame = frames.popleft()
            if step is Step.TAKE:
                return frame
        guard.empty()
        return None

    # From the connection

    def audio(self, samples: bytes, rate_hz: int) -> None:
        self._has_sent = True
        if rate_hz != self._rate_hz:
            self.connection.count_control()
            self._rate_hz, self._convert = rate_hz, converter(AudioFormat("slin", rate_hz), SLIN)
        data = self._rest + (samples if self._convert is None else self._convert(samples))
        size = SLIN.frame_bytes
        whole = len(data) // size * size
        self._rest = data[whole:]
        if whole:
            self._frames.extend([data[begin : begin + size] for begin in range(0, whole, size)])
            self._guard.arrived(whole // size, self._now())
            self._max_frames = max(self._max_frames, whole // size)
            while len(self._frames) > self._max_frames:
                self._frames.popleft()
                self._guard.oldest_dropped()
                self.dropped_ms += FRAME_MS

    def error(self, code: ErrorBits) -> None:
        if code & ErrorBits.HANGUP:
            self.hung_up()
        else:
            self._failed("lost", f"reported error {code.text}")
            self._close_now()

    def closed(self, violation: str, reason: Failure) -> None:
        """The connection is closed.

        :param violation: the protocol rule that the server broke, or empty.
        """
        self._closed = True
        if violation:
            self._failed("malformed", f"broke the protocol: {violation}")
        elif not reason.check(ConnectionDone):
            self._failed("lost", f"lost the connection: {reason.getErrorMessage()}")
        elif self._has_sent:
            self.hung_up()
        else:
            self._failed("refused", "closed the call before it sent any audio", of_call=True)


class _Connection(AsteriskProtocol):
    transport: Any = None

    def __init__(self, far_end: AudioSocketFarEnd, uuid: UUID) -> None:
        super().__init__(uuid)
        self._far_end = far_end

    def call_started(self) -> None:
        tune_socket(self.transport, self._far_end.stalled_s)
        self._far_end.opened.callback(None)

    def audio_received(self, samples: bytes, rate_hz: int) -> None:
        self._far_end.audio(samples, rate_hz)

    def hangup_received(self) -> None:
        self._far_end.hung_up()

    def error_received(self, code: ErrorBits) -> None:
        self._far_end.error(code)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._far_end.closed(self.problem, reason)


async def connect_audiosocket(
    host: str, port: int, uuid: UUID, *, user: IFarEndUser, reactor: Any, timeout_s: float, stalled_s: float
) -> IFarEnd:
    """Connect a call to an AudioSocket server, as Asterisk's ``AudioSocket()`` does.

    :param timeout_s: the time limit of connecting.
    :param stalled_s: see :class:`FarEnd`.
    :raises UpstreamFailed: the connection failed. A server that refuses the call closes it later.
    """
    far_end = AudioSocketFarEnd(uuid, user, host_and_port(host, port), stalled_s, reactor)
    factory = Factory.forProtocol(lambda: far_end.connection)
    factory.noisy = False
    await connect(far_end, factory, host, port, None, reactor, timeout_s)
    return far_end
