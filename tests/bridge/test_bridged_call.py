"""A bridged call between fakes, on fake time."""

from __future__ import annotations

from array import array
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rapida_twisted.audio.formats import SLIN, ULAW, AudioFormat
from rapida_twisted.audio.g711 import slin_to_ulaw
from rapida_twisted.bridge.bridged_call import BridgedCall
from rapida_twisted.bridge.fallback import Fallback
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import StoreUnavailable, TransferRefused, UpstreamFailed
from rapida_twisted.interfaces import IFarEnd, IFarEndUser
from tests.media.fakes import CallOnFakes, FakeAssistant, FakeChannel, KeptLog

FRAME = array("h", [1000]).tobytes() * 160
SILENCE = SLIN.silent_frame
LOST = UpstreamFailed("lost", "upstream far.example:443 was lost")


@implementer(IFarEnd)
class FakeFarEnd:
    """Records what it is sent, and returns the given frames."""

    queued_ms = dropped_ms = 0.0
    shifted = 0

    def __init__(self, format: AudioFormat = ULAW) -> None:
        self.format = format
        self.heard: list[bytes] = []
        self.digits: list[str] = []
        self.due: list[bytes] = []
        self.hangups = self.aborts = 0

    def send_audio(self, payload: bytes) -> bool:
        """Keep it."""
        self.heard.append(payload)
        return True

    def send_digit(self, digit: str) -> None:
        """Keep it."""
        self.digits.append(digit)

    def take(self) -> bytes | None:
        """What is due."""
        return self.due.pop(0) if self.due else None

    def hang_up(self) -> None:
        """Count it."""
        self.hangups += 1

    def abort(self) -> None:
        """Count it."""
        self.aborts += 1


class BridgeTestCase(SynchronousTestCase):
    """A call, and a far end that it is or is not connected to."""

    def setUp(self) -> None:
        self.logged = KeptLog(self)
        self.far_end = FakeFarEnd()
        self.connecting: Deferred[FakeFarEnd] = Deferred()
        self.moved: list[str] = []

    def call(self, fallback: Fallback | None = None, format: AudioFormat = ULAW, channel: Any = None) -> CallOnFakes:
        """A bridged call."""
        self.far_end.format = format

        async def connect(context: CallContext, user: IFarEndUser) -> IFarEnd:
            self.carried = context
            far_end: IFarEnd = await self.connecting
            return far_end

        self.bridge = BridgedCall(connect, format, fallback or Fallback())
        return CallOnFakes(self.bridge, channel)

    def up(self, fallback: Fallback | None = None, **words: Any) -> CallOnFakes:
        """A bridged call."""
        fakes = self.call(fallback, **words)
        self.connecting.callback(self.far_end)
        return fakes

    def warnings(self) -> list[str]:
        """What was warned of."""
        return [str(event["failure"]) for event in self.logged.at(LogLevel.warn)]


class AudioTests(BridgeTestCase):
    """Both ways, and digits."""

    def test_interfaces(self) -> None:
        """It is a far end's user; the fake is a far end."""
        self.up()
        verifyObject(IFarEndUser, self.bridge)
        verifyObject(IFarEnd, self.far_end)

    def test_both_ways(self) -> None:
        """The caller is heard at once, what comes is heard with the next tick, in the formats of each side."""
        fakes = self.up()
        self.assertEqual(self.carried, fakes.call.context)
        fakes.call.audio_received(FRAME)
        self.assertEqual(self.far_end.heard, [slin_to_ulaw(FRAME)])
        self.far_end.due = [slin_to_ulaw(FRAME)] * 2
        said = fakes.tick(3)
        self.assertEqual([len(frame) for frame in said], [320] * 3)
        self.assertEqual(slin_to_ulaw(said[0]), slin_to_ulaw(FRAME))
        self.assertEqual(said[2], SILENCE)

    def test_wideband(self) -> None:
        """Another rate there is converted once each way."""
        slin16 = AudioFormat("slin", 16000)
        fakes = self.up(format=slin16)
        self.far_end.due = [slin16.silent_frame[:-2] + b"\1\0"] * 5
        for _ in range(5):
            fakes.call.audio_received(FRAME)
        self.assertEqual([len(payload) for payload in self.far_end.heard], [640] * 5)
        self.assertEqual({len(frame) for frame in fakes.tick(5)}, {320})

    def test_nothing_to_convert(self) -> None:
        """Where both sides have the same format, bytes stay what they are."""
        fakes = self.up(format=SLIN)
        fakes.call.audio_received(FRAME)
        self.assertIs(self.far_end.heard[0], FRAME)
        self.far_end.due = [FRAME]
        self.assertIs(fakes.tick()[0], FRAME)

    def test_while_connecting(self) -> None:
        """What the caller says while the other server is connected is not sent later, in a burst; the log counts it."""
        fakes = self.call(format=SLIN)
        for _ in range(8):
            fakes.call.audio_received(FRAME)
        self.connecting.callback(self.far_end)
        self.assertEqual(self.far_end.heard, [])
        fakes.call.audio_received(FRAME)
        self.assertEqual(self.far_end.heard, [FRAME])
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.turn()
        told = [event["unheard"] for event in self.logged.events if "unheard" in event]
        self.assertEqual(told, [160.0])

    def test_digits_while_connecting(self) -> None:
        """Keys that are pressed meanwhile get there, in their order, the newest 32."""
        fakes = self.call()
        for digit in "0" + "123*" * 8:
            fakes.call.digit_received(digit)
        self.connecting.callback(self.far_end)
        self.assertEqual("".join(self.far_end.digits), "123*" * 8)

    def test_digits(self) -> None:
        """Digits get there."""
        fakes = self.up()
        fakes.call.digit_received("5")
        self.assertEqual(self.far_end.digits, ["5"])

    def test_flush(self) -> None:
        """A barge-in there empties what waits here, and at an Asterisk that has a queue of its own."""
        fakes = self.up(format=SLIN, channel=FakeChannel(paced=True))
        self.far_end.due = [FRAME] * 10
        fakes.tick()
        self.bridge.far_end_flushed()
        self.assertEqual(fakes.channel.flushes, 1)


