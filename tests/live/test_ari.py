"""The ARI client and the events, on a real Asterisk."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyFactory, ProxyServer
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from rapida_twisted.asterisk.ari.client import AriChannel, AriClient, channel_id_of
from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.ari.errors import AriConflict, AriError, AriNotFound, AriRejected, AriUnauthorized
from rapida_twisted.asterisk.ari.events import REPLACED_ATTEMPTS, AriEvents
from tests.live.asterisk import ARI_PASSWORD, ARI_USER, Asterisk, shared_asterisk

DIALPLAN = """
[talker]
exten => stays,1,Answer()
 same => n,Wait(60)
exten => short,1,Answer()
 same => n,Wait(1)
 same => n,Hangup()
exten => busy,1,Busy(1)
exten => congestion,1,Congestion(1)
exten => rings,1,Ringing()
 same => n,Wait(60)

[rapida-outbound]
exten => s,1,NoOp(context ${RAPIDA_CONTEXT_ID} words ${WORDS} caller ${CALLERID(num)})
 same => n,Wait(60)
exten => next,1,NoOp(moved on)
 same => n,Wait(60)
"""

LIFE = ("Dial", "ChannelStateChange", "ChannelHangupRequest", "ChannelDestroyed", "StasisStart", "StasisEnd")


class AriTestCase(TestCase):
    """One Asterisk for all, with a dialplan of its own."""

    timeout = 90

    def setUp(self) -> None:
        """Have an Asterisk, and a client of it."""
        self.asterisk = shared_asterisk()
        self.prepare(self.asterisk)
        self.channel_id = channel_id_of(str(uuid4()))
        # Asterisk keeps an application that still has a channel, with the subscription that it was made with.
        self.app = f"test-{uuid4()}"
        self.events: list[dict[str, Any]] = []
        self.connections: list[bool] = []
        self.pool = HTTPConnectionPool(reactor)
        self.addCleanup(self.pool.closeCachedConnections)
        self.client = self.make_client()

    def prepare(self, asterisk: Asterisk) -> None:
        """Load the dialplan, and leave no call behind."""
        asterisk.write_config("extensions.conf", DIALPLAN)
        asterisk.reload()
        self.addCleanup(asterisk.wait_until_idle)
        self.addCleanup(asterisk.hang_up_all)
        self.mark = asterisk.log_mark()

    def credential(self, port: int = 0, password: str = ARI_PASSWORD) -> AriCredential:
        """A credential of this Asterisk."""
        url = f"http://127.0.0.1:{port or self.asterisk.http_port}"
        return AriCredential(name="live", ari_url=url, ari_user=ARI_USER, ari_password=password)

    def make_client(self, **words: Any) -> AriClient:
        """Make a client."""
        agent = Agent(reactor, pool=self.pool)
        return AriClient(self.credential(**words), treq_client=HTTPClient(agent), reactor=reactor)

    async def listen(
        self, all_channels: bool = True, pause: Callable[[int], Any] = lambda attempt: 0.1, **words: Any
    ) -> AriEvents:
        """Listen to the events, until the test ends."""

        def connected(again: bool) -> None:
            if not all_channels:
                self.connections.append(again)
                return
            subscribing = Deferred.fromCoroutine(self.client.subscribe_to_channels(self.app))
            subscribing.addCallback(lambda _: self.connections.append(again))
            # Asterisk may still be loading what it is asked with.
            subscribing.addErrback(lambda _: reactor.callLater(0.1, connected, again))  # type: ignore[attr-defined]

        service = AriEvents(
            self.credential(**words),
            self.app,
            on_event=self.events.append,
            on_connected=connected,
            reactor=reactor,
            pause=pause,
        )
        service.startService()
        self.addCleanup(service.stopService)
        before = len(self.connections)
        await self.until(lambda: service.problem or len(self.connections) > before)
        return service

    async def until(self, found: Callable[[], object], timeout_s: float = 10) -> None:
        """Wait until a function gives something."""
        deadline = time.monotonic() + timeout_s
        while not found():
            if time.monotonic() > deadline:
                self.fail(f"not within {timeout_s} s; events: {self.life()}")
            await deferLater(reactor, 0.02)

    async def call(self, extension: str = "stays", **words: Any) -> AriChannel:
        """Call an extension of the far end."""
        words = {"channel_id": self.channel_id, "variables": {}, "context": "rapida-outbound", **words}
        return await self.client.originate(f"Local/{extension}@talker", **words)

    async def answered(self, **words: Any) -> AriChannel:
        """Call the far end, and wait until it has answered."""
        await self.call(**words)
        for _ in range(100):
            found = await self.client.channel(self.channel_id)
            if found is not None and found.state == "Up":
                return found
            await deferLater(reactor, 0.05)
        self.fail("it was not answered")

    async def refused(self, kind: type[AriError], asking: Awaitable[Any]) -> AriError:
        """What was asked fails with just this class of error."""
        try:
            await asking
        except AriError as error:
            self.assertIs(type(error), kind, error)
            return error
        self.fail("it did not fail")

    def life(self) -> list[tuple[str, str]]:
        """The events of the originated channel's life, each with what it tells."""
        told = []
        for event in self.events:
            about = event.get("channel") or event.get("peer") or {}
            if about.get("id") == self.channel_id and event["type"] in LIFE:
                says = {"Dial": event.get("dialstatus"), "ChannelStateChange": about["state"]}
                told.append((event["type"], str(says.get(event["type"], event.get("cause_txt", "")))))
        return told

    def ended(self) -> dict[str, Any] | None:
        """The event of the originated channel's end."""
        for event in self.events:
            if event["type"] == "ChannelDestroyed" and event["channel"]["id"] == self.channel_id:
                return event
        return None

    def assert_order(self, *expected: tuple[str, str]) -> None:
        """These came in this order, whatever was between them."""
        told = iter(self.life())
        for event in expected:
            self.assertIn(event, told, f"in {self.life()}")


