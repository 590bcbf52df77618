"""The ARI client, against a scripted ARI on the loopback interface."""

from __future__ import annotations

import json
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorSSL
from twisted.internet.ssl import Certificate, PrivateCertificate, trustRootFromCertificates
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.server import Site
from zope.interface import implementer

from benchmarks.harness.authority import Authority
from benchmarks.harness.ports import free_port
from rapida_twisted.asterisk.ari import client as ari
from rapida_twisted.asterisk.ari import http as ari_http
from rapida_twisted.asterisk.ari.client import AriClient, channel_id_of
from rapida_twisted.asterisk.ari.errors import (
    AriConflict,
    AriError,
    AriMalformed,
    AriNotFound,
    AriRejected,
    AriUnauthorized,
    AriUnreachable,
)
from rapida_twisted.net.backoff import backoff
from tests.asterisk.scripted_ari import (
    ALLOCATION_FAILED,
    HANGS,
    LOST,
    LOST_BUT_DONE,
    PASSWORD,
    VERSION,
    Answer,
    ScriptedAri,
    channel,
    sleep,
)

CONTEXT_ID = "626162E8-ed7b-44b4-b10d-2f3ca1d457ca"
CHANNEL_ID = channel_id_of(CONTEXT_ID)


class ChannelIdTests(SynchronousTestCase):
    """The id of an outbound call's channel."""

    def test_follows_from_the_context(self) -> None:
        """It is the same for the same contextId in either case, and another for another."""
        self.assertEqual(channel_id_of(CONTEXT_ID), channel_id_of(CONTEXT_ID.lower()))
        self.assertNotEqual(channel_id_of(CONTEXT_ID), channel_id_of(CONTEXT_ID[::-1]))
        self.assertLess(len(CHANNEL_ID), 149)


class AriTestCase(TestCase):
    """A scripted ARI, and a client of it."""

    async def setUp(self) -> None:
        """Start it."""
        self.ari = ScriptedAri()
        await self.ari.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.ari.stop()))
        self.pool = HTTPConnectionPool(reactor)
        self.addCleanup(self.pool.closeCachedConnections)
        self.client = self.make_client()

    def make_client(self, timeout_s: float = 2.0, policy: Any = None, **credential: str) -> AriClient:
        """Make a client."""
        agent = Agent(reactor, policy or BrowserLikePolicyForHTTPS(), pool=self.pool)
        return AriClient(
            self.ari.credential(**credential), treq_client=HTTPClient(agent), reactor=reactor, timeout_s=timeout_s
        )

    async def refused(self, kind: type[AriError], asking: Any) -> Any:
        """What was asked fails with just this class of error, and nothing secret is told of it."""
        try:
            await asking
        except AriError as error:
            self.assertIs(type(error), kind, error)
            told = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
            for secret in (PASSWORD, ari_http.authorization(self.ari.credential()).partition(" ")[2]):
                self.assertNotIn(secret, told)
            self.assertIn("office", str(error))
            return error
        self.fail("it did not fail")

    def originate(self, client: AriClient | None = None, **words: Any) -> Any:
        """Place a call."""
        words = {"channel_id": CHANNEL_ID, "variables": {}, "context": "rapida-outbound", **words}
        return (client or self.client).originate("PJSIP/200@trunk", **words)


