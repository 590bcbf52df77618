"""Hosts, ports and IP addresses."""

from __future__ import annotations

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.net.addresses import (
    address_of,
    address_text,
    group_of,
    host_and_port,
    host_port_of,
    kind_of,
    parse_host_port,
)


def group(host: str) -> int:
    """Who an address counts as."""
    address = address_of(host)
    assert address is not None, host
    return group_of(address)


class AddressTextTests(SynchronousTestCase):
    """Each kind of address."""

    def test_kinds(self) -> None:
        """Host and port as in a URL, a UNIX socket's path, and anything else as it shows itself."""
        for address, text in (
            (IPv4Address("TCP", "192.0.2.1", 40312), "192.0.2.1:40312"),
            (IPv6Address("TCP", "2001:db8::1", 40312), "[2001:db8::1]:40312"),
            (UNIXAddress(b"/run/rapida"), "unix:/run/rapida"),
            (UNIXAddress(b"/run/\xff"), "unix:/run/\ufffd"),
            (UNIXAddress(None), "unix:"),
            (HostnameAddress(b"pbx", 4573), str(HostnameAddress(b"pbx", 4573))),
            (None, "None"),
        ):
            self.assertEqual(address_text(address), text)


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


class HostPortTests(SynchronousTestCase):
    """Hosts and ports in texts and URLs."""

    def test_text(self) -> None:
        """IPv6 addresses stand in brackets, read and written."""
        for text, read in (("pbx:4573", ("pbx", 4573)), ("192.0.2.1:80", ("192.0.2.1", 80)), ("[::1]:1", ("::1", 1))):
            self.assertEqual(parse_host_port(text), read)
            self.assertEqual(host_and_port(*read), text)
        self.assertEqual(parse_host_port("pbx", 80), ("pbx", 80))
        self.assertEqual(parse_host_port("[fe80::1%eth0]:4573"), ("fe80::1%eth0", 4573))
        self.assertEqual(parse_host_port("[::1]", 80), ("::1", 80))

    def test_no_text(self) -> None:
        """Neither a host nor a port may be missing or strange."""
        for text in (
            "",
            "pbx",
            ":80",
            "pbx:",
            "pbx:0",
            "pbx:65536",
            "pbx:8x",
            "::1:80",
            "a b:80",
            "pbx:80/x",
            "u@pbx:1",
        ):
            with self.assertRaises(ValueError, msg=text):
                parse_host_port(text)

    def test_url(self) -> None:
        """A port that is not there is that of the scheme."""
        for url, read in (
            ("http://pbx/x", ("pbx", 80)),
            ("https://[2001:DB8::1]", ("2001:db8::1", 443)),
            ("ws://pbx:8088/?a=b:c", ("pbx", 8088)),
            ("wss://user@pbx", ("pbx", 443)),
            ("audiosocket://pbx:4573", ("pbx", 4573)),
        ):
            self.assertEqual(host_port_of(url), read)

    def test_no_url(self) -> None:
        """No host, no port, or none that can be."""
        for url in (
            "",
            "pbx",
            "http://",
            "http://:80",
            "audiosocket://pbx",
            "http://pbx:0",
            "http://pbx:x",
            "http://[::1",
        ):
            with self.assertRaises(ValueError, msg=url):
                host_port_of(url)
