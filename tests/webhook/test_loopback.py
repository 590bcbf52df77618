"""The status webhook with real receivers over loopback."""

from __future__ import annotations

import time

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from rapida_twisted import __version__
from rapida_twisted.context import record_of
from rapida_twisted.store.sqlite import SqliteStore
from rapida_twisted.webhook import delivery as webhook_receiver
from rapida_twisted.webhook import status as webhook
from tests.webhook.clocked import SECRET, TOKEN
from tests.webhook.receivers import (
    Endless,
    LoopbackTestCase,
    Received,
    Receiver,
    verify_with_the_page,
)


class LoopbackTests(LoopbackTestCase):
    """With real receivers."""

    async def test_a_call(self) -> None:
        """Each change of a call comes, in order, signed, as the store showed it just after the change."""
        receiver = Receiver()
        hook = self.start_hook(f"{await self.serve(receiver)}?token={TOKEN}&x=a%2Fb%20c+d")
        for status in ("initiated", "ringing", "answered", "completed"):
            await self.change("one", status)
            hook.wake()
        await self.until_empty()
        statuses = ["initiated", "ringing", "answered", "completed"]
        self.assertEqual(receiver.told, [("one", status) for status in statuses])
        for received in receiver.received:
            verify_with_the_page(SECRET, received)
            self.assertEqual(received.request.uri, f"/calls?token={TOKEN}&x=a%2Fb%20c+d".encode())
            self.assertEqual(received.request.getHeader("User-Agent"), f"rapida-media/{__version__}")
            self.assertEqual(received.request.getHeader("Content-Type"), "application/json")
        self.assertEqual(receiver.received[-1].event["call"], record_of(await self.store.get("one")))

    async def test_order_of_a_call(self) -> None:
        """A receiver that fails every other time gets each call's changes in order all the same."""
        receiver = Receiver()
        receiver.answer = lambda received: 503 if len(receiver.received) % 2 else 204
        statuses = ("initiated", "ringing", "answered", "completed")
        for number in range(12):
            await self.change(f"call {number}", *statuses)
        self.start_hook(await self.serve(receiver))
        await self.until_empty()
        for number in range(12):
            told = [status for call, status in receiver.told if call == f"call {number}"]
            self.assertEqual(sorted(told, key=statuses.index), told)
            self.assertEqual(tuple(dict.fromkeys(told)), statuses)
        self.assertGreater(len(receiver.told), 48)

    async def test_restart(self) -> None:
        """What nobody took survives the end of the program, in the file, and is sent by the next one."""
        await self.change("one", "initiated", "ringing")
        await self.change("two", "initiated")
        refusing, taking = Receiver(), Receiver()
        refusing.answer = lambda received: 204 if received.status == "ringing" or received.call == "two" else 500
        hook = self.start_hook(await self.serve(refusing))
        await self.until(lambda: len(refusing.received) > 4)
        await hook.stop()
        await self.store.close()
        self.store = SqliteStore(self.path, reactor)
        await self.store.open()
        self.start_hook(await self.serve(taking))
        await self.until_empty()
        self.assertEqual(taking.told, [("one", "initiated"), ("one", "ringing")])
        self.assertEqual(refusing.told.count(("two", "initiated")), 1)
        # The two calls' events are under way at once: either may come first.
        first_of_one = next(received for received in refusing.received if received.call == "one")
        self.assertEqual(taking.received[0].event["id"], first_of_one.event["id"])

    async def test_slow_for_one_call(self) -> None:
        """A receiver that takes its time for one call delays no other one."""
        receiver = Receiver()
        receiver.answer = lambda received: None if received.call == "slow" else 204
        await self.change("slow", "initiated", "ringing")
        for number in range(20):
            await self.change(f"call {number}", "initiated", "ringing")
        self.start_hook(await self.serve(receiver))
        await self.until(lambda: len(receiver.received) == 41)
        self.assertEqual([status for call, status in receiver.told if call == "slow"], ["initiated"])
        slow = next(received for received in receiver.received if received.call == "slow")
        receiver.answer = lambda received: 204
        slow.request.setResponseCode(200)
        slow.request.finish()
        await self.until_empty()
        self.assertEqual(receiver.told[-1], ("slow", "ringing"))

    async def test_hanging(self) -> None:
        """A receiver that never answers is given up after the timeout, its connection closed, and tried again."""
        self.patch(webhook_receiver, "TRY_S", 0.1)
        receiver, closed = Receiver(), []
        receiver.answer = lambda received: None
        await self.change("one", "initiated")
        self.start_hook(await self.serve(receiver))
        await self.until(lambda: receiver.received)
        receiver.received[0].request.notifyFinish().addErrback(closed.append)
        await self.until(lambda: closed)
        receiver.answer = lambda received: 204
        await self.until_empty()
        self.assertGreater(len(receiver.received), 1)

    async def test_redirect(self) -> None:
        """A redirect is not followed: nothing comes where it leads."""
        elsewhere, receiver = Receiver(), Receiver()
        receiver.headers = {"Location": await self.serve(elsewhere)}
        codes = iter((301, 302, 303, 307, 308))
        receiver.answer = lambda received: next(codes, 204)
        await self.change("one", "initiated")
        self.start_hook(await self.serve(receiver))
        await self.until_empty()
        self.assertEqual((len(receiver.received), elsewhere.received), (6, []))

    async def test_not_there_yet(self) -> None:
        """A receiver that is started later gets what was noted before; the log has two lines."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
        port = listening.getHost().port
        await listening.stopListening()
        await self.change("one", "initiated", "ringing")
        with capturedLogs() as events:
            self.start_hook(f"http://127.0.0.1:{port}/calls?token={TOKEN}")
            await deferLater(reactor, 0.2)
            receiver = Receiver()
            await self.serve(receiver, port)
            await self.until_empty()
        self.assertEqual(receiver.told, [("one", "initiated"), ("one", "ringing")])
        lines = [formatEvent(event) for event in events if event["log_namespace"].endswith("StatusWebhook")]
        self.assertEqual(len(lines), 2, lines)
        self.assertIn("Connection was refused", lines[0])
        self.assertIn("works again", lines[1])
        for secret in (SECRET, TOKEN):
            self.assertNotIn(secret, repr(events) + "".join(formatEvent(event) for event in events))

    async def test_no_http(self) -> None:
        """What speaks something else, or hangs up in the middle, is tried again."""
        connections: list[Protocol] = []

        class Broken(Protocol):
            def dataReceived(self, data: bytes) -> None:
                connections.append(self)
                beginnings = (b"", b"220 mail.example.com\r\n", b"HTTP/1.1 200 OK\r\nContent-Le", b"\xff" * 10_000)
                self.transport.write(beginnings[len(connections) % 4])
                self.transport.loseConnection()

        factory = Factory.forProtocol(Broken)
        factory.noisy = False
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(listening.stopListening)
        await self.change("one", "initiated")
        self.start_hook(f"http://127.0.0.1:{listening.getHost().port}/calls")
        await self.until(lambda: len(connections) > 12)
        self.assertEqual(len(await self.store.notices(10)), 1)

    async def test_endless_body(self) -> None:
        """A body without end is cut off soon; the notice counts as taken."""
        endless = Endless()
        await self.change("one", "initiated")
        self.start_hook(await self.serve(endless))
        await self.until_empty()
        await endless.gone
        self.assertLess(endless.sent_bytes, 20_000_000)

    async def test_stop(self) -> None:
        """With a receiver that never answers, all is over after the grace, and the connections are closed."""
        self.patch(webhook, "GRACE_S", 0.3)
        receiver, closed = Receiver(), []

        def hang(received: Received) -> None:
            received.request.notifyFinish().addErrback(closed.append)

        receiver.answer = hang
        for number in range(20):
            await self.change(f"call {number}", "initiated")
        hook = self.start_hook(await self.serve(receiver))
        await self.until(lambda: len(receiver.received) == 8)
        before_s = time.monotonic()
        await hook.stop()
        self.assertGreater(time.monotonic() - before_s, 0.25)
        self.assertLess(time.monotonic() - before_s, 3)
        await self.until(lambda: len(closed) == 8)
        self.assertEqual(len(await self.store.notices(100)), 20)
        self.assertEqual(len(receiver.received), 8)


class TlsTests(LoopbackTestCase):
    """With real receivers over TLS."""

    async def test_private_authority(self) -> None:
        """With the file of its authority, a receiver is believed."""
        receiver = Receiver()
        url, ca_file = await self.serve_tls(receiver)
        await self.change("one", "initiated", "ringing")
        self.start_hook(url, ca_file)
        await self.until_empty()
        self.assertEqual(receiver.told, [("one", "initiated"), ("one", "ringing")])
        verify_with_the_page(SECRET, receiver.received[0])

    async def test_stranger(self) -> None:
        """A receiver whose certificate is not trusted gets nothing, and the notice stays."""
        receiver = Receiver()
        url, _ = await self.serve_tls(receiver)
        _, other_ca = await self.serve_tls(Receiver())
        await self.change("one", "initiated")
        for ca_file in ("", other_ca):
            with capturedLogs() as events:
                hook = self.start_hook(f"{url}?token={TOKEN}", ca_file)
                await self.until(
                    lambda: any("certificate that is not trusted" in formatEvent(event) for event in events)
                )
                await hook.stop()
            text = repr(events) + "".join(formatEvent(event) for event in events)
            self.assertNotIn(TOKEN, text)
        self.assertEqual(receiver.received, [])
        self.assertEqual(len(await self.store.notices(10)), 1)

    async def test_endless_body(self) -> None:
        """A body without end is cut off over TLS, too."""
        endless = Endless()
        url, ca_file = await self.serve_tls(endless)
        await self.change("one", "initiated")
        self.start_hook(url, ca_file)
        await self.until_empty()
        await endless.gone
        self.assertLess(endless.sent_bytes, 20_000_000)
