"""``/v1/talk/asterisk/ctx/{contextId}/next``: what the dialplan is to do when a call's media is over."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from rapida_twisted.credentials.api_keys import ApiKeys, Scope
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.web.resource import KeyedResource, NotFound
from rapida_twisted.web.responses import Answer, text_answer

__all__ = ["ContextPages", "NextPage"]


class NextPage(KeyedResource):
    """Where a call goes next: a dial string, or nothing for a call that is simply over.

    :param context_id: the call's contextId, as asked for.
    """

    scope = Scope.REGISTER

    def __init__(self, store: CallStore, keys: ApiKeys, context_id: str) -> None:
        super().__init__(keys)
        self._store = store
        self._context_id = context_id

    async def respond(self, request: Request) -> Answer:
        """The dial string as plain text, nothing else; empty for "hang up"."""
        context = await self._store.get(self._context_id)
        return text_answer(context.next_dial)


class ContextPages(Resource):
    """All that is under ``/v1/talk/asterisk/ctx``: the WebSockets, and what comes after a call.

    :param websocket: the resource that takes WebSocket handshakes, whatever the rest of their path.
    """

    def __init__(self, store: CallStore, keys: ApiKeys, websocket: IResource) -> None:
        super().__init__()
        self._store = store
        self._keys = keys
        self._websocket = websocket

    def getChild(self, path: bytes, request: Request) -> IResource:
        """The pages of one call."""
        return _ContextPage(self._store, self._keys, self._websocket, path.decode("utf-8", "replace"))

    def render(self, request: Request) -> Any:
        """A WebSocket whose contextId is in the query."""
        return self._websocket.render(request)


class _ContextPage(Resource):
    """One call: its WebSocket, and what comes next."""

    def __init__(self, store: CallStore, keys: ApiKeys, websocket: IResource, context_id: str) -> None:
        super().__init__()
        self._store = store
        self._keys = keys
        self._websocket = websocket
        self._context_id = context_id

    def getChild(self, path: bytes, request: Request) -> IResource:
        """``next``, or nothing."""
        if path == b"next" and not request.postpath:
            return NextPage(self._store, self._keys, self._context_id)
        return self if path == b"" else NotFound()

    def render(self, request: Request) -> Any:
        """A WebSocket whose contextId is in the path."""
        return self._websocket.render(request)
