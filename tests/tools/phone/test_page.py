"""The page of ``rapida-phone``: each of its lines is run against a server."""

from __future__ import annotations

import os
import subprocess
import wave
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from rapida_twisted.protocols.chan_websocket_app import MediaServerFactory
from rapida_twisted.server.build import RapidaMedia
from tests.support.twistd_program import BIN
from tests.tools.echo_server import API_KEY
from tests.tools.media_server import settings_of, stop
from tests.tools.phone.test_bare import Program
from tests.tools.phone.test_main import PhoneTestCase

slow = True  # starts processes: see tests/support/selection.py

PAGE = Path(__file__).parents[3] / "docs" / "phone.rst"


class PageTests(PhoneTestCase):
    async def test_every_line(self) -> None:
        """Every line does what the page says: it exits with 0."""
        lines = [line.strip() for line in PAGE.read_text().splitlines() if line.startswith("    ") and "rapida" in line]
        self.assertGreater(len(lines), 8)
        with wave.open("question.wav", "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(8000))
        media = RapidaMedia(settings_of(self.mktemp(), ASSISTANT="*=echo"), reactor=reactor)
        media.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(stop(media, reactor)))
        self.patch(self.server, "claim", Program.claim.__get__(self.server))
        port = reactor.listenTCP(0, MediaServerFactory(self.server, reactor), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        here = f" --http http://127.0.0.1:{media.http_port} --audiosocket 127.0.0.1:{media.audiosocket_port}"
        for line in lines:
            line = line.replace("127.0.0.1:9092", self.server.arguments[-1])
            line = line.replace("ws://127.0.0.1:9000/media", f"ws://127.0.0.1:{port.getHost().port}/ctx")
            if "bare" not in line and "completion" not in line:
                line += here
            if "completion" not in line:
                line += " --tolerate 50 --duration 1"
            environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "RAPIDA_API_KEY": API_KEY}
            done = await deferToThread(
                subprocess.run, ["/bin/bash", "-c", line], capture_output=True, text=True, timeout=60, env=environ
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""), f"{line}\n{done.stdout}")
