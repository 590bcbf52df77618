"""Two nodes behind a real HAProxy with the configuration of the page "Grow it", on one Redis."""

from __future__ import annotations

import json
import re
import socket
import ssl
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.harness.server import API_KEY
from benchmarks.harness.waiting import wait_until
from rapida_twisted.settings import Settings, read_env_file
from tests.live.nodes import TwoNodes
from tests.server.test_two_servers import Phone

slow = True  # starts processes: see tests/support/selection.py

DOCS = Path(__file__).parents[2] / "docs"
HANDSHAKE = """\
GET {path} HTTP/1.1\r
Host: 127.0.0.1\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Sec-WebSocket-Version: 13\r
Sec-WebSocket-Protocol: media\r
x-api-key: {key}\r
\r
"""


class TwoNodesTests(SynchronousTestCase):
    """Both nodes answer with an echo."""

    apart = False
    environment: dict[str, str] = {}

    def setUp(self) -> None:
        """Two nodes, all that is before and behind them."""
        directory = Path(self.mktemp()).absolute()
        self.nodes = TwoNodes(
            directory, "*=echo", options=("--drain-s", "5"), environment=self.environment, apart=self.apart
        )
        self.addCleanup(self.nodes.stop)
        self.nodes.start()
        self.haproxy = self.nodes.haproxy
        authority = directory / "tls/ca.pem"
        context = ssl.create_default_context(cafile=str(authority))
        self.tls = context
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    # Steps

    def ask(self, path: str, method: str = "GET", *, key: str = API_KEY) -> tuple[int, str]:
        """Ask HAProxy over HTTPS; gives the status and the body."""
        url = f"https://127.0.0.1:{self.haproxy.https_port}{path}"
        request = urllib.request.Request(url, method=method, headers={"x-api-key": key})
        try:
            with self.opener.open(request, timeout=15) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def register(self) -> str:
        """A call that is registered somewhere, with the key in the query as a dialplan has it."""
        status, context_id = self.ask(f"/v1/talk/asterisk/call/1?from=1&x-api-key={API_KEY}", key="")
        self.assertEqual((status, len(context_id)), (200, 36))
        return context_id

    def call(self) -> tuple[str, Phone]:
        """A call over AudioSocket that hears its echo."""
        context_id = self.register()
        phone = Phone(self.haproxy.audiosocket_port, context_id)
        self.addCleanup(phone.hang_up)
        wait_until("it hears its echo", lambda: phone.heard > 5, 5)
        return context_id, phone

    def web_socket(self, context_id: str, port: int = 0) -> tuple[str, ssl.SSLSocket]:
        """A media connection over wss; gives its first answer and the connection."""
        bare = socket.create_connection(("127.0.0.1", port or self.haproxy.wss_port), 5)
        connection = self.tls.wrap_socket(bare, server_hostname="127.0.0.1")
        self.addCleanup(connection.close)
        path = f"/v1/talk/asterisk/ctx?contextId={context_id}"
        connection.sendall(HANDSHAKE.format(path=path, key=API_KEY).encode())
        return connection.recv(4096).decode(errors="replace"), connection

    def owner(self, context_id: str) -> str:
        """Which process has a call."""
        return str(self.record(context_id)["owner"])

    def record(self, context_id: str) -> dict[str, Any]:
        """A call's record, by any node."""
        status, body = self.ask(f"/v1/calls/{context_id}")
        self.assertEqual(status, 200)
        found: dict[str, Any] = json.loads(body)
        return found


class ApartTests(TwoNodesTests):
    """All calls are registered at the first node; the second gets all media."""

    apart = True

    def media_at(self) -> list[int]:
        """How many calls are up at each node."""
        return [
            int(sum(value for name, value in node.metrics().items() if name.startswith("rapida_calls{")))
            for node in self.nodes.nodes
        ]

    def test_both_transports(self) -> None:
        """Registered at one over HTTPS, up at the other; listed and hung up by the first."""
        context_id, phone = self.call()
        other = self.register()
        answer, connection = self.web_socket(other)
        self.assertTrue(answer.startswith("HTTP/1.1 101"), answer)
        # A text frame with a mask of zeros.
        start = b"MEDIA_START connection_id:a channel:b channel_id:1 format:ulaw optimal_frame_size:160 ptime:20"
        connection.sendall(bytes((0x81, 0x80 | len(start))) + bytes(4) + start)
        wait_until("both are up at the second", lambda: self.media_at() == [0, 2], 8)
        self.assertEqual({call["context_id"] for call in self.nodes.one.calls()}, {context_id, other})
        for each in (context_id, other):
            self.assertEqual(self.nodes.one.hang_up(each), 202)
            record = self.nodes.one.ended_call(each)
            self.assertEqual((record["status"], record["reason"]), ("completed", "operator_hangup"))
        wait_until("the phone is hung up on", lambda: phone.hung_up, 2)
        connection.settimeout(5)
        while connection.recv(65536):
            pass

    def test_log_has_no_key(self) -> None:
        """HAProxy's log tells of both ways, and has no key in it."""
        _, phone = self.call()
        self.web_socket(self.register())
        phone.hang_up()
        wait_until("the connection is logged", lambda: "audiosocket/two" in self.haproxy.log(), 5)
        self.assertIn("GET /v1/talk/asterisk/call/1", self.haproxy.log())
        self.assertNotIn(API_KEY, self.haproxy.log())


