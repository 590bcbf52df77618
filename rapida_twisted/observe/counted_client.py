"""Counts HTTP requests by outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

__all__ = ["CountedClient"]


@attrs.define(eq=False, slots=False, repr=False)
class CountedClient:
    """A treq client that reports the outcome of each request."""

    _client: Any
    _tell: Callable[[str], None]
    """Called with the class of the status, such as ``2xx``, or ``no_connection`` or ``no_answer``."""
    _never_sent: Callable[[BaseException], bool] = lambda error: False
    """Whether an error means that nothing was sent."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def request(self, *words: Any, **named: Any) -> Deferred[Any]:
        return maybeDeferred(self._client.request, *words, **named).addBoth(self._told)

    def post(self, *words: Any, **named: Any) -> Deferred[Any]:
        return maybeDeferred(self._client.post, *words, **named).addBoth(self._told)

    def _told(self, result: Any) -> Any:
        if isinstance(result, Failure):
            sent = not (result.value is not None and self._never_sent(result.value))
            self._tell("no_answer" if sent else "no_connection")
        else:
            self._tell(f"{result.code // 100}xx")
        return result
