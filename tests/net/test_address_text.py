"""Addresses as they stand in log lines and records."""

from __future__ import annotations

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.net.address_text import address_text


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
