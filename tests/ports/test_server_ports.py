"""Limits on real sockets: without a proxy, behind both versions of the PROXY protocol, and under TLS."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from benchmarks.harness.authority import Authority
from rapida_twisted.ports.connection_limiter import ConnectionLimiter, ConnectionLimits
from rapida_twisted.ports.endpoints import is_proxied
from rapida_twisted.ports.listening_port import ListeningPort
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.protocols.audiosocket_app import AudioSocketFactory
from tests.media.fakes import KeptLog
from tests.protocols.fakes import EchoSink, FakeReception, warnings_of
from tests.protocols.test_audiosocket_sockets import until

TCP = "tcp:0:interface=127.0.0.1"
PROXY = f"haproxy:{TCP}"
FRAME = b"\x10\x01\x40" + bytes(320)
V2 = b"\r\n\r\n\x00\r\nQUIT\n"


def v1(host: str = "198.51.100.7", family: str = "TCP4", other: str = "192.0.2.1") -> bytes:
    """A PROXY header, version 1."""
    return f"PROXY {family} {host} {other} 40312 4573\r\n".encode()


def v2(host: str = "198.51.100.7", *, tlv: bytes = b"") -> bytes:
    """A PROXY header, version 2."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    body = socket.inet_pton(family, host) * 2 + struct.pack("!HH", 40312, 4573) + tlv
    kind = 0x21 if family == socket.AF_INET6 else 0x11
    return V2 + bytes((0x21, kind)) + struct.pack("!H", len(body)) + body


def identify() -> bytes:
    """A UUID frame."""
    return b"\x01\x00\x10" + uuid4().bytes


