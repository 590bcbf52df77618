"""The HTTP site: its tree of resources, its access log, and its limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.interfaces import IOutbound, IRegistrar
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.net.private_names import QuietHTTPChannel
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.web.calls import CallsPage
from rapida_twisted.web.health import HealthPage, ReadyPage
from rapida_twisted.web.outbound import OutboundPages
from rapida_twisted.web.registration import RegistrationsPage
from rapida_twisted.web.resource import Branch
from rapida_twisted.web.responses import ERROR_HEADER, Response, describe, send

__all__ = ["MAX_BODY_BYTES", "REQUEST_TIMEOUT_S", "SECURITY_HEADERS", "RapidaSite", "make_root", "operators_root"]

MAX_BODY_BYTES = 64 * 1024
REQUEST_TIMEOUT_S = 30.0
"""How long a connection may take to send its next complete request."""

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

_QUIET_PATHS = frozenset((b"/healthz", b"/readyz", b"/metrics"))
_REFUSALS = frozenset((400, 401, 404, 405))
"""The responses to clients without a valid key."""


def make_root(
    *,
    store: CallStore,
    keys: ApiKeys,
    registrar: IRegistrar,
    hang_up: Callable[[str], bool],
    draining: Callable[[], bool],
    extra: Mapping[bytes, IResource] | None = None,
    outbound: IOutbound | None = None,
    assistants: Callable[[], Mapping[str, Any]] = dict,
) -> Branch:
    """The tree of resources.

    :param hang_up: hangs up the call of a contextId; False: it was not up.
    :param draining: whether the server is about to stop.
    :param extra: further resources by their paths below ``/v1``, such as ``b"talk/asterisk/ctx"``.
    :param outbound: places calls; None: this server places none.
    :param assistants: the health that assistants report, for ``/readyz``.
    """
    v1 = Branch({b"calls": CallsPage(store, keys, hang_up)})
    talk = {b"call": RegistrationsPage(registrar, keys), b"outbound": OutboundPages(registrar, keys, outbound)}
    v1.putChild(b"talk", Branch({b"asterisk": Branch(talk)}))
    for path, resource in (extra or {}).items():
        _graft(v1, path.split(b"/"), resource)
    return Branch({b"v1": v1, b"healthz": HealthPage(), b"readyz": ReadyPage(store, draining, keys, assistants)})


_OPERATORS_PAGES = ("healthz", "readyz", "metrics", "v1/calls", "v1/clock", "v1/server", "v1/talk/asterisk/outbound")


def operators_root(root: Branch) -> Branch:
    """The pages of a tree that operators use: neither registration, nor media, nor assistants' pages."""
    found = Branch()
    for path in _OPERATORS_PAGES:
        names = path.encode().split(b"/")
        page: Any = root
        for name in names:
            page = page.children.get(name, Branch())
        _graft(found, names, page)
    return found


def _graft(branch: Branch, path: list[bytes], resource: IResource) -> None:
    """Put a resource below a branch, with new branches between them."""
    name, *rest = path
    if not rest:
        branch.putChild(name, resource)
        return
    below = branch.children.get(name)
    if not isinstance(below, Branch):
        if below is not None:
            raise ValueError(f"{name!r} cannot have children")
        below = Branch()
        branch.putChild(name, below)
    _graft(below, rest, resource)


class RapidaRequest(Request):
    """A request with a bounded body, which discloses no key, no version and no traceback."""

    context_id = ""
    """The call that the request has registered."""
    _log = Logger()
    channel: RapidaChannel
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
        if not self._refused:
            super().requestReceived(command, path, version)

    @property
    def _max_body_bytes(self) -> int:
        return self.channel.site.max_body_bytes

    def _refuse_body(self) -> None:
        self._refused = True
        self.channel.site.rejections.add(
            "http.body_too_long", self.client, self._log, "{peer} sent a body of more than {limit} bytes",
            peer=_host(self.client), limit=self._max_body_bytes,
        )  # fmt: skip
        # With it the channel would invite the refused body.
        self.requestHeaders.removeHeader(b"Expect")
        self.channel.write(
            b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n"
            b"X-Rapida-Error: the body is too long\r\n\r\n"
        )
        self.channel.loseConnection()

    def process(self) -> None:
        """Set the headers of every response before any resource runs."""
        for name, value in SECURITY_HEADERS.items():
            self.responseHeaders.setRawHeaders(name, [value])
        if self.channel.site.leaving:
            self.responseHeaders.setRawHeaders("Connection", ["close"])
            self.channel.persistent = False
        super().process()

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
            send(Response(500), self)
        return reason


