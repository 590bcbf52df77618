"""Calls without a dialplan, on a real Asterisk: in and out through the server's Stasis application."""

from __future__ import annotations

import re
import time
from typing import Any

from benchmarks.harness.server import Server
from benchmarks.harness.waiting import wait_until
from rapida_twisted.asterisk.dialplan import stasis_dialplan
from tests.live.asterisk import ARI_PASSWORD, ARI_USER
from tests.live.case import ASSISTANT_ID, TONE_HZ, LiveTestCase
from tests.live.nodes import live_server
from tests.live.recordings import Recording
from tests.live.sounds import losses, noise

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

[talker]
exten => parrot,1,Answer()
 same => n,Echo()
"""


class StasisTestCase(LiveTestCase):
    """A server that is connected as an application of the Asterisk's."""

    def start(self, assistant: str, **settings: str) -> Server:
        """A running server that is connected as the application."""
        environment = {"TRANSFER__ALLOW": "Local/3*@party", "DRAIN_S": "0", **settings}
        server = live_server(self.directory / "server", f"{ASSISTANT_ID}={assistant}", environment=environment)
        url = f"http://127.0.0.1:{self.asterisk.http_port}"
        words = ("--ari-url", url, "--ari-user", ARI_USER, "--endpoint-technology", "Local")
        self.assertEqual(server.control("vault", "set", "pbx", *words, typed=f"{ARI_PASSWORD}\n").returncode, 0)
        # Cleanups run backwards: calls end, and then nothing is left while the server still runs.
        server.start()
        self.addCleanup(server.stop)
        self.addCleanup(self.assert_nothing_left)
        self.addCleanup(self.end_calls)
        self.wait_for_application()
        party = PARTY.format(speech=self.speech(SECOND_HZ, 3.0))
        self.load(stasis_dialplan(APP, ASSISTANT_ID, transfer=True) + party)
        return server

    def wait_for_application(self) -> None:
        """Wait until the server is connected as its application."""
        wait_until("the server is the application", lambda: APP in self.applications(), 10)

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

    def place(self, server: Server, to: str) -> dict[str, Any]:
        """Place a call that goes to the application; gives its record when it is answered."""
        status, answer = server.place(ASSISTANT_ID, to, stasis=True)
        self.assertEqual(status, 201, answer)
        return server.wait_for_status(answer["contextId"], "answered", "completed")


