"""The limits of a port, without sockets."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.ports import connection_limiter as limiter_module
from rapida_twisted.ports.connection_limiter import ConnectionLimiter, ConnectionLimits
from rapida_twisted.ports.rejection_log import RejectionLog


def at(host: str) -> Any:
    """A peer."""
    kind = IPv6Address if ":" in host else IPv4Address
    return kind("TCP", host, 40312)


class DoorTests(SynchronousTestCase):
    """Which connections are accepted."""

    def limiter(self, *, proxied: bool = False, **rules: Any) -> ConnectionLimiter:
        """A limiter with these limits."""
        self.clock = Clock()
        self.rejections = RejectionLog(self.clock.seconds)
        return ConnectionLimiter(
            "Media", ConnectionLimits(**rules), self.rejections, self.clock.seconds, proxied=proxied
        )

    def counts(self) -> dict[str, int]:
        """What was refused."""
        return dict(self.rejections.counts)

    def test_everybody(self) -> None:
        """Without rules everybody is."""
        limiter = self.limiter()
        self.assertTrue(all(limiter.accept(at("192.0.2.1")) for _ in range(10_000)))
        self.assertEqual((limiter.connections, self.counts()), (10_000, {}))

    def test_connections(self) -> None:
        """Connections up to the limit; a closed one makes room."""
        limiter = self.limiter(connections=2)
        self.assertEqual([limiter.accept(at(f"192.0.2.{n}")) for n in range(3)], [True, True, False])
        limiter.closed(at("192.0.2.0"))
        self.assertTrue(limiter.accept(at("192.0.2.7")))
        self.assertEqual(self.counts(), {"media.too_many": 1})

    def test_of_address(self) -> None:
        """As many of one address as may be; others are not touched by it."""
        limiter = self.limiter(per_address=2)
        self.assertEqual([limiter.accept(at("192.0.2.1")) for _ in range(3)], [True, True, False])
        self.assertFalse(limiter.accept(at("::ffff:192.0.2.1")))
        self.assertTrue(limiter.accept(at("192.0.2.2")))
        limiter.closed(at("192.0.2.1"))
        self.assertTrue(limiter.accept(at("192.0.2.1")))
        self.assertEqual([limiter.accept(at(f"2001:db8::{n}")) for n in (1, 2, 3)], [True, True, False])
        self.assertEqual(self.counts(), {"media.too_many_of_address": 3})

    def test_rates(self) -> None:
        """As many a second as may be, in all and of one address."""
        limiter = self.limiter(rate=5, address_rate=2)
        self.assertEqual([limiter.accept(at("192.0.2.1")) for _ in range(3)], [True, True, False])
        self.assertEqual([limiter.accept(at(f"192.0.2.{n}")) for n in (2, 3, 4)], [True, True, False])
        self.clock.advance(1)
        self.assertTrue(limiter.accept(at("192.0.2.1")))
        self.assertEqual(self.counts(), {"media.too_fast_of_address": 1, "media.too_fast": 1})

    def test_networks(self) -> None:
        """Only those of the networks; an IPv4 address also where it comes as an IPv6 one."""
        limiter = self.limiter(networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
        hosts = ("192.0.2.1", "192.0.3.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db9::1", "127.0.0.1")
        self.assertEqual([limiter.accept(at(host)) for host in hosts], [True, False, True, True, False, False])
        # Who may open the file of a UNIX socket is said by the file.
        self.assertTrue(limiter.accept(UNIXAddress("/run/media")))
        self.assertEqual(self.counts(), {"media.not_allowed": 3})

    def test_refused_take_no_place(self) -> None:
        """A rejected connection does not count, so it keeps no other out."""
        limiter = self.limiter(connections=1, networks=(ip_network("192.0.2.0/24"),))
        for _ in range(5):
            self.assertFalse(limiter.accept(at("198.51.100.1")))
        self.assertEqual(limiter.connections, 0)
        self.assertTrue(limiter.accept(at("192.0.2.1")))

    def test_behind_a_proxy(self) -> None:
        """The proxy's address counts for the total only; limits per address apply to the addresses in its headers."""
        limiter = self.limiter(proxied=True, per_address=1, networks=(ip_network("192.0.2.0/24"),), connections=3)
        proxy = at("10.0.0.1")
        self.assertEqual([limiter.accept(proxy) for _ in range(4)], [True, True, True, False])
        self.assertEqual([limiter.accept_address(at(host)) for host in ("192.0.2.1", "192.0.2.1", "198.51.100.1")],
                         [True, False, False])  # fmt: skip
        limiter.address_closed(at("192.0.2.1"))
        self.assertTrue(limiter.accept_address(at("192.0.2.1")))
        for _ in range(3):
            limiter.closed(proxy)
        self.assertEqual(limiter.connections, 0)
        self.assertEqual(self.counts(), {"media.too_many": 1, "media.too_many_of_address": 1, "media.not_allowed": 1})

    def test_which_proxies(self) -> None:
        """Headers are believed of proxies alone, if the rules name them."""
        limiter = self.limiter(proxied=True, proxies=(ip_network("10.0.0.0/8"),))
        self.assertEqual([limiter.accept(at(host)) for host in ("10.0.0.1", "192.0.2.1")], [True, False])
        self.assertEqual(self.counts(), {"media.no_proxy": 1})
        self.assertTrue(self.limiter(proxies=(ip_network("10.0.0.0/8"),)).accept(at("192.0.2.1")))

    def test_garbage_as_an_address(self) -> None:
        """A header whose address is none is refused, whatever the rules, and not written into the log as it is."""
        limiter = self.limiter(proxied=True)
        self.assertFalse(limiter.accept_address(at("evil\nline")))
        self.assertEqual(self.counts(), {"media.bad_proxy_header": 1})

    def test_bounded(self) -> None:
        """Of addresses that came once nothing is kept for ever."""
        self.patch(limiter_module, "KNOWN_ADDRESSES", 10)
        limiter = self.limiter()
        for number in range(100):
            self.assertTrue(limiter.accept(at(f"192.0.2.{number}")))
            limiter.closed(at(f"192.0.2.{number}"))
        self.assertEqual((len(limiter._buckets), len(limiter._per_address)), (10, 0))

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=200))
    def test_books_balance(self, moves: list[tuple[bool, int]]) -> None:
        """In any order of connects and closes the limits hold, and at the end nothing is left."""
        limiter = self.limiter(connections=6, per_address=2)
        inside: list[int] = []
        for comes, number in moves:
            if comes and limiter.accept(at(f"192.0.2.{number}")):
                inside.append(number)
            elif not comes and number in inside:
                inside.remove(number)
                limiter.closed(at(f"192.0.2.{number}"))
            self.assertEqual(limiter.connections, len(inside))
            self.assertLessEqual(len(inside), 6)
            self.assertTrue(all(inside.count(known) <= 2 for known in inside))
        for number in inside:
            limiter.closed(at(f"192.0.2.{number}"))
        self.assertEqual((limiter.connections, limiter._per_address), (0, {}))


