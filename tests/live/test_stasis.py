"""Calls without a dialplan, on a real Asterisk: in and out through the server's Stasis application."""

from __future__ import annotations

from typing import Any

from rapida_twisted.asterisk.dialplan import stasis_dialplan
from tests.live import wait_until
from tests.live.asterisk import ARI_PASSWORD, ARI_USER
from tests.live.case import ASSISTANT_ID, LiveTestCase
from tests.live.server import Server

SECOND_HZ = 850.0
APP = "rapida-media-pbx"
PARTY = """
[party]
exten => 300,1,Answer()
 same => n,Playback({speech})
 same => n,Hangup()
exten => 400,1,Answer()
 same => n,Playback({speech})
 same => n,Wait(30)
"""


class StasisTests(LiveTestCase):
    """Calls in the server's own application."""

    def start(self, assistant: str) -> Server:
        """A running server that is connected as the application."""
        environment = {"TRANSFER__ALLOW": "Local/3*@party", "DRAIN_S": "0", "OUTBOUND__ANSWER_S": "5"}
        server = Server(self.directory / "server", f"{ASSISTANT_ID}={assistant}", environment=environment)
        url = f"http://127.0.0.1:{self.asterisk.http_port}"
        server.keep_credential("pbx", url, ARI_USER, ARI_PASSWORD, "")
        self.run_server(server)
        self.addCleanup(self.assert_nothing_left)
        wait_until("the server is the application", lambda: APP in self.applications(), 10)
        party = PARTY.format(speech=self.speech(SECOND_HZ, 3.0))
        self.load(stasis_dialplan(APP, ASSISTANT_ID, transfer=True) + party)
        return server

    def applications(self) -> list[str]:
        """The names of the Stasis applications that there are."""
        return [entry["name"] for entry in self.asterisk.ari("GET", "applications")]

    def assert_nothing_left(self) -> None:
        """No channel and no bridge outlives its call."""
        wait_until("no bridge is left", lambda: not self.asterisk.ari("GET", "bridges"), 10)

    def only_call(self, server: Server) -> dict[str, Any]:
        """The one call that the server has, once it is up or over."""
        wait_until("the server has a call", lambda: server.calls(), 10)
        (record,) = server.calls()
        return record

    def test_inbound(self) -> None:
        """The dialplan gives the call away: it is registered, heard both ways, a digit comes; then the dialplan goes on."""
        server = self.start("tests.live.assistants:Counter")
        self.call("100@rapida-inbound-stasis", "listener", caller="4711")
        record = server.ended_call(self.only_call(server)["context_id"], timeout_s=20)
        self.assertEqual((record["caller"], record["called"], record["direction"]), ("4711", "100", "inbound"))
        self.assertEqual(record["transport"], "audiosocket")
