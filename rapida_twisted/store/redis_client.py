"""One connection to a Redis, kept up: every command has an outcome within a bounded time, whatever Redis does."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha1
from typing import Any

from twisted.application.internet import ClientService
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from txredisapi import RedisError, ResponseError
from zope.interface import implementer

from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.net.backoff import backoff
from rapida_twisted.store.redis_address import RedisAddress
from rapida_twisted.store.redis_connection import RedisConnector, RedisProtocol

__all__ = ["RedisClient", "Script"]

CLOSE_S = 1.0
MAX_WAITING = 1000
"""Commands that wait for a connection; further ones fail at once."""
retry_pause_s = backoff(0.1, 5.0)


class Script:
    """A Lua script, which Redis runs as one step.

    :param text: what it does. Its names are given as ``KEYS`` and ``ARGV``.
    """

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.digest = sha1(self.text).hexdigest()


class RedisClient:
    """Commands to a Redis, and the connection for them.

    :param reactor: provides IReactorTime and IReactorTCP.
    :param tls_options: how the host of that name is verified; called only for an address with TLS.
    """

    _log = Logger()

    def __init__(self, address: RedisAddress, reactor: Any, tls_options: Callable[[str], Any]) -> None:
        self.address = address
        self._reactor = reactor
        self._protocol: RedisProtocol | None = None
        self._waiting = 0
        self._changed_s = 0.0
        """When the connection came up or was lost."""
        self._problem = "it was not reached yet"
        self._reported = False
        """Whether the log says that there is no connection."""
        self._connector = RedisConnector(address, reactor, tls_options)
        self._service = ClientService(
            _Endpoint(self._connect, address.where), Factory.forProtocol(Protocol), retry_pause_s, reactor
        )

    def __repr__(self) -> str:
        return f"<RedisClient {self.address.where}>"

    def start(self) -> None:
        """Connect, and reconnect whenever the connection is lost."""
        self._changed_s = self._reactor.seconds()
        self._service.startService()

    def stop(self) -> Deferred[Any]:
        """Close the connection, and make no other; fires when it is closed."""
        if not self._service.running:
            return succeed(None)
        protocol = self._protocol
        stopping = maybeDeferred(self._service.stopService)
        if protocol is not None:
            overdue = self._reactor.callLater(CLOSE_S, protocol.transport.abortConnection)
            stopping.addBoth(lambda _: overdue.cancel() if overdue.active() else None)
        return stopping

    def run(self, script: Script, key: str, *arguments: bytes | str) -> Deferred[Any]:
        """Run a script, in one step, with one key and further arguments.

        :return: fires with what it gives, or fails with ``StoreUnavailable``, within the address's ``timeout_s``.
        """
        return self._bounded(lambda protocol: _run(protocol, script, key, arguments))

    def command(self, *command: bytes | str) -> Deferred[Any]:
        """Send a command; see :meth:`run`."""
        return self._bounded(lambda protocol: protocol.execute_command(*command))

    def _bounded(self, send: Callable[[Any], Deferred[Any]]) -> Deferred[Any]:
        protocol = self._protocol
        if protocol is not None:
            sent = maybeDeferred(send, protocol)
        elif self._may_wait():
            self._waiting += 1
            sent = self._service.whenConnected().addBoth(self._waited).addCallback(lambda _: send(self._protocol))
        else:
            return fail(self._unavailable(self._problem))

        def too_late(_: Any, timeout_s: float) -> None:
            # Whatever else is asked of a connection that answers nothing would wait as long. What was sent may still
            # be done, if it only took long.
            if self._protocol is protocol and protocol is not None:
                self._problem = f"no answer within {timeout_s:g} s"
                protocol.transport.abortConnection()
            raise self._unavailable(f"no answer within {timeout_s:g} s")

        sent.addTimeout(self.address.timeout_s, self._reactor, too_late)
        return sent.addErrback(self._explained)

    def _may_wait(self) -> bool:
        """Whether the connection may be there in time: it is not known to be gone for long."""
        short = self._reactor.seconds() - self._changed_s < self.address.timeout_s
        return bool(self._service.running) and short and self._waiting < MAX_WAITING

    def _waited(self, result: Any) -> Any:
        self._waiting -= 1
        return result

    def _explained(self, failure: Failure) -> Failure:
        if failure.check(CancelledError) and not self._service.running:
            return Failure(StoreUnavailable("the call store is not open"))
        failure.trap(RedisError)
        text = str(failure.value)
        if isinstance(failure.value, ResponseError) and text.startswith("READONLY") and self._protocol is not None:
            # The master became a replica: the sentinels know the new one.
            self._protocol.transport.abortConnection()
        return Failure(self._unavailable(text))

    def _unavailable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"the call store at {self.address.where} does not answer: {why}")

    # The connection

    def _connect(self) -> Deferred[RedisProtocol]:
        return self._connector.connect().addCallbacks(self._connected, self._not_connected)

    def _connected(self, protocol: RedisProtocol) -> RedisProtocol:
        self._log.info("the call store at {where} is reached", where=self.address.where)
        self._protocol, self._changed_s = protocol, self._reactor.seconds()
        self._problem, self._reported = "the connection was lost", False
        protocol.whenDisconnected().addCallback(self._disconnected)
        return protocol

    def _disconnected(self, _: Any) -> None:
        self._protocol, self._changed_s = None, self._reactor.seconds()
        if self._service.running:
            self._log.warn("the call store at {where}: {problem}", where=self.address.where, problem=self._problem)

    def _not_connected(self, failure: Failure) -> Failure:
        self._problem = failure.getErrorMessage()
        if not self._reported and self._service.running:
            self._reported = True
            self._log.warn("the call store is not reached: {error}", error=self._problem)
        return failure


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Shows ClientService a connection that is ready: it cannot take the loss of one that is being prepared."""

    def __init__(self, connect: Callable[[], Deferred[RedisProtocol]], name: str) -> None:
        self._connect = connect
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        def connected(protocol: RedisProtocol) -> Any:
            shown: Any = protocolFactory.buildProtocol(protocol.transport.getPeer())
            shown.makeConnection(protocol.transport)
            protocol.whenDisconnected().addCallback(lambda _: shown.connectionLost(protocol.lost))
            return shown

        return self._connect().addCallback(connected)


def _run(protocol: Any, script: Script, key: str, arguments: tuple[bytes | str, ...]) -> Deferred[Any]:
    def unknown(failure: Failure) -> Any:
        if not str(failure.value).startswith("NOSCRIPT"):
            return failure
        return protocol.execute_command("EVAL", script.text, "1", key, *arguments)

    running: Deferred[Any] = protocol.execute_command("EVALSHA", script.digest, "1", key, *arguments)
    return running.addErrback(unknown)
