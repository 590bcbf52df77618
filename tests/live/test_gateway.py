"""The gateway: a real Asterisk, a server beside it that carries calls on, and a server elsewhere behind TLS."""

from __future__ import annotations

import re
import time
from typing import Any

from benchmarks.harness.authority import Authority
from benchmarks.harness.ports import free_port
from benchmarks.harness.server import API_KEY, Server
from rapida_twisted.asterisk.dialplan import (
    DialplanValues,
    audiosocket_dialplan,
    websocket_client_conf,
    websocket_dialplan,
)
from tests.live import sipp
from tests.live.assistants import SPEECH_HZ
from tests.live.case import ASSISTANT_ID, PROMPT_HZ, TONE_HZ, LiveTestCase
from tests.live.recordings import Recording
from tests.live.sounds import losses, noise
from tests.live.test_transfer import SECOND_HZ, SECOND_PARTY

FAR_KEY = "rpd-far-away-0123456789"
FAR_ID = "777"
"""The assistant there, which is not the one that was dialled."""
HERE = "100@rapida-inbound"
DIALLED = r'(?:AudioSocket\("[^"]+", "|v\(contextId=)([0-9a-f-]{36})'
WENT_ON = r"Executing \[\d+@rapida-inbound:6\] Hangup"
ERROR_BRANCH = r'Playback\("[^"]+", "an-error-has-occurred"'


