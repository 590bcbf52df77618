"""How much was heard: what the server counts, against what a real Asterisk recorded of it."""

from __future__ import annotations

import os
import re

import numpy as np
from twisted.logger import Logger

from benchmarks.harness.server import Server
from tests.live.assistants import CUT_PAUSE_MS
from tests.live.case import ASSISTANT_ID
from tests.live.recordings import Recording
from tests.live.test_websocket import WebSocketTestCase

CUTS = int(os.environ.get("HEARD_CUTS", "12"))
"""How often the speech is interrupted."""
LOUD = 0.02
PAUSE_S = 0.1
"""What is quiet for longer than this is a pause between two sounds."""


def sounds_ms(heard: Recording) -> list[float]:
    """The length of each sound in a recording."""
    loud = np.flatnonzero(np.abs(heard.samples) > LOUD)
    ends = np.flatnonzero(np.diff(loud) > PAUSE_S * heard.rate_hz)
    firsts, lasts = loud[np.concatenate(([0], ends + 1))], loud[np.concatenate((ends, [-1]))]
    return [float(length) for length in (lasts - firsts + 1) * 1000 / heard.rate_hz]


class HeardTests(WebSocketTestCase):
    """A speech that is interrupted at random moments."""

    _log = Logger()

    def assert_heard(self, server: Server, number: str, tolerance_ms: float) -> None:
        """Each time the server counted what Asterisk recorded."""
        self.call(f"{CUTS}@{number}", "recorder")
        self.asterisk.wait_for_log(r"NoOp\(.*End Record of", self.mark, timeout_s=30 + 2 * CUTS)
        (heard,) = self.recordings("call-heard")
        cuts = [
            (float(ms), float(rest)) for ms, rest in re.findall(r"heard ([\d.]+) ms, rest ([\d.]+) ms", server.log())
        ]
        recorded = sounds_ms(heard)
        self.assertEqual((len(cuts), len(recorded)), (CUTS, CUTS))
        self.assertEqual({ms + rest for ms, rest in cuts}, {2000.0})
        off = [ms - was for (ms, _), was in zip(cuts, recorded, strict=True)]
        self._log.info(
            "{number}: {cuts} cuts, counted less recorded: from {least:+.1f} to {most:+.1f} ms, mean {mean:+.1f} ms",
            number=number, cuts=CUTS, least=min(off), most=max(off), mean=sum(off) / len(off),
        )  # fmt: skip
        self.assertLessEqual(max(map(abs, off)), tolerance_ms, off)
        (in_all,) = re.findall(r"in all: heard ([\d.]+) ms", server.log())
        self.assert_near(float(in_all), sum(ms for ms, _ in cuts) + CUTS * CUT_PAUSE_MS, 0.5, "call.heard_ms")

    def test_audiosocket(self) -> None:
        """Over AudioSocket to 20 ms."""
        server = self.serve(f"{ASSISTANT_ID}=tests.live.assistants:CutOften")
        self.load_audiosocket_page(server)
        self.assert_heard(server, "rapida-inbound", 20.0)

    def test_websocket(self) -> None:
        """Over WebSocket to 40 ms."""
        server = self.serve(f"{ASSISTANT_ID}=tests.live.assistants:CutOften")
        self.connect(server)
        self.assert_heard(server, "rapida-inbound-ws", 40.0)
