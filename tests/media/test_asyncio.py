"""Coroutines of asyncio in a call: on a loop of asyncio, with the call's clock stopped."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from unittest import IsolatedAsyncioTestCase

from twisted.internet.defer import CancelledError, Deferred

from rapida_twisted.context import EndReason
from rapida_twisted.errors import CallEnded, UpstreamFailed
from rapida_twisted.interfaces import ICall
from rapida_twisted.media.answering import CLEAN_UP_S
from tests.media.fakes import CallOnFakes, FakeAssistant, counted

SOON_S = 0.01


class AsyncioTestCase(IsolatedAsyncioTestCase):
    """Calls on fakes."""

    def setUp(self) -> None:
        self.seen: list[Any] = []

    def up(self, answer: Callable[[ICall], Awaitable[None]]) -> CallOnFakes:
        return CallOnFakes(FakeAssistant(answer))

    async def passes(self, fakes: CallOnFakes, seconds: float = 0.0) -> None:
        """Let asyncio do what it has to do, and time pass for the call."""
        await asyncio.sleep(SOON_S * 3)
        fakes.reactor.advance(seconds)
        await asyncio.sleep(SOON_S)


class PlainAwaitTests(AsyncioTestCase):
    """Awaiting asyncio's Futures in answer()."""

    async def test_sleep(self) -> None:
        """asyncio.sleep() and a Future work beside Deferreds; each gives its result or its error."""

        async def answer(call: ICall) -> None:
            await asyncio.sleep(SOON_S)
            self.seen.append("slept")
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_result, 5)
            self.seen.append(await future)
            failing: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(failing.set_exception, KeyError("x"))
            try:
                await failing
            except KeyError:
                self.seen.append("failed")
            self.seen.append(await call.digits(1))

        fakes = self.up(answer)
        await self.passes(fakes)
        fakes.call.digit_received("7")
        self.assertEqual(self.seen, ["slept", 5, "failed", "7"])
        self.assertIsNone(fakes.call.ended)

    async def test_sleep_of_nothing(self) -> None:
        """asyncio.sleep(0) waits for the reactor's next turn."""

        async def answer(call: ICall) -> None:
            await asyncio.sleep(0)
            self.seen.append("slept")

        fakes = self.up(answer)
        self.assertEqual(self.seen, ["slept"])  # up() lets time pass
        self.assertIsNone(fakes.call.ended)

    async def test_cancelled_with_the_call(self) -> None:
        """The end of the call cancels what is awaited; that is no failure."""

        async def answer(call: ICall) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.seen.append("cancelled")
                raise

        fakes = self.up(answer)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.turn()
        await self.passes(fakes)
        self.assertEqual(self.seen, ["cancelled"])
        self.assertEqual(fakes.over, [fakes.call])
        self.assertEqual(fakes.reactor.getDelayedCalls(), [])


