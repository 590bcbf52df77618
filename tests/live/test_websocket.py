"""Calls over WebSocket: a real Asterisk, the dialplan of the page "Connect your Asterisk", and the real program."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from benchmarks.harness.authority import Authority
from benchmarks.harness.ports import free_port
from benchmarks.harness.server import API_KEY, REPOSITORY, Server
from benchmarks.harness.waiting import wait_until
from tests.live import sipp
from tests.live.assistants import SPEECH_HZ
from tests.live.case import ASSISTANT_ID, PROMPT_HZ, TONE_DB, TONE_HZ, LiveTestCase, from_page
from tests.live.recordings import Recording
from tests.live.sounds import losses, noise

NUMBER = "100@rapida-inbound-ws"
DIAL = r'Executing \[\d+@[\w-]+:\d+\] Dial\("[^"]+", "WebSocket/\w+/[^"]*contextId=([0-9a-f-]{36})'
DIAL_LINE = "Dial(WebSocket/rapida/c(ulaw)v(contextId=${CTX},x-api-key=${RAPIDA_API_KEY}),,g)"
WENT_ON = r"Executing \[\d+@[\w-]+:7\] Hangup"
ERROR_BRANCH = r'Executing \[\d+@[\w-]+:8\] Playback\("[^"]+", "an-error-has-occurred"'

# What the dialplan saw, for the log: the page's lines stay as they are.
SAW = "the dialplan saw"
STATUS = f"exten => h,1,NoOp({SAW} ${{DIALSTATUS}} ${{HANGUPCAUSE}})\n"

INTERRUPTED = f"{ASSISTANT_ID}=tests.live.assistants:Interrupted"


def handshake_status(port: int, path: str, header: str, subprotocol: str = "media") -> int:
    """What the server answers to a handshake: the HTTP status. The connection is closed at once."""
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {subprotocol}",
        header,
    )
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall("\r\n".join((*lines, "", "")).encode())
        return int(connection.recv(4096).split()[1])


class WebSocketTestCase(LiveTestCase):
    """A server and the page's two files for WebSocket."""

    def connect(self, server: Server, *variants: str, api_key: str = API_KEY) -> None:
        """Give Asterisk the page's files with this server's values.

        :param variants: dial lines to stand in the place of the page's in further contexts: the first in
            rapida-inbound-ws1, and so on.
        """
        host = f"127.0.0.1:{server.http_port}"
        self.clients(from_page("websocket-client-conf", {"127.0.0.1:8080": host}))
        values = {"127.0.0.1:8080": host, "rpd-xxx-your-api-key": api_key, "123456789": ASSISTANT_ID}
        dialplan = from_page("websocket-dialplan", values) + STATUS
        lines = dialplan.partition("[rapida-inbound-ws]")[2]
        for number, variant in enumerate(variants, 1):
            dialplan += f"\n[rapida-inbound-ws{number}]{lines.replace(DIAL_LINE, variant)}"
        self.load(dialplan)

    def clients(self, text: str) -> None:
        """Load a websocket_client.conf."""
        self._clients = text
        self.asterisk.write_config("websocket_client.conf", text)
        self.asterisk.reload("res_websocket_client.so")

    def add_client(self, name: str, url: str) -> None:
        """Load the page's websocket_client.conf with a second client, which has another address."""
        second = re.sub("uri = .*", f"uri = {url}", self._clients).replace("[rapida]", f"[{name}]")
        self.clients(f"{self._clients}\n{second}")

    def contexts(self, count: int = 1) -> list[str]:
        """The contextIds with which the dialplan dialled, once there are so many."""
        return [found[1] for found in self.asterisk.wait_for_log(DIAL, self.mark, count=count)]

    def dial_status(self, context: str = "rapida-inbound-ws") -> str:
        """What the dialplan saw in the end."""
        return self.asterisk.wait_for_log(rf"Executing \[h@{context}:1\] NoOp\(.*{SAW} (\w* \d*)", self.mark)[0][1]

    def call_and_press(self, recording: str) -> None:
        """Place a call that presses a key after 3 s, and speaks as soon as it has let the key go."""
        quiet, speech = self.speech(0, 3.0), self.speech(1500, 2.0)
        dialled = len(re.findall(DIAL, self.asterisk.log_since(self.mark)))
        self.call(NUMBER, "presser", recording, SPEECH=quiet, DIGITS="5", SPEECH_AFTER=speech)
        # Another server's values may take the place of this one's now.
        self.contexts(dialled + 1)

    def assert_interrupted(self, recording: str) -> None:
        """In such a call the assistant's speech ended with the key."""
        heard, said = self.recordings(f"{recording}-heard", f"{recording}-said")
        silent_s, pressed_s = heard.last_sound_s(), said.first_sound_s()
        assert silent_s is not None
        assert pressed_s is not None
        self.assert_near(heard.part(1.0, 2.0).dominant_hz(), SPEECH_HZ, 1.0, "frequency (Hz)")
        self.assertGreater(heard.seconds - silent_s, 1.5)
        self.assert_near(silent_s, pressed_s, 0.100, f"the end of {recording}'s speech (s)")

    def start_program(self, *words: str) -> Path:
        """A Python program that runs until the test is over; gives the file of what it says."""
        output = self.directory / "program.log"
        with open(output, "wb") as file:
            process = subprocess.Popen(
                # It dies with us, however we die.
                ["setpriv", "--pdeathsig", "TERM", sys.executable, "-u", *words],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.terminate)
        return output


