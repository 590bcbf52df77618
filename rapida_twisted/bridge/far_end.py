"""What far ends have in common, whatever the protocol: how they are connected to, how they end, and how they stall."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IDelayedCall, IProtocolFactory

from rapida_twisted.audio.drift import DriftGuard
from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.errors import UpstreamFailed
from rapida_twisted.interfaces import IFarEndUser
from rapida_twisted.net.http_client import was_cancelled

__all__ = ["STALLED_S", "FarEnd", "connect", "host_and_port"]

STALLED_S = 5.0
"""A server that takes nothing for so long is given up; over AudioSocket one that sends nothing, too."""


class FarEnd:
    """A connection to another server as far as its user is concerned.

    :param user: told how it ends, in a turn of the reactor of its own.
    :param name: the server's host and port.
    :param format: of the audio, both ways.
    :param reactor: provides IReactorTime.
    :param now: a monotonic time (s).
    """

    def __init__(
        self, user: IFarEndUser, name: str, format: AudioFormat, reactor: Any, now: Callable[[], float]
    ) -> None:
        self.format = format
        self.dropped_ms = 0.0
        """See :class:`~rapida_twisted.interfaces.IFarEnd`."""
        self.opened: Deferred[None] = Deferred(lambda _: self.abort())
        """Fires when the server took the call; fails with UpstreamFailed."""
        self._user = user
        self._name = name
        self._reactor = reactor
        self._now = now
        self._guard = DriftGuard(format)
        self._over = False
        self._gone = False
        """Whether the connection is closed."""
        self._telling: IDelayedCall | None = None
        self._behind_s: float | None = None
        """Since when the server takes nothing."""

    @property
    def shifted(self) -> int:
        """Silent frames that were left out or heard twice, for the sake of the server's clock."""
        return self._guard.left_out + self._guard.repeated

    def abort(self) -> None:
        """End the connection at once. Nothing is told of it any more."""
        self._forget()
        self._drop()

    def _forget(self) -> None:
        """Tell nothing any more."""
        self._over = True
        if self._telling is not None and self._telling.active():
            self._telling.cancel()

    def _took(self, taken: bool) -> bool:
        """The server took a packet, or was too far behind for it; gives the same."""
        if taken:
            self._behind_s = None
        elif self._behind_s is None:
            self._behind_s = self._now()
        elif self._now() - self._behind_s > STALLED_S:
            self._failed("stalled", f"took nothing for {STALLED_S:g} s")
            self._drop()
        return taken

    def _drop(self) -> None:
        """Close the connection at once, if there is one."""
        if self._transport is not None and not self._gone:
            self._transport.abortConnection()

    @property
    def _transport(self) -> Any:
        """The connection's transport; None before it is made."""
        raise NotImplementedError

    # How it ends, the first word counts

    def _hung_up(self) -> None:
        self._end(self._user.far_end_hung_up)

    def _failed(self, word: str, what: str, *, status: int = 0, of_call: bool = False) -> None:
        """:param what: goes on after the server's name."""
        failure = UpstreamFailed(word, f"the upstream {self._name} {what}", status=status, of_call=of_call)
        if not self.opened.called:
            self._over = True
            self.opened.errback(failure)
        else:
            self._end(lambda: self._user.far_end_failed(failure))

    def _end(self, tell: Callable[[], None]) -> None:
        if not self._over:
            self._over = True
            # Whoever is in the middle of sending or taking need not expect it.
            self._telling = self._reactor.callLater(0, tell)


async def connect(
    far_end: FarEnd, factory: IProtocolFactory, host: str, port: int, tls_options: Any, reactor: Any, timeout_s: float
) -> None:
    """Connect, and wait until the server took the call.

    :param tls_options: how the server is verified (``optionsForClientTLS``); None: without TLS.
    :param timeout_s: for the connection, and again for all that comes before the call is taken.
    :raises UpstreamFailed: it did not.
    """
    name = host_and_port(host, port)
    late = UpstreamFailed("timeout", f"the upstream {name} did not take the call within {timeout_s:g} s")
    endpoint: Any = HostnameEndpoint(reactor, host, port, timeout=timeout_s)
    if tls_options is not None:
        endpoint = wrapClientTLS(tls_options, endpoint)
    # Endpoints have errors of their own for a connection that was cancelled.
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        connecting.cancel()

    connecting = endpoint.connect(factory)
    timer = reactor.callLater(timeout_s, expire)
    try:
        await connecting
    except Exception as error:
        if expired or isinstance(error, ConnectTimeout):
            raise late from None
        if was_cancelled(error):
            raise CancelledError from None
        raise _unreachable(name, error) from None
    finally:
        if timer.active():
            timer.cancel()
    try:
        await far_end.opened.addTimeout(timeout_s, reactor)
    except DeferredTimeout:
        raise late from None


def _unreachable(name: str, error: Exception) -> UpstreamFailed:
    if isinstance(error, ConnectionRefusedError):
        said = "nobody listens there"
    else:
        said = str(error).rstrip(".") or type(error).__name__
    return UpstreamFailed("unreachable", f"the upstream {name} can't be reached: {said}")


def host_and_port(host: str, port: int) -> str:
    """As people write it: an IPv6 address in brackets."""
    try:
        if ipaddress.ip_address(host).version == 6:
            return f"[{host}]:{port}"
    except ValueError:
        pass
    return f"{host}:{port}"
