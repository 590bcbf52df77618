"""The whole HTTP http on a string transport: bytes in, bytes out, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from rapida_twisted.context import CallContext
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.credentials.key_ring import KeyRing
from rapida_twisted.interfaces import IOutbound
from rapida_twisted.server.registrar import Registrar
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.web.site import RapidaSite, make_root

NOW = 1_795_000_000.25
KEY = "rpd-good"
OTHER_KEY = "rpd-other"


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP answer, taken apart."""

    status: int
    headers: Mapping[str, str]
    """By lower-case names."""
    body: bytes

    @property
    def reason(self) -> str:
        """What X-Rapida-Error says."""
        return self.headers.get("x-rapida-error", "")


class ClosableTransport(StringTransport):
    """Tells whether it was closed; the protocol hears of it later, as it does from a socket."""

    connected = True

    def loseConnection(self) -> None:  # noqa: N802
        """Close."""
        super().loseConnection()
        self.connected = False

    def abortConnection(self) -> None:  # noqa: N802
        """Close at once."""
        super().abortConnection()
        self.connected = False


class Connection:
    """One connection to the site."""

    def __init__(self, site: RapidaSite) -> None:
        self.transport = ClosableTransport(peerAddress=IPv4Address("TCP", "192.0.2.7", 40312))
        protocol: Any = site.buildProtocol(self.transport.getPeer())
        self.protocol = protocol
        protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """The client sends bytes."""
        self.protocol.dataReceived(data)

    def lose(self) -> None:
        """The client goes away."""
        self.transport.connected = False
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def responses(self) -> list[HttpResponse]:
        """All that was answered so far to requests other than HEAD."""
        responses, data = [], self.transport.value()
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            status_line, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = int(headers.get("content-length", 0))
            responses.append(HttpResponse(int(status_line.split()[1]), headers, data[:length]))
            data = data[length:]
        return responses


class InMemoryHttp:
    """The HTTP http of a server with one assistant, ``1``."""

    def __init__(
        self,
        store: Any = None,
        extra: Mapping[bytes, IResource] | None = None,
        max_pending: int = 100,
        outbound: IOutbound | None = None,
        ring: KeyRing | None = None,
    ) -> None:
        self.clock = Clock()
        self.now = NOW
        self.draining = False
        self.up: set[str] = set()
        self.hung_up: list[str] = []
        self.upstream_id = ""
        """What the assistant notes at each registration."""
        self.refusing: Exception | None = None
        """What the assistant says to a call that is being registered, if it does not want it."""
        self.assistants: dict[str, Any] = {}
        self.store = MemoryStore() if store is None else store
        self.keys = ApiKeys((KEY, OTHER_KEY), ring)
        registrar = Registrar(
            self.store,
            lambda assistant_id: assistant_id in ("1", "7", "ü"),
            now=lambda: self.now,
            context_ttl_s=300.0,
            max_pending=max_pending,
            draining=lambda: self.draining,
            prepare=self._prepare,
        )
        root = make_root(
            store=self.store,
            keys=self.keys,
            registrar=registrar,
            hang_up=self._hang_up,
            draining=lambda: self.draining,
            extra=extra,
            outbound=outbound,
            assistants=lambda: self.assistants,
        )
        self.site = RapidaSite(root, self.clock)

    async def _prepare(self, context: CallContext) -> CallContext:
        if self.refusing is not None:
            raise self.refusing
        return replace(context, upstream_id=self.upstream_id)

    def _hang_up(self, context_id: str) -> bool:
        self.hung_up.append(context_id)
        return context_id in self.up

    def request(
        self,
        target: str | bytes,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        key: str | None = KEY,
    ) -> HttpResponse:
        """Send one request and give its answer; the key goes in the header unless it is None."""
        raw_target = target if isinstance(target, bytes) else target.encode()
        lines = dict(headers or {})
        if key is not None:
            lines["x-api-key"] = key
        if body:
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
        connection = Connection(self.site)
        connection.send(method.encode() + b" " + raw_target + b" HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n" + body)
        if method == "HEAD":
            assert connection.transport.value().endswith(b"\r\n\r\n"), "HEAD was answered with a body"
        (response,) = connection.responses() if method != "HEAD" else [_head_response(connection)]
        connection.lose()
        return response

    def kept(self) -> list[CallContext]:
        """The contexts in the store, newest first."""
        result: list[CallContext] = []
        self.store.recent(1000).addCallback(result.extend)
        return result


def _head_response(connection: Connection) -> HttpResponse:
    status_line, *lines = connection.transport.value().decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return HttpResponse(int(status_line.split()[1]), headers, b"")


class SlowStore(MemoryStore):
    """A store that answers when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[Any]] = []

    def add(self, context: CallContext, max_pending: int) -> Deferred[None]:
        """Wait."""
        return self._wait()

    def check(self) -> Deferred[None]:
        """Wait."""
        return self._wait()

    def _wait(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        return waiting
