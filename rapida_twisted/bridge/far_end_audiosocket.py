"""A far end over AudioSocket: the UUID goes first, then audio as it comes, both ways."""

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
from rapida_twisted.bridge.far_end import STALLED_S, FarEnd, connect, host_and_port
from rapida_twisted.interfaces import IFarEnd, IFarEndUser
from rapida_twisted.protocols.audiosocket_asterisk import AsteriskProtocol
from rapida_twisted.wire.audiosocket import ErrorBits

__all__ = ["AudioSocketFarEnd", "connect_audiosocket"]

HELD_FRAMES = 3
"""At most so many frames wait (60 ms), or as many as one packet has brought."""


@implementer(IFarEnd)
class AudioSocketFarEnd(FarEnd):
    """One call at an AudioSocket server.

    :param uuid: said first.
    """

    def __init__(
        self, uuid: UUID, user: IFarEndUser, name: str, reactor: Any, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(user, name, SLIN, reactor, now)
        self.line = _Line(self, uuid)
        self._frames: deque[bytes] = deque()
        self._rest = b""
        self._rate_hz = SLIN.rate_hz
        self._convert: Converter | None = None
        self._most = HELD_FRAMES
        self._said = False
        self._heard_s = now()

    @property
    def queued_ms(self) -> float:
        """How much waits (ms)."""
        return len(self._frames) * FRAME_MS + SLIN.ms(len(self._rest))

    def send_audio(self, payload: bytes) -> bool:
        """The caller was heard: see :class:`~rapida_twisted.interfaces.IFarEnd`."""
        return not self._over and self._took(self.line.send_audio(payload))

    def send_digit(self, digit: str) -> None:
        """The caller pressed a key."""
        self.line.send_digit(digit)

    def take(self) -> bytes | None:
        """The frame that is due, or None."""
        frames, guard, now_s = self._frames, self._guard, self._now()
        while frames:
            step = guard.due(frames[0], now_s)
            if step is Step.REPEAT:
                return frames[0]
            frame = frames.popleft()
            if step is Step.TAKE:
                return frame
        guard.empty()
        if now_s - self._heard_s > STALLED_S and not self._over:
            self._failed("stalled", f"sent nothing for {STALLED_S:g} s")
            self._drop()
        return None

    def hang_up(self) -> None:
        """The caller is gone: close, as Asterisk does."""
        self._forget()
        self.line.hang_up()

    @property
    def _transport(self) -> Any:
        return self.line.transport

    # What the line says

    def audio(self, samples: bytes, rate_hz: int) -> None:
        """The server said something."""
        self._said = True
        self._heard_s = self._now()
        if rate_hz != self._rate_hz:
            self._rate_hz, self._convert = rate_hz, converter(AudioFormat("slin", rate_hz), SLIN)
        data = self._rest + (samples if self._convert is None else self._convert(samples))
        size = SLIN.frame_bytes
        whole = len(data) // size * size
        self._rest = data[whole:]
        if whole:
            self._frames.extend([data[begin : begin + size] for begin in range(0, whole, size)])
            self._guard.arrived(whole // size, self._heard_s)
            self._most = max(self._most, whole // size)
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        while len(self._frames) > self._most:
            self._frames.popleft()
            self._guard.lost_oldest()
            self.dropped_ms += FRAME_MS

    def hung_up(self) -> None:
        """The server said that it hangs up."""
        self._hung_up()

    def error(self, code: ErrorBits) -> None:
        """The server reports an error."""
        if code & ErrorBits.HANGUP:
            self._hung_up()
        else:
            self._failed("lost", f"reported error {code!r}")
            self._drop()

    def gone(self, broken: str, reason: Failure) -> None:
        """The connection is closed."""
        self._gone = True
        if broken:
            self._failed("malformed", f"broke the protocol: {broken}")
        elif not reason.check(ConnectionDone):
            self._failed("lost", f"lost the connection: {reason.getErrorMessage()}")
        elif self._said:
            self._hung_up()
        else:
            self._failed("refused", "closed the call before it had said anything", of_call=True)


class _Line(AsteriskProtocol):
    """The connection."""

    transport: Any = None

    def __init__(self, far_end: AudioSocketFarEnd, uuid: UUID) -> None:
        super().__init__(uuid)
        self._far_end = far_end

    def call_started(self) -> None:
        self._far_end.opened.callback(None)

    def audio_received(self, samples: bytes, rate_hz: int) -> None:
        self._far_end.audio(samples, rate_hz)

    def hangup_received(self) -> None:
        self._far_end.hung_up()

    def error_received(self, code: ErrorBits) -> None:
        self._far_end.error(code)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._far_end.gone(self.problem, reason)


class _LineFactory(Factory):
    noisy = False

    def __init__(self, line: _Line) -> None:
        self._line = line

    def buildProtocol(self, addr: Any) -> _Line:
        self._line.factory = self
        return self._line


async def connect_audiosocket(
    host: str, port: int, uuid: UUID, *, user: IFarEndUser, reactor: Any, timeout_s: float
) -> IFarEnd:
    """Connect a call to an AudioSocket server, as Asterisk's ``AudioSocket()`` does.

    :param uuid: which call it is.
    :param timeout_s: how long the connection may take.
    :raises UpstreamFailed: it did not come up. That the server does not want the call shows only later.
    """
    far_end = AudioSocketFarEnd(uuid, user, host_and_port(host, port), reactor)
    await connect(far_end, _LineFactory(far_end.line), host, port, None, reactor, timeout_s)
    return far_end
