"""The Deferreds that one call gives out: how they fail, and what becomes of a failure that nobody handles."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

__all__ = ["Request", "Requests"]

T = TypeVar("T")


class Request(Deferred[T]):
    """A Deferred that knows whether code takes notice of its failure.

    Its result does not tell: ``await`` on a Deferred that has failed leaves it, and so does a ``DeferredList``.
    """

    heeded = False

    def __await__(self) -> Generator[Any, None, T]:
        self.heeded = True
        return super().__await__()

    def addCallbacks(self, callback: Any, errback: Any = None, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        self.heeded = self.heeded or errback is not None
        return super().addCallbacks(callback, errback, *args, **kwargs)


class Requests:
    """:param reactor: provides IReactorTime.

    :param unhandled: called with each failure that no code handles by the reactor's next turn.
    """

    def __init__(self, reactor: Any, unhandled: Callable[[Failure], None]) -> None:
        self._reactor = reactor
        self._unhandled = unhandled
        self._waits: dict[Deferred[None], IDelayedCall] = {}

    def refuse(self, error: Exception) -> Deferred[Any]:
        """A Deferred that fails in the next turn: code that asks again and again then leaves the reactor to others."""
        waiting: Request[Any] = Request()
        self.fail_later(waiting, error)
        return waiting

    def fail_later(self, waiting: Deferred[Any], error: Failure | Exception) -> None:
        """Fail a Deferred in the next turn, unless it is cancelled before."""
        self._reactor.callLater(0, lambda: self._check(waiting) if waiting.called else self.fail(waiting, error))

    def fail(self, waiting: Deferred[Any], error: Failure | Exception) -> Deferred[Any]:
        """Fail a Deferred. Whoever awaits it, or adds an errback in this turn of the reactor, handles the failure."""
        waiting.errback(error)
        self.check(waiting)
        return waiting

    def watch(self, waiting: Request[T]) -> Request[T]:
        """Report the failure of a Deferred that fires at some time, if nothing handles it by the turn after."""

        def failed(failure: Failure) -> Failure:
            self.check_later(waiting)
            return failure

        waiting.addErrback(failed)
        waiting.heeded = False  # Not by the assistant's code.
        return waiting

    def check(self, waiting: Deferred[Any]) -> None:
        """Report the failure of a Deferred that has fired, if nothing handles it by the next turn.

        Twisted itself would only log it, when the garbage collector finds it.
        """
        if _failed(waiting):
            self.check_later(waiting)

    def check_later(self, waiting: Deferred[Any]) -> None:
        """The same for a Deferred that fires in this turn."""
        self._reactor.callLater(0, self._check, waiting)

    def _check(self, waiting: Deferred[Any]) -> None:
        if _failed(waiting):
            failure = waiting.result
            waiting.addErrback(self._unhandled)
            # Code that awaits it only later gets the failure, too. Twisted logs nothing: it was handled once.
            waiting.result = failure

    def wait(self, seconds: float) -> Deferred[None]:
        """Fires after this time."""
        if seconds < 0:
            raise ValueError(f"a call can't wait {seconds} s: the time must not be negative")
        waiting: Deferred[None] = Deferred(self._cancelled)
        self._waits[waiting] = self._reactor.callLater(seconds, self._over, waiting)
        return waiting

    def close(self, error: Exception) -> None:
        """The call has ended: fail all that wait."""
        for waiting in list(self._waits):
            timer = self._waits.pop(waiting, None)
            if timer is not None:
                timer.cancel()
                self.fail(waiting, error)

    def _over(self, waiting: Deferred[None]) -> None:
        del self._waits[waiting]
        waiting.callback(None)

    def _cancelled(self, waiting: Deferred[None]) -> None:
        self._waits.pop(waiting).cancel()
        self.check_later(waiting)


def _failed(waiting: Deferred[Any]) -> bool:
    return isinstance(getattr(waiting, "result", None), Failure) and not getattr(waiting, "heeded", False)