class PageTests(WebSocketTestCase):
    """The page's dialplan for WebSocket, as printed."""

    def test_tone_goes_both_ways(self) -> None:
        """A caller's tone comes back from the echo assistant whole: same pitch, same level, no gaps."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.connect(server)
        channel = self.call(NUMBER, "milliwatt", caller='"Ann" <+49301234>')
        (context_id,) = self.contexts()
        time.sleep(4)
        self.asterisk.hang_up(channel)

        (heard,) = self.recordings("call-heard")
        came_back = self.assert_tone(heard, TONE_HZ)
        self.assertGreater(came_back.seconds, 3.0)
        self.assert_near(came_back.level_db(), TONE_DB, 1.0, "level (dB)")
        record = server.ended_call(context_id)
        self.assert_ended(record, "caller_hangup")
        self.assert_near(record["audio_in_s"], 4.0, 0.4, "audio_in_s")
        self.assert_near(record["audio_out_s"], 4.0, 0.5, "audio_out_s")
        self.assertEqual(
            (record["assistant_id"], record["caller"], record["called"], record["transport"]),
            (ASSISTANT_ID, "+49301234", "100", "websocket"),
        )
        self.assert_log_lacks(WENT_ON)

    def test_file_is_heard_then_dialplan_goes_on(self) -> None:
        """The play assistant's file is heard whole; then the server hangs up and the dialplan's next line runs."""
        file = self.directory / "played.wav"
        Recording.tone(620, 3.0, level_db=-20).save(file)
        server = self.serve(f"{ASSISTANT_ID}=play:{file}")
        self.connect(server)
        self.call(NUMBER, "recorder")
        (context_id,) = self.contexts()
        self.asterisk.wait_for_log(WENT_ON, self.mark)

        (heard,) = self.recordings("call-heard")
        played = self.assert_tone(heard, 620, seconds=3.0)
        self.assert_near(played.level_db(), -20, 1.0, "level (dB)")
        record = server.ended_call(context_id)
        self.assert_ended(record, "assistant_hangup")
        self.assert_near(record["audio_out_s"], 3.0, 0.05, "audio_out_s")
        self.assertEqual(self.dial_status(), "ANSWER 16")


class AudioSocketPageTests(LiveTestCase):
    """The page's dialplan for AudioSocket, as printed."""

    def test_tone_goes_both_ways(self) -> None:
        """A caller's tone comes back from the echo assistant."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.load_audiosocket_page(server)
        channel = self.call("100@rapida-inbound", "milliwatt")
        wait_until("the call is up", server.calls, 5)
        time.sleep(2)
        self.asterisk.hang_up(channel)

        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, TONE_HZ)
        (record,) = server.calls()
        self.assert_ended(server.ended_call(record["context_id"]), "caller_hangup")

    def test_dialled_with_16_khz(self) -> None:
        """The page's Dial() line brings 16 kHz: the tone comes back whole."""
        server = self.serve(f"{ASSISTANT_ID}=tests.live.assistants:RatedEcho")
        dial = from_page("audiosocket-dial", {}).strip()
        self.load_audiosocket_page(server, {"same => n,AudioSocket(${CTX},${RAPIDA_AS_HOST}:${RAPIDA_PORT})": dial})
        channel = self.call("100@rapida-inbound", "milliwatt")
        wait_until("the call is up", server.calls, 5)
        time.sleep(3)
        self.asterisk.hang_up(channel)

        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, TONE_HZ)
        (record,) = server.calls()
        ended = server.ended_call(record["context_id"])
        self.assert_ended(ended, "caller_hangup")
        self.assertEqual(ended["detail"], "heard at 16000 Hz")