class BalanceTests(TwoNodesTests):
    """HAProxy chooses the nodes."""

    def test_calls_are_spread(self) -> None:
        """Four calls: two at each."""
        calls = [self.call() for _ in range(4)]
        owners = [self.owner(context_id) for context_id, _ in calls]
        self.assertEqual(sorted(owners.count(owner) for owner in set(owners)), [2, 2])

    def test_one_is_killed(self) -> None:
        """SIGKILL: the calls of the other go on, and new ones succeed at once, each of them."""
        calls = [self.call() for _ in range(2)]
        self.nodes.two.kill()
        wait_until("one call is over", lambda: [phone.over for _, phone in calls].count(True) == 1, 2)
        (talking,) = [phone for _, phone in calls if not phone.over]
        (owner,) = [self.owner(context_id) for context_id, phone in calls if not phone.over]
        for _ in range(6):
            context_id, _ = self.call()
            self.assertEqual(self.owner(context_id), owner)
        for port in (self.haproxy.wss_port, self.haproxy.https_port):
            self.assertTrue(self.web_socket(self.register(), port)[0].startswith("HTTP/1.1 101"))
        heard = talking.heard
        wait_until("the other goes on", lambda: talking.heard > heard + 10, 2)
        self.haproxy.wait_for("two", "DOWN")
        self.assertTrue(self.haproxy.status("two", "audiosocket").startswith("DOWN"))
        self.nodes.two.start()
        self.haproxy.wait_for("two", "UP")

    def test_one_drains(self) -> None:
        """SIGTERM: no registration fails, HAProxy sees it, and the calls that are up stay until they end."""
        calls = [self.call() for _ in range(2)]
        self.nodes.two.terminate()
        for _ in range(20):
            self.call()[1].hang_up()
        self.haproxy.wait_for("two", "DOWN", 4)
        heard = [phone.heard for _, phone in calls]
        for (_, phone), before in zip(calls, heard, strict=True):
            wait_until("it goes on", lambda phone=phone, before=before: phone.heard > before + 10, 2)
            phone.hang_up()
        self.nodes.two.wait(10)

    def test_none_is_left(self) -> None:
        """No node takes a call: the answer to a registration has an empty body, as CURL() wants it."""
        for node in self.nodes.nodes:
            node.kill()
        self.assertEqual(self.ask("/v1/talk/asterisk/call/1"), (503, ""))
        for node in ("one", "two"):
            self.haproxy.wait_for(node, "DOWN")
        self.assertEqual(self.ask("/v1/talk/asterisk/call/1"), (503, ""))
        self.assertTrue(self.web_socket(str(uuid.uuid4()), self.haproxy.https_port)[0].startswith("HTTP/1.1 503"))
        with socket.create_connection(("127.0.0.1", self.haproxy.audiosocket_port), 5) as connection:
            self.assertEqual(connection.recv(1), b"")

    def test_pages_of_one_node(self) -> None:
        """What tells of one node alone is not to be had through HAProxy; rejections come as they are."""
        for path in ("/metrics", "/readyz", "/v1/clock", "/v1/server"):
            self.assertEqual(self.ask(path)[0], 404, path)
        self.assertEqual(self.ask("/v1/talk/asterisk/call/1", key="wrong"), (401, ""))
        self.assertEqual(self.ask("/v1/calls", key="wrong")[0], 401)

    def test_watched_as_the_page_says(self) -> None:
        """Prometheus and probes reach each node on its port for operators; a node that drains says so there."""
        page, settings = (DOCS / "grow.rst").read_text(), read_env_file(str(DOCS / "grow/node.env"))
        (targets,) = re.findall(r"targets: (\[.*\])", page)
        default = Settings().admin.port
        self.assertEqual(json.loads(targets)[0], f"{settings['ADMIN__HOST']}:{default}")
        paths = set(re.findall(rf"http://10\.0\.0\.1[12]:{default}(/\S+)", page))
        self.assertEqual(paths, {"/readyz", "/metrics"})
        _, phone = self.call()
        for node in self.nodes.nodes:
            for path in paths:
                node._get(path)  # Raises for any other status than 200.
            self.assertIn('rapida_build_info{version="', str(node._get("/metrics")))
            self.assertEqual(node.control("ready", "--http", node.url).returncode, 0)
        name = 'rapida_calls_started_total{assistant="*",transport="audiosocket"}'
        started = [node.metrics().get(name, 0) for node in self.nodes.nodes]
        self.assertEqual(sum(started), 1)
        up = self.nodes.nodes[started.index(1)]
        up.terminate()
        wait_until("it drains", lambda: up.request("GET", "/readyz")[0] == 503, 4)
        phone.hang_up()
        up.wait(10)


class AllowedTests(TwoNodesTests):
    """The nodes' AUDIOSOCKET__ALLOW is about those behind HAProxy."""

    environment = {"AUDIOSOCKET__ALLOW": "192.0.2.0/24"}

    def test_stranger(self) -> None:
        """HAProxy's own address would be allowed nowhere; who is behind it is told in the log, and closed on."""
        context_id = self.register()
        with socket.create_connection(("127.0.0.1", self.haproxy.audiosocket_port), 5) as connection:
            connection.sendall(b"\x01\x00\x10" + uuid.UUID(context_id).bytes)
            try:
                self.assertEqual(connection.recv(1), b"")
            except ConnectionResetError:
                pass
        self.assertEqual(self.record(context_id)["status"], "pending")
        self.assertIn("may not connect", self.nodes.log())
