"""An assistant that uses an asyncio library: it asks a WebSocket server what to do with the caller."""

from typing import ClassVar

import websockets

from rapida_twisted import Assistant, Call


class Dispatcher(Assistant):
    needs_asyncio = True
    url: ClassVar[str] = "ws://127.0.0.1:8765"

    async def answer(self, call: Call) -> None:
        try:
            extension = await call.run(self.ask(call))
        except (OSError, websockets.WebSocketException):
            extension = ""
        if extension:
            await call.transfer(f"PJSIP/{extension}")
        await call.hang_up()

    async def ask(self, call: Call) -> str:
        async with websockets.connect(self.url) as service:
            await service.send(call.context.caller)
            await call.play_tone(440, 200)
            return str(await service.recv())