class GatewayTests(LiveTestCase):
    """The far server has a certificate of a private authority, and another key."""

    def setUp(self) -> None:
        """Have a place for the far server."""
        super().setUp()
        self.authority = Authority(self.directory / "tls")
        self.authority.certify("127.0.0.1")
        self.far_port = free_port()

    # Steps

    def start_far(self, assistant: str, name: str = "far") -> Server:
        """The server elsewhere, whose one assistant is this."""
        options = ["--drain-s", "2", "--https", self.authority.endpoint(self.far_port)]
        environment = {"RAPIDA_API_KEY": FAR_KEY}
        self.far = Server(self.directory / name, f"{FAR_ID}={assistant}", options=options, environment=environment)
        return self.run_server(self.far)

    def start_near(self, rule: str = "bridge", *options: str, transfer: bool = False, **settings: str) -> Server:
        """The server beside Asterisk, and the dialplan for both transports that it prints."""
        environment = {
            "UPSTREAM__URL": f"https://127.0.0.1:{self.far_port}", "UPSTREAM__API_KEY": FAR_KEY,
            "UPSTREAM__ASSISTANT_ID": FAR_ID, "TLS__CA_FILE": str(self.authority.authority), **settings,
        }  # fmt: skip
        words = ["--drain-s", "2", *options]
        self.near = Server(self.directory / "near", f"{ASSISTANT_ID}={rule}", options=words, environment=environment)
        self.run_server(self.near)
        values = DialplanValues(
            api_key=API_KEY, http_url=self.near.url, audiosocket_host="127.0.0.1",
            audiosocket_port=self.near.audiosocket_port, assistant_id=ASSISTANT_ID,
        )  # fmt: skip
        websocket = websocket_dialplan(values).partition("[rapida-inbound-ws]")[2]
        self.asterisk.write_config("websocket_client.conf", websocket_client_conf(values))
        self.asterisk.reload("res_websocket_client.so")
        self.load(
            f"{audiosocket_dialplan(values, transfer=transfer)}\n[rapida-inbound-ws]{websocket}"
            + SECOND_PARTY.format(speech=self.speech(SECOND_HZ, 3.0))
        )
        return self.near

    def context_id(self) -> str:
        """The contextId here of the one call."""
        return str(self.asterisk.wait_for_log(DIALLED, self.mark)[0][1])

    def far_record(self) -> dict[str, Any]:
        """The far server's record of its one call, once it is over."""
        (record,) = self.far.calls()
        return self.far.ended_call(record["context_id"])

    def assert_no_keys_in_logs(self) -> None:
        """Neither server has logged the far one's key."""
        for server in (self.near, self.far):
            self.assertNotIn(FAR_KEY, server.log())

    # A call

    def tone_goes_both_ways(self, number: str, transport: str, **settings: str) -> None:
        """A tone comes back from the far echo; a key ends the call there."""
        self.start_far("tests.live.assistants:EchoUntilDigit")
        self.start_near(**settings)
        speech = self.speech(TONE_HZ, 4.0)
        steps = {"SPEECH": speech, "DIGITS": "5", "SPEECH_AFTER": speech}
        self.call(number, "presser", caller='"Ann" <+49301234>', **steps)
        here = self.near.ended_call(self.context_id(), timeout_s=10)
        there = self.far_record()

        heard, said = self.recordings("call-heard", "call-said")
        came_back = self.assert_tone(heard, TONE_HZ)
        self.assertGreater(came_back.seconds, 3.0)
        self.assert_near(came_back.level_db(), said.part(1.0, 3.0).level_db(), 1.0, "level (dB)")
        for record in (here, there):
            self.assert_ended(record, "assistant_hangup")
            self.assertEqual((record["caller"], record["called"]), ("+49301234", "100"))
            self.assert_near(record["audio_in_s"], 4.2, 0.5, "audio_in_s")
        self.assertEqual((here["transport"], here["upstream_id"]), (transport, there["context_id"]))
        self.assertEqual((there["transport"], there["assistant_id"]), ("websocket", FAR_ID))
        self.assert_no_keys_in_logs()

    def test_from_audiosocket(self) -> None:
        """AudioSocket here, wss there: the tone comes back whole, the key arrives, both records agree."""
        self.tone_goes_both_ways(HERE, "audiosocket")
        self.asterisk.wait_for_log(WENT_ON, self.mark)

    def test_from_websocket(self) -> None:
        """chan_websocket here, wss there, 16 kHz and the JSON form."""
        self.tone_goes_both_ways(f"{HERE}-ws", "websocket", UPSTREAM__FORMAT="slin16", UPSTREAM__CONTROL="json")

    def test_phone(self) -> None:
        """A SIP phone's speech comes back from far away in order, piece for piece."""
        self.start_far("echo")
        self.start_near()
        phone = sipp.Sipp(self.asterisk)
        context_id = self.context_id()
        phone.wait(20)
        heard, said = self.recordings("phone-heard", "phone-said")
        found = [piece.found_in(heard.part(begin, begin + 1.0)) for begin, piece in said.part(0, 7.0).pieces(0.5, -40)]
        self.assertGreater(len(found), 10)
        self.assertLess(max(delay_s for delay_s, _ in found), 0.3)
        # A piece in which a frame was left out or came twice is not all alike; so there may be one for each clock.
        alike = [likeness for _, likeness in found if likeness > 0.95]
        self.assertGreaterEqual(len(alike), len(found) - 2, f"delay and likeness of each half second: {found}")
        self.assert_ended(self.near.ended_call(context_id), "caller_hangup")
        self.assert_ended(self.far_record(), "caller_hangup")

    def test_interrupted(self) -> None:
        """A key's flush comes back from far away: ten seconds that were sent ahead end at once."""
        self.start_far("tests.live.assistants:Interrupted")
        self.start_near()
        steps = {"SPEECH": self.speech(0, 3.0), "DIGITS": "5", "SPEECH_AFTER": self.speech(1500, 2.0)}
        channel = self.call(HERE, "presser", **steps)
        self.asterisk.wait_for_log(DIALLED, self.mark)
        time.sleep(6)
        self.asterisk.hang_up(channel)
        heard, said = self.recordings("call-heard", "call-said")
        silent_s, pressed_s = heard.last_sound_s(), said.first_sound_s()
        assert silent_s is not None
        assert pressed_s is not None
        self.assert_near(heard.part(1.0, 2.0).dominant_hz(), SPEECH_HZ, 1.0, "frequency (Hz)")
        self.assert_near(silent_s, pressed_s, 0.15, "the end of the speech (s)")

    def test_long_speech(self) -> None:
        """Thirty seconds that are said at once are held up on the way, and are heard whole; then the far end's mark
        comes, it hangs up, and the dialplan goes on."""
        self.start_far("tests.live.assistants:LongSpeech")
        self.start_near()
        self.call("30@rapida-inbound", "recorder")
        context_id = self.context_id()
        self.asterisk.wait_for_log(WENT_ON, self.mark, timeout_s=45)
        (heard,) = self.recordings("call-heard")
        self.assertEqual(losses(noise(30.0), heard), [])
        self.assert_ended(self.near.ended_call(context_id), "assistant_hangup")
        self.assert_ended(self.far_record(), "assistant_hangup")

    # When it fails

    def test_refused_before_the_answer(self) -> None:
        """Without the far server, and without the assistant there, the caller hears the error prompt; nothing is
        dialled, and the record of neither has a call."""
        self.start_near()
        self.hear_the_error_prompt("down")
        self.start_far("echo")
        self.near.stop()
        self.start_near(UPSTREAM__ASSISTANT_ID="888")
        self.hear_the_error_prompt("unknown")
        self.assertEqual((self.near.calls(), self.far.calls()), ([], []))
        address = f"the upstream 127.0.0.1:{self.far_port}"
        self.assertIn(f"{address} can't be reached: connection refused", self.near.log())
        self.assertIn(f"{address} does not register the call: 404", self.near.log())
        self.assert_log_lacks(DIALLED)

    def hear_the_error_prompt(self, recording: str) -> None:
        """Call, and hear that there was an error."""
        mark = self.asterisk.log_mark()
        self.call(HERE, "recorder", recording)
        self.asterisk.wait_for_log(ERROR_BRANCH, mark)
        self.asterisk.wait_for_log(self.recorded, mark)
        (heard,) = self.recordings(f"{recording}-heard")
        self.assert_tone(heard, PROMPT_HZ, seconds=2.0)

    def test_far_server_dies(self) -> None:
        """The far server is killed in the middle of a call: the fallback is heard, then the dialplan goes on."""
        sorry = self.directory / "sorry.wav"
        Recording.tone(SPEECH_HZ, 2.0).save(sorry)
        self.start_far("echo")
        self.start_near(UPSTREAM__FALLBACK=f"play:{sorry}")
        self.call(HERE, "milliwatt")
        context_id = self.context_id()
        time.sleep(2)
        self.far.kill()
        self.asterisk.wait_for_log(WENT_ON, self.mark)
        (heard,) = self.recordings("call-heard")
        self.assert_near(heard.part(1.0, 1.5).dominant_hz(), TONE_HZ, 1.0, "before (Hz)")
        last_s = heard.last_sound_s()
        assert last_s is not None
        played = self.assert_tone(heard.part(last_s - 1.9, last_s), SPEECH_HZ)
        self.assertGreater(played.seconds, 1.4)
        record = self.near.ended_call(context_id)
        self.assert_ended(record, "assistant_hangup")
        self.assertRegex(record["detail"], "^the upstream 127.0.0.1:[0-9]+ ")

    def test_no_fallback(self) -> None:
        """Killed without a fallback: the media ends as failed, and the dialplan goes on."""
        self.start_far("echo")
        self.start_near()
        self.call(HERE, "milliwatt")
        context_id = self.context_id()
        time.sleep(1.5)
        self.far.kill()
        self.asterisk.wait_for_log(WENT_ON, self.mark, timeout_s=2)
        record = self.near.ended_call(context_id)
        self.assertEqual((record["status"], record["reason"]), ("failed", "upstream_failed"))
        figures, rule = self.near.metrics(), f'assistant="{ASSISTANT_ID}"'
        for step in ("register", "connect"):
            self.assertEqual(figures[f'rapida_upstream_requests_total{{{rule},outcome="ok",step="{step}"}}'], 1)
        ended = f'rapida_calls_ended_total{{{rule},reason="upstream_failed",transport="audiosocket"}}'
        self.assertEqual((figures[ended], figures[f'rapida_upstream_breaker{{{rule},state="open"}}']), (1, 0))

    def test_next(self) -> None:
        """With the fallback next:, the call is the dialplan's, which dials the second party."""
        self.start_far("echo")
        self.start_near(
            "bridge", "--transfer-allow", "Local/3*@party", transfer=True, UPSTREAM__FALLBACK="next:Local/300@party"
        )
        self.call(HERE, "recorder")
        context_id = self.context_id()
        time.sleep(1.5)
        self.far.kill()
        self.asterisk.wait_for_log(r'Dial\("[^"]+", "Local/300@party"', self.mark)
        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, SECOND_HZ)
        self.assert_ended(self.near.ended_call(context_id), "transferred")

    def test_old_server(self) -> None:
        """bridge:audiosocket: the far server is registered at over https, and gets its media over AudioSocket."""
        far = self.start_far("echo")
        self.start_near(f"bridge:audiosocket://127.0.0.1:{far.audiosocket_port}")
        channel = self.call(HERE, "milliwatt")
        context_id = self.context_id()
        time.sleep(3)
        self.asterisk.hang_up(channel)
        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, TONE_HZ)
        here, there = self.near.ended_call(context_id), self.far_record()
        self.assertEqual((here["reason"], there["reason"]), ("caller_hangup", "caller_hangup"))
        self.assertEqual((there["transport"], there["context_id"]), ("audiosocket", here["upstream_id"]))
        self.assertIsNotNone(re.search(rf"call {context_id}: was bridged", self.near.log()))