class FormTests(WebSocketTestCase):
    """What the dial string may say otherwise."""

    def test_formats_and_control_forms(self) -> None:
        """ulaw and slin16, plain-text and JSON control: in all four the caller's tone comes back, a digit arrives."""
        server = self.serve(f"{ASSISTANT_ID}=tests.live.assistants:EchoUntilDigit")
        options = ("c(ulaw)", "c(slin16)", "c(ulaw)f(json)", "c(slin16)f(json)")
        self.connect(server, *(DIAL_LINE.replace("c(ulaw)", option) for option in options))
        speech = self.speech(TONE_HZ, 4.0)
        steps = {"SPEECH": speech, "DIGITS": "5", "SPEECH_AFTER": speech}
        for number in range(1, 5):
            self.call(f"10{number}@rapida-inbound-ws{number}", "presser", f"call{number}", **steps)
        ids = {server.call(context_id)["called"]: context_id for context_id in self.contexts(4)}
        records = [server.ended_call(ids[f"10{number}"], timeout_s=10) for number in range(1, 5)]

        for number, record in enumerate(records, 1):
            self.assert_ended(record, "assistant_hangup")
            self.assert_near(record["audio_in_s"], 4.2, 0.5, f"audio_in_s of call {number}")
        # Only the JSON form tells the channel's variables.
        told = dict(re.findall(r"(10\d) was told (.*)", server.log()))
        has_variables = ["DIALEDPEERNUMBER" in told[f"10{number}"] for number in range(1, 5)]
        self.assertEqual(has_variables, [False, False, True, True])
        for heard in self.recordings(*(f"call{number}-heard" for number in range(1, 5))):
            came_back = self.assert_tone(heard, TONE_HZ)
            self.assert_near(came_back.level_db(), -15, 1.0, "level (dB)")
            self.assertGreater(came_back.seconds, 3.0)

    def test_context_in_the_path(self) -> None:
        """The address of Rapida's page, with the contextId as its last part, works as well as the one in the query."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.connect(server, "Dial(WebSocket/rapida/c(ulaw)v(x-api-key=${RAPIDA_API_KEY}),,g)")
        context_id = server.register(ASSISTANT_ID, caller="7")
        host = f"127.0.0.1:{server.http_port}"
        values = {"127.0.0.1:8080": host, "/asterisk/ctx": f"/asterisk/ctx/{context_id}"}
        self.clients(from_page("websocket-client-conf", values))
        channel = self.call("100@rapida-inbound-ws1", "milliwatt")
        self.asterisk.wait_for_log("WebSocket/rapida/0x[0-9a-f]+ answered", self.mark)
        time.sleep(2)
        self.asterisk.hang_up(channel)

        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, TONE_HZ)
        self.assert_ended(server.ended_call(context_id), "caller_hangup")


class KeyTests(WebSocketTestCase):
    """Where the API key may stand."""

    def test_key_as_password(self) -> None:
        """The key as the password of websocket_client.conf: it stands in no dialplan line of the media."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.connect(server, from_page("websocket-dial-password", {}).strip())
        host = f"127.0.0.1:{server.http_port}"
        values = {"127.0.0.1:8080": host, "rpd-xxx-your-api-key": API_KEY}
        self.clients(from_page("websocket-client-conf-password", values))
        channel = self.call("100@rapida-inbound-ws1", "milliwatt")
        (context_id,) = self.contexts()
        time.sleep(2)
        self.asterisk.hang_up(channel)

        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, TONE_HZ)
        self.assert_ended(server.ended_call(context_id), "caller_hangup")

    def test_key_in_a_header(self) -> None:
        """Clients other than Asterisk may say the key as x-api-key or as a bearer token; a wrong one is refused."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        for header, status in (
            (f"x-api-key: {API_KEY}", 101),
            (f"Authorization: Bearer {API_KEY}", 101),
            ("x-api-key: rpd-live-wrong-key", 401),
            ("Authorization: Bearer rpd-live-wrong-key", 401),
            ("Accept: */*", 401),
        ):
            context_id = server.register(ASSISTANT_ID)
            path = f"/v1/talk/asterisk/ctx/{context_id}"
            self.assertEqual(handshake_status(server.http_port, path, header), status, header)
            # Taken, and closed before anything was said.
            self.assertEqual(server.call(context_id)["status"], "failed" if status == 101 else "pending", header)


class RefusalTests(WebSocketTestCase):
    """A call that the server does not take: the caller hears the error prompt."""

    def test_bad_key_at_registration(self) -> None:
        """With a wrong API key there is no contextId, and nothing is dialled."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.connect(server, api_key="rpd-live-wrong-key")
        self.call(NUMBER, "recorder")
        self.asterisk.wait_for_log(ERROR_BRANCH, self.mark)
        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, PROMPT_HZ, seconds=2.0)
        self.assert_log_lacks(DIAL)
        self.assertEqual(server.calls(), [])

    def test_refused_by_the_media_page(self) -> None:
        """Wrong key, no key, unknown, expired and claimed context, no server: the dial fails, the prompt is heard."""
        server = self.serve(f"{ASSISTANT_ID}=echo", options=("--context-ttl-s", "1"))
        again = "Dial(WebSocket/rapida/c(ulaw)v(contextId=%s,x-api-key=${RAPIDA_API_KEY}),,g)"
        variants = {
            "wrong key": DIAL_LINE.replace("${RAPIDA_API_KEY}", "rpd-live-wrong-key"),
            "no key": DIAL_LINE.replace(",x-api-key=${RAPIDA_API_KEY}", ""),
            "unknown context": again % "12345678-1234-4321-8765-123456789012",
            "no context": DIAL_LINE.replace("contextId=${CTX},", ""),
            "expired context": again % server.register(ASSISTANT_ID),
            "claimed context": again % self.claimed(server),
            "no server": DIAL_LINE.replace("/rapida/", "/nobody/"),
        }
        time.sleep(1.1)
        self.connect(server, *variants.values())
        self.add_client("nobody", f"ws://127.0.0.1:{free_port()}/v1/talk/asterisk/ctx")
        for number in range(1, 1 + len(variants)):
            self.call(f"100@rapida-inbound-ws{number}", "recorder", f"call{number}")
        for number, (what, heard) in enumerate(
            zip(variants, self.recordings(*(f"call{number}-heard" for number in range(1, 8))), strict=True), 1
        ):
            with self.subTest(what):
                self.assert_tone(heard, PROMPT_HZ, seconds=2.0)
                self.assertEqual(self.dial_status(f"rapida-inbound-ws{number}"), "CHANUNAVAIL 3")

    def claimed(self, server: Server) -> str:
        """A context that some other connection took."""
        context_id = server.register(ASSISTANT_ID)
        path = f"/v1/talk/asterisk/ctx/{context_id}"
        self.assertEqual(handshake_status(server.http_port, path, f"x-api-key: {API_KEY}"), 101)
        return context_id


