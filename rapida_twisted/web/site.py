"""The HTTP site: its tree of resources, its access log, and its limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource
from twisted.web.server import Site

from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.interfaces import IOutbound, IRegistrar
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.net.addresses import Network
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.ports.turn_budget import TurnBudget
from rapida_twisted.web.calls import CallsPage
from rapida_twisted.web.channel import RapidaChannel
from rapida_twisted.web.health import HealthPage, ReadyPage
from rapida_twisted.web.outbound import OutboundPages
from rapida_twisted.web.registration import RegistrationsPage
from rapida_twisted.web.request import RapidaRequest
from rapida_twisted.web.resource import Branch
from rapida_twisted.web.responses import ERROR_HEADER, describe

__all__ = ["FIRST_REQUEST_S", "MAX_BODY_BYTES", "REQUEST_TIMEOUT_S", "RapidaSite", "make_root", "operators_root"]

MAX_BODY_BYTES = 64 * 1024
REQUEST_TIMEOUT_S = 30.0
"""How long a connection may take to send its next complete request."""

FIRST_REQUEST_S = 5.0
"""The same for the first request."""

_QUIET_PATHS = frozenset((b"/healthz", b"/readyz", b"/metrics"))
"""Programs ask for them again and again: nobody reads that all is well."""


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


class RapidaSite(Site):
    """A site with an access log through ``twisted.logger``, which shows no key.

    :param timeout_s: how long a connection may take to send its next complete request.
    :param rejections: counts and logs refused clients.
    :param budget: the time for HTTP in each turn of the reactor.
    :param proxies: networks of reverse proxies whose ``X-Forwarded-For`` and ``Forwarded`` are believed; empty: none.
    :param first_request_s: how long a new connection may take to send a complete request.
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
        budget: TurnBudget | None = None,
        proxies: Sequence[Network] = (),
        first_request_s: float = FIRST_REQUEST_S,
    ) -> None:
        self.leaving = False
        """Whether this process leaves its port to others: each connection closes after its next response."""
        self.max_body_bytes = max_body_bytes
        self.rejections = rejections if rejections is not None else RejectionLog()
        self.budget = budget if budget is not None else TurnBudget(reactor)
        self.proxies = proxies
        self.first_request_s = first_request_s
        super().__init__(root, RapidaRequest, timeout=timeout_s, reactor=reactor, parsePOSTFormSubmission=False)

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802
        """HTTP/1.1 only: WebSockets need it."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Twisted's would open a log file and start a clock."""

    def stopFactory(self) -> None:
        """Twisted's would close them."""

    def log(self, request: HTTPRequest) -> None:
        """Log one line for each response; but few for those to clients without a key, and none for good health."""
        has_key = getattr(request, "grant", None) is not None
        name, refused = f"http.{request.code}", request.code >= 400
        if not refused and request.path in _QUIET_PATHS:
            return
        text = "{request}: {status}{reason} ({duration_ms:.1f} ms)"
        values = {
            "status": request.code,
            "reason": _reason(request),
            "duration_ms": _duration_ms(request),
            "id": getattr(request, "context_id", ""),
        }
        if has_key:
            self._log.info(text, request=describe(request), **values)
            return
        add = self.rejections.add if refused else self.rejections.tell
        add(name, request.client, self._log, text, level=LogLevel.info, request=lambda: describe(request), **values)


def _duration_ms(request: HTTPRequest) -> float:
    return (time.perf_counter() - request.started_s) * 1000 if isinstance(request, RapidaRequest) else 0.0


def _reason(request: HTTPRequest) -> str:
    values = request.responseHeaders.getRawHeaders(ERROR_HEADER, [])
    return f" {values[0]}" if values else ""
