"""Calls with a hand-over between assistants, fetched audio, and notes."""

from __future__ import annotations

from array import array

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio.formats import SLIN, ULAW, AudioFormat
from rapida_twisted.context import EndReason
from rapida_twisted.errors import CallEnded, UpstreamFailed
from rapida_twisted.interfaces import ICall
from tests.media.fakes import CallOnFakes, FakeAssistant, FakeChannel, KeptLog

SLIN16 = AudioFormat("slin", 16000)
FRAME = array("h", [1000]).tobytes() * 160
OTHER = array("h", [2000]).tobytes() * 160
LOUD = FRAME * 2
"""A frame at 16 kHz."""
SILENCE = SLIN.silent_frame


class HandOverTests(SynchronousTestCase):
    """From one assistant to another."""

    def setUp(self) -> None:
        self.logged = KeptLog(self)
        self.cancelled: list[str] = []

    async def waits(self, call: ICall) -> None:
        """An answer that lasts."""
        try:
            await Deferred()
        finally:
            self.cancelled.append("first")

    def test_both_collect_digits(self) -> None:
        """The next assistant may collect digits at once, though the former still waited for some."""
        got: list[str] = []

        async def collects(call: ICall) -> None:
            while True:
                got.append(await call.digits(1))

        for callbacks in (False, True):
            fakes = CallOnFakes(FakeAssistant() if callbacks else FakeAssistant(collects))
            if callbacks:
                failed = fakes.call.digits(1).addErrback(lambda failure: failure.type)
            fakes.call.hand_over(FakeAssistant(collects))
            fakes.turn()
            fakes.call.digit_received("5")
            self.assertIsNone(fakes.call.ended)
        self.assertIs(self.successResultOf(failed), CallEnded)
        self.assertEqual(got, ["5", "5"])
        self.assertEqual(self.logged.failures, [])

    def test_next_hears_and_says(self) -> None:
        """The next assistant gets audio and digits and answers; the former gets nothing more, and its answer() ends."""
        first, second = FakeAssistant(self.waits), FakeAssistant()
        fakes = CallOnFakes(first)
        fakes.call.audio_received(FRAME)
        fakes.call.hand_over(second)
        self.assertEqual(self.cancelled, ["first"])
        fakes.call.audio_received(OTHER)
        fakes.call.digit_received("5")
        self.assertEqual((first.heard, second.heard), ([FRAME], [OTHER]))
        self.assertEqual((first.digits, second.digits), ([], ["5"]))
        fakes.call.write(FRAME)
        self.assertEqual(fakes.tick(), [FRAME])

    def test_from_within_its_answer(self) -> None:
        """It may be done in answer(), which then goes on to its end or is cancelled."""
        second = FakeAssistant()

        async def gives_up(call: ICall) -> None:
            call.hand_over(second)
            await Deferred()

        fakes = CallOnFakes(FakeAssistant(gives_up))
        fakes.turn()
        fakes.call.audio_received(FRAME)
        self.assertEqual(second.heard, [FRAME])
        self.assertIsNone(fakes.call.ended)
        self.assertEqual(self.logged.failures, [])

    def test_all_are_told_the_end(self) -> None:
        """Once each, the former ones first, so that what they began can be closed."""
        order: list[str] = []
        assistants = [FakeAssistant() for _ in range(3)]
        for name, assistant in zip("abc", assistants, strict=True):
            assistant.on_ended = lambda call, name=name: order.append(name)  # type: ignore[misc]
        fakes = CallOnFakes(assistants[0])
        fakes.call.hand_over(assistants[1])
        fakes.call.hand_over(assistants[2])
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.turn()
        self.assertEqual(order, ["a", "b", "c"])
        self.assertEqual([assistant.ended for assistant in assistants], [[EndReason.CALLER_HANGUP]] * 3)

    def test_another_rate(self) -> None:
        """Each hears and speaks at its own rate; a tap stays at the rate that it was made at."""
        first, second = FakeAssistant(), FakeAssistant(rate_hz=16000)
        fakes = CallOnFakes(first)
        heard: list[bytes] = []
        said: list[bytes] = []
        fakes.call.tap(heard.append, said.append)
        fakes.call.hand_over(second)
        self.assertEqual(fakes.call.rate_hz, 16000)
        for _ in range(5):
            fakes.call.audio_received(FRAME)
            fakes.tick()
        self.assertEqual([len(samples) for samples in second.heard], [640] * 5)
        self.assertEqual(heard, [FRAME] * 5)
        self.assertEqual({len(samples) for samples in said}, {320})

    def test_what_was_said_is_still_heard(self) -> None:
        """Audio that the former one queued is played to its end."""
        fakes = CallOnFakes()
        spoken = fakes.call.play(FRAME * 2)
        fakes.call.hand_over(FakeAssistant())
        self.assertEqual(fakes.tick(3), [FRAME, FRAME, SILENCE])
        self.successResultOf(spoken)

    def test_fetching_ends(self) -> None:
        """What the former one gave to be fetched is not fetched any more."""
        fakes = CallOnFakes()
        fakes.call.fetch(lambda: FRAME)
        self.assertEqual(fakes.tick(), [FRAME])
        fakes.call.hand_over(FakeAssistant())
        self.assertEqual(fakes.tick(), [SILENCE])

    def test_too_late(self) -> None:
        """A call that has ended cannot be handed over."""
        fakes = CallOnFakes()
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        self.assertRaises(CallEnded, fakes.call.hand_over, FakeAssistant())


