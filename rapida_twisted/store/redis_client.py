"""One connection to a Redis, kept up: every command has an outcome within a bounded time, whatever Redis does.

txredisapi's protocol speaks; what it does on top of it (its pool) is not used, since a command that is given to that
while Redis is down waits for ever, and since that never connects again once an AUTH was not answered.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha1
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from txredisapi import HiredisProtocol, RedisError, ResponseError

from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.store.redis_address import RedisAddress

__all__ = ["RedisClient", "Script"]

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
CLOSE_S = 1.0
MOST_WAITING = 1000
"""Commands that wait for a connection; further ones fail at once."""


class Script:
    """A Lua script, which Redis runs as one step.

    :param text: what it does. Its names are given as ``KEYS`` and ``ARGV``.
    """

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.digest = sha1(self.text).hexdigest()


class _Protocol(HiredisProtocol):
    """Bytes in, bytes out; the connection is prepared by the client, not by itself."""

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)


class RedisClient:
    """Commands to a Redis, and the connection for them.

    :param reactor: provides IReactorTime and IReactorTCP.
    :param tls_options: how the host of that name is verified; asked only for an address with TLS.
    """

    _log = Logger()

    def __init__(self, address: RedisAddress, reactor: Any, tls_options: Callable[[str], Any]) -> None:
        self.address = address
        self._reactor = reactor
        self._tls_options = tls_options
        self._protocol: _Protocol | None = None
        self._waiting: list[Deferred[_Protocol]] = []
        self._since_s = 0.0
        """Since when there is a connection, or none."""
        self._problem = "it was not reached yet"
        self._running = False
        self._keeping: Deferred[None] | None = None
        self._factory = Factory.forProtocol(_Protocol)
        self._factory.noisy = False

    def __repr__(self) -> str:
        return f"<RedisClient {self.address.where}>"

    def start(self) -> None:
        """Connect, and do so again whenever the connection is lost."""
        self._running = True
        self._since_s = self._reactor.seconds()
        self._keeping = Deferred.fromCoroutine(self._keep_connected())
        self._keeping.addErrback(self._broke)

    def stop(self) -> Deferred[Any]:
        """Close the connection, and make no other; fires when it is closed."""
        self._running = False
        keeping, self._keeping = self._keeping, None
        if keeping is None:
            return succeed(None)
        if self._protocol is not None:
            transport = self._protocol.transport
            transport.loseConnection()
            keeping.addTimeout(CLOSE_S, self._reactor, onTimeoutCancel=lambda *_: transport.abortConnection())
        else:
            keeping.cancel()
        self._tell_waiting(Failure(StoreUnavailable("the call store is not open")))
        return keeping

    def run(self, script: Script, key: str, *words: bytes | str) -> Deferred[Any]:
        """Run a script, in one step, with one key and further words.

        :return: fires with what it gives, or fails with ``StoreUnavailable``, within the address's ``timeout_s``.
        """
        return self._bounded(lambda protocol: _run(protocol, script, key, words))

    def command(self, *words: bytes | str) -> Deferred[Any]:
        """Send a command; see :meth:`run`."""
        return self._bounded(lambda protocol: protocol.execute_command(*words))

    def _bounded(self, send: Callable[[_Protocol], Deferred[Any]]) -> Deferred[Any]:
        protocol = self._protocol
        if protocol is not None:
            sent = _sent(send, protocol)
        elif self._may_wait():
            waiting: Deferred[Any] = Deferred(self._waits_no_more)
            self._waiting.append(waiting)
            sent = waiting.addCallback(lambda connected: _sent(send, connected))
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
        short = self._reactor.seconds() - self._since_s < self.address.timeout_s
        return self._running and short and len(self._waiting) < MOST_WAITING

    def _waits_no_more(self, waiting: Deferred[Any]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _explained(self, failure: Failure) -> Failure:
        failure.trap(RedisError)
        text = str(failure.value)
        if isinstance(failure.value, ResponseError) and text.startswith("READONLY") and self._protocol is not None:
            # The master became a replica: the sentinels know the new one.
            self._protocol.transport.abortConnection()
        return Failure(self._unavailable(text))

    def _unavailable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"the call store at {self.address.where} does not answer: {why}")

    # The connection

    async def _keep_connected(self) -> None:
        failures = 0
        while self._running:
            try:
                protocol = await self._connect()
            except Exception as error:
                if not self._running:
                    return
                failures += 1
                self._problem = _words(error)
                if failures == 1:
                    self._log.warn(
                        "the call store at {where} is not reached: {error}",
                        where=self.address.where,
                        error=_words(error),
                    )
            else:
                failures = 0
                await self._serve(protocol)
            if self._running:
                await deferLater(self._reactor, _pause_s(failures))

    async def _connect(self) -> _Protocol:
        """A connection that was entered and answers."""
        host, port = await self._find_master() if self.address.service else self.address.hosts[0]
        protocol = await self._open(host, port)
        try:
            await self._ask(protocol, *self._entering())
            if (await self._ask(protocol, ["ROLE"]))[0] != b"master":
                raise StoreUnavailable(f"{host}:{port} is a replica, which can't be written to")
        except BaseException:
            protocol.transport.abortConnection()
            raise
        return protocol

    def _entering(self) -> list[list[str]]:
        address, commands = self.address, []
        if address.password:
            commands.append(["AUTH", *([address.username] if address.username else []), address.password])
        if address.database:
            commands.append(["SELECT", str(address.database)])
        return [*commands, ["PING"]]

    async def _find_master(self) -> tuple[str, int]:
        """Ask one sentinel after the other, the last one that answered first."""
        problems = []
        for host, port in list(self.address.hosts):
            sentinel = None
            try:
                sentinel = await self._open(host, port)
                found = await self._ask(sentinel, ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.address.service])
                if found:
                    return found[0].decode(), int(found[1])
                problems.append(f"the sentinel {host}:{port} does not know {self.address.service!r}")
            except CancelledError:
                raise
            except Exception as error:
                problems.append(f"the sentinel {host}:{port}: {_words(error)}")
            finally:
                if sentinel is not None:
                    sentinel.transport.abortConnection()
        raise StoreUnavailable("; ".join(problems))

    async def _open(self, host: str, port: int) -> _Protocol:
        endpoint: Any = HostnameEndpoint(self._reactor, host, port, timeout=self.address.timeout_s)
        if self.address.tls:
            endpoint = wrapClientTLS(self._tls_options(host), endpoint)
        opened: _Protocol = await endpoint.connect(self._factory)
        return opened

    async def _ask(self, protocol: _Protocol, *commands: list[str]) -> Any:
        """Send commands on a connection that is not in use yet; gives the last one's answer."""
        answer = None
        for words in commands:
            asking = protocol.execute_command(*words)
            answer = await asking.addTimeout(self.address.timeout_s, self._reactor, _no_answer)
        return answer

    async def _serve(self, protocol: _Protocol) -> None:
        """The connection is usable, until it is lost."""
        self._log.info("the call store at {where} is reached", where=self.address.where)
        self._protocol, self._since_s = protocol, self._reactor.seconds()
        self._problem = "the connection was lost"
        gone = protocol.whenDisconnected()
        self._tell_waiting(protocol)
        await gone
        self._protocol, self._since_s = None, self._reactor.seconds()
        if self._running:
            self._log.warn("the call store at {where}: {problem}", where=self.address.where, problem=self._problem)

    def _tell_waiting(self, result: _Protocol | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(result)

    def _broke(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("the connection to the call store is not kept up any more", failure)


def _sent(send: Callable[[_Protocol], Deferred[Any]], protocol: _Protocol) -> Deferred[Any]:
    try:
        return send(protocol)
    except RedisError as error:
        return fail(error)


def _run(protocol: _Protocol, script: Script, key: str, words: tuple[bytes | str, ...]) -> Deferred[Any]:
    def unknown(failure: Failure) -> Any:
        if not str(failure.value).startswith("NOSCRIPT"):
            return failure
        return protocol.execute_command("EVAL", script.text, "1", key, *words)

    running: Deferred[Any] = protocol.execute_command("EVALSHA", script.digest, "1", key, *words)
    return running.addErrback(unknown)


def _no_answer(_: Any, timeout_s: float) -> None:
    raise StoreUnavailable(f"no answer within {timeout_s:g} s")


def _words(error: Exception) -> str:
    """What went wrong, without what was sent."""
    return str(error) or type(error).__name__


def _pause_s(failures: int) -> float:
    """Longer after each failure, and by chance different for each process."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 10)) * random.uniform(0.5, 1.5)