class RunTests(AsyncioTestCase):
    """call.run()."""

    async def test_result(self) -> None:
        """It runs in a Task, where Futures and Deferreds can be awaited, and gives what the coroutine returns."""

        async def work(call: ICall) -> str:
            async with asyncio.timeout(5):  # needs a Task
                await asyncio.sleep(SOON_S)
            self.seen.append((await call.play(counted(1))).played)
            try:
                await call.play("missing.wav")
            except FileNotFoundError:
                self.seen.append("missing")
            return await call.digits(1)

        async def answer(call: ICall) -> None:
            self.seen.append(await call.run(work(call)))

        fakes = self.up(answer)
        await self.passes(fakes, 0.1)
        await self.passes(fakes)
        fakes.call.digit_received("7")
        await self.passes(fakes)
        self.assertEqual(self.seen, [True, "missing", "7"])

    async def test_error(self) -> None:
        """What it raises reaches who awaits it, sys.exit() included, which ends no process."""

        async def fails(error: BaseException) -> None:
            raise error

        async def answer(call: ICall) -> None:
            for error in (KeyError("x"), SystemExit(3)):
                try:
                    await call.run(fails(error))
                except (KeyError, RuntimeError) as caught:
                    self.seen.append(str(caught))

        await self.passes(self.up(answer))
        self.assertEqual(self.seen, ["'x'", "the coroutine called sys.exit(3)"])

    async def test_cancelled_with_the_call(self) -> None:
        """The end of the call cancels it, awaited or not, and what it awaits; nobody hears of an error."""

        async def work(call: ICall, name: str) -> None:
            try:
                await (asyncio.sleep(60) if name == "asyncio" else call.digits(1))
            except asyncio.CancelledError:
                self.seen.append(name)
                raise

        async def answer(call: ICall) -> None:
            call.run(work(call, "twisted"))
            try:
                await call.run(work(call, "asyncio"))
            except CancelledError:
                self.seen.append("answer")
                raise

        fakes = self.up(answer)
        await self.passes(fakes)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.turn()
        await self.passes(fakes)
        self.assertEqual(sorted(self.seen), ["answer", "asyncio", "twisted"])
        self.assertEqual(fakes.reactor.getDelayedCalls(), [])

    async def test_cancel_its_deferred(self) -> None:
        """Cancelling what run() returned cancels the Task, and the call goes on."""

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                self.seen.append("cancelled")

        async def answer(call: ICall) -> None:
            """Nothing."""

        fakes = self.up(answer)
        running = fakes.call.run(work())
        running.addErrback(lambda failure: self.seen.append(failure.type))
        await self.passes(fakes)
        running.cancel()
        await self.passes(fakes)
        self.assertEqual(self.seen, ["cancelled", CancelledError])
        self.assertIsNone(fakes.call.ended)

    async def test_ignores_its_end(self) -> None:
        """A Task that ignores its cancellation is closed after 30 s, at its third request sooner."""

        async def sleeps(call: ICall) -> None:
            while True:
                try:
                    await asyncio.sleep(SOON_S)
                except asyncio.CancelledError:
                    self.seen.append("ignored")

        async def requests(call: ICall) -> None:
            while True:
                try:
                    await call.digits(1)
                except (asyncio.CancelledError, CallEnded):
                    self.seen.append("ignored")

        for work, seconds, count in ((sleeps, CLEAN_UP_S, 1), (requests, 0.0, 3)):
            self.seen.clear()

            async def answer(call: ICall, work: Any = work) -> None:
                await call.run(work(call))

            fakes = self.up(answer)
            await self.passes(fakes)
            tasks = len(asyncio.all_tasks())
            fakes.call.media_ended(EndReason.CALLER_HANGUP)
            for _ in range(5):
                await self.passes(fakes)
            await self.passes(fakes, seconds)
            await self.passes(fakes)
            self.assertEqual(len(self.seen), count, work)
            self.assertEqual(len(asyncio.all_tasks()), tasks - 1)
            self.assertEqual(fakes.reactor.getDelayedCalls(), [])

    async def test_after_the_end(self) -> None:
        """A call that has ended runs nothing."""

        async def work() -> None:
            self.seen.append("ran")

        async def answer(call: ICall) -> None:
            """Nothing."""

        fakes = self.up(answer)
        fakes.call.media_ended(EndReason.CALLER_HANGUP)
        fakes.turn()
        refused: Deferred[None] = fakes.call.run(work())
        refused.addErrback(lambda failure: self.seen.append(failure.type))
        fakes.turn()
        self.assertEqual(self.seen, [CallEnded])

    async def test_context_variables(self) -> None:
        """A Task has the context variables of the code that runs it."""
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")

        async def work() -> str:
            return variable.get()

        async def answer(call: ICall) -> None:
            variable.set("set")
            self.seen.append(await call.run(work()))

        await self.passes(self.up(answer))
        self.assertEqual(self.seen, ["set"])

    async def test_cancelled_before_it_runs(self) -> None:
        """A Task that is cancelled in the turn that makes it: its coroutine never runs, and nothing is left of it."""

        async def work() -> None:
            self.seen.append("ran")

        async def answer(call: ICall) -> None:
            running = call.run(work()).addErrback(lambda failure: self.seen.append(failure.type))
            running.cancel()
            await call.wait(60)

        fakes = self.up(answer)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await self.passes(fakes)
            fakes.call.media_ended(EndReason.CALLER_HANGUP)
            fakes.turn()
            gc.collect()
        self.assertEqual(self.seen, [CancelledError])
        self.assertEqual(fakes.reactor.getDelayedCalls(), [])

    async def test_nobody_awaits_its_error(self) -> None:
        """An error that no code handles ends the call, as that of play() does."""

        async def work() -> None:
            raise UpstreamFailed("lost", "gone")

        async def answer(call: ICall) -> None:
            call.run(work())
            await call.wait(60)

        fakes = self.up(answer)
        await self.passes(fakes)
        fakes.turn()
        self.assertIs(fakes.call.ended, EndReason.UPSTREAM_FAILED)
        self.assertEqual(fakes.call.end_detail, "gone")


class StreamTests(AsyncioTestCase):
    """Streams of asyncio's libraries."""

    async def stream(self) -> AsyncIterator[bytes]:
        """In the way of a speech service's client: it needs a Task, and awaits Futures."""
        try:
            async with asyncio.timeout(10):
                yield counted(1)
                await asyncio.sleep(SOON_S)
                yield counted(1, first=2)
                await asyncio.sleep(60)
        except BaseException as error:
            self.seen.append(type(error))
            raise

    async def test_played(self) -> None:
        """It is played as it comes, and stopped with its play(), wherever that is called."""

        async def answer(call: ICall) -> None:
            await call.play(self.stream())

        async def answer_in_a_task(call: ICall) -> None:
            await call.run(answer(call))

        for each in (answer, answer_in_a_task):
            self.seen.clear()
            fakes = self.up(each)
            for _ in range(4):
                await self.passes(fakes, 0.02)
            self.assertEqual(fakes.channel.voiced, counted(2))
            fakes.call.flush()
            await self.passes(fakes)
            await self.passes(fakes)
            self.assertEqual(self.seen, [asyncio.CancelledError])
            self.assertIsNone(fakes.call.ended)

    async def test_deferreds(self) -> None:
        """It may await Deferreds, such as the call's own; its error fails its play()."""

        async def stream(call: ICall) -> AsyncIterator[bytes]:
            self.seen.append(await call.digits(1))
            yield counted(1)
            raise ZeroDivisionError

        async def answer(call: ICall) -> None:
            try:
                await call.play(stream(call))
            except ZeroDivisionError:
                self.seen.append("failed")

        fakes = self.up(answer)
        await self.passes(fakes)
        fakes.call.digit_received("5")
        await self.passes(fakes, 0.02)
        await self.passes(fakes, 0.02)
        self.assertEqual(self.seen, ["5", "failed"])
        self.assertEqual(fakes.channel.voiced, counted(1))