class RequestTests(AriTestCase):
    """What the client asks, and what it makes of good answers."""

    async def test_originate_into_the_dialplan(self) -> None:
        """An originate names endpoint, channel and place in its query and the variables in its body."""
        made = await self.originate(
            variables={"RAPIDA_CONTEXT_ID": CONTEXT_ID, "CALLERID(name)": "Ä & b"}, caller='"Ann" <100>'
        )
        (asked,) = self.ari.asked
        self.assertEqual((asked.method, asked.path), ("POST", "channels"))
        self.assertEqual(
            asked.query,
            {
                "endpoint": "PJSIP/200@trunk",
                "channelId": CHANNEL_ID,
                "timeout": "60",
                "callerId": '"Ann" <100>',
                "context": "rapida-outbound",
                "extension": "s",
                "priority": "1",
            },
        )
        self.assertEqual(asked.body, {"variables": {"RAPIDA_CONTEXT_ID": CONTEXT_ID, "CALLERID(name)": "Ä & b"}})
        self.assertEqual((made.id, made.state, made.caller, made.connected), (CHANNEL_ID, "Down", "100", "200"))
        self.assertEqual(made.created, datetime(2025, 1, 31, 12, 0, 0, 123000, UTC))

    async def test_originate_into_an_application(self) -> None:
        """With an app there is no place in the dialplan."""
        await self.originate(context="", app="rapida", app_args="a,b", answer_timeout_s=30)
        (asked,) = self.ari.asked
        self.assertEqual(
            asked.query,
            {
                "endpoint": "PJSIP/200@trunk",
                "channelId": CHANNEL_ID,
                "timeout": "30",
                "app": "rapida",
                "appArgs": "a,b",
            },
        )

    async def test_both_or_neither(self) -> None:
        """A call to both a context and an app, or to neither, is a mistake, and nothing is asked."""
        for words in ({"app": "rapida"}, {"context": ""}):
            with self.assertRaises(ValueError):
                await self.originate(**words)
        self.assertEqual(self.ari.asked, [])

    async def test_password_is_in_the_header_alone(self) -> None:
        """The credentials are in a header, and in no URL."""
        await self.client.channels()
        (asked,) = self.ari.asked
        self.assertTrue(asked.headers["authorization"].startswith("Basic "))
        self.assertNotIn("rapida", asked.uri)

    async def test_url_with_ari(self) -> None:
        """A URL that ends with a slash or with /ari is the same URL."""
        for end in ("", "/", "/ari", "/ari/"):
            client = self.make_client(ari_url=f"http://127.0.0.1:{self.ari.port}{end}")
            self.assertEqual(await client.channels(), [])

    async def test_channels(self) -> None:
        """Channels are listed, and one is looked up by an id that needs quoting; None if it is not there."""
        self.ari.channels = {"a/b?c": channel("a/b?c", "Up"), "2": channel("2", channelvars={"X": "1"})}
        self.assertEqual([found.id for found in await self.client.channels()], ["a/b?c", "2"])
        found = await self.client.channel("2")
        assert found is not None
        self.assertEqual(dict(found.variables), {"X": "1"})
        self.assertIsNone(await self.client.channel("3"))
        await self.client.channel("a/b?c")
        self.assertTrue(self.ari.asked[-1].uri.endswith("/ari/channels/a%2Fb%3Fc"))

    async def test_hang_up(self) -> None:
        """A hang-up tells whether there was a channel, and gives ARI its reason."""
        self.ari.channels = {"1": channel("1", "Up")}
        self.assertTrue(await self.client.hang_up("1", "busy"))
        self.assertFalse(await self.client.hang_up("1"))
        self.assertEqual(self.ari.hung_up, [("1", "busy")])

    async def test_variables(self) -> None:
        """A variable that was set is read; one that is not there is None, but a channel that is not there an error."""
        self.ari.channels = {"1": channel("1", "Up")}
        await self.client.set_variable("1", "X", "Ä&=")
        self.assertEqual(await self.client.get_variable("1", "X"), "Ä&=")
        self.assertIsNone(await self.client.get_variable("1", "Y"))
        await self.refused(AriNotFound, self.client.get_variable("2", "X"))

    async def test_moved_on(self) -> None:
        """A channel continues in the dialplan, where told or after Stasis(), and is redirected."""
        self.ari.channels = {"1": channel("1", "Up")}
        await self.client.continue_in_dialplan("1", "next", "100", 3)
        await self.client.continue_in_dialplan("1")
        await self.client.redirect("1", "PJSIP/200")
        self.assertEqual(
            [(asked.path, asked.query) for asked in self.ari.asked],
            [
                ("channels/1/continue", {"context": "next", "extension": "100", "priority": "3"}),
                ("channels/1/continue", {}),
                ("channels/1/redirect", {"endpoint": "PJSIP/200"}),
            ],
        )

    async def test_external_media(self) -> None:
        """A channel whose media is a WebSocket: one that waits for us, and one that connects to us."""
        await self.client.external_media("rapida", channel_id="m1", media_format="slin16")
        await self.client.external_media(
            "rapida",
            channel_id="m2",
            media_format="ulaw",
            connection="conn",
            transport_data="v(a=b)",
            variables={"X": "1"},
        )
        waiting, connecting = self.ari.asked
        self.assertEqual(waiting.path, "channels/externalMedia")
        shared = {"app": "rapida", "transport": "websocket", "encapsulation": "none"}
        self.assertEqual(
            waiting.query,
            {
                **shared,
                "channelId": "m1",
                "external_host": "INCOMING",
                "connection_type": "server",
                "format": "slin16",
            },
        )
        self.assertEqual(
            connecting.query,
            {
                **shared,
                "channelId": "m2",
                "external_host": "conn",
                "connection_type": "client",
                "format": "ulaw",
                "transport_data": "v(a=b)",
            },
        )
        self.assertEqual(connecting.body, {"variables": {"X": "1"}})

    async def test_asterisk_itself(self) -> None:
        """Its modules, version, start and clock are told; an old one without a ping has no clock."""
        self.assertEqual(await self.client.modules(), {"res_ari": "Running", "chan_websocket": "Running"})
        info = await self.client.info()
        self.assertEqual(info.version, VERSION)
        self.assertEqual(info.system_time, datetime(2025, 1, 31, 12, 0, 0, 500000, UTC))
        self.assertEqual(info.started, datetime(2025, 1, 31, 11, 0, tzinfo=UTC))
        self.ari.script("GET", "asterisk/ping", Answer(404, {"message": "Resource not found"}))
        self.assertIsNone((await self.client.info()).system_time)


