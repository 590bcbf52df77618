"""``/v1/calls``: lists calls, shows one, and hangs it up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.web.resource import IResource
from twisted.web.server import Request

from rapida_twisted.context import CallContext, ContextStatus, record_of
from rapida_twisted.credentials.api_keys import ApiKeys, Grant, Scope
from rapida_twisted.errors import StoreUnavailable, UnknownContext
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.web.resource import KeyedResource, granted
from rapida_twisted.web.responses import Refusal, Response, json_response

__all__ = ["CallPage", "CallsPage"]

DEFAULT_LIMIT = 100
LARGEST_LIMIT = 1000


class CallsPage(KeyedResource):
    """The newest calls. Each has a page below.

    :param hang_up: hangs up a call that is up in this process; False: there is none.
    """

    def __init__(self, store: CallStore, keys: ApiKeys, hang_up: Callable[[str], bool]) -> None:
        super().__init__(keys)
        self._store = store
        self._hang_up = hang_up

    def getChild(self, path: bytes, request: Request) -> IResource:
        return CallPage(self._store, self.keys, self._hang_up, path.decode("utf-8", "surrogateescape"))

    async def respond(self, request: Request) -> Response:
        """The calls, newest first, filtered by ``limit`` and ``status``."""
        grant = granted(request)
        bound = {"assistants": grant.assistants} if grant.assistants else {}
        contexts = await self._store.recent(_limit(request), _status(request), **bound)
        return json_response({"calls": [_shown(context, grant) for context in contexts]})


class CallPage(KeyedResource):
    """One call: GET shows it, DELETE hangs it up."""

    methods = (b"GET", b"HEAD", b"DELETE")

    def __init__(self, store: CallStore, keys: ApiKeys, hang_up: Callable[[str], bool], context_id: str) -> None:
        super().__init__(keys)
        self._store = store
        self._hang_up = hang_up
        self._context_id = context_id

    async def respond(self, request: Request) -> Response:
        """The record; for DELETE 202, once the hang-up is under way."""
        grant = granted(request)
        if request.method == b"DELETE":
            return await self._hang_up_call(grant)
        return json_response(_shown(await self._get(grant), grant))

    async def _get(self, grant: Grant) -> CallContext:
        """The context.

        :raises UnknownContext: there is none, or none for this key.
        """
        context = await self._store.get(self._context_id)
        if not grant.covers(context.assistant_id):
            raise UnknownContext(self._context_id)
        return context

    async def _hang_up_call(self, grant: Grant) -> Response:
        """Hang up the call here, or order it from the processes that carry or follow it, by way of the store."""
        try:
            context = await self._get(grant)
        except (UnknownContext, StoreUnavailable) as error:
            # Without the store, nothing tells whose call it is.
            if not grant.assistants and self._hang_up(self._context_id):
                return Response(202)
            if isinstance(error, UnknownContext):
                raise Refusal(404, "no such call is up") from None
            raise
        this_process, media = self._store.owner, context.owner if context.status is ContextStatus.CLAIMED else ""
        if media in ("", this_process) and self._hang_up(self._context_id):
            return Response(202)
        is_followed = context.call_status is not None and not context.call_status.over
        owners = {media, context.follower if is_followed else ""} - {""}
        # A process that only follows the call at Asterisk waits for the end of the media, which has the reason.
        owners -= {this_process} if media in ("", this_process) else set()
        if not owners:
            raise Refusal(404, "no such call is up")
        for owner in sorted(owners):
            await self._store.order(owner, {"hangup": self._context_id, "media": media}, now=time.time())
        return json_response({"contextId": self._context_id, "ordered": sorted(owners)}, 202)


def _shown(context: CallContext, grant: Grant) -> dict[str, Any]:
    """The record, as this key may see it.

    Whoever knows the contextId of a waiting call can be its media, so only keys that may register calls see it.
    """
    record = record_of(context)
    if context.status is ContextStatus.PENDING and Scope.REGISTER not in grant.scopes:
        record["context_id"] = record["upstream_id"] = ""
    return record


def _parameter(request: Request, name: bytes) -> str:
    values: list[bytes] = (request.args or {}).get(name, [])
    return values[-1].decode("utf-8", "replace") if values else ""


def _limit(request: Request) -> int:
    text = _parameter(request, b"limit")
    if not text:
        return DEFAULT_LIMIT
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= limit <= LARGEST_LIMIT:
        raise Refusal(400, f"limit is a number from 1 to {LARGEST_LIMIT}")
    return limit


def _status(request: Request) -> ContextStatus | None:
    text = _parameter(request, b"status")
    if not text:
        return None
    try:
        return ContextStatus(text)
    except ValueError:
        raise Refusal(400, f"status is one of {', '.join(status.value for status in ContextStatus)}") from None
