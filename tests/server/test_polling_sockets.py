"""A whole server whose clock reads the connections: on real sockets, with changes in the middle of calls."""

from __future__ import annotations

import socket
import struct
from array import array
from typing import Any
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import LoopingCall, deferLater

from rapida_twisted.protocols.frame_writer import READ_BYTES
from tests.bridge.chain import HOST, ChainTestCase, Phone
from tests.protocols.websockets import until
from tests.tools.media_server import Heard

slow = True  # real audio in real time: see tests/support/selection.py

HEARD = "*=tests.tools.media_server:Heard"


def numbered(number: int) -> bytes:
    """A frame that tells its number, in each of its samples."""
    return array("h", [number] * 160).tobytes()


def numbers(heard: bytes) -> list[int]:
    """The numbers of frames, silence left out."""
    return [frame for frame in array("h", heard)[::160] if frame]


class Counting(Phone):
    """Sends numbered frames."""

    def __init__(self, context_id: UUID, most: int = 1000) -> None:
        super().__init__(context_id, b"")
        self.sent = 0
        self._most = most
        self._talking = LoopingCall(self._say)

    def _say(self) -> None:
        if self.sent < self._most:
            self.sent += 1
            self.send_audio(numbered(self.sent))


class PollingTests(ChainTestCase):
    """The near server of a chain that has no far one."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(Heard, "made", [])

    async def phone(self, most: int = 1000) -> Counting:
        """A call that is up."""
        status, context_id, said = await self.register()
        self.assertEqual(status, 200, said)
        phone = Counting(UUID(context_id), most)
        await connectProtocol(TCP4ClientEndpoint(reactor, HOST, self.near.audiosocket_port), phone)
        self.addCleanup(self._hang_up, phone)
        return phone

    def serve(self, polling: str) -> None:
        """The server."""
        self.near_server(HEARD, media_polling=polling)

    async def test_changes_in_the_middle(self) -> None:
        """The way of reading changes thirty times in the middle of ten calls: nothing is lost, doubled or misplaced."""
        self.serve("events")
        clock = self.near.components.clock
        phones = [await self.phone(most=100) for _ in range(10)]
        for number in range(60):
            await deferLater(reactor, 0.037)
            if number % 2:
                clock.set_polling(not clock.polling)
            self.assertEqual(clock.polled, len(clock) if clock.polling else 0)
        for phone in phones:
            await until(lambda phone=phone: len(numbers(phone.heard)) >= 100)
            self.assertEqual(numbers(phone.heard), list(range(1, 101)))
        self.assertEqual([numbers(made.heard) for made in Heard.made], [list(range(1, 101))] * 10)

    async def test_keys_and_hangup(self) -> None:
        """Keys arrive, and the caller's hangup ends the call at once."""
        self.serve("polling")
        phone = await self.phone()
        await until(lambda: len(phone.heard) > 3200)
        self.assertEqual((self.near.components.clock.polled, self.near.components.clock.polling), (1, True))
        phone.send_digit("5")
        await until(lambda: Heard.made[0].digits == "5")
        phone.hang_up()
        await until(lambda: Heard.made[0].ended)
        self.assertEqual([str(reason) for reason in Heard.made[0].ended], ["caller_hangup"])
        self.assertEqual(len(self.near.components.clock), 0)

    async def ends(self, how: Any) -> dict[str, Any]:
        """A polled call whose peer ends like this; its record."""
        self.serve("polling")
        phone = await self.phone()
        await until(lambda: len(phone.heard) > 3200)
        how(phone)
        record: dict[str, Any] = await self.ended(phone)
        self.assertEqual(len(self.near.components.clock), 0)
        self.assertEqual(self.flushLoggedErrors(), [])
        return record

    async def test_end_of_stream(self) -> None:
        """A peer that closes without a word."""
        record = await self.ends(lambda phone: phone.transport.loseConnection())
        self.assertEqual(record["reason"], "caller_hangup")

    async def test_half_close(self) -> None:
        """A peer that will send nothing more."""
        record = await self.ends(lambda phone: phone.transport.getHandle().shutdown(socket.SHUT_WR))
        self.assertEqual(record["reason"], "caller_hangup")

    async def test_reset(self) -> None:
        """A peer that resets the connection."""

        def reset(phone: Counting) -> None:
            phone.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            phone.transport.abortConnection()

        record = await self.ends(reset)
        self.assertIn(record["reason"], ("caller_hangup", "connection_lost"))

    async def test_garbage(self) -> None:
        """A peer that breaks the protocol gets its hangup frame."""
        record = await self.ends(lambda phone: phone.transport.write(b"\x77\xff\xff" * 400))
        self.assertEqual(record["reason"], "protocol_error")

    async def test_assistant_that_fails(self) -> None:
        """An assistant that raises in what it hears ends its own call only."""
        self.near_server("1=tests.server.test_polling_sockets:Failing", HEARD, media_polling="polling")
        status, context_id, _ = await self.register("1")
        failing, other = Counting(UUID(context_id)), await self.phone()
        await connectProtocol(TCP4ClientEndpoint(reactor, HOST, self.near.audiosocket_port), failing)
        record = await self.ended(failing)
        self.assertEqual((status, record["reason"]), (200, "assistant_failed"))
        heard = len(other.heard)
        await until(lambda: len(other.heard) > heard + 3200)
        self.flushLoggedErrors()

    async def test_burst(self) -> None:
        """Half a second at once, as after a hold-up of the network, is read at once, and none of it is lost."""
        self.serve("polling")
        phone = await self.phone(most=0)
        await until(lambda: Heard.made)
        phone.transport.write(b"".join(b"\x10\x01\x40" + numbered(number) for number in range(1, 26)))
        await until(lambda: len(Heard.made[0].heard) >= 25 * 320)
        self.assertEqual(numbers(Heard.made[0].heard), list(range(1, 26)))

    async def test_flood(self) -> None:
        """Who sends much faster than he speaks is read at a bounded rate: the rest waits in his own socket."""
        self.serve("polling")
        phone, other = await self.phone(most=0), await self.phone()
        await until(lambda: len(Heard.made) == 2)
        frame = b"\x10\x01\x40" + numbered(7)
        flood = LoopingCall(lambda: phone.transport.write(frame * 200))
        flood.start(0.005).addErrback(lambda failure: None)
        self.addCleanup(lambda: flood.running and flood.stop())
        await deferLater(reactor, 1.0)
        heard = next(made for made in Heard.made if str(made.context.context_id) == str(phone.call))
        # Four reads a turn, 50 turns a second, and those of the slots in which it listens.
        self.assertLess(len(heard.heard), 5 * 4 * 55 * READ_BYTES)
        flood.stop()
        before = len(other.heard)
        await until(lambda: len(other.heard) > before + 3200)
        phone.transport.abortConnection()

    async def test_stopping(self) -> None:
        """A server that stops hangs its polled calls up."""
        self.serve("polling")
        phone = await self.phone()
        await until(lambda: len(phone.heard) > 3200)
        await self.near.stopService()
        self.assertTrue(phone.hung_up)


class Failing(Heard):
    """Raises when it hears something."""

    def audio_received(self, call: Any, samples: bytes) -> None:
        """Raise."""
        raise ValueError("on purpose")
