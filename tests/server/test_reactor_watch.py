"""What blocks the reactor: in real time, since a thread looks at it."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from rapida_twisted.interfaces import ICall
from rapida_twisted.server.reactor_watch import BEAT_S, LATE_S, ReactorWatch
from tests.media.fakes import CallOnFakes, FakeAssistant, KeptLog, make_context

HELD_S = BEAT_S + LATE_S + 0.5


class ReactorWatchTests(TestCase):
    """One watch of the tests' own reactor."""

    def setUp(self) -> None:
        self.logged = KeptLog(self)
        self.blocked: list[tuple[str, float]] = []
        self.beats: list[int] = []
        self.watch = ReactorWatch(lambda *blocked: self.blocked.append(blocked), reactor, self.beats.append)
        self.watch.start()
        self.addCleanup(self.watch.stop)

    @property
    def warnings(self) -> list[dict[str, Any]]:
        return [event for event in self.logged.events if "stack" in event]

    async def block(self, function: Any, *arguments: Any) -> None:
        """Call something in the reactor, and give the watch time to see that it is over."""
        await deferLater(reactor, BEAT_S * 2)
        await deferLater(reactor, 0, function, *arguments)
        await deferLater(reactor, BEAT_S * 2)

    async def test_assistant(self) -> None:
        """An assistant that blocks causes one warning with its class, its call and the line, and is counted."""

        async def answer(call: ICall) -> None:
            time.sleep(HELD_S)

        fakes = CallOnFakes(FakeAssistant(answer), start=False)
        await self.block(fakes.call.start)
        (warning,) = self.warnings
        self.assertEqual(warning["assistant"], "tests.media.fakes.FakeAssistant")
        self.assertEqual(warning["id"], fakes.call.context.context_id)
        self.assertIn("time.sleep(HELD_S)", warning["stack"])
        ((assistant_id, seconds),) = self.blocked
        self.assertEqual(assistant_id, "123")
        self.assertLess(abs(seconds - HELD_S), BEAT_S + 0.1)

    async def test_lazy_objects(self) -> None:
        """The watch runs no code of the objects that it finds."""
        asked: list[str] = []

        class Lazy:
            @property
            def __class__(self) -> Any:  # type: ignore[override]
                asked.append("class")
                raise RuntimeError("outside of its context")

        def block() -> None:
            lazy = Lazy()
            time.sleep(HELD_S)
            del lazy

        await self.block(block)
        self.assertEqual((asked, len(self.blocked), len(self.warnings)), ([], 1, 1))

    async def test_warns_once(self) -> None:
        """The same assistant is counted each time, and warned of once a minute."""

        def digits(call: ICall) -> None:
            time.sleep(HELD_S)

        assistant = FakeAssistant()
        assistant.on_digit = digits
        fakes = CallOnFakes(assistant)
        for _ in range(2):
            await self.block(fakes.call.digit_received, "1")
        self.assertEqual((len(self.warnings), len(self.blocked)), (1, 2))

    async def test_while_an_assistant_is_made(self) -> None:
        """Before there is a call, its context names the assistant."""

        def make(context: Any) -> None:
            time.sleep(HELD_S)

        await self.block(make, make_context(assistant_id="55"))
        self.assertEqual([assistant_id for assistant_id, _ in self.blocked], ["55"])

    async def test_no_assistant(self) -> None:
        """Other code is counted without an id."""
        await self.block(time.sleep, HELD_S)
        self.assertEqual([assistant_id for assistant_id, _ in self.blocked], [""])
        self.assertNotIn("assistant", self.warnings[0])

    async def test_nothing_blocks(self) -> None:
        """The heartbeats go on, and nothing is reported; the last one says that there are no more."""
        await self.block(time.sleep, LATE_S / 2)
        self.assertEqual((self.warnings, self.blocked), ([], []))
        self.assertGreater(len(self.beats), 2)
        self.assertLess(time.monotonic() - self.beats[-1] / 1000, 1)
        self.watch.stop()
        self.assertEqual(self.beats[-1], 0)

    async def test_stopped_at_once(self) -> None:
        """A watch that is stopped before the reactor's next turn leaves nothing."""
        self.watch.stop()
        waited: Deferred[None] = deferLater(reactor, BEAT_S)
        await waited
        self.assertEqual(self.beats, [])
