"""The fake call, as those use it who test their own assistants."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import EndReason
from rapida_twisted.interfaces import ICall
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.testing import FakeCall
from tests.media.fakes import counted, write_wav


class Spoken:
    """A synthesiser's stream that knows its text."""

    def __init__(self, text: str, frames: int) -> None:
        self.text = text
        self._frames = frames

    def __iter__(self) -> Iterator[bytes]:
        return iter([counted(1)] * self._frames)


class Bot(Assistant):
    """Greets, looks something up in a thread, says it, and transfers."""

    rate_hz = 8000

    def __init__(self, welcome: str) -> None:
        self.welcome = welcome
        self.error = ""

    def look_up(self, name: str) -> str:
        if not name:
            raise KeyError("nobody")
        return f"Hello, {name}"

    async def answer(self, call: ICall) -> None:
        await call.play(self.welcome)
        await call.wait(1.0)
        text = await deferToThread(self.look_up, "Ann")
        await call.play(Spoken(text, 10))
        try:
            await deferToThread(self.look_up, "")
        except KeyError as error:
            self.error = str(error)
        await call.transfer("PJSIP/200")


class FakeCallTests(SynchronousTestCase):
    def test_a_bot_that_transfers(self) -> None:
        """A test waits for what was said, threads' results included, and sees the transfer."""
        bot = Bot(write_wav(f"{self.mktemp()}-welcome.wav", counted(25)))
        call = FakeCall(bot)
        call.start()
        call.advance_until(lambda: call.said_texts)
        self.assertTrue(call.said_texts[0].endswith("welcome.wav"))
        self.assertEqual(call.said_ms, 500)
        self.assertIsNone(call.transferred_to)
        call.advance_until(lambda: call.transferred_to)
        self.assertEqual((call.said_texts[1:], call.said_ms), (["Hello, Ann"], 700))
        self.assertEqual((call.transferred_to, bot.error), ("PJSIP/200", "'nobody'"))
        call.advance(0.1)
        self.assertIs(call.call.ended, EndReason.TRANSFERRED)
        self.assertTrue(call.hung_up)
        self.assertEqual(call.clock.getDelayedCalls(), [])

    def test_cut_short(self) -> None:
        """What was heard in part counts, and what was not heard at all does not."""
        call = FakeCall(Assistant())
        call.start()
        call.call.play(Spoken("first", 50))
        call.call.play(Spoken("second", 50))
        call.advance(0.2)
        call.call.flush()
        self.assertEqual(call.said_texts, ["first"])

    def test_never_said(self) -> None:
        """A condition that does not come true fails the test, and tells what was said."""
        call = FakeCall(Assistant())
        call.start()
        call.call.play(Spoken("good morning", 5))
        error = self.assertRaises(AssertionError, call.advance_until, lambda: call.hung_up, 2.0)
        said = "the condition is not true after 2 s: the caller heard 100 ms (good morning), and the call is up"
        self.assertEqual(str(error), said)
        self.assertApproximates(call.clock.seconds(), 2.0, 0.01)

    def test_not_started(self) -> None:
        """The error says that the test forgot to answer the call."""
        error = self.assertRaises(AssertionError, FakeCall(Assistant()).advance_until, lambda: False, 1.0)
        self.assertTrue(str(error).endswith("after 1 s: the call was not answered; start() answers it"), str(error))

    def test_failed_meanwhile(self) -> None:
        """The error names the reason of a call that ended before the condition came true."""

        class Broken(Assistant):
            async def answer(self, call: ICall) -> None:
                await call.wait(0.5)
                raise KeyError("menu")

        call = FakeCall(Broken())
        call.start()
        error = self.assertRaises(AssertionError, call.advance_until, lambda: call.transferred_to, 2.0)
        self.assertTrue(str(error).endswith("and the call has ended: assistant_failed (KeyError: 'menu')"), str(error))
        self.assertIs(call.ended, EndReason.ASSISTANT_FAILED)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_answer_that_is_no_coroutine(self) -> None:
        """A plain function in place of the coroutine fails with a sentence that names it."""

        class Plain(Assistant):
            def answer(self, call: ICall) -> None:  # type: ignore[override]
                call.play_tone(440, 100)

        call = FakeCall(Plain())
        call.start()
        call.advance(0.5)
        self.assertIs(call.ended, EndReason.ASSISTANT_FAILED)
        self.assertIn("Plain.answer() is no coroutine: write 'async def answer(self, call)'", call.call.detail)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_takes_an_object(self) -> None:
        """A class in place of its object is refused at once."""
        error = self.assertRaises(TypeError, FakeCall, Assistant)
        self.assertEqual(str(error), "FakeCall() takes an object, not its class: FakeCall(Assistant())")

    def test_press(self) -> None:
        """Several keys are pressed one after the other; what is no key of a telephone is refused."""
        call = FakeCall(Assistant())
        call.start()
        collected = call.call.digits(2)
        call.press("42")
        self.assertEqual(self.successResultOf(collected), "42")
        for digits in ("", "x", "1 2"):
            self.assertRaises(ValueError, call.press, digits)

    def test_a_thread_at_the_end(self) -> None:
        """The result of a thread that comes after the call's end is dropped."""
        call = FakeCall(Bot(write_wav(f"{self.mktemp()}.wav", counted(1))))
        call.start()
        call.advance_until(lambda: call.said_texts)
        call.advance(0.9)
        call.clock.callLater(0.1, call.call.media_ended, EndReason.CALLER_HANGUP)
        call.advance(1.0)
        self.assertIs(call.call.ended, EndReason.CALLER_HANGUP)
        self.assertEqual(call.clock.getDelayedCalls(), [])
