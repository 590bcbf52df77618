"""Far ends: the connection of a bridged call to the other server; how it opens, stalls and ends in either protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IDelayedCall, IProtocolFactory

from rapida_twisted.audio.drift import DriftGuard
from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.errors import UpstreamFailed
from rapida_twisted.interfaces import IFarEndUser
from rapida_twisted.net.addresses import host_and_port
from rapida_twisted.net.connection_errors import was_cancelled

__all__ = ["FarEnd", "connect"]


@attrs.define(eq=False, slots=False, repr=False)
class FarEnd:
    """The base of both far ends.

    :param user: notified of the end in a reactor turn of its own.
    :param name: the server's host and port.
    :param format: of the audio in both directions.
    :param stalled_s: a server that reads nothing for this long (s) has failed. One that sends nothing has not: bots
        send while they speak.
    :param reactor: provides IReactorTime.
    :param now: a monotonic time (s).
    """

    _user: IFarEndUser
    _name: str
    format: AudioFormat
    stalled_s: float
    _reactor: Any
    _now: Callable[[], float]
    connection: Any = attrs.field(init=False)
    """Asterisk's side of the protocol, made by the subclass; its ``transport`` is None before it is connected."""
    dropped_ms: float = attrs.field(init=False, default=0.0)
    """See :class:`~rapida_twisted.interfaces.IFarEnd`."""
    _over: bool = attrs.field(init=False, default=False)
    _closed: bool = attrs.field(init=False, default=False)
    """True once the connection is closed."""
    _notifying: IDelayedCall | None = attrs.field(init=False, default=None)
    _blocked_since_s: float | None = attrs.field(init=False, default=None)
    """Since when the server reads nothing."""

    def __attrs_post_init__(self) -> None:
        self.opened: Deferred[None] = Deferred(lambda _: self.abort())
        """Fires when the server accepts the call; fails with UpstreamFailed."""
        self._guard = DriftGuard(self.format)

    @property
    def shifted(self) -> int:
        """Silent frames skipped or repeated to follow the server's clock."""
        return self._guard.skipped + self._guard.repeated

    # IFarEnd

    def send_audio(self, payload: bytes) -> bool:
        return not self._over and self._watch_sending(self.connection.send_audio(payload))

    def send_digit(self, digit: str) -> None:
        self.connection.send_digit(digit)

    def hang_up(self) -> None:
        self._mute()
        self.connection.hang_up()

    def abort(self) -> None:
        self._mute()
        self._close_now()

    def _mute(self) -> None:
        """Notify the user of nothing from now on."""
        self._over = True
        if self._notifying is not None and self._notifying.active():
            self._notifying.cancel()

    def _watch_sending(self, sent: bool) -> bool:
        """Fail a server that reads nothing for ``stalled_s``. Returns ``sent``: False if the packet was dropped."""
        if sent:
            self._blocked_since_s = None
        elif self._blocked_since_s is None:
            self._blocked_since_s = self._now()
        elif self._now() - self._blocked_since_s > self.stalled_s:
            self._failed("stalled", f"read nothing for {self.stalled_s:g} s")
            self._close_now()
        return sent

    def _close_now(self) -> None:
        if self.connection.transport is not None and not self._closed:
            self.connection.transport.abortConnection()

    # The end: the first cause counts

    def hung_up(self, what: str = "") -> None:
        """:param what: the server's own explanation, as the predicate of a sentence; may be empty."""
        detail = f"the upstream {self._name} {what}" if what else ""
        self._end(lambda: self._user.far_end_hung_up(detail))

    def _failed(self, word: str, what: str, *, status: int = 0, of_call: bool = False) -> None:
        """:param what: the predicate of the sentence that begins with the server's name."""
        failure = UpstreamFailed(word, f"the upstream {self._name} {what}", status=status, of_call=of_call)
        if not self.opened.called:
            self._over = True
            self.opened.errback(failure)
        else:
            self._end(lambda: self._user.far_end_failed(failure))

    def _end(self, notify: Callable[[], None]) -> None:
        if not self._over:
            self._over = True
            # Later, so that the user is not called back out of its own send_audio() or take().
            self._notifying = self._reactor.callLater(0, notify)


async def connect(
    far_end: FarEnd, factory: IProtocolFactory, host: str, port: int, tls_options: Any, reactor: Any, timeout_s: float
) -> None:
    """Connect, and wait until the server accepts the call.

    :param tls_options: verify the server (``optionsForClientTLS``); None: no TLS.
    :param timeout_s: the time limit of connecting, and again of everything until the server accepts the call.
    :raises UpstreamFailed: the server cannot be reached or refused the call.
    """
    name = host_and_port(host, port)
    late = UpstreamFailed("timeout", f"the upstream {name} did not accept the call within {timeout_s:g} s")
    endpoint: Any = HostnameEndpoint(reactor, host, port, timeout=timeout_s)
    if tls_options is not None:
        endpoint = wrapClientTLS(tls_options, endpoint)

    # Twisted's own translation of a timeout does not know the errors of cancelled endpoints.
    def expired(result: Any, timeout_s: float) -> NoReturn:
        raise late

    try:
        await endpoint.connect(factory).addTimeout(timeout_s, reactor, expired)
    except UpstreamFailed:
        raise
    except ConnectTimeout:
        raise late from None
    except Exception as error:
        if was_cancelled(error):
            raise CancelledError from None
        refused = isinstance(error, ConnectionRefusedError)
        problem = "connection refused" if refused else str(error).rstrip(".") or type(error).__name__
        raise UpstreamFailed("unreachable", f"the upstream {name} can't be reached: {problem}") from None
    await far_end.opened.addTimeout(timeout_s, reactor, expired)
