"""Connects to a Redis: finds the master, authenticates, and checks that it can be written to.

Only txredisapi's protocol is used, not its pool: a command given to the pool while Redis is down waits for ever, and
the pool never reconnects after an AUTH without an answer.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from txredisapi import ConnectionError as RedisConnectionError
from txredisapi import HiredisProtocol

from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.net.connection_errors import error_text, tls_problem, was_cancelled
from rapida_twisted.net.coroutines import returns_deferred
from rapida_twisted.store.redis_address import RedisAddress

__all__ = ["RedisConnector", "RedisProtocol", "check_redis"]

T = TypeVar("T")

CHECK_S = 5.0


class RedisProtocol(HiredisProtocol):
    """Takes and gives bytes, and keeps why its connection was lost: for a certificate, say."""

    lost: Failure | None = None

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)

    def connectionLost(self, why: Failure) -> None:
        self.lost = why
        super().connectionLost(why)


class RedisConnector:
    """Connects to a Redis, or to the master that sentinels name.

    :param reactor: provides IReactorTime and IReactorTCP.
    :param tls_options: how a host of that name is verified; called only for an address with TLS.
    """

    def __init__(self, address: RedisAddress, reactor: Any, tls_options: Callable[[str], Any]) -> None:
        self._address = address
        self._reactor = reactor
        self._tls_options = tls_options
        self._factory: Any = Factory.forProtocol(RedisProtocol)
        self._factory.noisy = False

    @returns_deferred
    async def connect(self) -> RedisProtocol:
        """Fires with a protocol that may be used at once, or fails with ``StoreUnavailable``."""
        host, port = await self._find_master() if self._address.service else self._address.hosts[0]
        return await self._talk(host, port, self._log_in)

    async def _log_in(self, protocol: RedisProtocol) -> RedisProtocol:
        address = self._address
        if address.password:
            await self._ask(protocol, "AUTH", *filter(None, (address.username, address.password)))
        if address.database:
            await self._ask(protocol, "SELECT", str(address.database))
        await self._ask(protocol, "PING")
        role = (await self._ask(protocol, "ROLE"))[0]
        if role != b"master":
            raise StoreUnavailable(f"it is a {role.decode()}, which can't be written to")
        return protocol

    async def _find_master(self) -> tuple[str, int]:
        problems = []
        for host, port in self._address.hosts:
            try:
                return await self._talk(host, port, self._ask_sentinel)
            except StoreUnavailable as error:
                problems.append(str(error))
        raise StoreUnavailable("; ".join(problems))

    async def _ask_sentinel(self, protocol: RedisProtocol) -> tuple[str, int]:
        found = await self._ask(protocol, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service)
        if not found:
            raise StoreUnavailable(f"this sentinel does not know {self._address.service!r}")
        protocol.transport.abortConnection()
        return found[0].decode(), int(found[1])

    async def _talk(self, host: str, port: int, talk: Callable[[RedisProtocol], Awaitable[T]]) -> T:
        """Connect, and talk. The text of an error has nothing of what was sent."""
        protocol = None
        try:
            protocol = await self._open(host, port)
            return await talk(protocol)
        except BaseException as error:
            if protocol is not None and protocol.connected:
                protocol.transport.abortConnection()
            if not isinstance(error, Exception):
                raise
            if was_cancelled(error):
                raise CancelledError from None
            if isinstance(error, RedisConnectionError) and protocol is not None and protocol.lost is not None:
                error = protocol.lost.value or error
            problem = tls_problem(error)
            raise StoreUnavailable(f"{host}:{port}: {f'it {problem}' if problem else error_text(error)}") from None

    async def _open(self, host: str, port: int) -> RedisProtocol:
        endpoint: Any = HostnameEndpoint(self._reactor, host, port, timeout=self._address.timeout_s)
        if self._address.tls:
            endpoint = wrapClientTLS(self._tls_options(host), endpoint)
        opened: RedisProtocol = await endpoint.connect(self._factory)
        return opened

    async def _ask(self, protocol: RedisProtocol, *command: str) -> Any:
        def too_late(_: Any, timeout_s: float) -> None:
            raise StoreUnavailable(f"no answer within {timeout_s:g} s")

        asking: Deferred[Any] = protocol.execute_command(*command)
        return await asking.addTimeout(self._address.timeout_s, self._reactor, too_late)


def check_redis(address: RedisAddress, tls_options: Callable[[str], Any]) -> Deferred[None]:
    """Connect and disconnect, without a reactor: a server that cannot reach its store refuses to start.

    Blocks, for ``CHECK_S`` at most. The Deferred has fired when this returns; it fails with ``StoreUnavailable``.
    """
    connecting = _BlockingConnector(address, tls_options).connect()
    return connecting.addCallback(lambda protocol: protocol.transport.abortConnection())


class _BlockingConnector(RedisConnector):
    """Connects by a blocking socket."""

    _socket: _SocketTransport
    _reader: Any
    """What reads from the socket: a Redis protocol, or TLS around it."""

    def __init__(self, address: RedisAddress, tls_options: Callable[[str], Any]) -> None:
        self._clock = Clock()
        super().__init__(address, self._clock, tls_options)
        self._deadline_s = time.monotonic() + CHECK_S

    async def _open(self, host: str, port: int) -> RedisProtocol:
        share = 1 if len(self._address.hosts) == 1 else 2
        try:
            self._socket = _SocketTransport(socket.create_connection((host, port), self._left_s() / share))
        except TimeoutError:
            raise self._no_answer() from None
        if not self._address.tls:
            protocol = self._reader = self._factory.buildProtocol(None)
        else:
            secured = TLSMemoryBIOFactory(self._tls_options(host), True, self._factory, self._clock)
            self._reader = cast(Any, secured).buildProtocol(None)
            protocol = self._reader.wrappedProtocol
        self._reader.makeConnection(self._socket)
        return cast(RedisProtocol, protocol)

    async def _ask(self, protocol: RedisProtocol, *command: str) -> Any:
        asking: Deferred[Any] = protocol.execute_command(*command)
        while not asking.called:
            # TLS sends what is small a turn later.
            self._clock.advance(0)
            try:
                data = self._socket.receive(self._left_s())
            except TimeoutError:
                raise self._no_answer() from None
            if data:
                self._reader.dataReceived(data)
            if not data or self._socket.disconnecting:
                self._reader.connectionLost(connectionDone)
        return await asking

    def _left_s(self) -> float:
        return max(0.01, self._deadline_s - time.monotonic())

    def _no_answer(self) -> StoreUnavailable:
        return StoreUnavailable(f"no answer within {CHECK_S:g} s{' (does it speak TLS?)' if self._address.tls else ''}")


class _SocketTransport:
    """As much of a transport as the protocols use, on a blocking socket."""

    disconnecting = False

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def receive(self, timeout_s: float) -> bytes:
        """Wait for data; empty at the connection's end."""
        self._socket.settimeout(timeout_s)
        return self._socket.recv(65536)

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def loseConnection(self) -> None:  # noqa: N802
        self.disconnecting = True
        self._socket.close()

    abortConnection = loseConnection  # noqa: N815