class RefusalTests(AriTestCase):
    """What the client makes of bad answers."""

    async def test_status(self) -> None:
        """Each status has its own class of error, with ARI's own message; only a 5xx of a gateway is worth a retry."""
        for status, kind, retryable in [
            (400, AriRejected, False),
            (401, AriUnauthorized, False),
            (403, AriUnauthorized, False),
            (404, AriNotFound, False),
            (409, AriConflict, False),
            (412, AriConflict, False),
            (422, AriRejected, False),
            (500, AriRejected, False),
            (501, AriRejected, False),
            (503, AriUnreachable, True),
        ]:
            self.ari.script("POST", "channels", Answer(status, {"message": f"That is {status}"}))
            error = await self.refused(kind, self.originate())
            self.assertEqual((error.message, error.status), (f"That is {status}", status))
            self.assertEqual(error.retryable, retryable)
        self.assertEqual(self.ari.requests("GET"), [])

    async def test_allocation_failed(self) -> None:
        """What ARI says as an error and not as a message is told as well."""
        self.ari.script("POST", "channels", ALLOCATION_FAILED)
        error = await self.refused(AriRejected, self.originate())
        self.assertEqual(error.message, "Allocation failed")

    async def test_wrong_password(self) -> None:
        """A wrong password is told with the credential's name, and not worth a retry."""
        error = await self.refused(AriUnauthorized, self.originate(self.make_client(ari_password="wrong")))
        self.assertIn("credential office", str(error))
        self.assertFalse(error.retryable)

    async def test_message_of_any_kind(self) -> None:
        """A message is short and printable, without the password should a proxy echo that; all else is no message."""
        token = ari_http.authorization(self.ari.credential())
        for body, message in [
            ({"message": "a\x1b[31m\nb"}, "a?[31m?b"),
            ({"message": "x" * 9999}, "x" * 297 + "..."),
            ({"message": f"bad header: {token} {PASSWORD}"}, "bad header: Basic *** ***"),
            ({"message": {"a": 1}}, "HTTP status 400"),
            ([1], "HTTP status 400"),
            (b"<html>", "HTTP status 400"),
            (b"", "HTTP status 400"),
        ]:
            self.ari.script("GET", "channels", Answer(400, body))
            self.assertEqual((await self.refused(AriRejected, self.client.channels())).message, message)

    async def test_malformed(self) -> None:
        """What is no JSON, or JSON of another form, is an error of its own."""
        bodies = [b"<html>", b"{", b"\xff\xfe", b"[" * 100_000, b"", b"7", b'{"id":7}', b"[[]]", b"[null]", b'{"a":[]}']
        for body in bodies:
            self.ari.default = Answer(200, body)
            for asking in (
                self.client.channels(),
                self.client.modules(),
                self.client.info(),
                self.client.channel("1"),
                self.client.get_variable("1", "X"),
            ):
                await self.refused(AriMalformed, asking)

    async def test_endless(self) -> None:
        """More than a mebibyte is not read."""
        self.ari.script("GET", "channels", Answer(200, json.dumps(["x" * ari_http.MAX_RESPONSE_BYTES]).encode()))
        error = await self.refused(AriMalformed, self.client.channels())
        self.assertIn("1,048,576 bytes", error.message)
        self.assertEqual(await self.client.channels(), [])

    async def test_redirect(self) -> None:
        """A redirect is not followed: the password is for this server alone."""
        self.ari.script("GET", "channels", Answer(302, headers={"Location": "/ari/elsewhere"}))
        await self.refused(AriRejected, self.client.channels())
        self.assertEqual(len(self.ari.asked), 1)

    async def test_slow(self) -> None:
        """An answer must be complete in time, not only begin in time."""
        client = self.make_client(timeout_s=0.2)
        for answer in (HANGS, Answer(body=b'{"beginning": ', hangs=True), Answer(body=[], after_s=5.0)):
            self.ari.script("GET", "channels", answer)
            error = await self.refused(AriUnreachable, client.channels())
            self.assertEqual(error.message, "no answer within 0.2 s")
            self.assertTrue(error.retryable)

    async def test_lost(self) -> None:
        """A connection that breaks is an ARI that is not reachable."""
        # Whether a GET is asked again is the agent's affair.
        self.ari.default = LOST
        await self.refused(AriUnreachable, self.client.channels())

    async def test_cancelled(self) -> None:
        """Who cancels a request gets his CancelledError back, and the request is over."""
        for answer in (HANGS, Answer(body=b"[", hangs=True)):
            self.ari.script("GET", "channels", answer)
            asking = Deferred.fromCoroutine(self.client.channels())
            await sleep(0.1)
            asking.cancel()
            await self.assertFailure(asking, CancelledError)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Endpoints at which nobody ever answers."""

    def __init__(self, clock: MemoryReactorClock) -> None:
        self._clock = clock

    def endpointForURI(self, uri: URI) -> TCP4ClientEndpoint:  # noqa: N802
        return TCP4ClientEndpoint(self._clock, "127.0.0.1", uri.port)


class UnreachableTests(AriTestCase):
    """Asterisks that the request never gets to: then no call was placed, for certain."""

    async def test_cancelled_while_connecting(self) -> None:
        """A request that is cancelled, or is overdue, before there is a connection says just that."""
        clock = MemoryReactorClock()
        agent = Agent.usingEndpointFactory(clock, _Endpoints(clock))
        client = AriClient(self.ari.credential(), treq_client=HTTPClient(agent), reactor=clock, timeout_s=2.0)
        asking = Deferred.fromCoroutine(client.info())
        asking.cancel()
        await self.assertFailure(asking, CancelledError)
        asking = Deferred.fromCoroutine(client.info())
        clock.advance(2.1)
        error = await self.assertFailure(asking, AriUnreachable)
        self.assertIn("no answer within 2 s", str(error))

    async def test_refused(self) -> None:
        """Nobody listens there."""
        client = self.make_client(ari_url=f"http://127.0.0.1:{free_port()}")
        error = await self.refused(AriUnreachable, self.originate(client))
        self.assertTrue(error.retryable)
        self.assertIs(error.placed, False)
        self.assertIn("refused", error.message)

    async def test_unknown_host(self) -> None:
        """There is no such host."""
        error = await self.refused(
            AriUnreachable, self.originate(self.make_client(ari_url="http://pbx.invalid:8088", timeout_s=5))
        )
        self.assertIs(error.placed, False)

    async def test_booting(self) -> None:
        """Asterisk says that it is still booting."""
        self.ari.script("POST", "channels", Answer(503, {"message": "Asterisk not booted"}))
        error = await self.refused(AriUnreachable, self.originate())
        self.assertEqual((error.placed, error.message), (False, "Asterisk not booted"))


class TlsTests(AriTestCase):
    """An ARI behind TLS."""

    async def setUp(self) -> None:
        """Serve the same ARI with a certificate of a private authority."""
        await super().setUp()
        self.authority = Authority(Path(self.mktemp()))
        self.authority.certify("127.0.0.1")
        own = PrivateCertificate.loadPEM(self.authority.key.read_bytes() + self.authority.certificate.read_bytes())
        assert IReactorSSL.providedBy(reactor)
        listening = reactor.listenSSL(0, Site(self.ari), own.options(), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.port = listening.getHost().port

    async def test_private_authority(self) -> None:
        """An agent that knows the private authority is how such an Asterisk is reached."""
        root = Certificate.loadPEM(self.authority.authority.read_bytes())
        policy = BrowserLikePolicyForHTTPS(trustRootFromCertificates([root]))
        made = await self.originate(self.make_client(policy=policy, ari_url=f"https://127.0.0.1:{self.port}"))
        self.assertEqual(made.id, CHANNEL_ID)

    async def test_other_host(self) -> None:
        """A certificate for another host is refused before the password is sent."""
        root = Certificate.loadPEM(self.authority.authority.read_bytes())
        policy = BrowserLikePolicyForHTTPS(trustRootFromCertificates([root]))
        client = self.make_client(policy=policy, ari_url=f"https://localhost:{self.port}")
        error = await self.refused(AriUnreachable, self.originate(client))
        self.assertIn("certificate", error.message)
        self.assertIs(error.placed, False)
        self.assertEqual(self.ari.asked, [])

    async def test_unknown_authority(self) -> None:
        """A certificate that nobody vouches for is refused before the password is sent, and no call was placed."""
        client = self.make_client(ari_url=f"https://127.0.0.1:{self.port}")
        error = await self.refused(AriUnreachable, self.originate(client))
        self.assertIn("certificate", error.message)
        self.assertIs(error.placed, False)
        self.assertEqual(self.ari.asked, [])


class LostOriginateTests(AriTestCase):
    """An originate whose answer was lost: placed at most once."""

    async def test_lost_but_placed(self) -> None:
        """The channel is there: that is the answer, and it is not placed again."""
        self.ari.script("POST", "channels", LOST_BUT_DONE)
        self.assertEqual((await self.originate()).id, CHANNEL_ID)
        self.assertEqual(len(self.ari.requests("POST")), 1)

    async def test_slow_but_placed(self) -> None:
        """Likewise when the answer took too long, when a gateway lost it, and when it was unreadable."""
        client = self.make_client(timeout_s=0.2)
        for number, answer in enumerate(
            [
                Answer(does=True, after_s=5.0),
                Answer(504, {"message": "gateway timeout"}, does=True),
                Answer(200, b"{", does=True),
                Answer(200, b'{"id": ', does=True, hangs=True),
            ]
        ):
            self.ari.script("POST", "channels", answer)
            made = await self.originate(client, channel_id=f"c{number}")
            self.assertEqual(made.id, f"c{number}")
        self.assertEqual(len(self.ari.requests("POST")), 4)

    async def test_placed_a_little_later(self) -> None:
        """A channel that is made only after the first look-up is found by the second."""
        self.ari.script("POST", "channels", Answer(lost=True, does_after_s=0.3))
        self.assertEqual((await self.originate()).id, CHANNEL_ID)
        self.assertEqual(len(self.ari.requests("GET")), 2)

    async def test_not_there(self) -> None:
        """No such channel: it may be over or come later, so nobody knows."""
        self.patch(ari, "LOOK_UP_PAUSES_S", (0.0, 0.05))
        self.ari.script("POST", "channels", LOST)
        error = await self.refused(AriUnreachable, self.originate())
        self.assertIsNone(error.placed)
        self.assertIn("no such channel exists now", error.message)
        self.assertEqual(len(self.ari.requests("POST")), 1)

    async def test_look_up_fails_too(self) -> None:
        """The look-up fails too: nobody knows, and it is not asked again and again."""
        self.ari.default = HANGS
        error = await self.refused(AriUnreachable, self.originate(self.make_client(timeout_s=0.2)))
        self.assertIsNone(error.placed)
        self.assertIn("look-up failed", error.message)
        self.assertEqual((len(self.ari.requests("POST")), len(self.ari.requests("GET"))), (1, 1))

    async def test_twice(self) -> None:
        """A second originate of the same channel is Asterisk's conflict."""
        await self.originate()
        await self.refused(AriConflict, self.originate())

    async def test_external_media_lost(self) -> None:
        """A media channel's lost answer is looked up as well."""
        self.ari.script("POST", "channels/externalMedia", LOST_BUT_DONE)
        made = await self.client.external_media("rapida", channel_id="m1", media_format="slin16")
        self.assertEqual(made.id, "m1")


