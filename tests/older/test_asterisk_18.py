"""Asterisk 18, the oldest with AudioSocket that packages have: calls over AudioSocket, and through the gateway.

It has no chan_websocket, and sends no digits over AudioSocket.
"""

from __future__ import annotations

import time

from benchmarks.harness.server import API_KEY, Server
from rapida_twisted.asterisk.dialplan import DialplanValues, audiosocket_dialplan, freepbx_dialplan
from tests.live import sipp
from tests.live.case import ASSISTANT_ID, PROMPT_HZ, TONE_HZ, LiveTestCase
from tests.live.recordings import Recording
from tests.support.blocks import named_block

NUMBER = "100@rapida-inbound"
AUDIOSOCKET = "AudioSocket(${CTX},${RAPIDA_AS_HOST}:${RAPIDA_PORT})"
DIAL = named_block("asterisk.rst", "audiosocket-dial-8-khz").strip().removeprefix("same => n,")
DIALLED = r'AudioSocket\("[^"]+", "([0-9a-f-]{36})'


class Asterisk18Tests(LiveTestCase):
    """The dialplan that the server prints."""

    long = True
    asterisk_program = "asterisk-older"

    def dialplan(self, server: Server, *changed: tuple[str, str], freepbx: bool = False) -> None:
        """Load the dialplan with this server's values.

        :param changed: what it prints, and what stands in its place.
        """
        values = DialplanValues(API_KEY, server.url, "127.0.0.1", server.audiosocket_port, ASSISTANT_ID)
        text = audiosocket_dialplan(values)
        for printed, wanted in changed:
            self.assertIn(printed, text)
            text = text.replace(printed, wanted)
        self.load(freepbx_dialplan(text) if freepbx else text)

    def hear_the_echo(self, server: Server, number: str = NUMBER) -> None:
        """A tone comes back whole, and both ends agree on the call's end."""
        channel = self.call(number, "milliwatt", caller='"Ann" <+49301234>')
        context_id = self.asterisk.wait_for_log(DIALLED, self.mark)[0][1]
        time.sleep(5)
        self.asterisk.hang_up(channel)
        (heard,) = self.recordings("call-heard")
        self.assertGreater(self.assert_tone(heard, TONE_HZ, missing_s=0.1).seconds, 3.0)
        record = server.ended_call(context_id)
        self.assert_ended(record, "caller_hangup")
        self.assertEqual(record["caller"], "+49301234")

    def test_version(self) -> None:
        """It is what this module says."""
        self.assertIn("Asterisk 18.", self.asterisk.cli("core show version"))
        self.assertTrue(self.asterisk.has_module("app_audiosocket"))
        self.assertFalse(self.asterisk.has_module("chan_websocket"))

    def test_tone_goes_both_ways(self) -> None:
        """A caller's tone comes back from the echo assistant."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.dialplan(server)
        self.hear_the_echo(server)

    def test_gateway(self) -> None:
        """The same from a server behind the gateway, over WebSocket, which this Asterisk does not have."""
        far = self.run_server(Server(self.directory / "far", "*=echo"))
        environment = {"UPSTREAM__URL": far.url, "UPSTREAM__API_KEY": API_KEY}
        server = self.run_server(Server(self.directory / "near", f"{ASSISTANT_ID}=bridge", environment=environment))
        self.dialplan(server)
        self.hear_the_echo(server)
        self.assertEqual([record["transport"] for record in far.calls()], ["websocket"])

    def test_freepbx(self) -> None:
        """The lines for FreePBX."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.dialplan(server, freepbx=True)
        self.hear_the_echo(server, "s@rapida-inbound")

    def hear_a_file(self, *changed: tuple[str, str]) -> None:
        """The play assistant's file is heard whole, and then it hangs up."""
        file = self.directory / "played.wav"
        Recording.tone(620, 3.0, level_db=-20).save(file)
        server = self.serve(f"{ASSISTANT_ID}=play:{file}")
        self.dialplan(server, *changed)
        self.call(NUMBER, "recorder")
        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, 620, seconds=3.0)
        (record,) = server.calls()
        self.assert_ended(server.ended_call(record["context_id"]), "assistant_hangup")

    def test_assistant_hangs_up(self) -> None:
        """Before 20.14 AudioSocket() takes that for an error: the caller is hung up, the dialplan does not go on."""
        self.hear_a_file()
        self.asterisk.wait_for_log(r"\(rapida-inbound, 100, 5\) exited non-zero", self.mark)

    def test_dialplan_goes_on(self) -> None:
        """With Dial(AudioSocket/...,,g) it does."""
        self.hear_a_file((AUDIOSOCKET, DIAL))
        self.asterisk.wait_for_log(r"Executing \[100@rapida-inbound:6\] Hangup", self.mark)

    def test_refused(self) -> None:
        """An unknown assistant: the caller hears the error prompt."""
        self.dialplan(self.serve("1=echo"))
        self.call(NUMBER, "recorder")
        self.asterisk.wait_for_log(r'Playback\("[^"]+", "an-error-has-occurred"', self.mark)
        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, PROMPT_HZ, seconds=2.0)

    def test_phone(self) -> None:
        """A SIP phone with packets of 30 ms, which presses a digit and hangs up."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.dialplan(server)
        sipp.Sipp(self.asterisk).wait(20)
        (record,) = server.calls()
        self.assert_ended(server.ended_call(record["context_id"]), "caller_hangup")
