"""Transfers on a real Asterisk: the assistant hands the caller over, and the dialplan dials on."""

from __future__ import annotations

from benchmarks.harness.server import API_KEY, Server
from rapida_twisted.asterisk.dialplan import (
    DialplanValues,
    audiosocket_dialplan,
    websocket_client_conf,
    websocket_dialplan,
)
from tests.live.case import ASSISTANT_ID, LiveTestCase

SECOND_HZ = 850.0
"""What the second party says."""

SECOND_PARTY = """
[party]
exten => 300,1,Answer()
 same => n,Playback({speech})
 same => n,Hangup()
"""


class TransferTests(LiveTestCase):
    """A caller who talks to the assistant first, and to somebody else then."""

    def transfer(self, dialplan: str, context: str, server: Server, context_id_pattern: str) -> None:
        """Call, be handed over, and hear the second party."""
        self.load(dialplan + SECOND_PARTY.format(speech=self.speech(SECOND_HZ, 3.0)))
        self.call(f"100@{context}", "recorder")
        found = self.asterisk.wait_for_log(context_id_pattern, self.mark)
        self.asterisk.wait_for_log(r'Dial\("[^"]+", "Local/300@party"', self.mark)
        # The second party hangs up when it has said what it says, and with it the call is over.
        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, SECOND_HZ)
        record = server.ended_call(found[0][1])
        self.assert_ended(record, "transferred")
        self.assertEqual(record["next_dial"], "Local/300@party")

    def serve_mover(self) -> tuple[Server, DialplanValues]:
        """A server whose assistant transfers to extension 300 of the second party's context."""
        server = self.serve(
            f"{ASSISTANT_ID}=tests.live.assistants:Mover", options=("--transfer-allow", "Local/3*@party")
        )
        values = DialplanValues(
            api_key=API_KEY, http_url=server.url, audiosocket_host="127.0.0.1",
            audiosocket_port=server.audiosocket_port, assistant_id=ASSISTANT_ID,
        )  # fmt: skip
        return server, values

    def test_from_audiosocket(self) -> None:
        """Over AudioSocket: the second party is heard, and the record says where the call went."""
        server, values = self.serve_mover()
        dialplan = audiosocket_dialplan(values, transfer=True)
        self.transfer(dialplan, "rapida-inbound", server, r'AudioSocket\("[^"]+", "([0-9a-f-]{36}),')

    def test_from_websocket(self) -> None:
        """Over WebSocket likewise."""
        server, values = self.serve_mover()
        self.asterisk.write_config("websocket_client.conf", websocket_client_conf(values))
        self.asterisk.reload("res_websocket_client.so")
        dialplan = websocket_dialplan(values, transfer=True)
        self.transfer(dialplan, "rapida-inbound-ws", server, r"v\(contextId=([0-9a-f-]{36})")
