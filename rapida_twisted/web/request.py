"""One HTTP request: its limits, its parameters, and the headers of its response."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from types import MappingProxyType
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request

from rapida_twisted.ports.limited_accept import prove
from rapida_twisted.web.forwarded import client_of
from rapida_twisted.web.request_key import parameters_in
from rapida_twisted.web.responses import BROKEN, Refusal, describe, error_response, send, wants_json

__all__ = ["MAX_PARAMETERS", "MAX_PATH_BYTES", "MAX_QUERY_BYTES", "SECURITY_HEADERS", "RapidaRequest"]

MAX_QUERY_BYTES = 4096
MAX_PARAMETERS = 100
MAX_PATH_BYTES = 2048
MAX_SEGMENTS = 32
"""More than any page has, and than most assistants' pages need."""

SECURITY_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
)
"""Headers of every response: nothing here is a web page to frame, sniff or cache. A request's query may hold a key, so
a browser must not send it on as referrer."""
_SECURITY_HEADERS = tuple((name.encode(), [value.encode()]) for name, value in SECURITY_HEADERS.items())


class RapidaRequest(Request):
    """A request of bounded size, which discloses no key, no version and no traceback."""

    context_id = ""
    """The call that the request has registered."""
    _log = Logger()
    channel: Any
    """A RapidaChannel."""
    _target = b""
    _args: dict[bytes, list[bytes]] | None = None
    _refused = False
    _body_bytes = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.started_s = time.perf_counter()

    def __repr__(self) -> str:
        return f"<{describe(self)}>"

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        """The headers are complete: refuse a declared length above the limit. Without a length the body is chunked."""
        self.content = BytesIO()
        if length is not None and length > self._max_body_bytes:
            self._refuse_body()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        self._body_bytes += len(data)
        if not self._refused and self._body_bytes > self._max_body_bytes:
            self._refuse_body()
        if not self._refused:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802
        """Process the request. Twisted gets no query to parse: few pages use :attr:`args`."""
        if not self._refused:
            self._target = origin_form(path)
            super().requestReceived(command, self._target.partition(b"?")[0], version)

    @cached_property
    def parameters(self) -> list[tuple[bytes, bytes]]:
        """The query's parameters, for all who look for one."""
        return parameters_in(self.uri)

    @property
    def args(self) -> dict[bytes, list[bytes]]:
        """The query's parameters, as Twisted has them; parsed when first used."""
        if self._args is None:
            self._args = {}
            for name, value in self.parameters:
                self._args.setdefault(name, []).append(value)
        return self._args

    @args.setter
    def args(self, value: object) -> None:
        """Twisted sets an empty one."""
        self._args = None

    @property
    def _max_body_bytes(self) -> int:
        return int(self.channel.site.max_body_bytes)

    def _refuse_body(self) -> None:
        self._refused = True
        # With it the channel would invite the refused body.
        self.requestHeaders.removeHeader(b"Expect")
        text = f"a body of more than {self._max_body_bytes} bytes"
        self.channel.refuse(413, "the body is too long", "body_too_long", text)

    def process(self) -> None:
        """Set the headers of every response before any resource runs."""
        # Twisted looked at the parameters before the query was there.
        self.uri, self._args = self._target, None
        self.__dict__.pop("parameters", None)
        for header, values in _SECURITY_HEADERS:
            self.responseHeaders.setRawHeaders(header, values)
        site = self.channel.site
        if site.leaving:
            self.responseHeaders.setRawHeaders("Connection", ["close"])
            self.channel.persistent = False
        if site.proxies:
            self._believe_proxy()
        problem = self._problem()
        if problem is None:
            super().process()
        else:
            send(error_response(problem, as_json=wants_json(self)), self)

    def proved(self) -> None:
        """The request has a valid key: its connection is no stranger's any more."""
        if not self.channel.is_proved:
            self.channel.is_proved = True
            prove(self.channel.transport)

    def _problem(self) -> Refusal | None:
        """Why the request is refused before its key is looked at."""
        path, _, query = self.uri.partition(b"?")
        if len(path) > MAX_PATH_BYTES or len(query) > MAX_QUERY_BYTES:
            return Refusal(414, f"a path has at most {MAX_PATH_BYTES} bytes, a query {MAX_QUERY_BYTES}")
        if path.count(b"/") > MAX_SEGMENTS:
            return Refusal(404, "there is nothing here")
        if query.count(b"&") >= MAX_PARAMETERS:
            return Refusal(400, f"there are more than {MAX_PARAMETERS} parameters")
        hosts = self.requestHeaders.getRawHeaders(b"host", [])
        if len(hosts) > 1 or (not hosts and self.clientproto != b"HTTP/1.0"):
            return Refusal(400, "a request has one Host header")
        return None

    def _believe_proxy(self) -> None:
        client = client_of(str(getattr(self.client, "host", "")), self.requestHeaders, self.channel.site.proxies)
        if client is not None:
            kind = IPv4Address if client.version == 4 else IPv6Address
            self.client = kind("TCP", str(client), 0)

    def setHeader(self, name: bytes | str, value: bytes | str) -> None:  # noqa: N802
        """Set a response header, except the one that names the server and its version."""
        if name not in (b"Server", "Server"):
            super().setHeader(name, value)

    def processingFailed(self, reason: Failure) -> Failure:  # noqa: N802
        """An error outside a resource: the client gets no details."""
        self._log.failure("{request}: the response failed", reason, request=describe(self))
        if self.startedWriting:
            self.loseConnection()
        else:
            send(BROKEN, self)
        return reason


def origin_form(target: bytes) -> bytes:
    """A request's target without scheme and host: a client of a proxy sends both (RFC 9112, 3.2.2)."""
    if target.startswith(b"/") or not target.lower().startswith((b"http://", b"https://")):
        return target
    _, _, rest = target.partition(b"://")
    at = min((found for mark in b"/?" if (found := rest.find(mark)) >= 0), default=len(rest))
    return rest[at:] if rest[at : at + 1] == b"/" else b"/" + rest[at:]
