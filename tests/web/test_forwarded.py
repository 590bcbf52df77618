"""The client's address behind a reverse proxy."""

from __future__ import annotations

from ipaddress import ip_network

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from rapida_twisted.web.forwarded import client_of
from tests.web.in_memory import InMemoryHttp

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/64"))


class ClientOfTests(SynchronousTestCase):
    """client_of()."""

    def client(self, peer: str = "10.0.0.1", **headers: str) -> str:
        """The client, as text."""
        raw = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})
        return str(client_of(peer, raw, PROXIES) or "")

    def test_believed(self) -> None:
        """The last address that is no proxy of ours."""
        self.assertEqual(self.client(x_forwarded_for="192.0.2.7"), "192.0.2.7")
        self.assertEqual(self.client(x_forwarded_for="1.2.3.4, 192.0.2.7, 10.0.0.2"), "192.0.2.7")
        self.assertEqual(self.client("2001:db8::1", x_forwarded_for="2001:db8:1::7"), "2001:db8:1::7")
        self.assertEqual(self.client(forwarded='for=1.2.3.4, for="[2001:db8:1::7]";proto=https'), "2001:db8:1::7")
        self.assertEqual(self.client(forwarded="For=192.0.2.7", x_forwarded_for="1.1.1.1"), "192.0.2.7")

    def test_not_believed(self) -> None:
        """Not from others, and not what is no address."""
        self.assertEqual(self.client("192.0.2.1", x_forwarded_for="1.2.3.4"), "")
        for value in ("", "unknown", "1.2.3.4, x", "10.0.0.2", ", ,"):
            self.assertEqual(self.client(x_forwarded_for=value), "", value)
        for value in ("for=_hidden", "for=unknown", "proto=https"):
            self.assertEqual(self.client(forwarded=value, x_forwarded_for="1.2.3.4"), "", value)

    def test_site(self) -> None:
        """It is the one in the log; without proxies it is not believed."""
        http = InMemoryHttp()
        for proxies, client in (((), "192.0.2.7"), ((ip_network("192.0.2.0/24"),), "8.8.8.8")):
            http.site.proxies = proxies
            with capturedLogs() as events:
                http.request("/v1/calls", key=None, headers={"X-Forwarded-For": "8.8.8.8"})
            self.assertIn(f"GET /v1/calls from {client}: 401", formatEvent(events[-1]))
