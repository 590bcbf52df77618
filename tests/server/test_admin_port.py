"""The port for operators: what it serves, beside an HTTP port that speaks the PROXY protocol."""

from __future__ import annotations

import json
import socket
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from benchmarks.harness.ports import free_port
from rapida_twisted import RapidaMedia
from rapida_twisted.errors import StartError
from tests.support.settings import make_settings

KEY = "rpd-of-the-admin-tests"
PROXY = "haproxy:tcp:0:interface=127.0.0.1"
LOOPBACK = (ip_network("127.0.0.0/8"),)


class AdminPortTests(TestCase):
    """On a whole server."""

    def server(self, **values: Any) -> RapidaMedia:
        """A server that is not started."""
        common = {
            "state_dir": Path(self.mktemp()).absolute(), "store_url": "memory:", "http_port": 0, "audiosocket_port": 0,
            "rapida_api_key": (KEY,), "assistant": ("7=echo",), "drain_s": 0,
        }  # fmt: skip
        return RapidaMedia(make_settings(**{**common, **values}), reactor=reactor)

    def start(self, **values: Any) -> RapidaMedia:
        """A server that listens."""
        service = self.server(**values)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def get(self, port: int, path: str, key: str = KEY, method: str = "GET") -> tuple[int, str]:
        """The status and the body of an answer."""
        headers = {"x-api-key": key} if key else {}
        answer = await treq.request(method, f"http://127.0.0.1:{port}{path}", headers=headers, persistent=False)
        return answer.code, (await answer.content()).decode()

    async def test_pages(self) -> None:
        """Health, metrics, calls and outbound calls; no registration and no media, which are for Asterisk."""
        service = self.start(admin_port=free_port(), http_endpoint=PROXY, proxy_allow=LOOPBACK)
        for path, key, status in (
            ("/healthz", "", 200), ("/readyz", "", 200), ("/metrics", "", 401), ("/metrics", KEY, 200),
            ("/v1/calls", "", 401), ("/v1/calls", KEY, 200), ("/v1/calls/x", KEY, 404), ("/v1/clock", KEY, 200),
            ("/v1/talk/asterisk/outbound/7", KEY, 405), ("/v1/talk/asterisk/call/7?from=1", KEY, 404),
            ("/v1/talk/asterisk/ctx", KEY, 404), ("/v1/assistants", KEY, 404), ("/", KEY, 404),
        ):  # fmt: skip
            self.assertEqual((await self.get(service.admin_port, path, key))[0], status, path)

    async def test_server_page(self) -> None:
        """The addresses for a dialplan, and the key's scopes, on both ports."""
        service = self.start(admin_port=free_port())
        for port in (service.admin_port, service.http_port):
            self.assertEqual((await self.get(port, "/v1/server", ""))[0], 401)
            status, body = await self.get(port, "/v1/server")
            self.assertEqual(status, 200)
            found = json.loads(body)
            self.assertEqual(found["scopes"], ["control", "read", "register"])
            self.assertEqual(
                [found[name] for name in ("http_host", "http_port", "audiosocket_port", "admin_port", "assistant_id")],
                ["127.0.0.1", service.http_port, service.audiosocket_port, service.admin_port, "7"],
            )

    def test_none(self) -> None:
        """ADMIN__PORT=0 opens none."""
        service = self.start(admin_port=0)
        self.assertEqual(service.admin_port, 0)
        self.assertNotIn("Admin", service.components.ports._ports)

    def test_taken(self) -> None:
        """A port that another program has is one sentence, which says what to set; no other port stays open."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            service = self.server(admin_port=taken.getsockname()[1])
            error = self.assertRaises(StartError, service.startService)
        self.assertRegex(
            str(error),
            r"^Admin can't listen: Couldn't listen on 127.0.0.1:\d+: .*Address already in use; "
            r"set ADMIN__PORT to a free port, or to 0 for none$",
        )
        self.assertEqual(service.components.ports._ports["HTTP"].port_number(), 0)
