"""Coroutines of assistants that outlive their call, and those of asyncio."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from rapida_twisted.context import EndReason
from rapida_twisted.errors import CallEnded, TransferRefused
from rapida_twisted.interfaces import ICall
from rapida_twisted.media.answering import CLEAN_UP_S, LATE_REQUESTS, OTHER_LATE_REQUESTS
from tests.media.call_case import CallTestCase
from tests.media.fakes import CallOnFakes, FakeAssistant, counted

Answer = Callable[[ICall], Awaitable[None]]
REQUESTS: list[Callable[[ICall], Awaitable[Any]]] = [
    lambda call: call.digits(1),
    lambda call: call.play(counted(1)),
    lambda call: call.transfer("PJSIP/1") if call.ended else call.digits(1),
    lambda call: call.hang_up(),
]


class RunawayTests(CallTestCase):
    """Coroutines that ignore the end of their call."""

    def setUp(self) -> None:
        super().setUp()
        self.requests = 0

    def runaway(self, request: Callable[[ICall], Awaitable[Any]], ignored: type[BaseException] = Exception) -> Answer:
        """Makes one request after the other, whatever it gets."""

        async def answer(call: ICall) -> None:
            while True:
                self.requests += 1
                try:
                    await request(call)
                except ignored:
                    pass

        return answer

    def warnings(self) -> list[str]:
        """The log's lines about closed coroutines."""
        return [event["where"] for event in self.logged.events if "where" in event]

    def test_closed_at_its_third_request(self) -> None:
        """Whatever it requests: it is closed, the log names its class and line, and nothing is left of it."""
        for request in REQUESTS[:3]:
            self.logged.events.clear()
            fakes = self.up(self.runaway(request))
            fakes.tick(3)
            fakes.call.media_ended(EndReason.CALLER_HANGUP)
            self.requests = 0
            for _ in range(10):
                fakes.turn()
            self.assertEqual(self.requests, LATE_REQUESTS)
            self.assert_over(fakes, EndReason.CALLER_HANGUP)
            (event,) = [event for event in self.logged.events if "where" in event]
            self.assertEqual(event["assistant"], "tests.media.fakes.FakeAssistant")
            self.assertRegex(event["where"], r"test_answering\.py:\d+$")
            self.assertEqual(event["id"], fakes.call.context.context_id)

    def test_hanging_up_for_ever(self) -> None:
        """Requests that succeed count, too."""
        fakes = self.up(self.runaway(lambda call: call.hang_up()))
        for _ in range(10):
            fakes.turn()
        self.assert_over(fakes, EndReason.ASSISTANT_HANGUP)
        self.assertEqual(len(self.warnings()), 1)

    def test_not_in_one_turn(self) -> None:
        """A request after the end fails in a later turn of the reactor, so that others have theirs."""
        fakes = self.up()
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        for request in REQUESTS:
            response = Deferred.fromCoroutine(_awaiting(request(fakes.call)))
            self.assertNoResult(response)
            fakes.turn()
            if request is REQUESTS[-1]:
                self.successResultOf(response)
            else:
                self.failureResultOf(response, CallEnded)

    def test_ignores_base_exception(self) -> None:
        """A coroutine that ignores even GeneratorExit is not resumed any more."""
        fakes = self.up(self.runaway(lambda call: call.digits(1), BaseException))
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        for _ in range(10):
            fakes.turn()
        self.assert_over(fakes, EndReason.CALLER_HANGUP)
        self.assertEqual(len(self.warnings()), 1)
        requests = self.requests
        for _ in range(10):
            fakes.turn()
        self.assertEqual(self.requests, requests)

    def test_two_requests_are_fine(self) -> None:
        """A coroutine may make two requests too many, and clean up."""
        seen: list[str] = []

        async def answer(call: ICall) -> None:
            for _ in range(2):
                try:
                    await call.digits(1)
                except (CallEnded, CancelledError) as error:
                    seen.append(type(error).__name__)
            await deferLater(call.reactor, 5)
            seen.append("clean")

        fakes = self.up(answer)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.reactor.pump([0, 0, 0, 5])
        self.assertEqual(seen, ["CancelledError", "CallEnded", "clean"])
        self.assertEqual(self.warnings(), [])
        self.assertEqual(fakes.reactor.getDelayedCalls(), [])

    def test_clean_up_has_a_limit(self) -> None:
        """What awaits other things may do so for 30 s; then its own finally runs, and no more."""
        seen: list[str] = []

        async def answer(call: ICall) -> None:
            try:
                while True:
                    try:
                        await deferLater(call.reactor, 1)
                    except CancelledError:
                        seen.append("cancelled")
            finally:
                seen.append("closed")

        fakes = self.up(answer)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.reactor.pump([1] * int(CLEAN_UP_S - 1))
        self.assertEqual(seen, ["cancelled"])
        fakes.reactor.pump([1] * 3)
        self.assertEqual(seen, ["cancelled", "closed"])
        self.assertEqual(len(self.warnings()), 1)
        self.assertEqual(fakes.reactor.getDelayedCalls(), [])

    def test_former_assistant(self) -> None:
        """An assistant that handed the call over, and goes on, is closed; the call and its successor go on."""
        first, second = FakeAssistant(self.runaway(lambda call: call.digits(1))), FakeAssistant()
        fakes = CallOnFakes(first)
        fakes.call.hand_over(second)
        for _ in range(10):
            fakes.turn()
        self.assertEqual(len(self.warnings()), 1)
        self.assertIsNone(fakes.call.ended)
        collected = fakes.call.digits(1)
        fakes.call.digit_received("5")
        self.assertEqual(self.successResultOf(collected), "5")

    def test_coroutine_of_its_own(self) -> None:
        """Requests of code that the call does not run: it gets no response any more in the end."""
        fakes = self.up()
        running = Deferred.fromCoroutine(self.runaway(lambda call: call.digits(1))(fakes.call))  # type: ignore[arg-type]
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        for _ in range(OTHER_LATE_REQUESTS + 10):
            fakes.turn()
        self.assertEqual(self.requests, OTHER_LATE_REQUESTS + 1)
        self.assertEqual(len(self.warnings()), 1)
        self.assertRegex(self.warnings()[0], r"test_answering\.py:\d+$")
        self.assertNoResult(running)

    def test_requests_in_call_ended(self) -> None:
        """A callback that makes requests at the end gets its responses in a later turn."""
        fakes = self.up()
        responses: list[Deferred[str]] = []
        self.assistant.on_ended = lambda call: responses.append(call.digits(1))
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.turn()
        self.failureResultOf(responses[0], CallEnded)

    def test_frees_its_memory(self) -> None:
        """Nothing refers to a closed coroutine."""
        marks: list[Deferred[None]] = []

        class Mark:
            def __del__(self) -> None:
                marks.append(Deferred())

        async def answer(call: ICall) -> None:
            mark = Mark()
            while mark:
                try:
                    await call.digits(1)
                except Exception:
                    pass

        fakes = self.up(answer)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        for _ in range(5):
            fakes.turn()
        gc.collect()
        self.assertEqual(len(marks), 1)


