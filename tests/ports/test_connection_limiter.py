"""The door's rules, without sockets."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.ports import connection_limiter as door_module
from rapida_twisted.ports.connection_limiter import ConnectionLimiter, ConnectionLimits
from rapida_twisted.ports.rejection_log import RejectionLog


def at(host: str) -> Any:
    """A peer."""
    kind = IPv6Address if ":" in host else IPv4Address
    return kind("TCP", host, 40312)


class DoorTests(SynchronousTestCase):
    """Who is let in."""

    def door(self, *, proxied: bool = False, **rules: Any) -> ConnectionLimiter:
        """A door with these rules."""
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
        door = self.door()
        self.assertTrue(all(door.enter(at("192.0.2.1")) for _ in range(10_000)))
        self.assertEqual((door.inside, self.counts()), (10_000, {}))

    def test_connections(self) -> None:
        """As many as may be; who leaves makes room."""
        door = self.door(connections=2)
        self.assertEqual([door.enter(at(f"192.0.2.{n}")) for n in range(3)], [True, True, False])
        door.leave(at("192.0.2.0"))
        self.assertTrue(door.enter(at("192.0.2.7")))
        self.assertEqual(self.counts(), {"media.too_many": 1})

    def test_of_address(self) -> None:
        """As many of one address as may be; others are not touched by it."""
        door = self.door(of_address=2)
        self.assertEqual([door.enter(at("192.0.2.1")) for _ in range(3)], [True, True, False])
        self.assertFalse(door.enter(at("::ffff:192.0.2.1")))
        self.assertTrue(door.enter(at("192.0.2.2")))
        door.leave(at("192.0.2.1"))
        self.assertTrue(door.enter(at("192.0.2.1")))
        self.assertEqual([door.enter(at(f"2001:db8::{n}")) for n in (1, 2, 3)], [True, True, False])
        self.assertEqual(self.counts(), {"media.too_many_of_address": 3})

    def test_rates(self) -> None:
        """As many a second as may be, in all and of one address."""
        door = self.door(rate=5, address_rate=2)
        self.assertEqual([door.enter(at("192.0.2.1")) for _ in range(3)], [True, True, False])
        self.assertEqual([door.enter(at(f"192.0.2.{n}")) for n in (2, 3, 4)], [True, True, False])
        self.clock.advance(1)
        self.assertTrue(door.enter(at("192.0.2.1")))
        self.assertEqual(self.counts(), {"media.too_fast_of_address": 1, "media.too_fast": 1})

    def test_networks(self) -> None:
        """Only those of the networks; an IPv4 address also where it comes as an IPv6 one."""
        door = self.door(networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
        hosts = ("192.0.2.1", "192.0.3.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db9::1", "127.0.0.1")
        self.assertEqual([door.enter(at(host)) for host in hosts], [True, False, True, True, False, False])
        # Who may open the file of a UNIX socket is said by the file.
        self.assertTrue(door.enter(UNIXAddress("/run/media")))
        self.assertEqual(self.counts(), {"media.not_allowed": 3})

    def test_refused_take_no_place(self) -> None:
        """Who is refused counts nowhere, so that nobody is kept out by those who are."""
        door = self.door(connections=1, networks=(ip_network("192.0.2.0/24"),))
        for _ in range(5):
            self.assertFalse(door.enter(at("198.51.100.1")))
        self.assertEqual(door.inside, 0)
        self.assertTrue(door.enter(at("192.0.2.1")))

    def test_behind_a_proxy(self) -> None:
        """The proxy counts for the total alone; rules of addresses are for those whom its headers name."""
        door = self.door(proxied=True, of_address=1, networks=(ip_network("192.0.2.0/24"),), connections=3)
        proxy = at("10.0.0.1")
        self.assertEqual([door.enter(proxy) for _ in range(4)], [True, True, True, False])
        self.assertEqual([door.identify(at(host)) for host in ("192.0.2.1", "192.0.2.1", "198.51.100.1")],
                         [True, False, False])  # fmt: skip
        door.forget(at("192.0.2.1"))
        self.assertTrue(door.identify(at("192.0.2.1")))
        for _ in range(3):
            door.leave(proxy)
        self.assertEqual(door.inside, 0)
        self.assertEqual(self.counts(), {"media.too_many": 1, "media.too_many_of_address": 1, "media.not_allowed": 1})

    def test_which_proxies(self) -> None:
        """Headers are believed of proxies alone, if the rules name them."""
        door = self.door(proxied=True, proxies=(ip_network("10.0.0.0/8"),))
        self.assertEqual([door.enter(at(host)) for host in ("10.0.0.1", "192.0.2.1")], [True, False])
        self.assertEqual(self.counts(), {"media.no_proxy": 1})
        self.assertTrue(self.door(proxies=(ip_network("10.0.0.0/8"),)).enter(at("192.0.2.1")))

    def test_garbage_as_an_address(self) -> None:
        """A header whose address is none is refused, whatever the rules, and not written into the log as it is."""
        door = self.door(proxied=True)
        self.assertFalse(door.identify(at("evil\nline")))
        self.assertEqual(self.counts(), {"media.bad_proxy_header": 1})

    def test_bounded(self) -> None:
        """Of addresses that came once nothing is kept for ever."""
        self.patch(door_module, "KNOWN_ADDRESSES", 10)
        door = self.door()
        for number in range(100):
            self.assertTrue(door.enter(at(f"192.0.2.{number}")))
            door.leave(at(f"192.0.2.{number}"))
        self.assertEqual((len(door._buckets), len(door._of_address)), (10, 0))

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=200))
    def test_books_balance(self, moves: list[tuple[bool, int]]) -> None:
        """Whoever comes and goes in whatever order: the limits hold, and when all are gone nothing is left."""
        door = self.door(connections=6, of_address=2)
        inside: list[int] = []
        for comes, number in moves:
            if comes and door.enter(at(f"192.0.2.{number}")):
                inside.append(number)
            elif not comes and number in inside:
                inside.remove(number)
                door.leave(at(f"192.0.2.{number}"))
            self.assertEqual(door.inside, len(inside))
            self.assertLessEqual(len(inside), 6)
            self.assertTrue(all(inside.count(known) <= 2 for known in inside))
        for number in inside:
            door.leave(at(f"192.0.2.{number}"))
        self.assertEqual((door.inside, door._of_address), (0, {}))