class Connection:
    """What the limiter needs of a transport."""

    def __init__(self, host: str) -> None:
        self.peer = IPv4Address("TCP", host, 1)
        self.aborted = False

    def getPeer(self) -> IPv4Address:
        return self.peer

    def abortConnection(self) -> None:  # noqa: N802
        self.aborted = True


class RoomTests(SynchronousTestCase):
    """At a limit the oldest newcomer makes room."""

    def limiter(self, **limits: Any) -> ConnectionLimiter:
        """A limiter of an HTTP port."""
        return ConnectionLimiter("HTTP", ConnectionLimits(makes_room=True, **limits))

    def open(self, limiter: ConnectionLimiter, host: str) -> Connection | None:
        """A new connection; None if it was rejected."""
        connection = Connection(host)
        if not limiter.accept(connection.peer):
            return None
        limiter.opened(connection)
        return connection

    def opened(self, limiter: ConnectionLimiter, host: str) -> Connection:
        """A new connection, which was not rejected."""
        connection = self.open(limiter, host)
        assert connection is not None
        return connection

    def close(self, limiter: ConnectionLimiter, connection: Connection) -> None:
        """The end of one that was aborted, a turn later."""
        self.assertTrue(connection.aborted)
        limiter.closed(connection.peer, connection)

    def test_oldest(self) -> None:
        """Of all, the oldest that proved nothing."""
        limiter = self.limiter(connections=3)
        a, b, c = (self.opened(limiter, f"192.0.2.{number}") for number in (1, 2, 3))
        limiter.proved(a)
        self.assertIsNotNone(self.open(limiter, "192.0.2.4"))
        self.assertEqual([each.aborted for each in (a, b, c)], [False, True, False])
        self.close(limiter, b)
        self.assertEqual(limiter.connections, 3)

    def test_none_left(self) -> None:
        """If all have proved themselves, the new one is rejected."""
        limiter = self.limiter(connections=1)
        one = self.open(limiter, "192.0.2.1")
        limiter.proved(one)
        self.assertIsNone(self.open(limiter, "192.0.2.2"))

    def test_of_address(self) -> None:
        """At an address's limit, the oldest of that address."""
        limiter = self.limiter(per_address=1)
        other, one = self.opened(limiter, "192.0.2.1"), self.opened(limiter, "192.0.2.2")
        self.assertIsNotNone(self.open(limiter, "192.0.2.2"))
        self.assertEqual((other.aborted, one.aborted), (False, True))

    def test_apart(self) -> None:
        """A call's connection counts no more, and makes no room."""
        limiter = self.limiter(connections=1, per_address=1)
        call = self.opened(limiter, "192.0.2.1")
        limiter.count_apart(call)
        self.assertEqual((limiter.connections, limiter.apart), (0, 1))
        self.assertIsNotNone(self.open(limiter, "192.0.2.1"))
        limiter.closed(call.peer, call, apart=True)
        self.assertEqual((call.aborted, limiter.connections, limiter.apart), (False, 1, 0))

    def test_reserved(self) -> None:
        """Places are kept for networks, whose connections the rate does not limit either."""
        limiter = self.limiter(connections=3, reserved=2, reserved_for=(ip_network("198.51.100.0/24"),), rate=1)
        stranger = self.open(limiter, "192.0.2.1")
        limiter.proved(stranger)
        self.assertIsNone(self.open(limiter, "192.0.2.2"))
        for _ in range(2):
            limiter.proved(self.open(limiter, "198.51.100.7"))
        self.assertEqual(limiter.connections, 3)
        self.assertIsNone(self.open(limiter, "198.51.100.7"))
