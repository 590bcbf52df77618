"""Makers of assistants that have more to do than to make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rapida_twisted.assistants.makers import checked_maker
from rapida_twisted.assistants.plugin import AssistantPlugin
from rapida_twisted.assistants.record import Record, _RecordMaker
from rapida_twisted.assistants.registry import Assistants, parse_rules
from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError, UnknownAssistant
from rapida_twisted.interfaces import AssistantEnvironment, IAssistant, IAssistantMaker
from rapida_twisted.media.assistant import Assistant
from rapida_twisted.settings.groups import RecordingSettings
from tests.assistants.calls import CONTEXT


@implementer(IAssistantMaker)
class Maker:
    """One that does all that makers may do."""

    def __init__(self, health: Mapping[str, Any] | None = None) -> None:
        self.closed = 0
        self._health = health or {}

    def __call__(self, context: CallContext) -> IAssistant:
        """One call's."""
        return Assistant()

    async def prepare(self, context: CallContext) -> CallContext:
        """Note something."""
        return replace(context, upstream_id="there")

    def health(self) -> Mapping[str, Any]:
        """As it was told."""
        return self._health

    async def close(self) -> None:
        """Count it."""
        self.closed += 1


class MakersTests(SynchronousTestCase):
    """What a server asks of them."""

    def prepared(self, assistants: Assistants, assistant_id: str) -> str:
        """What was noted at a registration."""
        preparing = Deferred.fromCoroutine(assistants.prepare(replace(CONTEXT, assistant_id=assistant_id)))
        return self.successResultOf(preparing).upstream_id

    def test_prepare(self) -> None:
        """The maker of the call's assistant is asked; plain functions have nothing to say, nor has nobody."""
        assistants = Assistants({"1": Maker(), "2": lambda context: Assistant()})
        self.assertEqual([self.prepared(assistants, name) for name in ("1", "2", "3")], ["there", "", ""])
        self.assertEqual(self.prepared(Assistants({"*": Maker()}), "3"), "there")

    def test_health(self) -> None:
        """Those are shown that have something to tell."""
        makers = {"1": Maker({"state": "open"}), "2": Maker(), "3": lambda context: Assistant()}
        self.assertEqual(Assistants(makers).health(), {"1": {"state": "open"}})

    def test_close(self) -> None:
        """Each is closed, with the server."""
        makers = {"1": Maker(), "2": lambda context: Assistant(), "3": Maker()}
        self.successResultOf(Deferred.fromCoroutine(Assistants(makers).close()))
        self.assertEqual([makers[name].closed for name in ("1", "3")], [1, 1])  # type: ignore[attr-defined]

    def test_recorded(self) -> None:
        """A recording passes on what its inner assistant's maker is asked."""
        inner = Maker({"state": "open"})
        maker = _RecordMaker(inner, RecordingSettings(), AssistantEnvironment(Clock(), Path("state")))
        verifyObject(IAssistantMaker, maker)
        assistants = Assistants({"*": maker})
        self.assertEqual(self.prepared(assistants, "1"), "there")
        self.assertEqual(assistants.health(), {"*": {"state": "open"}})
        self.successResultOf(Deferred.fromCoroutine(assistants.close()))
        self.assertEqual(inner.closed, 1)
        self.assertIsInstance(assistants.make(CONTEXT), Record)

    def test_plain(self) -> None:
        """What ships and has nothing to prepare, prepares nothing."""
        environment = AssistantEnvironment(Clock(), Path("state"))
        assistants = parse_rules("*=echo,1=record:echo", environment)
        self.assertEqual((self.prepared(assistants, "1"), self.prepared(assistants, "2")), ("", ""))
        self.assertEqual(assistants.health(), {})


class AssistantPluginTests(SynchronousTestCase):
    def test_module(self) -> None:
        """A module that is not there, or has no configure(), is a sentence that names it."""
        environment = AssistantEnvironment(Clock(), Path("state"))
        for module, text in (
            ("no_such_package.weather", "no_such_package.weather can't be imported: No module named 'no_such_package'"),
            ("textwrap", "textwrap has no configure(argument, environment)"),
        ):
            plugin = AssistantPlugin("weather", "weather:CITY", module)
            error = self.assertRaises(SettingsError, plugin.configure, "Berlin", environment)
            self.assertEqual(str(error), f"the assistant 'weather': {text}")


def forgot_return(context: CallContext) -> None:
    Assistant()


def returns_none(context: CallContext) -> None:
    return None


async def is_coroutine(context: CallContext) -> Assistant:
    return Assistant()


class NeedsAsyncio(Assistant):
    needs_asyncio = True


class NoCoroutine(Assistant):
    def answer(self, call: Any) -> Any:  # type: ignore[override]
        call.play_tone(440, 500)


class ReturnsDeferred(Assistant):
    def answer(self, call: Any) -> Any:  # type: ignore[override]
        return call.play_tone(440, 500)