class Caller(Protocol):
    """Sends what it is given, and keeps what it gets."""

    def __init__(self, first: bytes) -> None:
        self.first = first
        self.received = b""
        self.gone: Deferred[None] = Deferred()
        self.lost = False

    def connectionMade(self) -> None:
        """Say it."""
        assert self.transport is not None
        self.transport.write(self.first)

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember it."""
        self.lost = True


class PortsTestCase(TestCase):
    """A port that echoes calls."""

    def listen(self, description: str, **rules: Any) -> None:
        """Listen within these limits."""
        self.log = KeptLog(self)
        self.rejections = RejectionLog()
        self.reception = FakeReception(EchoSink)
        self.factory = AudioSocketFactory(self.reception, reactor, rejections=self.rejections)
        self.limiter = ConnectionLimiter(
            "AudioSocket", ConnectionLimits(**rules), self.rejections, proxied=is_proxied(description)
        )
        self.port = ListeningPort("AudioSocket", description, self.factory, reactor, self.limiter)
        self.port.open()
        self.addCleanup(self.port.close)
        self.callers: list[Caller] = []
        self.addCleanup(self.hang_up)

    async def hang_up(self) -> None:
        """Close what is open, and wait until the server has noticed."""
        for caller in self.callers:
            if not caller.lost:
                caller.transport.abortConnection()  # type: ignore[union-attr]
        await until(lambda: all(caller.lost for caller in self.callers) and self.limiter.connections == 0)
        self.assertEqual(self.limiter._per_address, {})

    async def connect(self, first: bytes) -> Caller:
        """Connect, and say something."""
        caller = Caller(first)
        self.callers.append(caller)
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.port_number()), caller)
        return caller

    async def is_up(self, first: bytes) -> Caller:
        """A call that is echoed."""
        caller = await self.connect(first)
        await until(lambda: FRAME in caller.received or caller.lost)
        self.assertFalse(caller.lost, dict(self.rejections.counts))
        return caller

    async def is_refused(self, first: bytes, why: str) -> None:
        """One that gets nothing but its end, and is counted."""
        before, claimed = self.rejections.counts[why], len(self.reception.claims)
        caller = await self.connect(first)
        await until(lambda: caller.lost)
        self.assertEqual((caller.received, len(self.reception.claims)), (b"", claimed))
        self.assertEqual(self.rejections.counts[why], before + 1, dict(self.rejections.counts))

    def peers(self) -> list[str]:
        """The peers of the calls."""
        return [sink.channel.peer for sink in self.reception.sinks]


class BareTests(PortsTestCase):
    """Without a proxy."""

    async def test_networks(self) -> None:
        """Addresses in the networks may connect, others are closed at once."""
        self.listen(TCP, networks=(ip_network("127.0.0.0/8"),))
        await self.is_up(identify() + FRAME)

    async def test_other_networks(self) -> None:
        """They are closed, and the log names the peer and the reason."""
        self.listen(TCP, networks=(ip_network("192.0.2.0/24"),))
        for _ in range(3):
            await self.is_refused(identify() + FRAME, "audiosocket.not_allowed")
        (line,) = set(warnings_of(self.log))
        self.assertEqual(line, "AudioSocket: 127.0.0.1 rejected: this address may not connect")

    async def test_too_many(self) -> None:
        """The connection beyond the limit is closed, and no open one; a closed one makes room."""
        self.listen(TCP, per_address=2)
        first = await self.is_up(identify() + FRAME)
        second = await self.is_up(identify() + FRAME)
        await self.is_refused(identify(), "audiosocket.too_many_of_address")
        self.assertFalse(first.lost or second.lost)
        first.transport.abortConnection()  # type: ignore[union-attr]
        await until(lambda: self.limiter.connections == 1)
        await self.is_up(identify() + FRAME)

    async def test_too_fast(self) -> None:
        """A flood is closed as it comes."""
        self.listen(TCP, rate=3)
        callers = [await self.connect(identify() + FRAME) for _ in range(10)]
        await until(lambda: sum(caller.lost for caller in callers) >= 6)
        self.assertGreaterEqual(self.rejections.counts["audiosocket.too_fast"], 6)

    async def test_tls(self) -> None:
        """Connections under TLS are counted by the same limiter."""
        files = Authority(Path(self.mktemp()))
        files.certify("localhost")
        self.listen(f"ssl:0:interface=127.0.0.1:privateKey={files.key}:certKey={files.certificate}", per_address=1)
        first = await self.connect(b"")
        await until(lambda: self.limiter.connections == 1)
        await self.is_refused(b"", "audiosocket.too_many_of_address")
        self.assertFalse(first.lost)

    async def test_adopted(self) -> None:
        """A socket that a supervisor opened is limited, too."""
        given = socket.create_server(("127.0.0.1", 0))
        given.setblocking(False)
        self.addCleanup(given.close)
        self.listen("tcp:0", per_address=1)
        await self.port.close()
        port = self.port._reactor.adoptStreamPort(given.fileno(), socket.AF_INET, self.factory)
        self.addCleanup(port.stopListening)
        self.port._port = port
        await self.is_up(identify() + FRAME)
        await self.is_refused(identify(), "audiosocket.too_many_of_address")


class ProxiedTests(PortsTestCase):
    """Behind the PROXY protocol."""

    async def test_both_versions(self) -> None:
        """The address is the header's: in the call's record, and for the networks."""
        self.listen(PROXY, networks=(ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")))
        for header in (v1(), v2(), v2(tlv=b"\x04\x00\x01x"), v1("2001:db8::7", "TCP6", "2001:db8::1")):
            await self.is_up(header + identify() + FRAME)
        await self.is_up(v2("2001:db8::7") + identify() + FRAME)
        v4 = "198.51.100.7:40312"
        self.assertEqual(self.peers(), [v4, v4, v4, "[2001:db8::7]:40312", "[2001:db8:0:0:0:0:0:7]:40312"])

    async def test_other_networks(self) -> None:
        """A caller outside the networks is rejected before the claim, though the proxy is inside."""
        self.listen(PROXY, networks=(ip_network("127.0.0.0/8"),))
        for header in (v1(), v2(), v2("2001:db8::7")):
            await self.is_refused(header + identify() + FRAME, "audiosocket.not_allowed")
        await self.is_up(v1("127.0.0.9") + identify() + FRAME)
        self.assertIn("AudioSocket: 198.51.100.7 rejected: this address may not connect", warnings_of(self.log))

    async def test_of_address(self) -> None:
        """Limits are for the addresses that the headers name."""
        self.listen(PROXY, per_address=1)
        first = await self.is_up(v1() + identify() + FRAME)
        await self.is_refused(v2() + identify(), "audiosocket.too_many_of_address")
        await self.is_up(v1("198.51.100.8") + identify() + FRAME)
        first.transport.abortConnection()  # type: ignore[union-attr]
        await until(lambda: self.limiter.connections == 1)
        await self.is_up(v1() + identify() + FRAME)

    async def test_header_first(self) -> None:
        """The header alone, and what follows later, makes no difference."""
        self.listen(PROXY, networks=(ip_network("198.51.100.0/24"),))
        for header in (v1(), v2()):
            caller = await self.connect(header)
            await until(lambda: len(self.factory._unidentified) == 1)
            caller.transport.write(identify() + FRAME)  # type: ignore[union-attr]
            await until(lambda caller=caller: FRAME in caller.received)

    async def test_no_address(self) -> None:
        """A proxy that speaks for itself (its health checks) is taken by its own address."""
        self.listen(PROXY, networks=(ip_network("127.0.0.0/8"),))
        local = V2 + b"\x20\x00\x00\x00"
        for header in (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN 1 2 3 4\r\n", local):
            await self.is_up(header + identify() + FRAME)
        self.assertEqual({peer.split(":")[0] for peer in self.peers()}, {"127.0.0.1"})

    async def test_header_without_an_ip_address(self) -> None:
        """A header that carries a connection without an IP address (UNIX, unspecified) is refused, whatever networks
        are allowed."""
        self.listen(PROXY, networks=(ip_network("198.51.100.0/24"),))
        unix = V2 + b"\x21\x31\x00\xd8" + b"/tmp/x".ljust(108, b"\0") * 2
        for header in (unix, V2 + b"\x21\x00\x00\x00", V2 + b"\x21\x32\x00\xd8" + bytes(216)):
            await self.is_refused(header + identify() + FRAME, "audiosocket.bad_proxy_header")

    async def test_garbage(self) -> None:
        """A connection without a header is closed at once, counted, and logged in one line without a traceback."""
        self.listen(PROXY)
        for garbage in (
            identify(),
            b"GET / HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 198.51.100.7 192.0.2.1 4x 1\r\n",
            b"PROXY TCP4 \xff\xfe 192.0.2.1 1 2\r\n",
            b"PROXY TCP4 a\r\n",
            b"PROXY NOTHING a b c d\r\n",
            b"PROXY " + b"x" * 200,
            V2 + b"\x2f\x11\x00\x0c" + bytes(12),
            V2 + b"\x21\x11\x00\x04" + bytes(4),
            V2 + b"\x21\xff\x00\x0c" + bytes(12),
        ):
            await self.is_refused(garbage, "audiosocket.no_proxy_header")
        self.assertEqual(set(warnings_of(self.log)), {"AudioSocket: 127.0.0.1 rejected: it sent no PROXY header"})
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_address_that_is_none(self) -> None:
        """A header whose address is no address is refused."""
        self.listen(PROXY)
        await self.is_refused(v1("a\x1b[31mline") + identify(), "audiosocket.bad_proxy_header")
        (line,) = warnings_of(self.log)
        self.assertNotIn("\x1b", line)

    async def test_proxies(self) -> None:
        """A header from anywhere but a proxy is not even read."""
        self.listen(PROXY, proxies=(ip_network("192.0.2.0/24"),))
        await self.is_refused(v1() + identify(), "audiosocket.no_proxy")

    async def test_gone_without_a_word(self) -> None:
        """A proxy that only looks whether the port is open is no refusal."""
        self.listen(PROXY)
        caller = await self.connect(b"")
        await until(lambda: self.limiter.connections == 1)
        caller.transport.loseConnection()  # type: ignore[union-attr]
        await until(lambda: self.limiter.connections == 0)
        self.assertEqual((dict(self.rejections.counts), warnings_of(self.log)), ({}, []))
