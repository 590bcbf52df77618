"""Runs the coroutines of a call's assistants, and closes those that outlive their call.

The end of a call raises CancelledError where a coroutine waits. It may then clean up, within limits::

    running --cancel()--> ending --it returns or raises--> over
                            '--CLEAN_UP_S pass, or its third request to the call--> closed, and never resumed

A request that comes after the end fails in a later turn of the reactor. So a coroutine that ignores its end and asks
again and again does not keep the reactor from the other calls.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator
from types import FrameType, coroutine
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.errors import CallEnded
from rapida_twisted.interfaces import typed
from rapida_twisted.interfaces.values import T
from rapida_twisted.media.requests import Request

__all__ = ["AssistantCoroutine", "Coroutines", "class_name", "run_stream"]

CLEAN_UP_S = 30.0
"""How long (s) a coroutine may run on after its call's end."""
LATE_REQUESTS = 3
"""The request after the call's end that closes its coroutine."""
OTHER_LATE_REQUESTS = 100
"""The same for code that the call does not run itself, such as timers: from this request on there is no response."""
NEEDS_ASYNCIO = (
    "asyncio needs a running loop: start the server with script/serve or 'twistd --reactor=asyncio', and test in a"
    " unittest.IsolatedAsyncioTestCase"
)
_PACKAGE = __name__.partition(".")[0]


class AssistantCoroutine:
    """One coroutine of an assistant.

    :param owner: the assistant.
    :param context_id: of its call, for the log.
    :param over: called when the coroutine is over.
    """

    _log = Logger()

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        owner: object,
        context_id: str,
        reactor: Any,
        over: Callable[[AssistantCoroutine], None],
    ) -> None:
        self.owner = owner
        self.running = False
        """Whether its code is running right now."""
        self.ending = False
        self._coroutine = coroutine
        self._context_id = context_id
        self._reactor = reactor
        self._over = over
        self._is_over = self._closed = False
        self._requests = 0
        self._closing: IDelayedCall | None = None
        self._result: Deferred[Any] = Deferred()
        self._interrupt: Callable[[], object] = lambda: None

    def start(self) -> Deferred[Any]:
        """Run it as a coroutine of Twisted, in which Futures of asyncio may be awaited, too."""
        result = Deferred.fromCoroutine(self._run(self._await_in_twisted))
        self._interrupt = result.cancel
        self._result = result.addErrback(_translated)
        return self._result

    def start_in_asyncio(self, loop: asyncio.AbstractEventLoop) -> Request[Any]:
        """Run it as a Task of asyncio, in which Deferreds may be awaited, too."""
        running = self._run(_await_in_asyncio)
        task = loop.create_task(_without_exit(running))
        # A Task that is cancelled before its first step never runs its coroutine.
        task.add_done_callback(lambda _: self._never_ran(running))
        self._interrupt = task.cancel
        result = cast("Request[Any]", Request.fromFuture(task))
        self._result = result.addErrback(_translated)
        return result

    def _never_ran(self, running: Coroutine[Any, Any, Any]) -> None:
        if not self._is_over:
            running.close()
            self._coroutine.close()
            self._end()

    def cancel(self) -> None:
        """The call, or its owner's part in it, is over. Idempotent."""
        if self._is_over or self.ending:
            return
        self.ending = True
        # A result that nobody awaits is no error now.
        self._result.addErrback(_ignored)
        self._interrupt()
        if not self._is_over:
            why = f"still runs {CLEAN_UP_S:g} s after the end"
            self._closing = self._reactor.callLater(CLEAN_UP_S, self._close, why)

    def may_request(self) -> bool:
        """Count a request to the call after its end. False if it must get no response."""
        self._requests += 1
        if self._requests == LATE_REQUESTS:
            self._reactor.callLater(0, self._close, "keeps making requests after the end")
        return self._requests < LATE_REQUESTS

    def _close(self, why: str) -> None:
        if self._is_over or self._closed:
            return
        self._log.warn(
            "call {id}: {assistant} {why}, at {where}: its coroutine is closed",
            id=self._context_id, assistant=class_name(self.owner), why=why, where=_where(self._coroutine),
        )  # fmt: skip
        # Requests that its clean-up makes are its own, too.
        self._closed = self.running = True
        try:
            self._coroutine.close()
        except BaseException:
            # Even one that ignores GeneratorExit is not resumed any more.
            pass
        self.running = False
        self._interrupt()

    async def _run(self, wait: Callable[[Any], Generator[Any, Any, Any]]) -> Any:
        try:
            return await self._steps(wait)
        finally:
            self._end()

    def _end(self) -> None:
        self._is_over = True
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._over(self)

    @coroutine
    def _steps(self, wait: Callable[[Any], Generator[Any, Any, Any]]) -> Generator[Any, Any, Any]:
        resume: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        while True:
            self.running = True
            try:
                awaited = resume(value)
            except StopIteration as stop:
                return stop.value
            finally:
                self.running = False
            try:
                resume, value = self._coroutine.send, (yield from wait(awaited))
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as error:
                if self._closed:
                    raise
                resume, value = self._coroutine.throw, error

    def _await_in_twisted(self, awaited: Any) -> Generator[Any, Any, Any]:
        if asyncio.isfuture(awaited):
            awaited = Deferred.fromFuture(awaited)
        elif awaited is None:  # asyncio.sleep(0)
            awaited = deferLater(self._reactor, 0)
        return (yield awaited)


