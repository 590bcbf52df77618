"""An Asterisk's events, against a scripted ARI on the loopback interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IReactorSSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import TestCase
from twisted.web.server import Site

from benchmarks.harness.authority import Authority
from rapida_twisted.asterisk.ari import events as ari_events
from rapida_twisted.asterisk.ari.events import AriEvents
from rapida_twisted.asterisk.ari.http import authorization
from tests.asterisk.scripted_ari import PASSWORD, ScriptedAri, sleep, until


class EventsTestCase(TestCase):
    """A scripted ARI, and what is logged meanwhile."""

    async def setUp(self) -> None:
        """Start it."""
        self.ari = ScriptedAri()
        await self.ari.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.ari.stop()))
        self.events: list[dict[str, Any]] = []
        self.connections: list[bool] = []
        self.pauses: list[int] = []
        self.logged: list[LogEvent] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def pause(self, attempt: int) -> float:
        """A short pause, noted."""
        self.pauses.append(attempt)
        return 0.02

    def subscribe(self, **words: Any) -> AriEvents:
        """Subscribe, until the test ends."""
        credential = words.pop("credential", None) or self.ari.credential()
        words = {
            "on_event": self.events.append,
            "on_connected": self.connections.append,
            "reactor": reactor,
            "pause": self.pause,
            **words,
        }
        service = AriEvents(credential, words.pop("app", "rapida"), **words)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def subscribed(self, **words: Any) -> AriEvents:
        """Subscribe, and wait until events come."""
        service = self.subscribe(**words)
        await until(lambda: self.ari.subscribers and service.connected)
        return service

    def logs(self, words: str) -> int:
        """How often something was logged."""
        return sum(words in formatEvent(event) for event in self.logged)


class EventTests(EventsTestCase):
    """Events as they come."""

    async def test_in_order(self) -> None:
        """Events are told as they came: in their order, doubles included."""
        service = await self.subscribed()
        told = [{"type": kind, "channel": {"id": "1"}} for kind in ("Dial", "ChannelDestroyed", "Dial", "Dial", "ä")]
        self.ari.tell(*told)
        await until(lambda: len(self.events) == 5)
        self.assertEqual(self.events, told)
        self.assertEqual(self.connections, [False])
        self.assertEqual(service.problem, "")

    async def test_handshake(self) -> None:
        """The application is named in the query, and the password is in a header alone."""
        await self.subscribed(app="a b&c")
        await self.subscribed()
        self.assertEqual(
            self.ari.subscriptions,
            [{"app": "a b&c"}, {"app": "rapida"}],
        )
        for subscriber in self.ari.subscribers:
            self.assertNotIn("api_key", subscriber.http_request_uri)
            self.assertNotIn(PASSWORD, subscriber.http_request_uri)

    async def test_malformed(self) -> None:
        """What is no event is skipped, and said once."""
        service = await self.subscribed()
        self.ari.tell(b"{", b"[]", b"7", b"{}", b'{"type": 7}', b"[" * 100_000, b"", {"type": "Good"})
        await until(lambda: self.events)
        self.assertEqual(self.events, [{"type": "Good"}])
        self.assertEqual(service.malformed_count, 7)
        self.assertEqual(self.logs("is no event"), 1)
        self.assertEqual(self.connections, [False])

    async def test_too_long(self) -> None:
        """A message of more than a mebibyte ends the connection, which is then made again."""
        service = await self.subscribed()
        self.ari.tell(b'{"type": "' + b"x" * ari_events.MAX_MESSAGE_BYTES + b'"}')
        await until(lambda: self.connections == [False, True])
        await until(lambda: service.connected and self.ari.subscribers)
        self.ari.tell({"type": "Good"})
        await until(lambda: self.events)
        self.assertEqual(self.events, [{"type": "Good"}])

    async def test_callback_that_fails(self) -> None:
        """A callback that fails is logged, and the next event is told all the same."""

        def fail(argument: Any) -> None:
            self.events.append(argument)
            raise ZeroDivisionError

        await self.subscribed(on_event=fail, on_connected=fail)
        self.ari.tell({"type": "A"}, {"type": "B"})
        await until(lambda: len(self.events) == 3)
        self.assertEqual(self.events, [False, {"type": "A"}, {"type": "B"}])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    async def test_replaced(self) -> None:
        """When another client took the place, that is said, and the place is taken back, but not at once."""
        service = await self.subscribed()
        self.ari.tell({"type": "ApplicationReplaced", "application": "rapida"})
        await until(lambda: self.events)
        self.assertFalse(service.connected)
        await until(lambda: service.connected)
        self.assertEqual(self.logs("gets the events now"), 1)
        self.assertEqual(self.pauses, [ari_events.REPLACED_ATTEMPTS])
        self.assertEqual(self.connections, [False, True])


class ReconnectTests(EventsTestCase):
    """A connection that is lost, or never made."""

    async def test_dropped(self) -> None:
        """A dropped connection is made again, and the caller is told that there was a gap."""
        service = await self.subscribed()
        for count in (2, 3):
            self.ari.drop_subscribers()
            await until(lambda: not service.connected)
            self.assertIn("closed", service.problem)
            await until(lambda count=count: len(self.ari.subscriptions) == count and service.connected)
        self.ari.tell({"type": "Good"})
        await until(lambda: self.events)
        self.assertEqual(self.connections, [False, True, True])
        self.assertEqual(service.problem, "")

    async def test_refused_handshakes(self) -> None:
        """While handshakes are refused the pauses grow; the log says why once, and nothing of the password."""
        self.ari.refuse_events = 503
        service = self.subscribe()
        await until(lambda: len(self.pauses) >= 4)
        self.assertEqual(self.pauses[:4], [0, 1, 2, 3])
        self.assertIn("503", service.problem)
        self.assertEqual(self.logs("; trying again"), 1)
        self.ari.refuse_events = 0
        await until(lambda: service.connected)
        self.assertEqual(self.connections, [False])
        self.ari.drop_subscribers()
        known = len(self.pauses)
        await until(lambda: len(self.pauses) > known)
        self.assertEqual(self.pauses[known], 0)

    async def test_wrong_password(self) -> None:
        """A wrong password is told in words."""
        service = self.subscribe(credential=self.ari.credential(ari_password="wrong"))
        await until(lambda: service.problem)
        self.assertEqual(service.problem, "ARI refused the user or the password")
        self.assertFalse(service.connected)

    async def test_nobody_there(self) -> None:
        """An Asterisk that is not there is tried with growing pauses, and found once it is."""
        await self.ari.stop()
        service = self.subscribe()
        await until(lambda: len(self.pauses) >= 3)
        self.assertEqual(self.pauses[:3], [0, 1, 2])
        self.assertIn("refused", service.problem)
        await self.ari.start(self.ari.port)
        await until(lambda: service.connected)
        self.assertEqual(self.connections, [False])

    async def test_nothing_secret_is_logged(self) -> None:
        """Neither the password nor the header is in anything that was logged, debug included."""
        await self.subscribed()
        self.ari.tell(b"{")
        self.ari.drop_subscribers()
        await until(lambda: self.connections == [False, True])
        token = authorization(self.ari.credential()).partition(" ")[2]
        told = "\n".join(f"{formatEvent(event)} {event!r}" for event in self.logged)
        self.assertNotIn(PASSWORD, told)
        self.assertNotIn(token, told)


class StopTests(EventsTestCase):
    """A service that is stopped, whatever it is at."""

    async def test_stopped(self) -> None:
        """A connection is closed, and nothing is told after that."""
        service = await self.subscribed()
        stopping = service.stopService()
        self.ari.tell({"type": "Late"})
        await stopping
        await until(lambda: not self.ari.subscribers)
        self.assertEqual((self.events, service.connected, service.problem), ([], False, ""))
        self.assertEqual(self.pauses, [])

    async def test_started_again(self) -> None:
        """It can be started again."""
        service = await self.subscribed()
        await service.stopService()
        service.startService()
        await until(lambda: service.connected)
        self.assertEqual(self.connections, [False, True])

    async def test_between_attempts(self) -> None:
        """Between two attempts it stops at once."""
        await self.ari.stop()
        service = self.subscribe(pause=lambda attempt: 1000)
        await until(lambda: service.problem)
        await service.stopService()

    async def test_silent_peer(self) -> None:
        """A peer that never answers the handshake, nor the close, holds nobody up."""
        self.patch(ari_events, "CLOSE_S", 0.2)
        silent = WrappingFactory(Factory.forProtocol(Protocol))
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(silent)
        self.addCleanup(listening.stopListening)
        url = f"http://127.0.0.1:{listening.getHost().port}"
        service = self.subscribe(credential=self.ari.credential(ari_url=url))
        await until(lambda: silent.protocols)
        await sleep(0.05)
        await service.stopService()
        await until(lambda: not silent.protocols)


class TlsTests(EventsTestCase):
    """Events over TLS."""

    async def setUp(self) -> None:
        """Serve the same ARI with a certificate of a private authority."""
        await super().setUp()
        authority = Authority(Path(self.mktemp()))
        authority.certify("127.0.0.1")
        own = PrivateCertificate.loadPEM(authority.key.read_bytes() + authority.certificate.read_bytes())
        self.root = Certificate.loadPEM(authority.authority.read_bytes())
        assert IReactorSSL.providedBy(reactor)
        # Without the scripted ARI's own list of connections, which Autobahn does not bear over TLS.
        listening = reactor.listenSSL(0, Site(self.ari), own.options(), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.secure = self.ari.credential(ari_url=f"https://127.0.0.1:{listening.getHost().port}")

    async def test_private_authority(self) -> None:
        """With the private authority's certificate in its options, events come."""
        service = await self.subscribed(
            credential=self.secure, tls_options=optionsForClientTLS("127.0.0.1", trustRoot=self.root)
        )
        self.ari.tell({"type": "Good"})
        await until(lambda: self.events)
        await service.stopService()
        await until(lambda: not self.ari.subscribers)

    async def test_unknown_authority(self) -> None:
        """A certificate that nobody vouches for is refused before the password is sent."""
        service = self.subscribe(credential=self.secure)
        await until(lambda: service.problem)
        await service.stopService()
        self.assertEqual(self.ari.subscriptions, [])
        self.assertIn("certificate", service.problem)
