"""Counts HTTP requests by outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

__all__ = ["CountedClient"]


class CountedClient:
    """A treq client that reports the outcome of each request.

    :param tell: called with the class of the status, such as ``2xx``, or ``no_connection`` or ``no_answer``.
    :param never_sent: whether an error means that nothing was sent.
    """

    def __init__(
        self,
        client: Any,
        tell: Callable[[str], None],
        never_sent: Callable[[BaseException], bool] = lambda error: False,
    ) -> None:
        self._client = client
        self._tell = tell
        self._never_sent = never_sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def request(self, *words: Any, **named: Any) -> Deferred[Any]:
        return self._counted(self._client.request, words, named)

    def post(self, *words: Any, **named: Any) -> Deferred[Any]:
        return self._counted(self._client.post, words, named)

    def _counted(self, ask: Callable[..., Any], words: Any, named: Any) -> Deferred[Any]:
        return maybeDeferred(ask, *words, **named).addBoth(self._told)

    def _told(self, result: Any) -> Any:
        if isinstance(result, Failure):
            sent = not (result.value is not None and self._never_sent(result.value))
            self._tell("no_answer" if sent else "no_connection")
        else:
            self._tell(f"{result.code // 100}xx")
        return result