class TlsTests(WebSocketTestCase):
    """wss, without a proxy in front."""

    def test_certificate_of_ones_own_authority(self) -> None:
        """Registration and media over TLS, Asterisk checking the certificate against the authority that it was told."""
        server = self.serve_tls("127.0.0.1")
        channel = self.call(NUMBER, "milliwatt")
        (context_id,) = self.contexts()
        time.sleep(2)
        self.asterisk.hang_up(channel)

        (heard,) = self.recordings("call-heard")
        self.assert_tone(heard, TONE_HZ)
        self.assert_ended(server.ended_call(context_id), "caller_hangup")

    def test_commands_are_heard_at_once(self) -> None:
        """Asterisk heeds a mark and a flush without waiting for more: speech ends, and is cut, as without TLS."""
        file = self.directory / "played.wav"
        # Its end and the mark behind it leave together.
        Recording.tone(620, 2.03).save(file)
        self.serve_tls("127.0.0.1", f"{ASSISTANT_ID}=play:{file}")
        self.call(NUMBER, "recorder", "played")
        # The server's next ping, which would bring the mark along, comes after 10 s.
        self.asterisk.wait_for_log(f"NoOp.*{SAW} ANSWER 16", self.mark, timeout_s=5)
        self.assert_tone(self.recordings("played-heard")[0], 620, seconds=2.03)

        self.serve_tls("127.0.0.1", INTERRUPTED)
        self.call_and_press("pressed")
        time.sleep(5)
        self.asterisk.hang_up_all()
        self.asterisk.wait_for_log(self.recorded, self.mark, count=2)
        self.assert_interrupted("pressed")

    def test_certificate_that_is_not_trusted(self) -> None:
        """A certificate of another name, or of another authority, is not taken: the caller hears the error prompt."""
        server = self.serve_tls("another-host")
        Authority(self.asterisk.directory / "etc/stranger")
        self.clients(self._clients + self._clients.replace("rapida]", "stranger]").replace("rapida-ca", "stranger/ca"))
        for dialled in ("rapida", "stranger"):
            self.load(self._dialplan.replace("WebSocket/rapida/", f"WebSocket/{dialled}/"))
            self.call(NUMBER, "recorder", dialled)
            self.asterisk.wait_for_log(f"WebSocket connection failed to {dialled}/", self.mark)
        self.asterisk.wait_for_log(r'Playback\("[^"]+", "an-error-has-occurred"', self.mark, count=2)
        self.assertEqual([call["status"] for call in server.calls()], ["pending"] * 2)

    def serve_tls(self, common_name: str, assistant: str = f"{ASSISTANT_ID}=echo") -> Server:
        """A server with a certificate, and the page's files with what Asterisk needs for it."""
        authority = Authority(self.directory / "tls")
        authority.certify(common_name)
        port = free_port()
        server = self.serve(assistant, options=("--https", authority.endpoint(port)), name=f"server{port}")
        authority_file = self.asterisk.directory / "etc/rapida-ca.pem"
        authority_file.write_bytes(authority.authority.read_bytes())
        values = {"/etc/asterisk/rapida": f"{self.asterisk.inside}/etc/rapida"}
        media = {**values, "your-hostname": f"127.0.0.1:{server.wss_port or port}"}
        self.clients(from_page("websocket-client-conf-tls", media))
        values["your-hostname"] = f"127.0.0.1:{port}"
        values |= {"rpd-xxx-your-api-key": API_KEY, "123456789": ASSISTANT_ID}
        self._dialplan = from_page("websocket-dialplan-tls", values) + STATUS
        self.load(self._dialplan)
        return server