class FailingRequestsTests(CallTestCase):
    """Requests that fail while the call lasts."""

    def test_in_a_later_turn(self) -> None:
        """A coroutine that ignores the failures and asks again leaves the reactor to others."""
        fakes = self.up()
        requests: list[Callable[[], Deferred[Any]]] = [
            lambda: fakes.call.play("missing.wav"),
            lambda: fakes.call.transfer("PJSIP/1"),
        ]
        for request in requests:
            failing = request().addErrback(lambda failure: failure.trap(FileNotFoundError, TransferRefused))
            self.assertNoResult(failing)
            fakes.turn()
            self.successResultOf(failing)
        self.assertIsNone(fakes.call.ended)


class WithoutAsyncioTests(CallTestCase):
    """On a reactor that is not asyncio's, the error says what to do."""

    def test_run(self) -> None:
        """call.run() raises at once, and the coroutine is closed."""

        async def work() -> None:
            """Never runs."""

        fakes = self.up()
        error = self.assertRaises(RuntimeError, fakes.call.run, work())
        self.assertIn("--reactor=asyncio", str(error))

    def test_plain_await(self) -> None:
        """asyncio.sleep() in answer() fails with that sentence."""

        async def answer(call: ICall) -> None:
            await asyncio.sleep(1)

        fakes = self.up(answer)
        self.assert_failed(fakes, RuntimeError)
        self.assertIn("--reactor=asyncio", fakes.call.end_detail)


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
