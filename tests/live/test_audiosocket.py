"""Calls over AudioSocket: a real Asterisk, the dialplan that users paste, and the real program."""

from __future__ import annotations

import time

from benchmarks.harness.server import API_KEY, Server
from rapida_twisted.asterisk.dialplan import DialplanValues, audiosocket_dialplan
from tests.live import sipp
from tests.live.case import ASSISTANT_ID, PROMPT_HZ, TONE_DB, TONE_HZ, LiveTestCase
from tests.live.recordings import Recording

NUMBER = "100@rapida-inbound"

GLOBALS = """\
[general]
clearglobalvars = yes
[globals]
RAPIDA_API_KEY = {api_key}
RAPIDA_HOST = 127.0.0.1:{http_port}
RAPIDA_AS_HOST = 127.0.0.1
RAPIDA_PORT = {audiosocket_port}
ASSISTANT_ID = {assistant_id}
"""

# The dialplan as Rapida's own documentation has it, line by line, but for http in the place of https: the server under
# test has no certificate.
INBOUND = """
[rapida-inbound]
exten => _X.,1,Answer()
 same => n,Set(CHANNEL(audioreadformat)=slin)
 same => n,Set(CHANNEL(audiowriteformat)=slin)
 ; Phase 1 - register the call and get a contextId
 same => n,Set(CTX=${CURL(http://${RAPIDA_HOST}/v1/talk/asterisk/call/${ASSISTANT_ID}?from=${CALLERID(num)}&x-api-key=${RAPIDA_API_KEY})})
 same => n,GotoIf($["${CTX}" = ""]?error)
 ; Phase 2 - open AudioSocket TCP using contextId as UUID
 same => n,AudioSocket(${CTX},${RAPIDA_AS_HOST}:${RAPIDA_PORT})
 same => n,Hangup()
 same => n(error),Playback(an-error-has-occurred)
 same => n,Hangup()
"""

AUDIOSOCKET = r'Executing \[\d+@rapida-inbound:\d+\] AudioSocket\("[^"]+", "([0-9a-f-]{36}),'
WENT_ON = r"Executing \[\d+@rapida-inbound:7\] Hangup"
ERROR_BRANCH = r'Executing \[\d+@rapida-inbound:8\] Playback\("[^"]+", "an-error-has-occurred"'