class RestTests(AriTestCase):
    """What the client asks of a real ARI."""

    async def test_variables_and_id(self) -> None:
        """The dialplan sees the variables and the caller, and the channel has the id that was given."""
        await self.answered(variables={"RAPIDA_CONTEXT_ID": "c-1", "WORDS": "ä;& b"}, caller='"Ann" <100>')
        self.asterisk.wait_for_log(r"context c-1 words ä;& b caller 100", self.mark)
        self.assertIn(self.channel_id, [found.id for found in await self.client.channels()])
        self.assertIsNone(await self.client.channel(channel_id_of(str(uuid4()))))

    async def test_no_such_endpoint(self) -> None:
        """An endpoint, trunk or technology that does not exist is "Allocation failed"; a word alone is told better."""
        for endpoint, status, message in [
            ("PJSIP/nobody", 500, "Allocation failed"),
            ("PJSIP/200@nobody", 500, "Allocation failed"),
            ("NOTECH/200", 500, "Allocation failed"),
            ("PJSIP", 400, "Invalid endpoint specified"),
        ]:
            asking = self.client.originate(endpoint, channel_id=self.channel_id, variables={}, context="talker")
            error = await self.refused(AriRejected, asking)
            self.assertEqual((error.status, error.message), (status, message), endpoint)

    async def test_wrong_password(self) -> None:
        """A wrong password is told as such, by both interfaces."""
        error = await self.refused(AriUnauthorized, self.make_client(password="wrong").info())
        self.assertEqual(error.message, "Authentication required")
        service = await self.listen(password="wrong")
        self.assertEqual(service.problem, "ARI refused the user or the password")

    async def test_twice(self) -> None:
        """A second channel of the same id is refused."""
        await self.answered()
        error = await self.refused(AriConflict, self.call())
        self.assertEqual(error.message, "Channel with given unique ID already exists")
        self.assertEqual(len(await self.client.channels()), 2)

    async def test_hang_up(self) -> None:
        """A channel in the dialplan is hung up, with the cause that was asked for; the second time there is none."""
        await self.listen()
        await self.answered()
        self.assertTrue(await self.client.hang_up(self.channel_id, "busy"))
        await self.until(self.ended)
        self.assertEqual((self.ended() or {})["cause"], 17)
        self.assertFalse(await self.client.hang_up(self.channel_id))

    async def test_variable_in_the_dialplan(self) -> None:
        """A channel in the dialplan can be read, but not changed or moved on."""
        await self.answered(variables={"WORDS": "x"})
        self.assertEqual(await self.client.get_variable(self.channel_id, "WORDS"), "x")
        self.assertEqual(await self.client.get_variable(self.channel_id, "CHANNEL(state)"), "Up")
        self.assertIsNone(await self.client.get_variable(self.channel_id, "NOTHING"))
        await self.refused(AriNotFound, self.client.get_variable("nobody", "WORDS"))
        for asking in (
            self.client.set_variable(self.channel_id, "WORDS", "y"),
            self.client.continue_in_dialplan(self.channel_id),
            self.client.redirect(self.channel_id, "Local/short@talker"),
        ):
            error = await self.refused(AriConflict, asking)
            self.assertEqual((error.status, error.message), (409, "Channel not in Stasis application"))

    async def test_variable_in_stasis(self) -> None:
        """A channel in Stasis can be changed, and goes on in the dialplan when told to."""
        await self.listen(all_channels=False)
        await self.call(context="", app=self.app, app_args="a,b")
        await self.until(lambda: any(event["type"] == "StasisStart" for event in self.events))
        start = next(event for event in self.events if event["type"] == "StasisStart")
        self.assertEqual(start["args"], ["a", "b"])
        await self.client.set_variable(self.channel_id, "WORDS", 'ä=&"; x' * 500)
        self.assertEqual(await self.client.get_variable(self.channel_id, "WORDS"), 'ä=&"; x' * 500)
        error = await self.refused(AriRejected, self.client.redirect(self.channel_id, "PJSIP/200"))
        self.assertEqual(error.status, 422)
        await self.client.continue_in_dialplan(self.channel_id, "rapida-outbound", "next", 1)
        self.asterisk.wait_for_log("moved on", self.mark)

    async def test_external_media(self) -> None:
        """A media channel waits for us, and tells where; one for a client that is not configured is refused."""
        await self.listen(all_channels=False)
        made = await self.client.external_media(
            self.app, channel_id=self.channel_id, media_format="slin16", variables={"WORDS": "x"}
        )
        self.assertEqual(made.variables["WORDS"], "x")
        self.assertRegex(made.variables["MEDIA_WEBSOCKET_CONNECTION_ID"], "^[0-9a-f-]{36}$")
        error = await self.refused(
            AriRejected,
            self.client.external_media(self.app, channel_id="m2", media_format="slin16", connection="nobody"),
        )
        self.assertIn("valid websocket_client connection id", error.message)

    async def test_asterisk_itself(self) -> None:
        """Its version, its clock, its modules."""
        info = await self.client.info()
        self.assertRegex(info.version, r"^\d+\.\d+")
        assert info.system_time is not None
        self.assertLess(abs((datetime.now(UTC) - info.system_time).total_seconds()), 2)
        assert info.started is not None
        self.assertLess(info.started, info.system_time)
        modules = await self.client.modules()
        self.assertEqual((modules["res_audiosocket"], modules["chan_websocket"]), ("Running", "Running"))
        self.assertNotIn("chan_sip", modules)

    async def test_lost_answer(self) -> None:
        """An originate whose answer gets lost on its way is found, and was placed once."""
        forgetful = _Forgetful("127.0.0.1", self.asterisk.http_port)
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(forgetful)
        self.addCleanup(listening.stopListening)
        self.client = self.make_client(port=listening.getHost().port)
        made = await self.call()
        self.assertEqual(made.id, self.channel_id)
        self.assertEqual(forgetful.lost, 1)
        self.assertEqual(len(await self.client.channels()), 2)

    async def test_abandoned(self) -> None:
        """A channel that comes up only after it was given up is hung up."""
        later = deferLater(reactor, 1.2, lambda: self.asterisk.ari(
            "POST", "channels", endpoint="Local/stays@talker", extension="s", context="rapida-outbound",
            channelId=self.channel_id,
        ))  # fmt: skip
        began = time.monotonic()
        self.assertTrue(await self.client.abandon(self.channel_id))
        self.assertLess(time.monotonic() - began, 5)
        await later
        self.assertIsNone(await self.client.channel(self.channel_id))


