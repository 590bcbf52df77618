"""The far end of a bridged call over a WebSocket: plays Asterisk's chan_websocket to the other server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from rapida_twisted.audio.drift import DriftGuard, Step
from rapida_twisted.audio.formats import FRAME_MS, AudioFormat
from rapida_twisted.bridge.far_end import FarEnd, connect
from rapida_twisted.context import CallContext
from rapida_twisted.interfaces import IFarEnd, IFarEndUser
from rapida_twisted.net.addresses import host_and_port, host_port_of
from rapida_twisted.net.connection_errors import tls_problem
from rapida_twisted.net.untrusted_text import printable
from rapida_twisted.protocols.chan_websocket_asterisk import AsteriskClientFactory, AsteriskClientProtocol
from rapida_twisted.protocols.frame_writer import tune_socket
from rapida_twisted.protocols.quick_websocket import POLICY_VIOLATION
from rapida_twisted.wire.chan_websocket import Command, ControlForm, FlushMedia
from rapida_twisted.wire.chan_websocket_queue import MediaQueue

__all__ = ["WebSocketFarEnd", "connect_websocket"]

PINGS = 4
"""How often a server is pinged while the time limit of an answer runs."""
REFUSAL_S = 2.0
"""A server that closes a call this soon, and has sent nothing, refuses it."""


@implementer(IFarEnd)
class WebSocketFarEnd(FarEnd):
    """One call at a program that speaks chan_websocket.

    :param form: of the control messages.
    :param context: the call, which MEDIA_START describes; its variables in the JSON form only.
    """

    connection: _Channel

    def __init__(
        self,
        user: IFarEndUser,
        name: str,
        format: AudioFormat,
        form: ControlForm,
        context: CallContext,
        stalled_s: float,
        reactor: Any,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(user, name, format, stalled_s, reactor, now)
        self.connection = _Channel(self, format, form, context, self._guard, now)
        self._has_sent = False
        self._opened_s = 0.0

    # IFarEnd

    @property
    def queued_ms(self) -> float:
        return self.connection.queue.frames * FRAME_MS

    def take(self) -> bytes | None:
        return self.connection.tick()

    # From the connection

    def started(self) -> None:
        self._opened_s = self._now()
        self.opened.callback(None)

    def message_received(self) -> None:
        """The server sent a message of any kind."""
        self._has_sent = True

    def flushed(self) -> None:
        """The server sent FLUSH_MEDIA: the caller interrupted its assistant."""
        if not self._over:
            self._user.far_end_flushed()

    def broke(self, rule: str) -> None:
        """The server broke a rule of the protocol."""
        self._failed("malformed", f"broke the protocol: {rule}")

    def refused(self, status_line: str, error: BaseException | None) -> None:
        self._closed = True
        problem = tls_problem(error)
        version, _, answer = status_line.partition(" ")
        status, _, reason = answer.partition(" ")
        if problem:
            self._failed("tls", problem)
        elif not status_line:
            self._failed("lost", "closed the connection in the middle of its handshake")
        elif not version.startswith("HTTP/") or not status.isdigit():
            self._failed("malformed", "does not speak HTTP")
        elif status == "101":
            self._failed("malformed", "does not speak the subprotocol 'media' of chan_websocket")
        else:
            reason = printable(reason, 100)
            self._failed(
                "refused", f"refused the call's WebSocket with {status} {reason}".rstrip(),
                status=int(status[:3]), of_call=status in ("404", "409"),
            )  # fmt: skip

    def closed(self, clean: bool, violation: str, problem: str, code: int | None) -> None:
        """The connection closed after the server had accepted the call.

        :param violation: the protocol rule that the server broke, or empty.
        :param problem: the reason that came with the closing, or Autobahn's own.
        :param code: the close code (RFC 6455, 7.4) that the server sent; None: none.
        """
        self._closed = True
        given = f"closed the call with {code} {printable(problem, 100)}".rstrip()
        if violation:
            self.broke(violation)
        elif "ping timeout" in problem:
            self._failed("stalled", f"answered no ping for {self.stalled_s:g} s")
        elif not clean:
            self._failed("lost", f"lost the connection{f': {problem}' if problem else ''}")
        elif code not in (1000, 1001, None):
            self._failed("lost", given)
        elif self._has_sent or self._now() - self._opened_s > REFUSAL_S:
            self.hung_up(given if problem else "")
        else:
            self._failed("refused", f"{given} before it sent anything", of_call=True)


class _Channel(AsteriskClientProtocol):
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
        tune_socket(self.transport, self._far_end.stalled_s)
        self._far_end.started()

    def hangup_received(self) -> None:
        self._far_end.hung_up()

    def command_received(self, command: Command) -> None:
        self._far_end.message_received()
        if isinstance(command, FlushMedia):
            self._far_end.flushed()

    def binary_received(self, payload: bytes) -> None:
        self._far_end.message_received()
        super().binary_received(payload)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._error = reason.value
        super().connectionLost(reason)

    def cut_off(self, problem: str) -> None:
        self._far_end.broke(problem)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N803
        if not self._started:
            self._far_end.refused(getattr(self, "http_status_line", "") or "", self._error)
            return
        violation = ""
        if getattr(self, "localCloseCode", None) in (1002, 1007, POLICY_VIOLATION, 1009):
            violation = str(getattr(self, "localCloseReason", None) or b"", "utf-8", "replace") or "a bad frame"
        self._far_end.closed(wasClean, violation, reason or "", code)


class _GuardedQueue(MediaQueue):
    """Asterisk's queue with a DriftGuard: a sender whose clock is fast does not fill it."""

    def __init__(self, guard: DriftGuard, now: Callable[[], float], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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
            if step is not Step.SKIP:
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
    headers: dict[str, str],
    tls_options: Any,
    reactor: Any,
    timeout_s: float,
    stalled_s: float,
) -> IFarEnd:
    """Connect a call to a program that speaks chan_websocket, as Asterisk's ``Dial(WebSocket/...)`` does.

    :param url: ``ws://...`` or ``wss://...``. It may hold a key, so no log line or error quotes it.
    :param headers: further headers of the handshake.
    :param tls_options: verify the server; None for ``ws``.
    :param timeout_s: the time limit of connecting, and again of the handshakes.
    :param stalled_s: the time limit of the answer to a ping; see also :class:`FarEnd`.
    :raises UpstreamFailed: the server did not accept the call.
    """
    host, port = host_port_of(url)
    far_end = WebSocketFarEnd(user, host_and_port(host, port), format, form, context, stalled_s, reactor)
    factory = AsteriskClientFactory(url, far_end.connection, reactor, headers)
    factory.setProtocolOptions(autoPingInterval=stalled_s / PINGS, autoPingTimeout=stalled_s)
    await connect(far_end, factory, host, port, tls_options, reactor, timeout_s)
    return far_end