class AudioSocketTests(LiveTestCase):
    """The page's dialplan, and the one that the server prints."""

    def dialplan(self, server: Server, assistant_id: str = ASSISTANT_ID, api_key: str = API_KEY) -> None:
        """Load the dialplan under test with this server's values."""
        values = GLOBALS.format(
            api_key=api_key,
            http_port=server.http_port,
            audiosocket_port=server.audiosocket_port,
            assistant_id=assistant_id,
        )
        self.load(values + INBOUND)

    def contexts(self, count: int = 1) -> list[str]:
        """The contextIds with which the dialplan went into AudioSocket(), once there are so many."""
        return [found[1] for found in self.asterisk.wait_for_log(AUDIOSOCKET, self.mark, count=count)]

    def test_tone_goes_both_ways(self) -> None:
        """A caller's tone comes back from the echo assistant whole: same pitch, same level, no gaps."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.dialplan(server)
        channel = self.call(NUMBER, "milliwatt", caller='"Ann" <+49301234>')
        (context_id,) = self.contexts()
        began = time.monotonic()
        time.sleep(6)
        self.asterisk.hang_up(channel)
        lasted_s = time.monotonic() - began

        (heard,) = self.recordings("call-heard")
        came_back = self.assert_tone(heard, TONE_HZ)
        self.assertGreater(came_back.seconds, lasted_s - 0.7)
        self.assert_near(came_back.level_db(), TONE_DB, 1.0, "level (dB)")
        record = server.ended_call(context_id)
        self.assert_ended(record, "caller_hangup")
        self.assert_near(record["audio_in_s"], lasted_s, 0.3, "audio_in_s")
        self.assert_near(record["audio_out_s"], lasted_s, 0.4, "audio_out_s")
        self.assertEqual(
            (record["assistant_id"], record["caller"], record["transport"]),
            (ASSISTANT_ID, "+49301234", "audiosocket"),
        )

    def test_file_is_heard_then_dialplan_goes_on(self) -> None:
        """The play assistant's file is heard whole; then the server hangs up and the dialplan's next line runs."""
        file = self.directory / "played.wav"
        Recording.tone(620, 3.0, level_db=-20).save(file)
        server = self.serve(f"{ASSISTANT_ID}=play:{file}")
        self.dialplan(server)
        self.call(NUMBER, "recorder")
        (context_id,) = self.contexts()
        self.asterisk.wait_for_log(WENT_ON, self.mark)

        (heard,) = self.recordings("call-heard")
        played = self.assert_tone(heard, 620, seconds=3.0)
        self.assert_near(played.level_db(), -20, 1.0, "level (dB)")
        record = server.ended_call(context_id)
        self.assert_ended(record, "assistant_hangup")
        self.assert_near(record["audio_out_s"], 3.0, 0.05, "audio_out_s")

    def test_caller_hangs_up(self) -> None:
        """When the caller hangs up the call is over at once, and the dialplan does not go on."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.dialplan(server)
        channel = self.call(NUMBER, "milliwatt")
        (context_id,) = self.contexts()
        time.sleep(1)
        self.asterisk.hang_up(channel)

        self.assert_ended(server.ended_call(context_id, timeout_s=1), "caller_hangup")
        self.asterisk.wait_until_idle()
        self.assert_log_lacks(WENT_ON)

    def test_phone_with_long_packets(self) -> None:
        """A SIP phone that sends packets of 30 ms hears its own speech from the echo assistant, all of it."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.dialplan(server)
        phone = sipp.Sipp(self.asterisk)
        (context_id,) = self.contexts()
        phone.wait(20)

        heard, said = self.recordings("phone-heard", "phone-said")
        self.assert_near(heard.level_db(), said.level_db(), 1.0, "level (dB)")
        pieces = said.part(0, 7.0).pieces(0.5, above_db=-40)
        self.assertGreater(len(pieces), 10)
        found = [piece.found_in(heard.part(begin, begin + 1.0)) for begin, piece in pieces]
        self.assertLess(max(delay_s for delay_s, _ in found), 0.2)
        # A piece in which the delay grew, by a frame that came late, is not all alike.
        alike = [likeness for _, likeness in found if likeness > 0.98]
        self.assertGreaterEqual(len(alike), len(found) - 1, f"delay and likeness of each half second: {found}")
        record = server.ended_call(context_id)
        self.assert_ended(record, "caller_hangup")
        self.assert_near(record["audio_in_s"], sipp.STOCK_SPEECH_S, 0.2, "audio_in_s")
        self.assert_near(record["audio_out_s"], sipp.STOCK_SPEECH_S, 0.3, "audio_out_s")
        self.assertEqual(record["caller"], "sipp")

    def test_digits_from_a_phone(self) -> None:
        """The greeter answers a phone's digit with that digit's tones; # ends the call and the dialplan goes on."""
        server = self.serve(f"{ASSISTANT_ID}=greeter")
        self.dialplan(server)
        steps = [sipp.pause(8), sipp.press("1"), sipp.pause(2), sipp.press("#")]
        phone = sipp.Sipp(self.asterisk, sipp.scenario(*steps, hangs_up=False))
        (context_id,) = self.contexts()
        phone.wait(25)

        self.asterisk.wait_for_log(WENT_ON, self.mark)
        (heard,) = self.recordings("phone-heard")
        # The recording begins a little after the phone does, with the first audio that there is.
        welcome = heard.part(0, 6.5)
        self.assertGreater(welcome.level_db(), -40, "the welcome was not heard")
        self.assertEqual(welcome.digit_s(697, 1209), 0, "the digit's tones before the digit")
        self.assertGreaterEqual(heard.part(6.5).digit_s(697, 1209), 0.08, "length of the digit's tones (s)")
        self.assert_ended(server.ended_call(context_id), "assistant_hangup")

    def test_silent_phone_is_kept_alive(self) -> None:
        """A phone that sends nothing at all for 10 s still has its call, for the server feeds the line."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.dialplan(server)
        # It fails when Asterisk hangs up before the phone does.
        phone = sipp.Sipp(self.asterisk, sipp.scenario(sipp.pause(10)), number="200")
        (context_id,) = self.contexts()
        began = time.monotonic()
        phone.wait(20)

        self.assertGreater(time.monotonic() - began, 9)
        self.assert_log_lacks("Reached timeout")
        record = server.ended_call(context_id)
        self.assert_ended(record, "caller_hangup")
        self.assertEqual(record["audio_in_s"], 0)

    def test_bad_key_takes_the_error_branch(self) -> None:
        """With a wrong API key the caller hears the error prompt, and no media connection is tried."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.dialplan(server, api_key="rpd-live-wrong-key")
        self._hear_the_error_prompt(server)

    def test_unknown_assistant_takes_the_error_branch(self) -> None:
        """With an assistant id that the server does not know, likewise."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.dialplan(server, assistant_id="987654321")
        self._hear_the_error_prompt(server)

    def _hear_the_error_prompt(self, server: Server) -> None:
        self.call(NUMBER, "recorder")
        self.asterisk.wait_for_log(ERROR_BRANCH, self.mark)
        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, PROMPT_HZ, seconds=2.0)
        self.assert_log_lacks(AUDIOSOCKET)
        self.assertEqual(server.calls(), [])

    def test_twenty_calls_at_once(self) -> None:
        """Of twenty calls at once, each hears its own caller's tone and no other, without gaps."""
        count = 20
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.dialplan(server)
        frequencies = [400 + 60 * number for number in range(count)]
        channels = [self.call(NUMBER, "speaker", f"call{frequency}", TONE=str(frequency)) for frequency in frequencies]
        context_ids = self.contexts(count)
        time.sleep(5)
        self.assertEqual([call["status"] for call in server.calls()], ["claimed"] * count)
        for channel in channels:
            self.asterisk.hang_up(channel)

        for frequency, heard in zip(
            frequencies, self.recordings(*(f"call{frequency}-heard" for frequency in frequencies)), strict=True
        ):
            came_back = self.assert_tone(heard, frequency)
            self.assertGreater(came_back.seconds, 4.0)
            self.assert_near(came_back.level_db(), TONE_DB, 1.0, "level (dB)")
        for context_id in context_ids:
            record = server.ended_call(context_id)
            self.assert_ended(record, "caller_hangup")
            self.assertGreater(record["audio_in_s"], 4.7)
            self.assertGreater(record["audio_out_s"], 4.5)

    def test_sigterm_lets_the_dialplan_go_on(self) -> None:
        """SIGTERM gives a call the drain time, then a hangup frame: the dialplan goes on, and the exit code is 0."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.dialplan(server)
        self.call(NUMBER, "milliwatt")
        (context_id,) = self.contexts()
        time.sleep(1)
        server.terminate()
        time.sleep(1.5)
        self.assert_log_lacks(WENT_ON)
        self.asterisk.wait_for_log(WENT_ON, self.mark, timeout_s=2)
        server.wait(5)

        (heard,) = self.recordings("call-heard")
        self.assertGreater(self.assert_tone(heard, TONE_HZ).seconds, 2.2)
        server.start()
        self.assert_ended(server.call(context_id), "shutdown")

    def test_printed_dialplan(self) -> None:
        """The dialplan that the server prints for its own values works as printed, and tells both numbers."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        values = DialplanValues(
            api_key=API_KEY,
            http_url=server.url,
            audiosocket_host="127.0.0.1",
            audiosocket_port=server.audiosocket_port,
            assistant_id=ASSISTANT_ID,
        )
        self.load(audiosocket_dialplan(values))
        channel = self.call(NUMBER, "milliwatt", caller="+49301234")
        (context_id,) = self.contexts()
        time.sleep(2)
        self.asterisk.hang_up(channel)

        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, TONE_HZ)
        record = server.ended_call(context_id)
        self.assertEqual((record["caller"], record["called"]), ("+49301234", "100"))
