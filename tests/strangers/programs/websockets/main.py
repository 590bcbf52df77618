"""websockets.serve() without subprotocols: an echo that reads no control message."""

import asyncio
import os

from websockets.asyncio.server import serve


async def echo(websocket):
    async for message in websocket:
        if isinstance(message, bytes):
            await websocket.send(message)


async def main():
    async with serve(echo, "127.0.0.1", int(os.environ["PORT"])) as server:
        await server.serve_forever()


asyncio.run(main())
