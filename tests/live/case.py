"""What every test on the real Asterisk begins with: a server, a dialplan, callers, and their recordings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.harness.server import API_KEY, Server
from benchmarks.harness.waiting import wait_until
from tests.live.asterisk import shared_asterisk
from tests.live.nodes import live_server
from tests.live.recordings import FLOOR_DB, Recording
from tests.support.blocks import named_block

__all__ = ["ASSISTANT_ID", "PROMPT_HZ", "TONE_DB", "TONE_HZ", "LiveTestCase", "from_page"]

ASSISTANT_ID = "123456789"
TONE_HZ = 1004.0
TONE_DB = -16.1
"""What PlayTones() plays: a sine with the amplitude 7219 (``indications.c``: ``ast_playtones_start()``)."""
PROMPT_HZ = 700.0
"""What stands for the prompt an-error-has-occurred, which is not in every collection of prompts."""

# The calling side: "talker" of calls without a phone, "from-phone" of SIP phones. All record what the caller hears, but
# for the phone that calls 200; a presser and the phone that calls 100 also what the caller says.
CALLERS = """
[talker]
exten => milliwatt,1,Set(TONE=1004)
 same => n,Goto(speaker,1)
exten => speaker,1,Answer()
 same => n,PlayTones(${TONE})
 same => n,Goto(recorder,1)
; On a busy machine MixMonitor() drops audio that its thread is late for (audiohook.c: ast_audiohook_write_frame()).
; Record() runs in the channel's own thread, and writes all that the channel reads.
exten => recorder,1,Answer()
 same => n,Set(RECORDS=yes)
 same => n,Record(${RECORDING}-heard.wav,0,90,kqx)
exten => h,1,NoOp(${IF($["${RECORDS}" = "yes"]?End Record of ${RECORDING}:)})
exten => presser,1,Answer()
 same => n,MixMonitor(${RECORDING}-mix.wav,r(${RECORDING}-heard.wav)t(${RECORDING}-said.wav))
 same => n,Playback(${SPEECH})
 same => n,SendDTMF(${DIGITS},1,100)
 same => n,Playback(${SPEECH_AFTER})
 same => n,Wait(60)

[from-phone]
exten => 100,1,MixMonitor(RECORDINGS/phone-mix.wav,r(RECORDINGS/phone-said.wav)t(RECORDINGS/phone-heard.wav))
 same => n,Goto(CONTEXT,${EXTEN},1)