class RapidaChannel(QuietHTTPChannel):
    """An HTTP connection with a time limit for each complete request."""

    _log = Logger()
    site: RapidaSite

    def resetTimeout(self) -> None:  # noqa: N802
        """Called for each piece of data, which must not extend the time: only a complete request does."""

    def timeoutConnection(self) -> None:  # noqa: N802
        """The time is over: an ordinary end between two requests, a refusal within one."""
        if self.requests or self.clearLineBuffer():
            self.site.rejections.add(
                "http.overdue", self.getPeer(), self._log, "{peer} did not send a whole request in time: closed",
                peer=_host(self.getPeer()),
            )  # fmt: skip
        else:
            self.site.rejections.counts["http.idle"] += 1
        # Twisted would log a line for each connection.
        self.mute()
        super().timeoutConnection()

    def bad_request_received(self) -> None:
        """Log it: the author of a dialplan needs to know."""
        self.site.rejections.add(
            "http.garbage", self.getPeer(), self._log,
            "{peer} sent no valid HTTP request, or one that is too long: 400. Is a parameter not URI-encoded?",
            peer=_host(self.getPeer()),
        )  # fmt: skip


class RapidaSite(Site):
    """A site with an access log through ``twisted.logger``, which shows no key.

    :param timeout_s: how long a connection may take to send its next complete request.
    :param rejections: counts and logs refused clients.
    """

    _log = Logger()
    noisy = False
    protocol = RapidaChannel  # type: ignore[assignment]

    def __init__(
        self,
        root: IResource,
        reactor: Any,
        timeout_s: float = REQUEST_TIMEOUT_S,
        max_body_bytes: int = MAX_BODY_BYTES,
        rejections: RejectionLog | None = None,
    ) -> None:
        self.leaving = False
        """Whether this process leaves its port to others: each connection closes after its next response."""
        self.max_body_bytes = max_body_bytes
        self.rejections = rejections if rejections is not None else RejectionLog()
        super().__init__(root, RapidaRequest, timeout=timeout_s, reactor=reactor, parsePOSTFormSubmission=False)

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802
        """HTTP/1.1 only: WebSockets need it."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Twisted's would open a log file and start a clock."""

    def stopFactory(self) -> None:
        """Twisted's would close them."""

    def log(self, request: HTTPRequest) -> None:
        """Log one line for each response; responses to clients without a key are rate-limited."""
        quiet = request.path in _QUIET_PATHS and request.code < 400
        text = "{request}: {status}{reason} ({duration_ms:.1f} ms)"
        values = {
            "request": describe(request),
            "status": request.code,
            "reason": _reason(request),
            "duration_ms": _duration_ms(request),
            "id": getattr(request, "context_id", ""),
        }
        if request.code in _REFUSALS and getattr(request, "grant", None) is None:
            name = f"http.{request.code}"
            self.rejections.add(name, request.client, self._log, text, level=LogLevel.info, **values)
        else:
            self._log.emit(LogLevel.debug if quiet else LogLevel.info, text, **values)


def _duration_ms(request: HTTPRequest) -> float:
    return (time.perf_counter() - request.started_s) * 1000 if isinstance(request, RapidaRequest) else 0.0


def _host(address: object) -> str:
    return str(getattr(address, "host", address))


def _reason(request: HTTPRequest) -> str:
    values = request.responseHeaders.getRawHeaders(ERROR_HEADER, [])
    return f" {values[0]}" if values else ""