class EndTests(BridgeTestCase):
    """Ends from either side."""

    def test_caller_hangs_up(self) -> None:
        """Then it is over there, too."""
        fakes = self.up()
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.turn()
        self.assertEqual((self.far_end.hangups, self.far_end.aborts), (1, 0))
        self.assertEqual(self.logged.failures, [])

    def test_caller_hangs_up_while_connecting(self) -> None:
        """The connecting is cancelled."""
        fakes = self.call()
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.turn()
        self.assertTrue(self.connecting.called)
        self.assertEqual(self.warnings(), [])

    def test_far_end_hangs_up(self) -> None:
        """Then the media ends here, as when an assistant of ours hangs up."""
        fakes = self.up()
        self.bridge.far_end_hung_up("")
        fakes.turn()
        self.assertIs(fakes.call.ended, EndReason.ASSISTANT_HANGUP)
        self.assertEqual((fakes.channel.hangups, self.far_end.hangups), (1, 0))

    def test_not_taken(self) -> None:
        """A call that the server refuses, without a fallback, returns to the dialplan; the record has the reason."""
        fakes = self.call()
        self.connecting.errback(LOST)
        fakes.turn()
        self.assertIs(fakes.call.ended, EndReason.UPSTREAM_FAILED)
        self.assertEqual((fakes.channel.hangups, fakes.call.detail), (1, str(LOST)))
        self.assertEqual(self.logged.failures, [])

    def test_lost(self) -> None:
        """So is one that is lost there."""
        fakes = self.up()
        self.bridge.far_end_failed(LOST)
        fakes.turn()
        self.assertIs(fakes.call.ended, EndReason.UPSTREAM_FAILED)
        self.assertEqual((fakes.channel.hangups, fakes.call.detail), (1, str(LOST)))


class FallbackTests(BridgeTestCase):
    """A fallback takes over."""

    def test_assistant(self) -> None:
        """Another assistant answers from then on; one line in the log, one in the record."""
        other = FakeAssistant()
        for lose in (lambda: self.connecting.errback(LOST), self.lose_later):
            self.setUp()
            fakes = self.call(Fallback("play:sorry.wav", lambda context: other))
            lose()
            fakes.turn()
            other.heard.clear()
            fakes.call.audio_received(FRAME)
            self.assertIsNone(fakes.call.ended)
            self.assertEqual(other.heard, [FRAME])
            self.assertEqual(self.far_end.heard, [])
            self.assertEqual(self.warnings(), [str(LOST)])
            fakes.call.media_ended(EndReason.CALLER_HANGUP)
            fakes.turn()
            self.assertEqual(fakes.call.detail, str(LOST))
            self.assertEqual(other.ended.pop(), EndReason.CALLER_HANGUP)

    def lose_later(self) -> None:
        """The far end takes the call, and is lost."""
        self.connecting.callback(self.far_end)
        self.bridge.far_end_failed(LOST)

    def transferred(self, error: Exception | None = None) -> CallOnFakes:
        """A call that goes on to an extension."""
        fakes = self.call(Fallback("next:PJSIP/200", dial_string="PJSIP/200"))

        def move_on(call: Any, dial_string: str) -> Deferred[None]:
            self.moved.append(dial_string)
            moving: Deferred[None] = fail(error) if error is not None else Deferred()
            if error is None:
                moving.callback(None)
            return moving

        fakes.call._move_on = move_on
        self.connecting.errback(LOST)
        fakes.turn()
        fakes.turn()
        return fakes

    def test_extension(self) -> None:
        """The dialplan dials on; the record tells both."""
        fakes = self.transferred()
        self.assertIs(fakes.call.ended, EndReason.TRANSFERRED)
        self.assertEqual((self.moved, fakes.call.detail), (["PJSIP/200"], str(LOST)))
        self.assertEqual(self.warnings(), [str(LOST)])

    def test_extension_fails(self) -> None:
        """When that fails too, the media ends, and the record tells both failures."""
        for error in (TransferRefused("not there"), StoreUnavailable("the disk is full")):
            self.setUp()
            fakes = self.transferred(error)
            self.assertIs(fakes.call.ended, EndReason.UPSTREAM_FAILED)
            self.assertEqual(fakes.call.detail, f"{LOST}; its fallback next:PJSIP/200 failed, too: {error}")
