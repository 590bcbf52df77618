"""The sample of galcymedia's README: an echo. Its port is an argument, and a digit hangs up."""

import asyncio
import os

from galcymedia import serve


class MyAgent:
    def __init__(self, session):
        self.session = session

    async def start(self):
        pass

    async def send_audio(self, chunk):
        await self.session.send_audio(chunk)

    async def on_dtmf(self, digit):
        await self.session.hangup()

    async def close(self):
        pass


asyncio.run(serve(MyAgent, port=int(os.environ["PORT"]), forward_dtmf=True))