class AbandonTests(AriTestCase):
    """A channel that comes up after its originate was given up."""

    async def setUp(self) -> None:
        """Hurry."""
        await super().setUp()
        self.patch(ari, "retry_pause_s", backoff(0.02, 0.05))
        self.patch(ari, "ABANDON_S", 1.0)

    async def test_comes_up_later(self) -> None:
        """It is hung up as soon as it is there."""
        self.ari.script("POST", "channels", Answer(hangs=True, does_after_s=0.5))
        self.patch(ari, "LOOK_UP_PAUSES_S", (0.0,))
        await self.refused(AriUnreachable, self.originate(self.make_client(timeout_s=0.1)))
        self.assertTrue(await self.client.abandon(CHANNEL_ID))
        self.assertEqual(self.ari.hung_up, [(CHANNEL_ID, "normal")])
        self.assertEqual(self.ari.channels, {})

    async def test_never_comes(self) -> None:
        """It never comes up: that is looked at for a bounded time, with pauses."""
        self.assertFalse(await self.client.abandon(CHANNEL_ID))
        self.assertLess(len(self.ari.asked), 1.0 / 0.05 + 10)

    async def test_ari_in_trouble(self) -> None:
        """It goes on looking while ARI answers with errors or not at all."""
        path = f"channels/{CHANNEL_ID}"
        self.ari.script("DELETE", path, HANGS, Answer(500, b"{"), LOST, Answer(503))
        self.ari.channels[CHANNEL_ID] = channel(CHANNEL_ID)
        self.assertTrue(await self.make_client(timeout_s=0.1).abandon(CHANNEL_ID))

    async def test_ari_hangs(self) -> None:
        """An ARI that never answers is given up when the time is over, also within a request."""
        self.ari.default = HANGS
        self.assertFalse(await self.client.abandon(CHANNEL_ID))
