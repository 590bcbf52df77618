"""chan_websocket, the application's side: the handshake, the claim and MEDIA_START."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from autobahn.websocket.types import ConnectionRequest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rapida_twisted.audio.formats import ALAW, SLIN_RATES_HZ, ULAW, AudioFormat
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import (
    ContextClaimed,
    ContextExpired,
    Draining,
    StoreUnavailable,
    TooManyCalls,
    UnknownContext,
)
from rapida_twisted.interfaces import IMediaChannel
from rapida_twisted.protocols.chan_websocket_app import (
    START_TIMEOUT_S,
    MediaClientFactory,
)
from tests.media.fakes import KeptLog
from tests.protocols.chan_websocket_cases import JSON_START, NORMAL, START, MediaTestCase
from tests.protocols.fakes import FakeStarter, warnings_of
from tests.protocols.websockets import (
    CALL,
    PATH,
    PEER_TEXT,
    PausedSink,
    agreement,
    claimed,
    connect,
    on_clock,
    unframed,
)
from tests.support.websocket_strategies import BINARY, CLOSE, TEXT, raw_ws_frame


class HandshakeTests(MediaTestCase):
    """Before the upgrade."""

    def test_channel(self) -> None:
        """The protocol is a media channel whose peer times the playing."""
        self.assertTrue(verifyObject(IMediaChannel, self.protocol))
        self.assertEqual((self.protocol.transport_name, self.protocol.paced), ("websocket", True))

    def test_shapes(self) -> None:
        """The contextId is found in the path and in the query, and the call is claimed before the answer."""
        for path in (
            PATH, PATH + "/", PATH + "?x=1", f"/v1/talk/asterisk/ctx?contextId={CALL}",
            f"/v1/talk/asterisk/ctx/?x=1&contextId={CALL}", f"/ctx?contextId={CALL}&contextId=other", f"/{CALL}",
        ):  # fmt: skip
            self.connect()
            self.assertEqual(self.ask(path), "HTTP/1.1 101 Switching Protocols", path)
            self.assertEqual(self.reception.claims.pop(), (CALL, "websocket", PEER_TEXT))
            self.assertIn(b"\r\nSec-WebSocket-Protocol: media\r\n", self.transport.value())
            self.assertNotIn(b"\r\nServer:", self.transport.value())
            self.lose()

    def test_answer_waits_for_the_claim(self) -> None:
        """Nothing is answered until the store has answered; what came meanwhile is not lost."""
        waiting: Deferred[CallContext] = Deferred()
        self.reception.answer = lambda context: waiting
        self.assertEqual(self.ask(), "")
        self.text(START)
        self.feed(BINARY, b"ab")
        self.assertEqual(self.transport.value(), b"")
        waiting.callback(claimed())
        self.assertIn(b"101 Switching", self.transport.value())
        self.assertEqual(self.sink.heard, b"ab")

    def test_other_subprotocols(self) -> None:
        """Other subprotocols may be offered beside media."""
        self.assertIn("101", self.ask(subprotocol="chat, media"))

    def test_bound_key(self) -> None:
        """A key that is bound to assistants takes their calls alone."""
        for bound in ({"7"}, frozenset[str]()):
            self.connect()
            self.factory.assistants_of = lambda request, bound=bound: bound
            self.ask()
            self.assertEqual(set(self.reception.assistants), bound)
            self.lose()

    def test_wrong_keys_are_slow(self) -> None:
        """The refusal of one who tries keys waits; if he goes away meanwhile, nothing is left."""
        self.check_handshake = lambda request: (401, "this API key is not known")
        for leaves in (False, True):
            self.connect()
            self.factory.refusal_delay_s = lambda peer: 1.0 if peer.host == "192.0.2.7" else 0.0
            self.assertEqual(self.ask(), "")
            self.clock.advance(0.9)
            self.assertEqual(self.transport.value(), b"")
            if leaves:
                self.lose()
            self.clock.advance(0.1)
            if not leaves:
                self.assert_refused(401, "this API key is not known")
        self.clock.advance(10)
        self.assert_nothing_scheduled()

    def test_check_handshake(self) -> None:
        """The handshake is checked, with its headers and query, before the call is claimed."""
        seen: list[ConnectionRequest] = []

        def check_handshake(request: ConnectionRequest) -> tuple[int, str]:
            seen.append(request)
            return 401, "this API key is not known"

        self.check_handshake = check_handshake  # type: ignore[assignment]
        self.ask(PATH + "?x-api-key=k1", headers={"X-Api-Key": "k2"})
        self.assert_refused(401, "this API key is not known")
        self.assertEqual((seen[0].params, seen[0].headers["x-api-key"]), ({"x-api-key": ["k1"]}, "k2"))
        self.assertEqual(self.reception.claims, [])
        self.assertEqual(warnings_of(self.log)[0], f"WebSocket {PEER_TEXT} rejected: 401 this API key is not known")

    def test_bad_handshakes(self) -> None:
        """No subprotocol, no contextId, no upgrade: refused with a reason and before anything is claimed."""
        for path, more, status, reason in (
            (PATH, {"subprotocol": None}, 400, "the subprotocol must be media"),
            (PATH, {"subprotocol": "chat"}, 400, "the subprotocol must be media"),
            ("/", {}, 400, "no contextId in the path or the query"),
            ("/v1/talk/asterisk/ctx", {}, 400, "no contextId in the path or the query"),
            ("/v1/talk/asterisk/ctx/?contextId=", {}, 400, "no contextId in the path or the query"),
            (PATH, {"upgrade": False}, 426, "HTTP Upgrade header missing"),
        ):
            self.connect()
            self.ask(path, **more)
            self.assert_refused(status, reason)
        self.assertEqual(self.reception.claims, [])

    def test_claims_that_fail(self) -> None:
        """What the store says becomes the status: 404, 409 or 503, with its reason."""
        for error, status in (
            (UnknownContext(CALL), 404),
            (ContextExpired(CALL), 404),
            (ContextClaimed(CALL), 409),
            (Draining("the server is stopping"), 503),
            (TooManyCalls("200 calls are up"), 503),
            (StoreUnavailable("the store is locked"), 503),
        ):
            self.connect()
            self.reception.answer = lambda context, error=error: fail(error)  # type: ignore[misc]
            self.ask()
            self.assert_refused(status, str(error))

    def test_claim_that_breaks(self) -> None:
        """An unexpected error is logged with its traceback; the peer gets no detail of it."""
        self.reception.answer = lambda context: fail(ZeroDivisionError("secret"))
        self.ask()
        self.assert_refused(500, "the call could not be claimed")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_strange_context_id(self) -> None:
        """A contextId with line ends or beyond ASCII does not get into the status line."""
        self.reception.answer = lambda context: fail(UnknownContext(context.context_id))
        for name in ("a%0d%0aSet-Cookie:%20x", "%C3%BC", "%00"):
            self.connect()
            self.ask(f"/v1/talk/asterisk/ctx?contextId={name}")
            self.assert_refused(404, "refused")

    def test_gone_while_claimed(self) -> None:
        """A peer that goes away while its call is claimed: the call is abandoned, and nothing is left running."""
        waiting: Deferred[CallContext] = Deferred()
        self.reception.answer = lambda context: waiting
        self.ask()
        self.lose()
        waiting.callback(claimed())
        ((context, reason, detail),) = self.reception.abandoned
        self.assertEqual((context.context_id, reason), (CALL, EndReason.CALLER_HANGUP))
        self.assertEqual(detail, "the connection closed while the call was claimed")
        self.assertEqual(self.transport.value(), b"")
        self.clock.advance(60)
        self.assert_nothing_scheduled()
        self.assertEqual(self.reception.sinks, [])

    def test_store_too_slow(self) -> None:
        """A claim that takes longer than the handshake may: cut off; the late claim is abandoned, once."""
        waiting: Deferred[CallContext] = Deferred()
        self.reception.answer = lambda context: waiting
        self.ask()
        self.clock.advance(START_TIMEOUT_S)
        self.assertTrue(self.transport.aborted)
        waiting.callback(claimed())
        self.assertEqual(len(self.reception.abandoned), 1)
        self.assertTrue(self.transport.settle())
        self.clock.advance(60)
        self.assert_nothing_scheduled()

    def test_gone_while_refused(self) -> None:
        """A peer that goes away before it is refused costs nothing more."""
        waiting: Deferred[CallContext] = Deferred()
        self.reception.answer = lambda context: waiting
        self.ask()
        self.lose()
        waiting.errback(UnknownContext(CALL))
        self.assertEqual((self.reception.abandoned, self.transport.value()), ([], b""))
        self.assert_nothing_scheduled()

    def test_two_handshakes(self) -> None:
        """A second handshake while the first is looked at claims nothing; the first claim is abandoned."""
        waiting: Deferred[CallContext] = Deferred()
        self.reception.answer = lambda context: waiting
        self.ask()
        self.assertIn(" 400 ", self.ask("/v1/talk/asterisk/ctx/other"))
        self.assertTrue(self.transport.settle())
        waiting.callback(claimed())
        self.assertEqual([claim[0] for claim in self.reception.claims], [CALL])
        self.assertEqual(len(self.reception.abandoned), 1)
        self.assert_nothing_scheduled()

    def test_silent(self) -> None:
        """A connection without a handshake is cut off after 5 s."""
        self.clock.advance(START_TIMEOUT_S)
        self.assertTrue(self.transport.aborted)
        self.assertTrue(self.transport.settle())
        self.assert_nothing_scheduled()


class StartTests(MediaTestCase):
    """MEDIA_START, or what comes in its place."""

    def test_start(self) -> None:
        """With MEDIA_START the call starts, and the channel knows what it is; no timer but the pings' is left."""
        sink = self.start()
        self.assertEqual((self.protocol.format, self.protocol.peer), (ULAW, PEER_TEXT))
        self.assertEqual(self.protocol.channel, "WebSocket/rapida/0x7fbce000af40")
        self.assertEqual((sink.context.channel_id, dict(sink.context.variables)), ("1795402101.4", {}))
        self.assertIs(sink.channel, self.protocol)
        self.clock.advance(START_TIMEOUT_S + 1)
        self.assertEqual((self.frames(), sink.ended, self.reception.abandoned), ([], [], []))

    def test_variables(self) -> None:
        """In JSON the channel's variables join those of the registration, which win."""
        variables = MappingProxyType({"tenant": "from the registration"})
        self.reception.answer = lambda context: succeed_with(context, variables)
        sink = self.start(JSON_START)
        self.assertEqual(
            dict(sink.context.variables), {"DIALEDPEERNUMBER": "rapida", "tenant": "from the registration"}
        )
        self.assertEqual((sink.context.channel_id, str(self.protocol.format)), ("1.27", "slin@16000"))

    def test_registered_channel_id(self) -> None:
        """The channel id of the registration wins: it is the caller's channel, not the media's."""
        self.reception.answer = lambda context: succeed_with(context, MappingProxyType({}), channel_id="the caller's")
        self.assertEqual(self.start().context.channel_id, "the caller's")

    def test_every_format(self) -> None:
        """Every codec that is converted here is taken, with its frame of 20 ms."""
        for format in (ULAW, ALAW, *(AudioFormat("slin", hz) for hz in SLIN_RATES_HZ)):
            self.reception.sinks.clear()
            self.connect()
            self.start(f"MEDIA_START format:{format.asterisk_name} optimal_frame_size:{format.frame_bytes}")
            self.assertEqual(self.protocol.format, format)
            self.lose()

    def test_codec_not_taken(self) -> None:
        """A codec that is not converted here, or odd frames: HANGUP, and the call is abandoned with the reason."""
        for start, reason in (
            ("format:opus optimal_frame_size:0", "codec 'opus' is not supported: dial with c(ulaw), c(alaw), "),
            ("format:g729 optimal_frame_size:20", "codec 'g729' is not supported: dial with "),
            ("format:ulaw optimal_frame_size:240", "ulaw in frames of 240 bytes is not supported"),
        ):
            self.reception.abandoned.clear()
            self.connect()
            self.ask()
            self.transport.clear()
            self.text("MEDIA_START " + start)
            self.assertEqual(self.frames(), [(TEXT, b"HANGUP"), (CLOSE, NORMAL)])
            ((_, end, detail),) = self.reception.abandoned
            self.assertEqual((end, detail[: len(reason)]), (EndReason.PROTOCOL_ERROR, reason))
            self.assertIn(reason, warnings_of(self.log)[-1])
            self.feed(CLOSE, NORMAL)
            self.assertTrue(self.transport.settle())
            self.assertEqual((self.reception.sinks, len(self.reception.abandoned)), ([], 1))
            self.assert_nothing_scheduled()

    def test_overdue(self) -> None:
        """Without MEDIA_START for 5 s the call is abandoned and the connection closed, with one log line."""
        self.ask()
        self.transport.clear()
        self.text("MEDIA_XON")
        self.clock.advance(START_TIMEOUT_S - 0.01)
        self.assertEqual(self.reception.abandoned, [])
        self.clock.advance(0.01)
        ((_, end, detail),) = self.reception.abandoned
        self.assertEqual((end, detail), (EndReason.PROTOCOL_ERROR, "no MEDIA_START came"))
        self.assertEqual(self.frames(), [(CLOSE, NORMAL)])
        self.assertEqual(warnings_of(self.log), [f"WebSocket {PEER_TEXT} sent no MEDIA_START within 5.0 s: closed"])
        self.text(START)
        self.clock.advance(3)
        self.assertTrue(self.transport.settle())
        self.assertEqual((self.reception.sinks, len(self.reception.abandoned)), ([], 1))
        self.assert_nothing_scheduled()

    def test_closed_before(self) -> None:
        """A connection that closes before MEDIA_START: the call is abandoned."""
        for close, reason in (
            (lambda: self.feed(CLOSE, NORMAL), EndReason.CALLER_HANGUP),
            (lambda: self.lose(ConnectionLost()), EndReason.CONNECTION_LOST),
            (lambda: self.feed(BINARY, b"a", reserved=1), EndReason.PROTOCOL_ERROR),
        ):
            self.reception.abandoned.clear()
            self.connect()
            self.ask()
            close()
            self.clock.advance(3)
            self.assertTrue(self.transport.settle())
            self.assertEqual([end for _, end, _ in self.reception.abandoned], [reason])
            self.assert_nothing_scheduled()

    def test_audio_before(self) -> None:
        """Audio before MEDIA_START is dropped."""
        self.ask()
        self.feed(BINARY, b"ab")
        self.protocol.send_audio(b"cd")
        self.text(START)
        self.assertEqual(self.sink.heard, b"")


