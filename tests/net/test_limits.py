"""Rates, and addresses that count as one."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.net.limits import BridgeStates, TokenBucket, address_of, group_of, kind_of


def group(host: str) -> int:
    """Who an address counts as."""
    address = address_of(host)
    assert address is not None, host
    return group_of(address)


class BridgeStatesTests(SynchronousTestCase):
    """The states of the newest calls."""

    def test_states(self) -> None:
        """A call is not here, not bridged, then bridged."""
        states, call, other = BridgeStates(), str(UUID(int=1)), str(UUID(int=2))
        states.add(call)
        states.set_bridged(other)
        self.assertEqual((states.get(call), states.get(other)), (False, None))
        states.set_bridged(call)
        self.assertIs(states.get(call), True)

    def test_oldest_makes_room(self) -> None:
        """The newest 256 are kept."""
        states, calls = BridgeStates(), [str(UUID(int=number)) for number in range(300)]
        for call in calls:
            states.add(call)
            states.set_bridged(call)
        states.add(calls[0])
        self.assertEqual([states.get(call) for call in calls], [False] + [None] * 44 + [True] * 255)


class TokenBucketTests(SynchronousTestCase):
    """So many a second."""

    def test_burst_and_rate(self) -> None:
        """At once as many as a second has, then one each time that one's share is over."""
        bucket = TokenBucket(10, 100.0)
        self.assertEqual([bucket.take(100.0) for _ in range(12)], [True] * 10 + [False] * 2)
        self.assertFalse(bucket.take(100.09))
        self.assertTrue(bucket.take(100.11))
        self.assertFalse(bucket.take(100.11))
        self.assertEqual(sum(bucket.take(200.0) for _ in range(50)), 10)

    def test_slow(self) -> None:
        """Less than one a second still lets one in at first."""
        bucket = TokenBucket(0.5, 0.0)
        self.assertEqual([bucket.take(now_s) for now_s in (0.0, 1.0, 2.1, 3.0, 4.2)], [True, False, True, False, True])

    def test_time_goes_back(self) -> None:
        """A clock that goes back gives nothing, and takes nothing."""
        bucket = TokenBucket(1, 100.0)
        self.assertEqual([bucket.take(now_s) for now_s in (100.0, 50.0, 50.5, 51.1)], [True, False, False, True])

    @given(st.floats(1, 1000), st.lists(st.floats(0, 2), max_size=60))
    def test_never_more(self, rate: float, pauses: list[float]) -> None:
        """Over any time it is no more than the rate and one second's burst."""
        bucket, now_s, taken = TokenBucket(rate, 0.0), 0.0, 0
        for pause_s in pauses:
            now_s += pause_s
            taken += bucket.take(now_s)
        self.assertLessEqual(taken, rate * (now_s + 1) + 1e-6)


class AddressTests(SynchronousTestCase):
    """Addresses, and who counts as one."""

    def test_one(self) -> None:
        """An IPv4 address is one, however it is written; so is an IPv6 /64."""
        self.assertEqual(group("192.0.2.1"), group("::ffff:192.0.2.1"))
        self.assertNotEqual(group("192.0.2.1"), group("192.0.2.2"))
        self.assertEqual(group("2001:db8::1"), group("2001:db8:0:0:ffff::2"))
        self.assertNotEqual(group("2001:db8::1"), group("2001:db8:0:1::1"))
        # An IPv6 address whose number is that of an IPv4 one
        self.assertNotEqual(group("::c000:201"), group("192.0.2.1"))
        self.assertEqual(group("fe80::1%eth0"), group("fe80::2%eth0"))

    def test_no_address(self) -> None:
        """What is no address is none."""
        for text in ("", "localhost", "192.0.2", "192.0.2.1.5", "1\n2", "\x00", "192.0.2.1/24"):
            self.assertIsNone(address_of(text), text)

    def test_kinds(self) -> None:
        """Four kinds, so that a flood has four lines a second at the most."""
        hosts = ("127.0.0.1", "::1", "10.1.2.3", "fd00::1", "8.8.8.8", "2600::1", "::ffff:127.0.0.1", "")
        kinds = [kind_of(address_of(host)) for host in hosts]
        expected = ["loopback", "loopback", "private", "private", "public", "public", "loopback", "local"]
        self.assertEqual(kinds, expected)