class StasisTests(StasisTestCase):
    """Calls in the server's own application."""

    def test_inbound(self) -> None:
        """No key in the dialplan; heard both ways; a digit comes; we hang up, and the dialplan goes on."""
        server = self.start("tests.live.assistants:EchoUntilDigit")
        self.call(
            "100@rapida-inbound-stasis", "presser", caller="4711", SPEECH=self.speech(TONE_HZ, 3.0), DIGITS="5",
            SPEECH_AFTER=self.speech(0.0, 1.0),
        )  # fmt: skip
        record = server.ended_call(self.only_call(server)["context_id"], timeout_s=20)
        self.assert_ended(record, "assistant_hangup")
        self.assertEqual((record["caller"], record["called"], record["direction"]), ("4711", "100", "inbound"))
        self.asterisk.wait_for_log(r"Executing \[100@rapida-inbound-stasis:7\] Hangup", self.mark)
        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, TONE_HZ)

    def test_first_words(self) -> None:
        """Of what the assistant says at once not one sample is lost, while Asterisk still joins the channels."""
        self.start("tests.live.assistants:LongSpeech")
        names = [f"call{number}" for number in range(3)]
        for name in names:
            self.call("03@rapida-inbound-stasis", "recorder", recording=name)
        said = noise(3.0)
        for heard in self.recordings(*(f"{name}-heard" for name in names)):
            self.assertEqual(losses(said, heard), [])
            begin = heard.first_sound_s()
            assert begin is not None
            at, likeness = heard.part(begin, begin + 0.5).found_in(said.part(0.0, 1.0))
            self.assertGreater(likeness, 0.95)
            self.assert_near(at, 0.0, 0.005, "what of the beginning is lost (s)")

    def test_delay(self) -> None:
        """A sound is to the caller and back, twice over the bridge, within a tenth of a second."""
        server = self.start("tests.live.assistants:HearsItself")
        self.call("100@rapida-inbound-stasis", "parrot")
        self.assert_ended(server.ended_call(self.only_call(server)["context_id"], 10), "assistant_hangup")
        (found,) = re.findall(r"heard itself after (\d+) ms", server.log())
        self.assertLess(int(found), 100)

    def test_hung_up_at_any_moment(self) -> None:
        """Callers who hang up while Asterisk and we are still at it leave nothing behind, and others do not notice."""
        server = self.start("echo")
        stays = self.call("100@rapida-inbound-stasis", "milliwatt", recording="stays")
        for number in range(40):
            channel = self.call("100@rapida-inbound-stasis", "milliwatt", recording=f"call{number}")
            time.sleep(number * 0.001)
            self.asterisk.hang_up(channel)
        wait_until("one bridge is left", lambda: len(self.asterisk.ari("GET", "bridges")) == 1, 10)
        # The two ends of the caller's Local channel, and the media's.
        wait_until("its channels are left", lambda: len(self.asterisk.ari("GET", "channels")) == 3, 10)
        self.asterisk.hang_up(stays)
        self.asterisk.wait_until_idle()
        self.assertNotIn("#warn", server.log())
        self.assertNotIn("Traceback", server.log())
        self.assert_log_lacks(r"ERROR\[\d+\](?!.*(Failed to receive frame|AudioSocket because|Failed to forward))")

    def test_server_stops(self) -> None:
        """A server that is stopped sends its callers on first; later ones take the dialplan's error branch."""
        server = self.start("echo")
        self.call("100@rapida-inbound-stasis", "recorder")
        context_id = self.only_call(server)["context_id"]
        wait_until("it is up", lambda: server.call(context_id)["status"] == "claimed", 5)
        server.stop()
        self.asterisk.wait_for_log(r"Executing \[100@rapida-inbound-stasis:7\] Hangup", self.mark)
        self.asterisk.wait_until_idle()
        self.assert_nothing_left()
        self.call("100@rapida-inbound-stasis", "recorder")
        self.asterisk.wait_for_log(r'Playback\("[^"]+", "an-error-has-occurred"\)', self.mark)

    def test_caller_hangs_up(self) -> None:
        """A caller who hangs up leaves nothing behind, at Asterisk or here."""
        server = self.start("echo")
        channel = self.call("100@rapida-inbound-stasis", "milliwatt")
        context_id = self.only_call(server)["context_id"]
        wait_until("it is up", lambda: server.call(context_id)["status"] == "claimed", 5)
        self.asterisk.hang_up(channel)
        self.assert_ended(server.ended_call(context_id), "caller_hangup")
        self.asterisk.wait_until_idle(5)
        self.assert_nothing_left()

    def test_inbound_transfer(self) -> None:
        """A transferred caller goes on in the dialplan, which dials, and the second party is heard."""
        server = self.start("tests.live.assistants:Mover")
        self.call("100@rapida-inbound-stasis", "recorder")
        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, SECOND_HZ)
        self.assert_ended(server.ended_call(self.only_call(server)["context_id"]), "transferred")

    def test_no_media(self) -> None:
        """Media that can't come up take the dialplan's error branch, and the log says why."""
        server = self.start("echo", PUBLIC_ASSISTANT_HOST="127.0.0.2")
        self.call("100@rapida-inbound-stasis", "recorder")
        self.asterisk.wait_for_log(r'Playback\("[^"]+", "an-error-has-occurred"\)', self.mark)
        self.assertIn("no media for channel", server.log())
        self.assertEqual(self.only_call(server)["status"], "pending")

    def test_outbound(self) -> None:
        """A call that we place needs no dialplan: heard by us, hung up when our side ends it."""
        server = self.start("record")
        record = self.place(server, "400@party")
        wait_until("3 s are heard", lambda: server.call(record["context_id"])["status"] == "claimed", 5)
        time.sleep(3)
        self.assertEqual(server.hang_up(record["context_id"]), 202)
        record = server.wait_for_status(record["context_id"], "completed")
        self.assertEqual((record["transport"], record["cause"]), ("audiosocket", 16))
        self.assert_ended(server.ended_call(record["context_id"]), "operator_hangup")
        recorded = Recording.load(server.directory / f"state/recordings/{record['context_id']}.wav")
        self.assertGreater(recorded.seconds, 2)
        self.assert_near(recorded.part(0.5, 1.8).dominant_hz(), SECOND_HZ, 1.0, "frequency (Hz)")

    def test_outbound_transfer(self) -> None:
        """A call that we placed goes on in the context that it is transferred to."""
        server = self.start("tests.live.assistants:Mover")
        record = self.place(server, "400@party")
        self.asterisk.wait_for_log(r"Executing \[300@party:2\] Playback", self.mark)
        record = server.wait_for_status(record["context_id"], "completed", timeout_s=10)
        self.assert_ended(record, "transferred")

    def test_killed_server(self) -> None:
        """Callers of a server that is gone are sent back to the dialplan when it is there again."""
        server = self.start("echo")
        self.call("100@rapida-inbound-stasis", "recorder")
        context_id = self.only_call(server)["context_id"]
        wait_until("it is up", lambda: server.call(context_id)["status"] == "claimed", 5)
        server.kill()
        server.start()
        self.asterisk.wait_for_log(r'Playback\("[^"]+", "an-error-has-occurred"\)', self.mark)
