"""Parses the reply to a registration at another server: the contextId, or the reason of a refusal."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

__all__ = ["context_id_in", "read_start", "refusal_reason"]

MAX_REPLY_BYTES = 64
MAX_REASON_CHARACTERS = 200

_REASONS = {
    400: "the server rejects these parameters",
    401: "the server does not know this API key",
    403: "the server forbids this",
    404: "the server has no such assistant",
    429: "too many calls wait at the server",
    503: "the server accepts no calls now",
}


async def read_start(response: IResponse) -> bytes:
    """The body, up to one byte more than a contextId may have."""
    if response.length == 0:
        return b""
    start = _BodyStart()
    response.deliverBody(start)
    await start.done
    return bytes(start.body)


def context_id_in(body: bytes) -> str:
    """The contextId as the server wrote it; empty if the body is not one."""
    try:
        text = body.decode("ascii").strip()
        UUID(text)
    except ValueError:
        return ""
    return text if len(body) <= MAX_REPLY_BYTES else ""


def refusal_reason(response: IResponse) -> str:
    """The server's own reason (X-Rapida-Error), or what the status means."""
    for value in response.headers.getRawHeaders(b"X-Rapida-Error", []):
        text = value.decode("utf-8", "replace")
        text = "".join(character if character.isprintable() else "?" for character in text).strip()
        if text:
            return text[:MAX_REASON_CHARACTERS]
    return _REASONS.get(response.code, "the server gave no reason")


class _BodyStart(Protocol):
    """Reads the start of a body, then disconnects; a cancelled ``done`` disconnects, too."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.done: Deferred[None] = Deferred(lambda _: self._disconnect())

    def dataReceived(self, data: bytes) -> None:
        self.body += data[: MAX_REPLY_BYTES + 1]
        if len(self.body) > MAX_REPLY_BYTES and not self.done.called:
            self.done.callback(None)
            self._disconnect()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(None)
        else:
            self.done.errback(reason)

    def _disconnect(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            # Over TLS, loseConnection() waits for the peer's close_notify and reads on meanwhile.
            transport.stopProducing()
