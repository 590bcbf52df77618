"""``/v1/calls``: what became of the calls, and hanging one up."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.web.resource import IResource
from twisted.web.server import Request

from rapida_twisted.context import ContextStatus, record_of
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.errors import StoreUnavailable, UnknownContext
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.web.resource import KeyedResource
from rapida_twisted.web.responses import Answer, Refusal, json_answer

__all__ = ["CallPage", "CallsPage"]

DEFAULT_LIMIT = 100
LARGEST_LIMIT = 1000


class CallsPage(KeyedResource):
    """The newest calls. Below it is a page for each.

    :param store: where the calls are.
    :param keys: who may see them.
    :param hang_up: hangs a call up that is up here; whether there was one.
    """

    def __init__(self, store: CallStore, keys: ApiKeys, hang_up: Callable[[str], bool]) -> None:
        super().__init__(keys)
        self._store = store
        self._hang_up = hang_up

    def getChild(self, path: bytes, request: Request) -> IResource:
        """The page of one call."""
        return CallPage(self._store, self.keys, self._hang_up, path.decode("utf-8", "surrogateescape"))

    async def respond(self, request: Request) -> Answer:
        """Newest first; ``limit`` and ``status`` narrow it down."""
        contexts = await self._store.recent(_limit(request), _status(request))
        return json_answer({"calls": [record_of(context) for context in contexts]})


class CallPage(KeyedResource):
    """One call: GET shows it, DELETE hangs it up."""

    methods = (b"GET", b"HEAD", b"DELETE")

    def __init__(self, store: CallStore, keys: ApiKeys, hang_up: Callable[[str], bool], context_id: str) -> None:
        super().__init__(keys)
        self._store = store
        self._hang_up = hang_up
        self._context_id = context_id

    async def respond(self, request: Request) -> Answer:
        """The record; or 202 when the hang-up is under way."""
        if request.method == b"DELETE":
            return await self._hang_up_call()
        return json_answer(record_of(await self._store.get(self._context_id)))

    async def _hang_up_call(self) -> Answer:
        """Hang it up, or leave an order for those who have it, among the processes that share the store."""
        try:
            context = await self._store.get(self._context_id)
        except (UnknownContext, StoreUnavailable) as error:
            if self._hang_up(self._context_id):
                return Answer(202)
            if isinstance(error, UnknownContext):
                raise Refusal(404, "no such call is up") from None
            raise
        mine, media = self._store.owner, context.owner if context.status is ContextStatus.CLAIMED else ""
        if media in ("", mine) and self._hang_up(self._context_id):
            return Answer(202)
        is_followed = context.call_status is not None and not context.call_status.over
        have_it = {media, context.follower if is_followed else ""} - {""}
        # If this process follows it at Asterisk, it waits until the media has ended, which says why.
        have_it -= {mine} if media in ("", mine) else set()
        if not have_it:
            raise Refusal(404, "no such call is up")
        for owner in sorted(have_it):
            await self._store.order(owner, {"hangup": self._context_id, "media": media}, now=time.time())
        return json_answer({"contextId": self._context_id, "ordered": sorted(have_it)}, 202)


def _argument(request: Request, name: bytes) -> str:
    values: list[bytes] = (request.args or {}).get(name, [])
    return values[-1].decode("utf-8", "replace") if values else ""


def _limit(request: Request) -> int:
    word = _argument(request, b"limit")
    if not word:
        return DEFAULT_LIMIT
    limit = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else 0
    if not 1 <= limit <= LARGEST_LIMIT:
        raise Refusal(400, f"limit is a number from 1 to {LARGEST_LIMIT}")
    return limit


def _status(request: Request) -> ContextStatus | None:
    word = _argument(request, b"status")
    if not word:
        return None
    try:
        return ContextStatus(word)
    except ValueError:
        raise Refusal(400, f"status is one of {', '.join(status.value for status in ContextStatus)}") from None