class FetchTests(SynchronousTestCase):
    """Audio that is fetched when it is due."""

    def test_once_each_tick(self) -> None:
        """The source is called once per tick; without a frame, silence is sent."""
        due = [FRAME, None, OTHER, None]
        fakes = CallOnFakes()
        fakes.call.fetch(lambda: due.pop(0))
        self.assertEqual(fakes.tick(4), [FRAME, SILENCE, OTHER, SILENCE])
        self.assertEqual(due, [])

    def test_not_ahead(self) -> None:
        """A channel that may be sent ahead gets one frame with each tick all the same, however much there is."""
        fakes = CallOnFakes(FakeAssistant(), FakeChannel(paced=True))
        due = [bytes([number]) * SLIN.frame_bytes for number in range(50)]
        expected = due[:10]
        fakes.call.fetch(lambda: due.pop(0))
        self.assertEqual(fakes.tick(10), expected)

    def test_not_while_something_is_said(self) -> None:
        """What is said comes first; nothing is fetched meanwhile."""
        asked: list[int] = []
        fakes = CallOnFakes()
        fakes.call.fetch(lambda: asked.append(1))
        fakes.call.play(FRAME)
        self.assertEqual(fakes.tick(), [FRAME])
        self.assertEqual(asked, [])
        fakes.tick()
        self.assertEqual(asked, [1])

    def test_converted(self) -> None:
        """It is at the assistant's rate, and becomes what the wire wants, also when that changes."""
        fakes = CallOnFakes(FakeAssistant(rate_hz=16000), FakeChannel(ULAW))
        fakes.call.fetch(lambda: LOUD)
        self.assertEqual({len(frame) for frame in fakes.tick(10)} - {160}, set())
        fakes.channel.format = SLIN16
        fakes.call.format_changed()
        self.assertEqual(fakes.tick(), [LOUD])

    def test_fails(self) -> None:
        """What it raises is the assistant's failure."""
        fakes = CallOnFakes()
        fakes.call.fetch(lambda: bytes(1 // 0))
        fakes.tick()
        self.assertIs(fakes.call.ended, EndReason.ASSISTANT_FAILED)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class DetailTests(SynchronousTestCase):
    """What a record tells beside the reason."""

    def test_notes(self) -> None:
        """Notes come before what is known of the end, and all of it is bounded."""
        fakes = CallOnFakes()
        fakes.call.note("it began badly")
        fakes.call.media_ended(EndReason.CONNECTION_LOST, "reset by peer")
        self.assertEqual(fakes.call.detail, "it began badly; reset by peer")
        fakes.call.note("x" * 1000)
        self.assertEqual(len(fakes.call.detail), 500)

    def test_upstream_failed(self) -> None:
        """An upstream that fails is no failure of a program: no traceback, and a reason of its own."""
        logged = KeptLog(self)

        async def answer(call: ICall) -> None:
            raise UpstreamFailed("timeout", "upstream far.example:443 did not answer within 2 s")

        fakes = CallOnFakes(FakeAssistant(answer))
        fakes.turn()
        self.assertIs(fakes.call.ended, EndReason.UPSTREAM_FAILED)
        self.assertEqual(fakes.call.detail, "upstream far.example:443 did not answer within 2 s")
        self.assertEqual(fakes.channel.hangups, 1)
        self.assertEqual(logged.failures, [])
