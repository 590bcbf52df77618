"""Programs that others wrote answer calls from a real Asterisk, behind the gateway, by one line of its command line.

What the page "Programs known to work" says of each is shown here.
"""

from __future__ import annotations

import re
import time
from typing import Any

from benchmarks.harness.server import API_KEY, Server
from rapida_twisted.asterisk.dialplan import (
    DialplanValues,
    audiosocket_dialplan,
    websocket_client_conf,
    websocket_dialplan,
)
from tests.live.case import ASSISTANT_ID, TONE_HZ, LiveTestCase
from tests.strangers.program import Program
from tests.support.blocks import named_block

AUDIOSOCKET, WEBSOCKET = "100@rapida-inbound", "100@rapida-inbound-ws"
DIALLED = r'(?:AudioSocket\("[^"]+", "|v\(contextId=)([0-9a-f-]{36})'
REGISTERED = ' same => n,GotoIf($["${CTX}" = ""]?error)\n'
"""After this line of the dialplan the call has a contextId."""
MISSING_S = 0.15
"""How much of an echo may be missing."""
GREETING_HZ, GREETING_S = 620, 3.0
"""What the voice of ``programs/asterisk_ai_voice_agent`` says."""


class ProgramsTests(LiveTestCase):
    """Each program once, over AudioSocket on Asterisk's side; the smallest one over WebSocket, too."""

    # Steps

    def start(self, name: str, block: str = "", websocket: bool = False) -> None:
        """Start a program, the gateway with the page's line for it, and the dialplan for both transports.

        :param block: the page's block if it has another name.
        :param websocket: whether the program's second port is used.
        """
        self.program = Program(name, self.directory / name)
        self.addCleanup(self.program.stop)
        self.program.start()
        line = named_block("programs.rst", block or name).strip()
        rule = line.removeprefix("script/serve --assistant '*=").removesuffix("'")
        port = self.program.websocket_port if websocket else self.program.port
        self.server = self.serve(f"{ASSISTANT_ID}={re.sub('127.0.0.1:[0-9]+', f'127.0.0.1:{port}', rule)}")
        self.load_dialplan(self.server)

    def load_dialplan(self, server: Server, more: str = "") -> None:
        """The dialplan that the server prints, for both transports.

        :param more: a line of it before the media.
        """
        values = DialplanValues(API_KEY, server.url, "127.0.0.1", server.audiosocket_port, ASSISTANT_ID)
        text = f"{audiosocket_dialplan(values)}\n[rapida-inbound-ws]"
        text += websocket_dialplan(values).partition("[rapida-inbound-ws]")[2]
        self.asterisk.write_config("websocket_client.conf", websocket_client_conf(values))
        self.asterisk.reload("res_websocket_client.so")
        self.load(text.replace(REGISTERED, REGISTERED + more))

    def record(self) -> dict[str, Any]:
        """The gateway's record of the one call, once it is over."""
        return self.server.ended_call(self.asterisk.wait_for_log(DIALLED, self.mark)[0][1])

    def hear_the_echo(self, number: str = AUDIOSOCKET) -> None:
        """A tone of 5 s comes back whole; the caller hangs up, and the program notices nothing bad."""
        channel = self.call(number, "milliwatt")
        self.asterisk.wait_for_log(DIALLED, self.mark)
        time.sleep(5)
        self.asterisk.hang_up(channel)
        (heard,) = self.recordings("call-heard")
        self.assertGreater(self.assert_tone(heard, TONE_HZ, missing_s=MISSING_S).seconds, 3.0)
        self.assert_ended(self.record(), "caller_hangup")

    # Tests

    def test_fastapi(self) -> None:
        """FastAPI's plain accept()."""
        self.start("fastapi")
        self.hear_the_echo()

    def test_fastapi_from_websocket(self) -> None:
        """The same, when Asterisk uses chan_websocket."""
        self.start("fastapi")
        self.hear_the_echo(WEBSOCKET)

    def test_websockets(self) -> None:
        """websockets.serve() without subprotocols."""
        self.start("websockets")
        self.hear_the_echo()

    def test_websockets_from_websocket(self) -> None:
        """The same, when Asterisk uses chan_websocket."""
        self.start("websockets")
        self.hear_the_echo(WEBSOCKET)

    def test_ws(self) -> None:
        """Node's ws."""
        self.start("ws")
        self.hear_the_echo()

    def test_pipecat_asterisk(self) -> None:
        """pipecat-asterisk: the sample of its README."""
        self.start("pipecat_asterisk")
        self.hear_the_echo()

    def test_galcymedia(self) -> None:
        """galcymedia: the sample of its README, which hangs up at a digit."""
        self.start("galcymedia")
        speech = self.speech(TONE_HZ, 3.0)
        self.call(AUDIOSOCKET, "presser", SPEECH=speech, DIGITS="5", SPEECH_AFTER=speech)
        record = self.record()
        heard, _ = self.recordings("call-heard", "call-said")
        self.assertGreater(self.assert_tone(heard, TONE_HZ, missing_s=MISSING_S).seconds, 2.0)
        self.assert_ended(record, "assistant_hangup")

    def test_asterisk_audiosocket(self) -> None:
        """npm's asterisk-audiosocket: the sample of its README. Its UUID is the contextId, and a digit would end it."""
        self.start("asterisk_audiosocket")
        speech = self.speech(TONE_HZ, 2.0)
        channel = self.call(AUDIOSOCKET, "presser", SPEECH=speech, DIGITS="5", SPEECH_AFTER=speech)
        self.asterisk.wait_for_log(DIALLED, self.mark)
        time.sleep(6)
        self.asterisk.hang_up(channel)
        heard, said = self.recordings("call-heard", "call-said")
        record = self.record()
        self.assert_ended(record, "caller_hangup")
        last_s, said_s = heard.last_sound_s(), said.last_sound_s()
        if last_s is None or said_s is None:
            self.fail("nothing was heard")
        self.assert_near(last_s, said_s, 0.3, "the end of what was heard after the digit (s)")
        self.assert_near(heard.part(last_s - 1.0, last_s - 0.1).dominant_hz(), TONE_HZ, 1.0, "frequency (Hz)")
        self.assertIn(f"call {record['context_id']}\nbye", self.program.log())

    def test_asterisk_ai_voice_agent(self) -> None:
        """asterisk-ai-voice-agent over AudioSocket: a line of the dialplan registers the contextId there."""
        self.hear_the_greeting("asterisk_ai_voice_agent", websocket=False)

    def test_asterisk_ai_voice_agent_over_websocket(self) -> None:
        """The same over WebSocket."""
        self.hear_the_greeting("asterisk_ai_voice_agent-websocket", websocket=True)

    def hear_the_greeting(self, block: str, *, websocket: bool) -> None:
        """The agent's greeting is heard whole, and the caller hangs up."""
        more = named_block("programs.rst", "asterisk_ai_voice_agent-dialplan")
        self.start("asterisk_ai_voice_agent", block, websocket)
        self.load_dialplan(self.server, more.replace("9091", str(self.program.register_port)))
        channel = self.call(AUDIOSOCKET, "recorder")
        self.asterisk.wait_for_log(DIALLED, self.mark)
        time.sleep(GREETING_S + 2)
        self.asterisk.hang_up(channel)
        (heard,) = self.recordings("call-heard")
        played = self.assert_tone(heard, GREETING_HZ, missing_s=MISSING_S)
        self.assertGreater(played.seconds, GREETING_S - 0.5)
        self.assert_ended(self.record(), "caller_hangup")