exten => 200,1,Goto(CONTEXT,${EXTEN},1)
"""


def from_page(name: str, values: Mapping[str, str]) -> str:
    """A block of the page "Connect your Asterisk", with other values in it and nothing else changed.

    :param values: what stands in the place of what the page prints; each must be there.
    """
    text = named_block("asterisk.rst", name)
    for printed, wanted in values.items():
        if printed not in text:
            raise ValueError(f"the page's {name} has no {printed!r} any more")
        text = text.replace(printed, wanted)
    return text


class LiveTestCase(SynchronousTestCase):
    """One server for each test; one Asterisk for all, with the test's own dialplan."""

    asterisk_program = "asterisk"
    recorded = r"End MixMonitor Recording|NoOp\(.*End Record of"

    def setUp(self) -> None:
        """Have an Asterisk, and see only what it logs from now on."""
        self.asterisk = shared_asterisk(self.asterisk_program)
        self.mark = self.asterisk.log_mark()
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        prompts = self.asterisk.directory / "data/sounds/en"
        Recording.tone(PROMPT_HZ, 2.0).save(prompts / "an-error-has-occurred.wav")

    # Steps

    def serve(self, *assistants: str, options: tuple[str, ...] = (), name: str = "server") -> Server:
        """A running server with these assistants; it must end in order after the test."""
        server = live_server(self.directory / name, *assistants, options=["--drain-s", "2", *options])
        return self.run_server(server)

    def run_server(self, server: Server) -> Server:
        """Start a server that must end in order after the test."""
        server.start()
        self.addCleanup(server.stop)
        self.addCleanup(self.end_calls)
        return server

    def end_calls(self) -> None:
        """Leave no channel for the next test."""
        self.asterisk.hang_up_all()
        self.asterisk.wait_until_idle()

    def load(self, dialplan: str) -> None:
        """Load a dialplan, and those who call it; phones call its first context."""
        context = next(iter(re.findall(r"^\[(rapida-[\w-]+)\]", dialplan, re.MULTILINE)), "")
        callers = CALLERS.replace("RECORDINGS", f"{self.asterisk.inside}/recordings").replace("CONTEXT", context)
        self.asterisk.write_config("extensions.conf", f"[general]\nclearglobalvars = yes\n{dialplan}{callers}")
        self.asterisk.reload()

    def load_audiosocket_page(self, server: Server, values: Mapping[str, str] | None = None) -> None:
        """Load the page's dialplan for AudioSocket, with this server's addresses and key.

        :param values: what else stands in the place of what the page prints.
        """
        own = {
            "127.0.0.1:8080": f"127.0.0.1:{server.http_port}",
            "4573": str(server.audiosocket_port),
            "rpd-xxx-your-api-key": API_KEY,
            "123456789": ASSISTANT_ID,
        }
        self.load(from_page("audiosocket-dialplan", {**own, **(values or {})}))

    def call(self, number: str, talker: str, recording: str = "call", caller: str = "", **variables: str) -> str:
        """Place a call without a phone; gives its channel.

        :param number: such as ``100@rapida-inbound``.
        """
        return self.asterisk.originate(
            f"Local/{number}",
            f"{talker}@talker",
            caller=caller,
            RECORDING=f"{self.asterisk.inside}/recordings/{recording}",
            **variables,
        )

    def speech(self, frequency_hz: float, seconds: float) -> str:
        """The name of a file with a tone (0 Hz: silence), for SPEECH."""
        name = f"{frequency_hz:g}Hz{seconds:g}s"
        level_db = -15.0 if frequency_hz else FLOOR_DB
        Recording.tone(frequency_hz, seconds, level_db).save(self.asterisk.directory / f"recordings/{name}.wav")
        return f"{self.asterisk.inside}/recordings/{name}"

    def recordings(self, *names: str) -> list[Recording]:
        """Recordings by name, when all are complete; a copy of each stays with the test."""
        count = len({name.rpartition("-")[0] for name in names})
        self.asterisk.wait_for_log(self.recorded, self.mark, count=count)
        made = []
        for name in names:
            recorded = self.asterisk.directory / f"recordings/{name}.wav"
            # The log does not tell whose recording has ended.
            wait_until(f"{recorded.name} is complete", partial(Recording.is_complete, recorded), timeout_s=10)
            kept = self.directory / recorded.name
            kept.write_bytes(recorded.read_bytes())
            made.append(Recording.load(kept))
        return made

    # Claims

    def assert_near(self, measured: float, expected: float, tolerance: float, what: str) -> None:
        """A measured value is the expected one, but for a tolerance."""
        self.assertLessEqual(abs(measured - expected), tolerance, f"{what}: {measured:.3f}, expected {expected:.3f}")

    def assert_tone(
        self, heard: Recording, frequency_hz: float, seconds: float | None = None, missing_s: float = 0.0
    ) -> Recording:
        """From its first sound to its last it is one tone without gaps; gives that stretch, but for its edges.

        :param missing_s: how long all gaps may be, where a program on the way may miss its time on a busy machine.
        """
        begin, end = heard.first_sound_s(), heard.last_sound_s()
        if begin is None or end is None:
            self.fail("nothing was heard")
        steady = heard.part(begin + 0.3, end - 0.05)
        self.assertGreater(steady.seconds, 1.0)
        self.assert_near(steady.dominant_hz(), frequency_hz, 1.0, "frequency (Hz)")
        gaps = steady.gaps(longer_than_s=0.040)
        self.assertLessEqual(sum(length for _, length in gaps), missing_s, f"gaps (begin and length, s): {gaps}")
        if seconds is not None:
            self.assert_near(end - begin, seconds, 0.06, "length of the sound (s)")
        return steady

    def assert_log_lacks(self, pattern: str) -> None:
        """Asterisk did not log this since the test began."""
        found = re.search(pattern, self.asterisk.log_since(self.mark))
        self.assertIsNone(found, f"{pattern!r} is in Asterisk's log")

    def assert_ended(self, record: dict[str, Any], reason: str) -> None:
        """The server's record says that the call was completed, and why it ended."""
        self.assertEqual((record["status"], record["reason"]), ("completed", reason))