class DigitTests(WebSocketTestCase):
    """Digits, and what they interrupt."""

    def test_digits_reach_the_assistant(self) -> None:
        """The greeter answers a phone's digit with that digit's tones; # ends the call and the dialplan goes on."""
        server = self.serve(f"{ASSISTANT_ID}=greeter")
        self.connect(server)
        steps = [sipp.pause(2), sipp.press("1"), sipp.pause(2), sipp.press("#")]
        phone = sipp.Sipp(self.asterisk, sipp.scenario(*steps, hangs_up=False))
        (context_id,) = self.contexts()
        phone.wait(25)

        self.asterisk.wait_for_log(WENT_ON, self.mark)
        (heard,) = self.recordings("phone-heard")
        self.assertGreaterEqual(heard.part(1.5).digit_s(697, 1209), 0.08, "length of the digit's tones (s)")
        self.assert_ended(server.ended_call(context_id), "assistant_hangup")

    def test_barge_in(self) -> None:
        """A digit in the middle of 10 s of speech: within 100 ms the caller hears silence, however far ahead we are."""
        for lead in ("200", "10000"):
            self.connect(self.serve(INTERRUPTED, options=("--websocket-lead-ms", lead), name=lead))
            self.call_and_press(lead)
        time.sleep(5.5)
        self.asterisk.hang_up_all()
        for lead in ("200", "10000"):
            self.assert_interrupted(lead)


