"""asterisk-ai-voice-agent with its own command, and a voice on this machine: a tone in the place of ElevenLabs.

Nothing else is replaced. The models for speech and text are made, but not asked.
"""

import math
import os
import threading
from array import array
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from asterisk_ai_voice_agent import tts
from asterisk_ai_voice_agent.agent import cli

CONFIG = """\
listen: {{host: 127.0.0.1, audiosocket_port: {audiosocket}, register_port: {register}, websocket_port: {websocket}}}
providers:
  anthropic: {{api_key: none}}
  openai: {{api_key: none}}
  elevenlabs: {{api_key: none}}
"""
PERSONAS = """\
demo: {greeting: "Hello", tts_provider: elevenlabs, tts_voice_id: tone, interrupt_enabled: false}
"""
TONE_HZ, TONE_S, RATE_HZ = 620, 3, 16_000


class Voice(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        samples = (round(8000 * math.sin(2 * math.pi * TONE_HZ * at / RATE_HZ)) for at in range(TONE_S * RATE_HZ))
        body = array("h", samples).tobytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


voice = HTTPServer(("127.0.0.1", 0), Voice)
threading.Thread(target=voice.serve_forever, daemon=True).start()
tts.ELEVEN_URL_TMPL = f"http://127.0.0.1:{voice.server_port}/{{voice_id}}"
names = {"audiosocket": "PORT", "register": "REGISTER_PORT", "websocket": "WEBSOCKET_PORT"}
ports = {key: os.environ[name] for key, name in names.items()}
Path("config.yaml").write_text(CONFIG.format(**ports))
Path("personas.yaml").write_text(PERSONAS)
cli()