class Coroutines:
    """All coroutines of one call.

    :param reactor: provides IReactorTime.
    """

    _log = Logger()

    def __init__(self, context_id: str, reactor: Any) -> None:
        self._context_id = context_id
        self._reactor = reactor
        self._all: list[AssistantCoroutine] = []
        self._other_requests = 0

    def answer(self, assistant: typed.Assistant, call: typed.Call) -> Deferred[None]:
        """Run an assistant's ``answer()``."""
        return self._add(_answer(assistant, call), assistant).start()

    def run(self, coroutine: Coroutine[Any, Any, T], assistant: typed.Assistant) -> Request[T]:
        """Run a coroutine as a Task of asyncio.

        :raises RuntimeError: the reactor is not asyncio's.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            coroutine.close()
            raise RuntimeError(NEEDS_ASYNCIO) from None
        return self._add(coroutine, assistant).start_in_asyncio(loop)

    def _add(self, coroutine: Coroutine[Any, Any, Any], owner: object) -> AssistantCoroutine:
        added = AssistantCoroutine(coroutine, owner, self._context_id, self._reactor, self._all.remove)
        self._all.append(added)
        return added

    def cancel(self, assistant: typed.Assistant | None = None) -> None:
        """Cancel the coroutines of one assistant, or of all: what runs now, in the next turn."""
        for each in list(self._all):
            if assistant is not None and each.owner is not assistant:
                continue
            if each.running:
                self._reactor.callLater(0, each.cancel)
            else:
                each.cancel()

    @property
    def is_late(self) -> bool:
        """Whether the code that is running now belongs to a coroutine that was cancelled."""
        return any(each.running and each.ending for each in self._all)

    def respond_late(self, respond: Callable[[Deferred[Any]], object]) -> Deferred[Any]:
        """The response to a request after the end.

        :param respond: fires the Deferred; called in a later turn, or never if there are too many requests.
        """
        waiting: Deferred[Any] = Deferred()
        if self._may_request():
            self._reactor.callLater(0, respond, waiting)
        return waiting

    def _may_request(self) -> bool:
        for each in self._all:
            if each.running:
                return each.may_request()
        self._other_requests += 1
        if self._other_requests == OTHER_LATE_REQUESTS:
            self._log.warn(
                "call {id}: {count} requests to the call after its end, at {where}: there is no further response",
                id=self._context_id, count=OTHER_LATE_REQUESTS, where=_caller(),
            )  # fmt: skip
        return self._other_requests < OTHER_LATE_REQUESTS


def run_stream(coroutine: Coroutine[Any, Any, None], reactor: Any) -> Deferred[None]:
    """Run the coroutine that reads a stream: as a Task where asyncio runs, since most of its libraries need one."""
    reading = AssistantCoroutine(coroutine, None, "", reactor, lambda over: None)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return reading.start()
    return reading.start_in_asyncio(loop)


def class_name(assistant: object) -> str:
    """The name of an assistant's class, with its module."""
    return f"{type(assistant).__module__}.{type(assistant).__qualname__}"


async def _answer(assistant: typed.Assistant, call: typed.Call) -> None:
    # In our own coroutine, an answer() that is no coroutine fails like any other error.
    answering: Any = assistant.answer(call)
    if not inspect.isawaitable(answering):
        raise TypeError(f"{class_name(assistant)}.answer() is no coroutine: write 'async def answer(self, call)'")
    await answering


async def _without_exit(running: Coroutine[Any, Any, T]) -> T:
    try:
        return await running
    except SystemExit as error:
        # A Task would end the process with it.
        raise RuntimeError(f"the coroutine called sys.exit({error.code!r})") from error


@coroutine
def _await_in_asyncio(awaited: Any) -> Generator[Any, Any, Any]:
    if not isinstance(awaited, Deferred):
        return (yield awaited)
    future = asyncio.get_running_loop().create_future()

    def fired(result: Any) -> Any:
        # Not Deferred.asFuture(): a coroutine that awaits a Deferred takes the result from it when it is resumed.
        if not isinstance(result, Failure):
            if not future.done():
                future.set_result(result)
            return result
        if not future.done():
            future.set_exception(result.value or CancelledError())
        return None

    awaited.addBoth(fired)
    try:
        return (yield from future)
    except asyncio.CancelledError:
        awaited.cancel()
        raise


def _translated(failure: Failure) -> Failure:
    """asyncio's errors as Twisted's, or with a sentence that says what to do."""
    if failure.check(asyncio.CancelledError):
        return Failure(CancelledError())
    if failure.check(RuntimeError) and failure.getErrorMessage() == "no running event loop":
        raise RuntimeError(NEEDS_ASYNCIO) from failure.value
    return failure


def _ignored(failure: Failure) -> None:
    failure.trap(CancelledError, CallEnded)


def _where(coroutine: Any) -> str:
    """The line at which a coroutine waits."""
    while inspect.iscoroutine(coroutine.cr_await):
        coroutine = coroutine.cr_await
    return _line(coroutine.cr_frame)


def _caller() -> str:
    """The line outside this package that called it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return _line(frame)


def _line(frame: FrameType | None) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "an unknown line"