class EndTests(WebSocketTestCase):
    """Ends that nobody in the call asked for, and one that nobody should."""

    def test_sigterm_lets_the_dialplan_go_on(self) -> None:
        """SIGTERM gives a call the drain time, then hangs it up: the dialplan goes on, and the exit code is 0."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.connect(server)
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
        self.assertEqual(self.dial_status(), "ANSWER 16")
        server.start()
        self.assert_ended(server.call(context_id), "shutdown")

    def test_silent_phone_keeps_its_call(self) -> None:
        """A phone that sends nothing at all for 10 s, to an assistant that says nothing, keeps its call."""
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.connect(server)
        # It fails when Asterisk hangs up before the phone does.
        phone = sipp.Sipp(self.asterisk, sipp.scenario(sipp.pause(10)))
        (context_id,) = self.contexts()
        began = time.monotonic()
        phone.wait(20)

        self.assertGreater(time.monotonic() - began, 9)
        record = server.ended_call(context_id)
        self.assert_ended(record, "caller_hangup")
        self.assertEqual((record["audio_in_s"], record["audio_out_s"]), (0, 0))


class LoadTests(WebSocketTestCase):
    """Much at once, and much of it."""

    def test_twenty_calls_at_once(self) -> None:
        """Of twenty calls at once, each hears its own caller's tone and no other, without gaps."""
        count = 20
        server = self.serve(f"{ASSISTANT_ID}=echo")
        self.connect(server)
        frequencies = [400 + 60 * number for number in range(count)]
        channels = [self.call(NUMBER, "speaker", f"call{frequency}", TONE=str(frequency)) for frequency in frequencies]
        context_ids = self.contexts(count)
        time.sleep(5)
        self.assertEqual([call["status"] for call in server.calls()], ["claimed"] * count)
        for channel in channels:
            self.asterisk.hang_up(channel)

        recordings = self.recordings(*(f"call{frequency}-heard" for frequency in frequencies))
        for frequency, heard in zip(frequencies, recordings, strict=True):
            came_back = self.assert_tone(heard, frequency)
            self.assertGreater(came_back.seconds, 4.0)
            self.assert_near(came_back.level_db(), TONE_DB, 1.0, "level (dB)")
        for context_id in context_ids:
            record = server.ended_call(context_id)
            self.assert_ended(record, "caller_hangup")
            self.assertGreater(record["audio_in_s"], 4.7)
            self.assertGreater(record["audio_out_s"], 4.5)

    def test_nothing_of_a_long_speech_is_lost(self) -> None:
        """60 s said at once with the usual lead, with the longest, and 30 s held back by Asterisk's own XOFF."""
        rule = f"{ASSISTANT_ID}=tests.live.assistants:LongSpeech"
        short = self.serve(rule, options=("--websocket-lead-ms", "200"), name="short")
        long = self.serve(rule, options=("--websocket-lead-ms", "10000"), name="long")
        ahead_port, ahead = self.far_ahead(30)
        held_back = DIAL_LINE.replace("/rapida/", "/ahead/")
        self.connect(short, held_back)
        self.add_client("ahead", f"ws://127.0.0.1:{ahead_port}/v1/talk/asterisk/ctx")
        self.call("60@rapida-inbound-ws", "recorder", "short")
        self.call("30@rapida-inbound-ws1", "recorder", "ahead")
        # The next server's values take their place.
        self.contexts(2)
        self.connect(long, held_back)
        self.call("60@rapida-inbound-ws", "recorder", "long")

        self.asterisk.wait_for_log(WENT_ON, self.mark, timeout_s=75, count=3)
        for name, seconds in (("short", 60), ("long", 60), ("ahead", 30)):
            (heard,) = self.recordings(f"{name}-heard")
            self.assertEqual(losses(noise(seconds), heard), [], name)
        for server in (short, long):
            (record,) = (call for call in server.calls() if call["called"] == "60")
            self.assert_ended(record, "assistant_hangup")
            self.assertEqual(record["audio_out_s"], 60)
        told = [json.loads(line) for line in ahead.read_text().splitlines()]
        whats = [line["what"] for line in told]
        self.assertEqual((whats[:2], whats[-2:]), (["listening", "xoff"], ["sent", "played"]), told)
        # Asterisk said stop when 18 s of the 30 waited there; what was under way meanwhile still fits into its queue.
        self.assertTrue(10.5 < told[1]["left_s"] <= 12.0, told)
        self.assertGreater(whats.count("xon"), 3)

    def far_ahead(self, seconds: float) -> tuple[int, Path]:
        """An application that sends as fast as it may; gives its port, and the file of what it tells."""
        port = free_port()
        output = self.start_program("-m", "tests.live.far_ahead", str(port), str(seconds))
        wait_until("the application listens", lambda: "listening" in output.read_text(), 10)
        return port, output


