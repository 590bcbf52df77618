"""One HTTP connection: its time limits, its turns, and the answers to what is no HTTP request."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES

from rapida_twisted.net.private_names import OpenHTTPChannel
from rapida_twisted.web.responses import ERROR_HEADER

__all__ = ["MAX_LINE_BYTES", "RapidaChannel"]

MAX_LINE_BYTES = 8192
"""A request line, or one header."""
LONGEST_LENGTH = 20
"""Digits of a Content-Length: Python refuses to parse some thousands of them."""
TLS_HANDSHAKE = 0x16
"""The first byte of a TLS connection (RFC 8446, 5.1); no HTTP request begins with it."""

_REASONS = {
    400: "this is no valid HTTP request: is a parameter not URI-encoded?",
    414: "the request line is too long",
    431: "the headers are too long",
}
_STATUS_TEXTS = {**RESPONSES, 413: b"Content Too Large", 414: b"URI Too Long", 431: b"Request Header Fields Too Large"}


class RapidaChannel(OpenHTTPChannel):
    """Has a time limit for each complete request, and answers one request a turn."""

    MAX_LENGTH = MAX_LINE_BYTES
    is_proved = False
    """Whether a request had a valid key."""
    _log = Logger()
    site: Any
    """A RapidaSite."""
    transport: Any
    timeOut: float | None  # type: ignore[assignment]  # noqa: N815
    _has_begun = False
    _is_over = False
    _request_s = 0.0
    _pipelined = b""
    _is_waiting = False
    """For its turn."""

    # Time

    def connectionMade(self) -> None:
        self._request_s = self.timeOut or 0.0
        if self.timeOut:
            self.timeOut = min(self.timeOut, self.site.first_request_s)
        super().connectionMade()

    def allContentReceived(self) -> None:  # noqa: N802
        # Twisted saves this for the next request.
        if self.timeOut:
            self.timeOut = self._request_s
        super().allContentReceived()

    def resetTimeout(self) -> None:  # noqa: N802
        """Called for each piece of data, which must not extend the time: only a complete request does."""

    def timeoutConnection(self) -> None:  # noqa: N802
        """The time is over: an ordinary end between two requests, a refusal within one."""
        if self.requests or self._pipelined or self.clearLineBuffer():
            self._reject("overdue", "did not send a whole request in time: closed")
        else:
            self.site.rejections.counts["http.idle"] += 1
        # Twisted would log a line for each connection.
        self.mute()
        super().timeoutConnection()

    # Turns

    def dataReceived(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._is_waiting:
            self._pipelined += data
            return
        if not self._has_begun:
            self._has_begun = True
            if data[0] == TLS_HANDSHAKE:
                self._refuse_tls()
                return
        super().dataReceived(data)

    def pipelined(self, data: bytes) -> None:
        """Wait for another turn, and read nothing meanwhile."""
        self._pipelined += data
        self.transport.pauseProducing()
        self._wait()

    def _wait(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self.site.budget.later(self._next_turn)

    def _next_turn(self) -> None:
        self._is_waiting = False
        # A client that does not read its responses gets no more of them: resumeProducing() comes when it does.
        if self.transport is None or self._is_over or self.is_write_blocked():
            return
        data, self._pipelined = self._pipelined, b""
        self.transport.resumeProducing()
        try:
            self.dataReceived(data)
        except Exception:
            # As the reactor does with a protocol that raises.
            self._log.failure("an HTTP connection failed, and is closed")
            self.transport.abortConnection()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self._pipelined:
            self._wait()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_over = True
        super().connectionLost(reason)

    # Refusals

    def headerReceived(self, line: bytes) -> bool:  # noqa: N802
        if line[:15].lower() == b"content-length:" and len(line) > 15 + LONGEST_LENGTH:
            self.bad_request_received(400)
            return False
        return bool(super().headerReceived(line))

    def bad_request_received(self, status: int) -> None:
        """Log it: the author of a dialplan needs to know."""
        text = "sent no valid HTTP request, or one that is too long: {status}. Is a parameter not URI-encoded?"
        self.refuse(status, _REASONS[status], "garbage", text.format(status=status))

    def refuse(self, status: int, reason: str, cause: str, text: str) -> None:
        """Answer in place of a request, and close."""
        if self._is_over:
            return
        self._is_over = True
        self._reject(cause, text)
        head = b"HTTP/1.1 %d %s\r\n" % (status, _STATUS_TEXTS[status])
        error = f"{ERROR_HEADER}: {reason}\r\n".encode("ascii")
        self.transport.write(head + b"Connection: close\r\nContent-Length: 0\r\n" + error + b"\r\n")
        self.loseConnection()

    def _refuse_tls(self) -> None:
        self._is_over = True
        self._reject(
            "tls_without_tls",
            "began TLS on a port without TLS: closed. Use http:// and ws:// there, or open a port with TLS by HTTPS=",
        )
        self.transport.abortConnection()

    def _reject(self, cause: str, text: str) -> None:
        peer = self.transport.getPeer()
        host = str(getattr(peer, "host", peer))
        self.site.rejections.add(f"http.{cause}", peer, self._log, "{peer} " + text, peer=host)
