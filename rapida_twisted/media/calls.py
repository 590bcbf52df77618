"""The active calls of this process: look-up by contextId, the limit of calls, and a Deferred for the last one's end."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred, succeed

from rapida_twisted.errors import TooManyCalls
from rapida_twisted.media.call import Call
from rapida_twisted.net.shared_counter import SharedCounter

__all__ = ["Calls"]


class Calls:
    """The active calls.

    :param limit: maximum active calls.
    :param counter: shares the count with the other processes that the limit holds for.
    """

    def __init__(self, limit: int, counter: SharedCounter | None = None) -> None:
        self.limit = limit
        self._counter = counter if counter is not None else SharedCounter()
        self.total = 0
        """Calls since the start."""
        self._calls: dict[str, Call] = {}
        self._waiting_for_empty: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls.values()))

    def get(self, context_id: str) -> Call | None:
        return self._calls.get(context_id)

    def check_room(self, coming: int = 0) -> None:
        """:param coming: calls that are claimed and not active yet.

        :raises TooManyCalls: the limit is reached.
        """
        if len(self._calls) + coming + self._counter.others >= self.limit:
            raise TooManyCalls(f"{self.limit} calls are up, which is the limit")

    def add(self, call: Call) -> None:
        self._calls[call.context.context_id] = call
        self._counter.publish(len(self._calls))
        self.total += 1

    def remove(self, call: Call) -> None:
        """Remove a call that has ended. Idempotent."""
        self._calls.pop(call.context.context_id, None)
        self._counter.publish(len(self._calls))
        if not self._calls:
            waiting, self._waiting_for_empty = self._waiting_for_empty, []
            for empty in waiting:
                empty.callback(None)

    def when_empty(self) -> Deferred[None]:
        """Fires when there is no active call; at once if there is none now."""
        if not self._calls:
            return succeed(None)
        empty: Deferred[None] = Deferred(self._waiting_for_empty.remove)
        self._waiting_for_empty.append(empty)
        return empty
