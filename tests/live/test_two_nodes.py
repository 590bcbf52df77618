"""A real Asterisk and two nodes behind HAProxy: it registers at the first, and its media comes to the second."""

from __future__ import annotations

import time

from benchmarks.harness.authority import Authority
from benchmarks.harness.server import API_KEY
from tests.live.case import ASSISTANT_ID, TONE_HZ
from tests.live.nodes import TwoNodes
from tests.live.test_audiosocket import AUDIOSOCKET, GLOBALS, INBOUND
from tests.live.test_websocket import DIAL, STATUS, WebSocketTestCase, from_page

AUDIO = "100@rapida-inbound"
WEBSOCKET = "100@rapida-inbound-ws"


class TwoNodesTests(WebSocketTestCase):
    """Both nodes answer with an echo."""

    def setUp(self) -> None:
        """Two nodes with a certificate that Asterisk trusts."""
        super().setUp()
        self.authority = Authority(self.directory / "tls")
        self.authority.certify("127.0.0.1")
        self.nodes = TwoNodes(
            self.directory / "nodes", f"{ASSISTANT_ID}=echo",
            options=("--drain-s", "2", "--https", self.authority.endpoint(0)),
        )  # fmt: skip
        self.addCleanup(self.nodes.stop)
        self.addCleanup(self.end_calls)
        self.nodes.start()

    def audiosocket(self) -> None:
        """The dialplan for AudioSocket, with a registration over TLS."""
        values = GLOBALS.format(
            api_key=API_KEY, http_port=self.nodes.haproxy.https_port,
            audiosocket_port=self.nodes.audiosocket_port, assistant_id=ASSISTANT_ID,
        )  # fmt: skip
        trusted = " same => n,Set(CURLOPT(ssl_cainfo)=" + self._trusted() + ")\n same => n,Set(CTX="
        self.load(values + INBOUND.replace(" same => n,Set(CTX=", trusted).replace("http://", "https://"))

    def websocket(self) -> None:
        """The page's files for WebSocket with TLS."""
        trusted = {"/etc/asterisk/rapida-ca.pem": self._trusted()}
        media = {**trusted, "your-hostname": f"127.0.0.1:{self.nodes.wss_port}"}
        self.clients(from_page("websocket-client-conf-tls", media))
        values = {
            **trusted, "your-hostname": f"127.0.0.1:{self.nodes.haproxy.https_port}",
            "rpd-xxx-your-api-key": API_KEY, "123456789": ASSISTANT_ID,
        }  # fmt: skip
        self.load(from_page("websocket-dialplan-tls", values) + STATUS)

    def _trusted(self) -> str:
        file = self.asterisk.directory / "etc/rapida-ca.pem"
        file.write_bytes(self.authority.authority.read_bytes())
        return f"{self.asterisk.inside}/etc/rapida-ca.pem"

    def assert_apart(self, number: str, pattern: str, transport: str) -> None:
        """A call is up at the second node, heard as it should be, listed and hung up by the first."""
        self.call(number, "milliwatt", transport)
        (context_id,) = [found[1] for found in self.asterisk.wait_for_log(pattern, self.mark)]
        time.sleep(2)
        self.assertIn(f"call {context_id}: registered", self.nodes.one.log())
        self.assertNotIn(f"call {context_id}: registered", self.nodes.two.log())
        up = f'rapida_calls_started_total{{assistant="{ASSISTANT_ID}",transport="{transport}"}}'
        self.assertEqual([node.metrics().get(up, 0.0) for node in self.nodes.nodes], [0.0, 1.0])
        self.assertEqual([call["context_id"] for call in self.nodes.one.calls()], [context_id])
        self.assertEqual(self.nodes.one.hang_up(context_id), 202)
        self.assert_ended(self.nodes.one.ended_call(context_id), "operator_hangup")
        self.asterisk.wait_until_idle()
        (heard,) = self.recordings(f"{transport}-heard")
        self.assert_tone(heard, TONE_HZ)

    def test_audiosocket(self) -> None:
        """Registered over HTTPS at one, its media over AudioSocket at the other."""
        self.audiosocket()
        self.assert_apart(AUDIO, AUDIOSOCKET, "audiosocket")

    def test_websocket(self) -> None:
        """Registered over HTTPS at one, its media over wss at the other."""
        self.websocket()
        self.assert_apart(WEBSOCKET, DIAL, "websocket")

    def test_one_is_killed(self) -> None:
        """The node with the media is killed in a call: the next call comes up at the other one, at once."""
        self.audiosocket()
        self.call(AUDIO, "milliwatt", "first")
        (first,) = [found[1] for found in self.asterisk.wait_for_log(AUDIOSOCKET, self.mark)]
        time.sleep(1)
        self.nodes.haproxy.weigh("audiosocket", 1, 1)
        self.nodes.two.kill()
        self.asterisk.wait_until_idle()
        mark = self.asterisk.log_mark()
        channel = self.call(AUDIO, "milliwatt", "second")
        (second,) = [found[1] for found in self.asterisk.wait_for_log(AUDIOSOCKET, mark)]
        time.sleep(2)
        self.asterisk.hang_up(channel)
        self.assert_ended(self.nodes.one.ended_call(second), "caller_hangup")
        self.assertEqual(self.nodes.one.call(first)["status"], "claimed")
        heard = self.recordings("first-heard", "second-heard")[1]
        self.assert_tone(heard, TONE_HZ)
