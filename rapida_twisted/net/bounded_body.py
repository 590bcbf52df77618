"""Reads an HTTP answer's body with a limit of its size."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

__all__ = ["read_body"]


def read_body(response: IResponse, limit_bytes: int) -> Deferred[bytes]:
    """Read the body of a response that was requested with ``unbuffered=True``.

    :return: fires with the body. One that is longer than the limit is cut off after ``limit_bytes + 1`` bytes, and its
        connection is closed, as it is when this is cancelled. Fails if the connection is lost before the body's end.
    """
    if response.length == 0:
        return succeed(b"")
    body = _Body(limit_bytes)
    response.deliverBody(body)
    return body.read


class _Body(Protocol):
    def __init__(self, limit_bytes: int) -> None:
        self._most_bytes = limit_bytes + 1
        self._received = bytearray()
        self.read: Deferred[bytes] = Deferred(lambda _: self._close())

    def dataReceived(self, data: bytes) -> None:
        if self.read.called:
            return
        self._received += data[: self._most_bytes - len(self._received)]
        if len(self._received) == self._most_bytes:
            self.read.callback(bytes(self._received))
            self._close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.read.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.read.callback(bytes(self._received))
        else:
            self.read.errback(reason)

    def _close(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            # Over TLS loseConnection() waits for the peer's farewell, and reads on as long as that takes.
            transport.stopProducing()
