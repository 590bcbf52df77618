"""nginx and HAProxy in front of one server, with the configurations of the page "Behind a proxy"."""

from __future__ import annotations

import time
import urllib.error
import urllib.request

from benchmarks.harness.authority import Authority
from benchmarks.harness.ports import free_port
from benchmarks.harness.server import API_KEY
from rapida_twisted.asterisk.dialplan import (
    DialplanValues,
    audiosocket_dialplan,
    websocket_client_conf,
    websocket_dialplan,
)
from tests.live.case import ASSISTANT_ID, TONE_HZ, LiveTestCase
from tests.support.proxy import Proxy

DIALLED = r'(?:AudioSocket\("[^"]+", "|v\(contextId=)([0-9a-f-]{36})'
AUDIOSOCKET, WEBSOCKET = "100@rapida-inbound", "100@rapida-inbound-ws"


class HaproxyTests(LiveTestCase):
    """Registration, media over WebSocket with and without TLS, and AudioSocket pass through the proxy."""

    proxy_program = "haproxy"

    def setUp(self) -> None:
        """The server, and the proxy in front of it."""
        super().setUp()
        authority = Authority(self.directory / "tls")
        authority.certify("127.0.0.1")
        https_port = free_port()
        self.server = self.serve(f"{ASSISTANT_ID}=echo", options=("--https", authority.endpoint(https_port)))
        behind = {8080: self.server.http_port, 8444: https_port, 4574: self.server.audiosocket_port}
        self.proxy = Proxy(self.proxy_program, self.directory / "proxy", behind, authority)
        self.addCleanup(self.proxy.stop)
        self.proxy.start()
        self.asterisk.write_config("proxy-ca.pem", authority.authority.read_text())
        self.ca_file = f"{self.asterisk.inside}/etc/proxy-ca.pem"

    def hear_the_echo(self, number: str, *, tls: bool = False) -> None:
        """Load a dialplan that names the proxy alone, and call."""
        ports, ca_file = self.proxy.ports, self.ca_file if tls else ""
        web, media = (
            f"https://127.0.0.1:{ports[port]}" if tls else f"http://127.0.0.1:{ports[80]}" for port in (443, 8443)
        )
        values = DialplanValues(API_KEY, web, "127.0.0.1", ports[4573], ASSISTANT_ID)
        websocket = websocket_dialplan(values, ca_file).partition("[rapida-inbound-ws]")[2]
        # Media with TLS has a port of its own.
        client = websocket_client_conf(DialplanValues(API_KEY, media, "", 0), ca_file)
        self.asterisk.write_config("websocket_client.conf", client)
        self.asterisk.reload("res_websocket_client.so")
        self.load(f"{audiosocket_dialplan(values)}\n[rapida-inbound-ws]{websocket}")
        channel = self.call(number, "milliwatt")
        context_id = self.asterisk.wait_for_log(DIALLED, self.mark)[0][1]
        time.sleep(4)
        self.asterisk.hang_up(channel)
        (heard,) = self.recordings("call-heard")
        self.assertGreater(self.assert_tone(heard, TONE_HZ).seconds, 2.0)
        self.assert_ended(self.server.ended_call(context_id), "caller_hangup")
        self.assertNotIn(API_KEY, self.proxy.log())

    def test_audiosocket(self) -> None:
        """Registration over HTTP, and AudioSocket."""
        self.hear_the_echo(AUDIOSOCKET)

    def test_websocket(self) -> None:
        """Registration and media over one port."""
        self.hear_the_echo(WEBSOCKET)

    def test_websocket_with_tls(self) -> None:
        """Registration over the proxy's own TLS, media over that of the server."""
        self.hear_the_echo(WEBSOCKET, tls=True)

    def test_server_is_down(self) -> None:
        """The proxy's own errors have an empty body: the dialplan takes its error branch."""
        self.server.stop()
        url = f"http://127.0.0.1:{self.proxy.ports[80]}/v1/talk/asterisk/call/{ASSISTANT_ID}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        error = self.assertRaises(urllib.error.HTTPError, opener.open, f"{url}?x-api-key={API_KEY}", timeout=5)
        self.assertEqual((error.code // 100, error.read()), (5, b""))
        self.assertNotIn(API_KEY, self.proxy.log())


class NginxTests(HaproxyTests):
    """The same behind nginx."""

    proxy_program = "nginx"