class ClientTests(SynchronousTestCase):
    """The application that connects to a channel which waits in Asterisk."""

    def setUp(self) -> None:
        self.clock = on_clock(self)
        self.log = KeptLog(self)
        self.starter = FakeStarter(PausedSink)
        self.factory = MediaClientFactory("ws://asterisk:8088/media/abc", self.starter, self.clock, claimed())
        self.protocol = self.factory.buildProtocol(None)
        self.transport = connect(self.protocol, self.factory)

    def agree(self) -> None:
        """Asterisk agrees."""
        self.protocol.dataReceived(agreement(self.transport.taken()))

    def test_request(self) -> None:
        """The handshake asks for the subprotocol media, at the path of the channel."""
        head = self.transport.value().decode()
        self.assertTrue(head.startswith("GET /media/abc HTTP/1.1\r\n"), head)
        self.assertIn("\r\nSec-WebSocket-Protocol: media\r\n", head)
        self.assertNotIn("User-Agent", head)

    def test_call(self) -> None:
        """From MEDIA_START on it is a call like any other; what is sent is masked."""
        self.agree()
        self.protocol.dataReceived(raw_ws_frame(TEXT, START.encode()) + raw_ws_frame(BINARY, b"ab"))
        sink = self.starter.sink
        self.assertEqual((sink.heard, sink.context.context_id), (b"ab", CALL))
        self.protocol.send_audio(b"a" * 160)
        self.protocol.flush()
        data = self.transport.taken()
        self.assertEqual(data[1] & 0x80, 0x80)
        self.assertEqual(unframed(data), [(BINARY, b"a" * 160), (TEXT, b"FLUSH_MEDIA")])
        self.protocol.dataReceived(raw_ws_frame(CLOSE, NORMAL))
        self.transport.lose(ConnectionDone())
        self.assertEqual(sink.ended, [(EndReason.CALLER_HANGUP, "")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_start(self) -> None:
        """Without MEDIA_START the call is abandoned."""
        self.agree()
        self.clock.advance(START_TIMEOUT_S)
        ((_, end, detail),) = self.starter.abandoned
        self.assertEqual((end, detail), (EndReason.PROTOCOL_ERROR, "no MEDIA_START came"))
        self.clock.advance(10)
        self.assertTrue(self.transport.settle())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """Asterisk knows no such channel, or never answers: the call is abandoned."""
        self.protocol.dataReceived(b"HTTP/1.1 404 Not Found\r\n\r\n")
        self.assertTrue(self.transport.settle())
        ((_, end, detail),) = self.starter.abandoned
        self.assertEqual(end, EndReason.CONNECTION_LOST)
        self.assertIn("404", detail)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_answer(self) -> None:
        """An Asterisk that does not answer is given up after 5 s."""
        self.clock.advance(START_TIMEOUT_S)
        self.assertTrue(self.transport.settle())
        self.assertEqual(len(self.starter.abandoned), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


def succeed_with(context: CallContext, variables: MappingProxyType[str, str], channel_id: str = "") -> Any:
    """A claim that gives a context with these."""
    return succeed(replace(context, variables=variables, channel_id=channel_id))
