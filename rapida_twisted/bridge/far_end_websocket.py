"""A far end over a WebSocket: we are a channel of chan_websocket at a program that speaks it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.audio.drift import DriftGuard, Step
from rapida_twisted.audio.formats import FRAME_MS, AudioFormat
from rapida_twisted.bridge.far_end import FarEnd, connect, host_and_port
from rapida_twisted.context import CallContext
from rapida_twisted.interfaces import IFarEnd, IFarEndUser
from rapida_twisted.net.http_client import tls_problem
from rapida_twisted.protocols.chan_websocket_asterisk import AsteriskClientFactory, AsteriskClientProtocol
from rapida_twisted.wire.chan_websocket import Command, ControlForm, FlushMedia
from rapida_twisted.wire.chan_websocket_queue import MediaQueue

__all__ = ["WebSocketFarEnd", "connect_websocket"]

PING_S = 2.5
"""A server that is gone is noticed within a ping's interval and its timeout, 5 s together."""
AT_ONCE_S = 2.0
"""Whoever closes a call so soon, and has said nothing, has not taken it."""

_PORTS = {"ws": 80, "wss": 443}


@implementer(IFarEnd)
class WebSocketFarEnd(FarEnd):
    """One call at a program that speaks chan_websocket.

    :param form: how control messages are written.
    :param context: the call; told in MEDIA_START, its variables in the JSON form only.
    """

    def __init__(
        self,
        user: IFarEndUser,
        name: str,
        format: AudioFormat,
        form: ControlForm,
        context: CallContext,
        reactor: Any,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(user, name, format, reactor, now)
        self.channel = _Channel(self, format, form, context, self._guard, now)
        self._said = False
        self._opened_s = 0.0

    @property
    def queued_ms(self) -> float:
        """How much waits (ms)."""
        return self.channel.queue.frames * FRAME_MS

    def send_audio(self, payload: bytes) -> bool:
        """The caller was heard: see :class:`~rapida_twisted.interfaces.IFarEnd`."""
        return not self._over and self._took(self.channel.send_audio(payload))

    def send_digit(self, digit: str) -> None:
        """The caller pressed a key."""
        self.channel.send_digit(digit)

    def take(self) -> bytes | None:
        """The frame that is due, or None."""
        return self.channel.tick()

    def hang_up(self) -> None:
        """The caller is gone: close, as Asterisk does."""
        self._forget()
        self.channel.hang_up()

    @property
    def _transport(self) -> Any:
        return self.channel.transport

    # What the channel says

    def started(self) -> None:
        """The server took the call."""
        self._opened_s = self._now()
        self.opened.callback(None)

    def said(self) -> None:
        """The server said anything at all."""
        self._said = True

    def flushed(self) -> None:
        """The assistant there was interrupted."""
        if not self._over:
            self._user.far_end_flushed()

    def hung_up(self) -> None:
        """The server hung up."""
        self._hung_up()

    def refused(self, status_line: str, error: BaseException | None) -> None:
        """The handshake did not end well."""
        self._gone = True
        problem = tls_problem(error)
        version, _, answer = status_line.partition(" ")
        status, _, said = answer.partition(" ")
        if problem:
            self._failed("tls", problem)
        elif not status_line:
            self._failed("lost", "closed the connection in the middle of its handshake")
        elif not version.startswith("HTTP/") or not status.isdigit():
            self._failed("malformed", "does not speak HTTP")
        elif status == "101":
            self._failed("malformed", "does not speak the subprotocol 'media' of chan_websocket")
        else:
            said = "".join(character for character in said if character.isprintable())[:100]
            self._failed(
                "refused", f"refused the call's WebSocket with {status} {said}".rstrip(),
                status=int(status[:3]), of_call=status in ("404", "409"),
            )  # fmt: skip

    def closed(self, clean: bool, broken: str, problem: str) -> None:
        """The connection, which had been up, is closed.

        :param broken: the rule that the server broke, if it did.
        """
        self._gone = True
        if broken:
            self._failed("malformed", f"broke the protocol: {broken}")
        elif "ping timeout" in problem:
            self._failed("stalled", f"gave no sign of life for {2 * PING_S:g} s")
        elif not clean:
            self._failed("lost", f"lost the connection{f': {problem}' if problem else ''}")
        elif self._said or self._now() - self._opened_s > AT_ONCE_S:
            self._hung_up()
        else:
            self._failed("refused", "closed the call before it had said anything", of_call=True)


class _Channel(AsteriskClientProtocol):
    """The WebSocket of a far end."""

    transport: Any = None

    def __init__(
        self,
        far_end: WebSocketFarEnd,
        format: AudioFormat,
        form: ControlForm,
        context: CallContext,
        guard: DriftGuard,
        now: Callable[[], float],
    ) -> None:
        known = {"RAPIDA_CONTEXT_ID": context.context_id, "RAPIDA_FROM": context.caller, "RAPIDA_TO": context.called}
        channel_id = context.channel_id or context.context_id
        super().__init__(format, form, channel_id=channel_id, variables={**context.variables, **known})
        self.queue = _GuardedQueue(guard, now, format.frame_bytes, self.send_event, channel_id=channel_id, form=form)
        self._far_end = far_end
        self._started = False
        self._error: BaseException | None = None

    def call_started(self) -> None:
        self._started = True
        self._far_end.started()

    def hangup_received(self) -> None:
        self._far_end.hung_up()

    def command_received(self, command: Command) -> None:
        self._far_end.said()
        if isinstance(command, FlushMedia):
            self._far_end.flushed()

    def binary_received(self, payload: bytes) -> None:
        self._far_end.said()
        super().binary_received(payload)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._error = reason.value
        super().connectionLost(reason)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N803
        if not self._started:
            self._far_end.refused(getattr(self, "http_status_line", "") or "", self._error)
            return
        broken = ""
        if getattr(self, "localCloseCode", None) in (1002, 1007, 1009):
            broken = str(getattr(self, "localCloseReason", None) or b"", "utf-8", "replace") or "a bad frame"
        self._far_end.closed(wasClean and code in (1000, 1001, None), broken, reason or "")


class _GuardedQueue(MediaQueue):
    """Asterisk's queue, in which live audio does not pile up for the sake of its sender's clock."""

    def __init__(self, guard: DriftGuard, now: Callable[[], float], *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self._guard = guard
        self._now = now

    def audio(self, payload: bytes) -> None:
        before = self.frames
        super().audio(payload)
        if self.frames > before:
            self._guard.arrived(self.frames - before, self._now())

    def command(self, command: Command) -> None:
        super().command(command)
        if isinstance(command, FlushMedia):
            self._guard.cleared()

    def _next_frame(self) -> bytes | None:
        frame, now_s = super()._next_frame(), self._now()
        while frame is not None:
            step = self._guard.due(frame, now_s)
            if step is Step.REPEAT:
                self._waiting.appendleft(frame)
                self.frames += 1
            if step is not Step.LEAVE_OUT:
                return frame
            frame = super()._next_frame()
        self._guard.empty()
        return None


async def connect_websocket(
    url: str,
    *,
    user: IFarEndUser,
    format: AudioFormat,
    form: ControlForm,
    context: CallContext,
    tls_options: Any,
    reactor: Any,
    timeout_s: float,
) -> IFarEnd:
    """Connect a call to a program that speaks chan_websocket, as Asterisk's ``Dial(WebSocket/...)`` does.

    :param url: ``ws://...`` or ``wss://...``. It may hold a key: it is in no log and no error.
    :param tls_options: how the server is verified; None for ``ws``.
    :param timeout_s: for the connection, and again for the handshakes.
    :raises UpstreamFailed: it did not take the call.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    far_end = WebSocketFarEnd(user, host_and_port(host, port), format, form, context, reactor)
    factory = AsteriskClientFactory(url, far_end.channel, reactor)
    if ":" in factory.host:
        factory.host = f"[{factory.host}]"
    factory.setProtocolOptions(autoPingInterval=PING_S, autoPingTimeout=PING_S)
    await connect(far_end, factory, host, port, tls_options, reactor, timeout_s)
    return far_end
