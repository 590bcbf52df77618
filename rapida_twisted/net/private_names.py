"""Names that Twisted and Autobahn keep to themselves: nothing outside this module uses one.

A version without one of them makes ``tests/net/test_private_names.py`` fail, which says which, instead of a call. This
module does not import Autobahn, which command-line tools do without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger, LogPublisher
from twisted.web._newclient import HTTP11ClientProtocol, RequestNotSent
from twisted.web.client import HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.http import HTTPChannel

__all__ = [
    "PRIVATE", "AutobahnInternals", "HTTP11ClientProtocol", "OpenHTTPChannel", "RequestNotSent", "adopt_port",
    "make_connection_pool",
]  # fmt: skip

PRIVATE = {
    "twisted.internet.tcp.Port": ("_fromListeningDescriptor",),
    "twisted.internet.unix.Port": ("_fromListeningDescriptor",),
    "twisted.web.client.HTTPConnectionPool": ("_factory",),
    "twisted.web.http.HTTPChannel": (
        "_log", "_receivedHeaderCount", "_receivedHeaderSize", "_respondToBadRequestAndDisconnect",
        "_waitingForTransport",
    ),
    "autobahn.websocket.protocol.WebSocketProtocol": (
        "_cancelAutoPingTimeoutCall", "_dataReceived", "_fail_connection", "onMessageEnd",
    ),
}  # fmt: skip
"""What the test looks for, by class."""
AUTOBAHN_STATE = (
    "autoPingRestartOnAnyTraffic", "autoPingTimeoutCall", "closeHandshakeTimeoutCall", "current_frame", "data",
    "failedByMe", "inside_message", "maxFramePayloadSize", "maxMessagePayloadSize",
)  # fmt: skip
"""Undocumented attributes of each open connection of Autobahn's. Within a message it has ``message_data`` and
``message_is_binary``, too."""

_Port = TypeVar("_Port", bound=tcp.Port)


def adopt_port(kind: type[_Port], reactor: Any, file_descriptor: int, *arguments: Any) -> _Port:
    """A port of a class of ours on a socket that listens already: ``adoptStreamPort()`` knows only Twisted's class.

    :param arguments: the address family (not for UNIX sockets) and the factory.
    """
    port: _Port = kind._fromListeningDescriptor(reactor, file_descriptor, *arguments)
    return port


def make_connection_pool(reactor: Any, protocol: type[HTTP11ClientProtocol]) -> HTTPConnectionPool:
    """A pool of HTTP connections that speak by a class of ours: a pool takes no factory."""

    class Factory(_HTTP11ClientFactory):
        noisy = False

        def buildProtocol(self, addr: IAddress | None) -> HTTP11ClientProtocol:
            return protocol(self._quiescentCallback)

    pool = HTTPConnectionPool(reactor)
    pool._factory = Factory
    return pool


class OpenHTTPChannel(HTTPChannel):
    """Lets a subclass answer what is no HTTP request, which Twisted does in silence, and pace pipelined requests, which
    Twisted answers all in one turn of the reactor."""

    def bad_request_received(self, status: int) -> None:
        """Answer and close: 400, 414 for a request line that is too long, or 431 for headers."""
        raise NotImplementedError

    def pipelined(self, data: bytes) -> None:
        """A response is complete, and the client had sent this after its request."""
        raise NotImplementedError

    def is_write_blocked(self) -> bool:
        """Whether the client does not read its responses."""
        return bool(self._waitingForTransport)

    def mute(self) -> None:
        """Twisted logs nothing more of this connection."""
        self._log = Logger(observer=LogPublisher())

    def requestDone(self, request: Any) -> None:  # noqa: N802
        # What came while a response was made is in the first, what came with its request in the second.
        data = b"".join(self._dataBuffer) + self.clearLineBuffer()
        self._dataBuffer: list[bytes] = []
        super().requestDone(request)
        if data and self.persistent:
            self.pipelined(data)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802
        self.bad_request_received(431 if self._receivedHeaderSize else 414)

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802
        too_much = self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders
        self.bad_request_received(431 if too_much else 400)


class AutobahnInternals:
    """To be mixed in before Autobahn's Twisted protocols: the state of its parser, which has no public name."""

    onMessage: Callable[[bytes, bool], None]

    def parse(self, data: bytes) -> None:
        """Have Autobahn read data. Its ``dataReceived()`` formats log arguments for each piece."""
        self._dataReceived(data)  # type: ignore[attr-defined]

    def is_between_messages(self) -> bool:
        """Whether Autobahn is not in the middle of a frame or a message."""
        protocol: Any = self
        return not protocol.data and protocol.current_frame is None and not protocol.inside_message

    @property
    def current_opcode(self) -> int:
        """Of the frame that Autobahn is reading."""
        protocol: Any = self
        return int(protocol.current_frame.opcode)

    def restart_ping(self) -> None:
        """Count data as the answer to a ping, if Autobahn is configured so."""
        protocol: Any = self
        if protocol.autoPingTimeoutCall and protocol.autoPingRestartOnAnyTraffic:
            protocol._cancelAutoPingTimeoutCall()

    def cancel_close_timeout(self) -> None:
        """Autobahn leaves this timer running if the peer's close frame never arrives."""
        protocol: Any = self
        if protocol.closeHandshakeTimeoutCall is not None:
            protocol.closeHandshakeTimeoutCall.cancel()
            protocol.closeHandshakeTimeoutCall = None

    def fail(self, code: int, reason: str) -> None:
        """Close the connection as RFC 6455 has it for a broken rule: ``sendClose()`` refuses such codes."""
        self._fail_connection(code, reason)  # type: ignore[attr-defined]

    def onMessageEnd(self) -> None:  # noqa: N802
        # Autobahn's own, without the Deferred that it makes for each message.
        protocol: Any = self
        if not protocol.failedByMe:
            self.onMessage(b"".join(protocol.message_data), protocol.message_is_binary)
        protocol.message_data = None