class EventTests(AriTestCase):
    """A call's life, as its events tell it."""

    async def test_answered(self) -> None:
        """An answered call, all channels subscribed: dialled, up, answered, destroyed with cause 16."""
        await self.listen()
        await self.call("short")
        await self.until(self.ended)
        self.assert_order(("Dial", ""), ("Dial", "ANSWER"), ("ChannelDestroyed", "Normal Clearing"))
        self.assert_order(
            ("ChannelStateChange", "Up"), ("ChannelHangupRequest", ""), ("ChannelDestroyed", "Normal Clearing")
        )
        self.assertEqual((self.ended() or {})["cause"], 16)

    async def test_not_answered(self) -> None:
        """Calls that are not answered: Dial says why; the cause of the originated Local channel may not."""
        await self.listen()
        for extension, status, cause in [
            ("busy", "BUSY", 0),
            ("congestion", "CONGESTION", 0),
            ("rings", "RINGING", 19),
        ]:
            self.channel_id = channel_id_of(str(uuid4()))
            await self.call(extension, answer_timeout_s=1)
            await self.until(self.ended)
            self.assert_order(("Dial", ""), ("Dial", status), ("ChannelDestroyed", (self.ended() or {})["cause_txt"]))
            self.assertEqual((self.ended() or {})["cause"], cause, extension)
            self.assertNotIn(("ChannelStateChange", "Up"), self.life())

    async def test_without_subscribing(self) -> None:
        """Without a subscription a call into the dialplan has no events, one into the application has all of them."""
        await self.listen(all_channels=False)
        await self.call("short")
        await deferLater(reactor, 2)
        self.assertEqual(self.life(), [])
        self.channel_id = channel_id_of(str(uuid4()))
        await self.call("short", context="", app=self.app)
        await self.until(self.ended)
        self.assert_order(("Dial", ""), ("Dial", "ANSWER"), ("StasisStart", ""), ("StasisEnd", ""))
        self.assertEqual(self.life()[-1], ("ChannelDestroyed", "Normal Clearing"))

    async def test_replaced(self) -> None:
        """Of two that connect as the same application the first is told so, and drops its connection, now deaf."""
        pauses: list[int] = []
        first = await self.listen(pause=lambda attempt: pauses.append(attempt) or 1000)
        second = await self.listen()
        await self.until(lambda: first.problem)
        self.assertIn("gets the events now", first.problem)
        self.assertEqual(pauses, [REPLACED_ATTEMPTS])
        await self.call("short")
        await self.until(self.ended)
        self.assertEqual(self.life().count(("Dial", "ANSWER")), 1)
        self.assertEqual((first.connected, second.connected), (False, True))

    async def test_dropped(self) -> None:
        """A connection that is dropped while the application has a channel is made again, and hears of new channels."""
        service = await self.listen()
        await self.call(context="", app=self.app)
        await self.until(lambda: ("StasisStart", "") in self.life())
        assert service._protocol is not None
        service._protocol.abort()
        await self.until(lambda: len(self.connections) == 2 and service.connected)
        self.assertEqual(self.connections, [False, True])
        self.channel_id = channel_id_of(str(uuid4()))
        await self.call("short")
        await self.until(self.ended)
        self.assertEqual(self.life().count(("Dial", "ANSWER")), 1)

    async def test_restarted(self) -> None:
        """Events come again after Asterisk was restarted, and the caller is told of the gap."""
        self.asterisk = Asterisk(self.asterisk.root)
        self.addCleanup(self.asterisk.stop)
        self.asterisk.start()
        self.prepare(self.asterisk)
        self.client = self.make_client()
        service = await self.listen()
        await self.answered()
        self.asterisk.cli("core restart now")
        await self.until(lambda: not service.connected)
        self.assertNotEqual(service.problem, "")
        await self.until(lambda: len(self.connections) == 2, 30)
        self.assertEqual(self.connections, [False, True])
        self.assertIsNone(await self.client.channel(self.channel_id))
        self.channel_id = channel_id_of(str(uuid4()))
        await self.until(lambda: "fully booted" in self.asterisk.cli("core waitfullybooted"), 30)
        await self.call("short")
        await self.until(self.ended)


class _ForgetfulClient(ProxyClient):
    def dataReceived(self, data: bytes) -> None:
        factory = self.peer.factory
        if factory.lost == 0:
            factory.lost += 1
            self.transport.abortConnection()
            self.peer.transport.abortConnection()
        else:
            super().dataReceived(data)


class _ForgetfulClientFactory(ProxyClientFactory):
    protocol = _ForgetfulClient
    noisy = False


class _ForgetfulServer(ProxyServer):
    clientProtocolFactory = _ForgetfulClientFactory  # noqa: N815


class _Forgetful(ProxyFactory):
    """On the way to Asterisk: the first answer that comes back gets lost, with its connection."""

    protocol = _ForgetfulServer
    noisy = False
    lost = 0
