"""The lines for FreePBX in the files of a FreePBX: what its inbound routes and Misc Applications do with a call."""

from __future__ import annotations

import time

from benchmarks.harness.server import Server
from tests.live import sipp
from tests.live.case import ASSISTANT_ID, TONE_HZ, LiveTestCase

GENERATED = """\
[globals]
ASTETCDIR = /etc/asterisk
#include globals_custom.conf

[ext-did]
exten => 4930555,1,Set(__FROM_DID=${EXTEN})
 same => n,Goto(rapida-inbound,s,1)
exten => 4930556,1,Set(__FROM_DID=+${EXTEN})
 same => n,Goto(rapida-inbound-ws,s,1)
"""
"""Written by FreePBX: its own globals, and an inbound route to each Custom Destination."""

MAIN = """\
#include extensions_additional.conf
#include extensions_custom.conf

[rapida-misc-application]
exten => _X.,1,Goto(rapida-inbound,s,1)

[from-pstn]
include => ext-did
"""


class FreePbxTests(LiveTestCase):
    """The call's number comes from the inbound route, the globals from a second [globals]."""

    def start(self, transport: str) -> Server:
        """A server with an echo, and the files: what the program prints is pasted unchanged."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        printed = server.control(
            *["dialplan", "--freepbx", "--with-key", "--transport", transport, "--server", server.url]
        ).stdout
        custom, _, client = printed.partition("; /etc/asterisk/websocket_client.conf\n")
        self.asterisk.write_config("globals_custom.conf", "")
        self.asterisk.write_config("extensions_additional.conf", GENERATED)
        self.asterisk.write_config("extensions_custom.conf", custom)
        if client:
            self.asterisk.write_config("websocket_client.conf", client)
            self.asterisk.reload("res_websocket_client.so")
        self.load(MAIN)
        return server

    def hear_the_echo(self, server: Server, number: str, called: str) -> None:
        """A caller's tone comes back, and the record has the number that was dialled."""
        channel = self.call(f"{number}@from-pstn", "milliwatt", caller='"Ann" <+49301234>')
        self.asterisk.wait_for_log(r'AudioSocket\("|Dial\("[^"]+", "WebSocket', self.mark)
        time.sleep(3)
        self.asterisk.hang_up(channel)
        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, TONE_HZ)
        (record,) = server.calls()
        record = server.ended_call(record["context_id"])
        self.assert_ended(record, "caller_hangup")
        self.assertEqual((record["caller"], record["called"]), ("+49301234", called))

    def test_inbound_route(self) -> None:
        """AudioSocket: the number is FROM_DID, not the extension s."""
        self.hear_the_echo(self.start("audiosocket"), "4930555", "4930555")
        self.assertIn("RAPIDA_URL", self.asterisk.cli("dialplan show globals"))
        self.assertIn("ASTETCDIR", self.asterisk.cli("dialplan show globals"))

    def test_inbound_route_over_websocket(self) -> None:
        """WebSocket likewise; the + of a number arrives."""
        self.hear_the_echo(self.start("websocket"), "4930556", "+4930556")

    def test_from_an_extension(self) -> None:
        """A phone of the PBX dials a Misc Application: the number is the one that it dialled."""
        server = self.start("audiosocket")
        sipp.Sipp(self.asterisk).wait(20)
        (record,) = server.calls()
        self.assertEqual(server.ended_call(record["context_id"])["called"], "100")
