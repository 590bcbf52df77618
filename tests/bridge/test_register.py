"""Registering bridged calls, over loopback sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as reactor_
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, eventAsText
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from benchmarks.harness.authority import Authority
from rapida_twisted.bridge.register import RegistrationClient
from rapida_twisted.context import CallContext
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.errors import UpstreamFailed
from rapida_twisted.net.http_client import make_client
from rapida_twisted.server.registrar import Registrar
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.web.site import RapidaSite, make_root

reactor: Any = reactor_

CONTEXT_ID = "626162e8-ed7b-44b4-b10d-2f3ca1d457ca"
KEY = "rpd secret+key/1"
KEYS = (KEY, "rpd+secret%2Bkey%2F1", "rpd%20secret%2Bkey/1", "secret")
"""It, as it may stand in a URL, and a part of it."""
STEP_S = 0.3


def call(**more: Any) -> CallContext:
    """One that is being registered here."""
    known = {"assistant_id": "7", "caller": "+49 30", "called": "100", **more}
    return CallContext(context_id="00000000-0000-4000-8000-000000000000", created_at=0.0, expires_at=300.0, **known)


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """An answer on a connection that stays."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Connection(Protocol):
    """One connection at the server: tells it of each request."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.over: Deferred[None] = Deferred()
        self._data = b""

    def connectionMade(self) -> None:
        """A client connected."""
        self.server.connections.append(self)
        self.server.greet(self)

    def dataReceived(self, data: bytes) -> None:
        """A request's head is all of it."""
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, self._data = self._data.partition(b"\r\n\r\n")
            self.server.requests.append(head)
            self.server.answer(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Gone."""
        self.over.callback(None)


class Server(Factory[Connection]):
    """Answers as the test says. Knows what HTTP it needs to, and remembers everything."""

    noisy = False

    def __init__(self, *answers: bytes) -> None:
        self.requests: list[bytes] = []
        self.connections: list[Connection] = []
        self.greet: Callable[[Connection], None] = lambda connection: None
        self.answer: Callable[[Connection], None] = lambda connection: connection.transport.write(
            answers[min(len(self.requests), len(answers)) - 1]
        )

    def buildProtocol(self, address: Any) -> Connection:
        """One more."""
        return Connection(self)

    @property
    def lines(self) -> list[bytes]:
        """The first line of each request."""
        return [head.partition(b"\r\n")[0] for head in self.requests]

    async def stop(self) -> None:
        """Close the remaining connections."""
        for connection in self.connections:
            if not connection.over.called:
                connection.transport.abortConnection()
        await gatherResults([connection.over for connection in self.connections])


class Endless:
    """A body without end, as fast as it is taken."""

    def __init__(self, connection: Connection, chunk: bytes) -> None:
        self._transport: Any = connection.transport
        self._chunk = chunk
        self._running = False
        self.written = 0
        self._transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """Go on."""
        if not self._running:
            self._running = True
            self._write()

    def pauseProducing(self) -> None:
        """Wait."""
        self._running = False

    stopProducing = pauseProducing

    def _write(self) -> None:
        if self._running:
            self.written += len(self._chunk)
            self._transport.write(self._chunk)
            reactor.callLater(0, self._write)


class Nowhere:
    """A connector that never comes through."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory
        factory.doStart()
        factory.startedConnecting(self)

    def stopConnecting(self) -> None:  # noqa: N802
        """The client gives up."""
        self._factory.doStop()

    def getDestination(self) -> IPv4Address:  # noqa: N802
        """Where to."""
        return IPv4Address("TCP", "127.0.0.1", 9)


class ClientCase(TestCase):
    """A client, and all that is logged meanwhile."""

    def setUp(self) -> None:
        """Listen to the log."""
        capturing = capturedLogs()
        self.events = capturing.__enter__()
        self.addCleanup(self.no_key_in_log)
        self.addCleanup(capturing.__exit__, None, None, None)

    def no_key_in_log(self) -> None:
        """Whatever was logged, at any level, the key is not in it."""
        for event in self.events:
            for key in KEYS:
                self.assertNotIn(key, eventAsText(event))
                self.assertNotIn(key, repr(event))

    def make(self, url: str, ca_file: str = "", **more: Any) -> RegistrationClient:
        """A client, with connections of its own."""
        treq_client, pool = make_client(reactor, ca_file, retries=False, idle_s=30.0)
        self.addCleanup(pool.closeCachedConnections)
        return RegistrationClient(
            url, KEY, **{"treq_client": treq_client, "reactor": reactor, "timeout_s": STEP_S, **more}
        )

    async def listen(self, server: Factory[Any], tls: Authority | None = None) -> str:
        """The URL of a server that is there until the test is over."""
        words = f":privateKey={tls.key}:certKey={tls.certificate}" if tls else ""
        endpoint = serverFromString(reactor, f"{'ssl' if tls else 'tcp'}:0:interface=127.0.0.1{words}")
        port = await endpoint.listen(server)
        if isinstance(server, Server):
            self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        self.addCleanup(port.stopListening)
        self.where = f"127.0.0.1:{port.getHost().port}"
        return f"{'https' if tls else 'http'}://{self.where}"

    def authority(self) -> Authority:
        """One that has certified 127.0.0.1."""
        authority = Authority(Path(self.mktemp()))
        authority.certify("server")
        return authority

    def nobody_answers(self) -> list[int]:
        """The ports that are connected to from now on, without an answer."""
        ports: list[int] = []

        def connect(host: str, port: int, factory: Any, *words: Any, **more: Any) -> Nowhere:
            ports.append(port)
            return Nowhere(factory)

        self.patch(reactor, "connectTCP", connect)
        return ports

    async def failed(self, client: RegistrationClient, word: str, words: str) -> UpstreamFailed:
        """A call is not registered. The text names the server; the key is nowhere."""
        try:
            await client.register(call())
        except UpstreamFailed as error:
            failure = error
        else:
            self.fail("it was registered")
        self.assertEqual((failure.word, str(failure)), (word, f"the upstream {self.where} {words}"))
        self.assertIsNone(failure.__cause__)
        self.assertTrue(failure.__suppress_context__ or failure.__context__ is None)
        for key in KEYS:
            self.assertNotIn(key, f"{failure!r} {failure} {failure.__dict__} {Failure(failure).getTraceback()}")
        return failure

    async def fails(self, server: Server, word: str, words: str) -> UpstreamFailed:
        """The same, at a server of its own."""
        return await self.failed(self.make(await self.listen(server)), word, words)


class RegisteredTests(ClientCase):
    """Servers that take the call."""

    async def test_request(self) -> None:
        """It asks as the hosted Rapida wants it: everything in the query."""
        server = Server(answer(CONTEXT_ID.encode()))
        client = self.make(f"{await self.listen(server)}/")
        self.assertEqual(await client.register(call()), CONTEXT_ID)
        path = b"/v1/talk/asterisk/call/7?from=%2B49+30&to=100&x-api-key=rpd+secret%2Bkey%2F1"
        self.assertEqual(server.lines, [b"GET " + path + b" HTTP/1.1"])
        self.assertNotIn(b"secret", server.requests[0].partition(b"\r\n")[2])

    async def test_assistant(self) -> None:
        """The configured assistant is requested, in place of the dialled one."""
        server = Server(answer(CONTEXT_ID.encode()))
        await self.make(await self.listen(server), assistant_id="a/ü").register(call())
        self.assertIn(b"/call/a%2F%C3%BC?", server.lines[0])

    async def test_forms(self) -> None:
        """The contextId may have white space around it, and be written in other ways; it is given in one."""
        for body in (f"{CONTEXT_ID}\n", f" \r\n{CONTEXT_ID.upper()} ", CONTEXT_ID.replace("-", ""), f"{CONTEXT_ID:64}"):
            client = self.make(await self.listen(Server(answer(body.encode()))))
            self.assertEqual(await client.register(call()), CONTEXT_ID)

    async def test_connection_is_kept(self) -> None:
        """The next call is registered on the same connection."""
        for tls in (None, self.authority()):
            server = Server(answer(CONTEXT_ID.encode()))
            client = self.make(await self.listen(server, tls), str(tls.authority) if tls else "")
            for _ in range(3):
                self.assertEqual(await client.register(call()), CONTEXT_ID)
            self.assertEqual((len(server.requests), len(server.connections)), (3, 1))

    async def test_connection_was_closed(self) -> None:
        """One that the server closed meanwhile is not used again."""
        server = Server(answer(CONTEXT_ID.encode()))
        client = self.make(await self.listen(server))
        await client.register(call())
        server.connections[0].transport.loseConnection()
        await server.connections[0].over
        await deferLater(reactor, 0.05)
        await client.register(call())
        self.assertEqual((len(server.requests), len(server.connections)), (2, 2))

    async def test_each_step_has_its_time(self) -> None:
        """Handshake, head and body may each take nearly the whole time."""
        tls = self.authority()
        context = DefaultOpenSSLContextFactory(str(tls.key), str(tls.certificate))
        pause_s = 0.7 * STEP_S

        def greet(connection: Connection) -> None:
            if len(connection.server.connections) > 1:
                return
            connection.transport.pauseProducing()
            reactor.callLater(pause_s, connection.transport.startTLS, context, connection.server)
            reactor.callLater(pause_s, connection.transport.resumeProducing)

        def reply(connection: Connection) -> None:
            body = answer(CONTEXT_ID.encode())
            reactor.callLater(pause_s, connection.transport.write, body[:-20])
            reactor.callLater(2 * pause_s, connection.transport.write, body[-20:])

        server = Server()
        server.greet, server.answer = greet, reply
        url = await self.listen(server)
        begun = time.monotonic()
        client = self.make(url.replace("http:", "https:"), str(tls.authority))
        self.assertEqual(await client.register(call()), CONTEXT_ID)
        self.assertGreater(time.monotonic() - begun, 2 * STEP_S)
        self.assertEqual((len(server.requests), len(server.connections)), (1, 1))

    async def test_at_this_server(self) -> None:
        """This very program takes such registrations, too; what it says of others is passed on."""
        store = MemoryStore()
        registrar = Registrar(
            store, "7".__eq__, now=time.time, context_ttl_s=300.0, max_pending=1, draining=lambda: False
        )
        root = make_root(
            store=store, keys=ApiKeys((KEY,)), registrar=registrar, hang_up=lambda context_id: False,
            draining=lambda: False,
        )  # fmt: skip
        url = await self.listen(RapidaSite(root, reactor))
        context_id = await self.make(url).register(call())
        kept = await store.get(context_id)
        self.assertEqual((kept.caller, kept.called, dict(kept.variables)), ("+49 30", "100", {}))
        failure = await self.failed(
            self.make(url, assistant_id="8"), "refused", "does not register the call: 404, there is no such assistant"
        )
        self.assertTrue(failure.of_call)
        failure = await self.failed(
            self.make(url), "refused", "does not register the call: 429, 1 calls wait for their media already"
        )
        self.assertFalse(failure.of_call)


class RefusedTests(ClientCase):
    """Servers that answer something else."""

    async def test_statuses(self) -> None:
        """Each has its reason, and whether it concerns this call alone. None is retried."""
        said = {
            "400 Bad Request": (True, "the server rejects these parameters"),
            "401 Unauthorized": (False, "the server does not know this API key"),
            "403 Forbidden": (True, "the server forbids this"),
            "404 Not Found": (True, "the server has no such assistant"),
            "429 Too Many Requests": (False, "too many calls wait at the server"),
            "500 Oh": (False, "the server gave no reason"),
            "503 Busy": (False, "the server accepts no calls now"),
            "201 Created": (False, "the server gave no reason"),
        }
        for status, (of_call, reason) in said.items():
            server = Server(answer(CONTEXT_ID.encode(), status, "Retry-After: 0"))
            code = status[:3]
            failure = await self.fails(server, "refused", f"does not register the call: {code}, {reason}")
            self.assertEqual((failure.status, failure.of_call), (int(code), of_call))
            self.assertEqual(len(server.requests), 1)

    async def test_its_own_reason(self) -> None:
        """A server's own reason is passed on, but not with the key in it."""
        server = Server(answer(b"", "404 Not Found", "X-Rapida-Error: assistant 7 is asleep"))
        await self.fails(server, "refused", "does not register the call: 404, assistant 7 is asleep")
        server = Server(answer(b"", "404 Not Found", "X-Rapida-Error: ???").replace(b"???", b"\xff\x1b!"))
        await self.fails(server, "refused", "does not register the call: 404, \ufffd?!")
        for words in (*KEYS[:3], f"{'x' * 190}{KEY}"):
            server = Server(answer(b"", "401 No", f"X-Rapida-Error: the key '{words}' is wrong"))
            await self.fails(server, "refused", "does not register the call: 401, for a reason that quotes the API key")

    async def test_redirect(self) -> None:
        """A redirect is not followed: the key would go with it."""
        server = Server(answer(b"", "302 Found", "Location: /elsewhere"), answer(CONTEXT_ID.encode()))
        await self.fails(server, "refused", "does not register the call: 302, a redirect, which is not followed")
        self.assertEqual(len(server.requests), 1)

    async def test_no_context_id(self) -> None:
        """An answer that is something else is not taken for a contextId, even if one is in it."""
        bodies = (b"", b"<html>hello</html>", b"\xff" * 36, f"{CONTEXT_ID:65}".encode(), f"{KEY} {KEY}".encode())
        for body in (*bodies, f'{{"contextId": "{CONTEXT_ID}"}}'.encode()):
            server = Server(answer(body))
            await self.fails(server, "malformed", "answered with something that is no contextId")
            self.assertEqual(len(server.requests), 1)

    async def test_endless(self) -> None:
        """An answer without end is not read: the connection ends, over TLS too."""
        for chunked in (False, True):
            for tls in (None, self.authority()):
                server, bodies = Server(), []
                head = (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" if chunked else b"HTTP/1.1 200 OK\r\n\r\n"
                )
                chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n" if chunked else b" " * 0x4000

                def endlessly(connection: Connection, head: bytes = head, chunk: bytes = chunk) -> None:
                    connection.transport.write(head)
                    bodies.append(Endless(connection, chunk))  # noqa: B023

                server.answer = endlessly
                client = self.make(await self.listen(server, tls), str(tls.authority) if tls else "")
                await self.failed(client, "malformed", "answered with something that is no contextId")
                await server.connections[0].over.addTimeout(2.0, reactor)
                # What the sockets hold; a client that read on would have had more.
                self.assertLess(bodies[0].written, 16_000_000)

    async def test_no_http(self) -> None:
        """A server that speaks something else."""
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n"
        for words in (f"220 {KEY} ESMTP\r\n".encode(), b"SSH-2.0-x\r\n" * 3, b"HTTP/1.1 ok fine\r\n\r\n", chunked):
            await self.fails(Server(words), "malformed", "does not answer in HTTP")


class LostTests(ClientCase):
    """Servers that can't be reached, or are lost, or too slow."""

    def count_connecting(self) -> list[int]:
        """The ports that are connected to from now on."""
        ports: list[int] = []
        connect = reactor.connectTCP

        def counted(host: str, port: int, *words: Any, **more: Any) -> Any:
            ports.append(port)
            return connect(host, port, *words, **more)

        self.patch(reactor, "connectTCP", counted)
        return ports

    async def free_port(self) -> int:
        """A port that no server listens on."""
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Server())
        number: int = port.getHost().port
        await port.stopListening()
        return number

    async def test_refused(self) -> None:
        """No server there: tried twice, since nothing was sent."""
        number = await self.free_port()
        ports = self.count_connecting()
        self.where = f"127.0.0.1:{number}"
        failure = await self.failed(
            self.make(f"http://{self.where}", timeout_s=2.0), "unreachable", "can't be reached: connection refused"
        )
        self.assertEqual((failure.status, failure.of_call), (0, False))
        self.assertEqual(ports, [number, number])

    async def test_refused_once(self) -> None:
        """A server that is there at the second try gets the call, once."""
        server = Server(answer(CONTEXT_ID.encode()))
        url = await self.listen(server)
        free, connect = await self.free_port(), reactor.connectTCP
        ports = [free]
        self.patch(
            reactor,
            "connectTCP",
            lambda host, port, *words, **more: connect(host, ports.pop() if ports else port, *words, **more),
        )
        self.assertEqual(await self.make(url, timeout_s=2.0).register(call()), CONTEXT_ID)
        self.assertEqual((ports, len(server.requests)), ([], 1))

    async def test_no_such_host(self) -> None:
        """An unknown host name: tried twice."""
        asked: list[str] = []

        class Resolver:
            def resolveHostName(self, receiver: Any, name: str, *words: Any, **more: Any) -> Any:  # noqa: N802
                asked.append(name)
                receiver.resolutionBegan(self)
                receiver.resolutionComplete()

        self.addCleanup(reactor.installNameResolver, reactor.installNameResolver(Resolver()))
        self.where = "nobody.example:80"
        await self.failed(self.make("http://nobody.example"), "unreachable", "can't be reached: unknown host")
        self.assertEqual(asked, ["nobody.example"] * 2)

    async def test_unknown_authority(self) -> None:
        """A certificate of another authority is not trusted, and nothing is sent or retried."""
        for trusted in ("", str(self.authority().authority)):
            server = Server(answer(CONTEXT_ID.encode()))
            client = self.make(await self.listen(server, self.authority()), trusted)
            await self.failed(
                client, "tls",
                "has a certificate that is not trusted (TLS__CA_FILE names the file of a private CA)",
            )  # fmt: skip
            self.assertEqual((len(server.requests), len(server.connections)), (0, 1))

    async def test_wrong_host(self) -> None:
        """Nor is one for another name."""
        tls, server = self.authority(), Server(answer(CONTEXT_ID.encode()))
        url = (await self.listen(server, tls)).replace("127.0.0.1", "localhost")
        self.where = self.where.replace("127.0.0.1", "localhost")
        await self.failed(self.make(url, str(tls.authority)), "tls", "has a certificate for another name")
        self.assertEqual((len(server.requests), len(server.connections)), (0, 1))

    async def test_no_tls(self) -> None:
        """A server without TLS is no server with it."""
        server = Server()
        server.greet = lambda connection: connection.transport.write(b"220 mail.example.com ESMTP\r\n")
        client = self.make((await self.listen(server)).replace("http:", "https:"))
        await self.failed(client, "tls", "failed in its TLS handshake (wrong version number)")

    async def test_closes_at_once(self) -> None:
        """A server that closes during the TLS handshake got no request: tried twice."""
        server = Server()
        server.greet = lambda connection: connection.transport.loseConnection()
        client = self.make((await self.listen(server)).replace("http:", "https:"))
        await self.failed(client, "unreachable", "can't be reached: it closes connections at once")
        self.assertEqual(len(server.connections), 2)

    async def test_slow_handshake(self) -> None:
        """A handshake that does not end is too slow a connection: tried twice, and both connections end."""
        server = Server()
        begun = time.monotonic()
        client = self.make((await self.listen(server)).replace("http:", "https:"))
        await self.failed(client, "timeout", f"did not connect within {STEP_S:g} s")
        self.assertApproximates(time.monotonic() - begun, 2 * STEP_S, 0.2)
        for connection in server.connections:
            await connection.over.addTimeout(1.0, reactor)
        self.assertEqual(len(server.connections), 2)

    async def test_slow_head(self) -> None:
        """Without an answer the request is not retried, and the connection closes."""
        for beginning in (b"", b"HTTP/1.1 200 OK\r\nContent-Le"):
            server = Server(beginning)
            begun = time.monotonic()
            await self.fails(server, "timeout", f"did not answer within {STEP_S:g} s")
            self.assertApproximates(time.monotonic() - begun, STEP_S, 0.2)
            await server.connections[0].over.addTimeout(1.0, reactor)
            self.assertEqual((len(server.requests), len(server.connections)), (1, 1))

    async def test_slow_body(self) -> None:
        """Nor when the answer does not end."""
        server = Server(answer(CONTEXT_ID.encode())[:-1])
        await self.fails(server, "timeout", f"did not answer within {STEP_S:g} s")
        await server.connections[0].over.addTimeout(1.0, reactor)
        self.assertEqual((len(server.requests), len(server.connections)), (1, 1))

    async def test_status_before_slow_body(self) -> None:
        """A refusal is one, whatever becomes of its body."""
        server = Server(answer(b"no such thing", "404 Not Found")[:-1])
        await self.fails(server, "refused", "does not register the call: 404, the server has no such assistant")

    async def test_lost(self) -> None:
        """A connection that ends in the middle is not made up for: the call may be registered."""
        whole = answer(CONTEXT_ID.encode())
        for beginning in (b"", b"HTTP/1.1 200 OK\r\nContent-Le", whole[:-36], whole[:-1]):
            for abort in (False, True):
                server = Server()

                def reply(connection: Connection, beginning: bytes = beginning, abort: bool = abort) -> None:
                    connection.transport.write(beginning)
                    transport = connection.transport
                    reactor.callLater(0.02, transport.abortConnection if abort else transport.loseConnection)

                server.answer = reply
                await self.fails(server, "lost", "closed the connection before its answer was complete")
                self.assertEqual((len(server.requests), len(server.connections)), (1, 1))

    async def test_kept_connection_lost(self) -> None:
        """Nor is one that was kept, and ends just as the request comes: Twisted's own pool would send it again."""
        for tls in (None, self.authority()):
            server = Server(answer(CONTEXT_ID.encode()))
            client = self.make(await self.listen(server, tls), str(tls.authority) if tls else "")
            await client.register(call())
            server.answer = lambda connection: connection.transport.loseConnection()
            await self.failed(client, "lost", "closed the connection before its answer was complete")
            self.assertEqual((len(server.requests), len(server.connections)), (2, 1))

    async def test_cancelled(self) -> None:
        """Cancelling ends the request at any step."""
        whole = answer(CONTEXT_ID.encode())
        for secure, said in ((True, b""), (False, b""), (False, whole[:-1])):
            server = Server(said)
            url = await self.listen(server)
            client = self.make(url.replace("http:", "https:") if secure else url, timeout_s=5.0)
            registering = Deferred.fromCoroutine(client.register(call()))
            await deferLater(reactor, 0.1)
            registering.cancel()
            error = await self.assertFailure(registering, CancelledError)
            self.assertNotIn("secret", Failure(error).getTraceback())
            await server.connections[0].over.addTimeout(1.0, reactor)
            self.assertEqual(len(server.connections), 1)

    async def test_cancelled_connecting(self) -> None:
        """A connection that is not there yet, too."""
        self.nobody_answers()
        registering = Deferred.fromCoroutine(self.make("http://127.0.0.1:9").register(call()))
        await deferLater(reactor, 0.02)
        registering.cancel()
        await self.assertFailure(registering, CancelledError)

    async def test_slow_to_connect(self) -> None:
        """A server that does not answer a SYN is tried twice."""
        tried = self.nobody_answers()
        self.where = "127.0.0.1:9"
        await self.failed(self.make(f"http://{self.where}"), "timeout", f"did not connect within {STEP_S:g} s")
        self.assertEqual(tried, [9, 9])


class NamesTests(ClientCase):
    """How a server is called in messages."""

    async def test_names(self) -> None:
        """By its host and port, as the breaker calls it, too; never by what a URL may hold besides."""
        self.nobody_answers()
        for url, name in (
            ("http://127.0.0.1", "127.0.0.1:80"),
            ("https://127.0.0.1/prefix/", "127.0.0.1:443"),
            ("https://127.0.0.1:8443", "127.0.0.1:8443"),
        ):
            self.where = name
            await self.failed(self.make(url, timeout_s=0.02), "timeout", "did not connect within 0.02 s")

    def test_repr(self) -> None:
        """The client does not show its key."""
        self.assertNotIn("secret", repr(self.make("http://127.0.0.1")))
