"""A test of an assistant that uses an asyncio library: with a server of that library, in asyncio's own time."""

import asyncio
import unittest

import websockets
from asyncio_bot import Dispatcher

from rapida_twisted import FakeCall


async def choose(service: websockets.ServerConnection) -> None:
    caller = await service.recv()
    await service.send("200" if caller == "+4930123456" else "")


class DispatcherTests(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        server = await websockets.serve(choose, "127.0.0.1", 0)
        self.addAsyncCleanup(server.wait_closed)
        self.addCleanup(server.close)
        Dispatcher.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def dispatch(self, caller: str) -> FakeCall:
        call = FakeCall(Dispatcher(), caller=caller)
        call.start()
        async with asyncio.timeout(5):
            while not call.hung_up:
                await asyncio.sleep(0.01)  # for what asyncio does
                call.advance(0.02)  # for what the call does
        return call

    async def test_known_caller(self) -> None:
        call = await self.dispatch("+4930123456")
        self.assertEqual(call.transferred_to, "PJSIP/200")

    async def test_unknown_caller(self) -> None:
        call = await self.dispatch("+4930999999")
        self.assertIsNone(call.transferred_to)