class CheckedMakerTests(SynchronousTestCase):
    """Makers that make no assistants."""

    def assert_refused(self, made_by: Any, *texts: str, has_asyncio: bool = True) -> None:
        error = self.assertRaises(SettingsError, checked_maker, made_by, "bots:make", has_asyncio=has_asyncio)
        for text in ("'bots:make'", *texts):
            self.assertIn(text, str(error))

    def test_at_start(self) -> None:
        """What always returns None, or is a coroutine, is refused at once, and so is what is no maker."""
        for made_by in (forgot_return, returns_none, lambda: None):
            self.assert_refused(made_by, "always returns None")
        self.assert_refused(is_coroutine, "is a coroutine")
        self.assert_refused(None, "no class and no function")

    def test_answer_that_is_no_coroutine(self) -> None:
        """A class whose answer() is a plain function without a result is refused; one that returns a Deferred works."""
        self.assert_refused(NoCoroutine, "write 'async def answer(self, call)'")
        self.assertIsInstance(checked_maker(ReturnsDeferred, "bots:make", has_asyncio=True)(CONTEXT), ReturnsDeferred)

    def test_rate(self) -> None:
        """A class with a rate that no audio can have is refused; any other rate is not."""
        for rate_hz in (0, 16, "16000", 16000.5, 1_000_000):
            self.assert_refused(type("Bot", (Assistant,), {"rate_hz": rate_hz}), f"is {rate_hz!r}: it is a sample rate")
        for rate_hz in (None, 8000, 22050, 48000, property(lambda self: 16000)):
            checked_maker(type("Bot", (Assistant,), {"rate_hz": rate_hz}), "bots:make", has_asyncio=True)

    def test_not_known_at_start(self) -> None:
        """Functions that may return an assistant are not refused."""

        def perhaps(context: CallContext) -> Any:
            if context.called == "1":
                return Assistant()
            return None

        def raises(context: CallContext) -> Any:
            raise ValueError("not today")

        for made_by in (perhaps, raises, lambda context: Assistant() if context else None, partial(perhaps)):
            checked_maker(made_by, "bots:make", has_asyncio=True)

    def register(self, maker: Any, called: str) -> Deferred[CallContext]:
        return Deferred.fromCoroutine(maker.prepare(replace(CONTEXT, called=called)))

    def test_at_registration(self) -> None:
        """A call for which a function returns no assistant is not registered; the reason is one sentence."""
        for made, text in ((None, "returned None"), (object(), "returned object, which has no answer()")):
            maker = checked_maker(lambda context, made=made: made, "bots:make", has_asyncio=True)
            error = self.failureResultOf(self.register(maker, "1"), UnknownAssistant)
            self.assertEqual(error.getErrorMessage(), f"the assistant 'bots:make' can't be made: its function {text}")

    def test_called_until_it_works(self) -> None:
        """A function is called for registrations until it has returned an assistant, and again after it has not."""
        calls: list[str] = []

        def make(context: CallContext) -> Assistant | None:
            calls.append(context.called)
            return Assistant() if context.called == "1" else None

        maker = checked_maker(make, "bots:make", has_asyncio=True)
        for _ in range(3):
            self.successResultOf(self.register(maker, "1"))
        self.assertEqual(calls, ["1"])
        self.assertRaises(SettingsError, maker, replace(CONTEXT, called="2"))
        self.failureResultOf(self.register(maker, "2"), UnknownAssistant)
        self.successResultOf(self.register(maker, "1"))
        self.assertEqual(calls, ["1", "2", "2", "1"])

    def test_raises_at_registration(self) -> None:
        """An error of the function itself is no refusal."""

        def make(context: CallContext) -> Assistant:
            raise ValueError("not today")

        self.failureResultOf(self.register(checked_maker(make, "bots:make", has_asyncio=True), "1"), ValueError)

    def test_needs_asyncio(self) -> None:
        """A class is refused at start, what a function returns at the registration; with asyncio neither is."""
        self.assert_refused(NeedsAsyncio, "needs asyncio", "--reactor=asyncio", has_asyncio=False)
        maker = checked_maker(lambda context: NeedsAsyncio(), "bots:make", has_asyncio=False)
        self.failureResultOf(self.register(maker, "1"), UnknownAssistant)
        self.assertIsInstance(checked_maker(NeedsAsyncio, "bots:make", has_asyncio=True)(CONTEXT), NeedsAsyncio)

    def test_function_maker(self) -> None:
        """It is a whole maker."""
        maker = checked_maker(lambda context: Assistant(), "bots:make", has_asyncio=True)
        self.assertTrue(verifyObject(IAssistantMaker, maker))
        self.assertEqual(maker.health(), {})  # type: ignore[attr-defined]
        self.successResultOf(Deferred.fromCoroutine(maker.close()))  # type: ignore[attr-defined]