class IncomingTests(WebSocketTestCase):
    """WebSocket/INCOMING: a channel that waits in Asterisk until the application connects to it."""

    def test_application_connects_to_asterisk(self) -> None:
        """The page's requests and its example: the caller hears his echo; # ends the channel, not the caller's."""
        self.load("")
        application = self.asterisk.keep_application("rapida")
        self.addCleanup(application.close)
        self.addCleanup(self.end_calls)
        speech = self.speech(TONE_HZ, 3.0)
        steps = {"RECORDING": f"{self.asterisk.inside}/recordings/call", "SPEECH": speech, "DIGITS": "#"}
        # It runs its dialplan at the one end, and is in the application's hands at the other.
        query = {"endpoint": "Local/presser@talker", "app": "rapida", "formats": "slin"}
        caller = self.asterisk.ari("POST", "channels", {"variables": {**steps, "SPEECH_AFTER": speech}}, **query)["id"]

        make, bridge, join = (line.split("?") for line in from_page("incoming-requests", {}).splitlines())
        made = self.request(*make)
        url = f"ws://127.0.0.1:{self.asterisk.http_port}/media/{made['channelvars']['MEDIA_WEBSOCKET_CONNECTION_ID']}"
        output = self.start_program(str(REPOSITORY / "docs/examples/asterisk_incoming.py"), url)
        wait_until("the call is up", lambda: f"the call is up: {made['id']}" in output.read_text(), 10)
        bridge_id = self.request(*bridge)["id"]
        self.addCleanup(self.asterisk.ari, "DELETE", f"bridges/{bridge_id}")
        self.request(*join, BRIDGE=bridge_id, CHANNELS=f"{caller},{made['id']}")

        wait_until("the program hung up", lambda: "hung up" in output.read_text(), 10)
        left = [caller]
        wait_until("it left", lambda: self.asterisk.ari("GET", f"bridges/{bridge_id}")["channels"] == left, 5)
        self.asterisk.hang_up_all()
        (heard,) = self.recordings("call-heard")
        self.assertGreater(self.assert_tone(heard, TONE_HZ).seconds, 1.5)

    def test_dialplan_waits_for_the_application(self) -> None:
        """The page's lines without ARI: the dialplan tells the application the connection's id, and waits for it."""
        with socket.create_server(("127.0.0.1", 0)) as told:
            told.settimeout(10)
            self.load(from_page("incoming-dialplan", {"127.0.0.1:9090": f"127.0.0.1:{told.getsockname()[1]}"}))
            self.addCleanup(self.end_calls)
            channel = self.call("100@rapida-incoming", "milliwatt")
            with told.accept()[0] as question:
                connection_id = question.recv(4096).split()[1].rpartition(b"=")[2].decode()
                question.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        url = f"ws://127.0.0.1:{self.asterisk.http_port}/media/{connection_id}"
        self.start_program(str(REPOSITORY / "docs/examples/asterisk_incoming.py"), url)
        self.asterisk.wait_for_log("WebSocket/INCOMING/0x[0-9a-f]+ answered", self.mark)
        time.sleep(2)
        self.asterisk.hang_up(channel)

        (heard,) = self.recordings("call-heard")
        self.assertGreater(self.assert_tone(heard, TONE_HZ).seconds, 1.2)

    def request(self, path: str, query: str, **words: str) -> Any:
        """One of the page's requests, with ids in the places of capitals."""
        for name, word in words.items():
            path, query = path.replace(name, word), query.replace(name, word)
        method, _, path = path.partition(" /ari/")
        return self.asterisk.ari(method, path, **dict(parse_qsl(query)))
