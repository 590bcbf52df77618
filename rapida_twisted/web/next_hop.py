"""``/v1/talk/asterisk/ctx/{contextId}/next``: tells the dialplan where a call goes after its media."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import IResource
from twisted.web.server import Request

from rapida_twisted.context import Direction
from rapida_twisted.credentials.api_keys import ApiKeys, Scope
from rapida_twisted.errors import UnknownContext
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.web.resource import Branch, KeyedResource, NotFound, granted
from rapida_twisted.web.responses import Refusal, Response, text_response

__all__ = ["ContextPages", "NextPage"]


class NextPage(KeyedResource):
    """Where a call goes next: a dial string; empty for a call that ends."""

    scope = None

    def __init__(self, store: CallStore, keys: ApiKeys, context_id: str) -> None:
        super().__init__(keys)
        self._store = store
        self._context_id = context_id

    async def respond(self, request: Request) -> Response:
        """The dial string as plain text, nothing else; empty for "hang up".

        It may hold a number: only the key that registered the call gets it, or one that controls calls. The dialplan of
        an outbound call has a key of its own, since the program that placed the call registered it.
        """
        grant = granted(request)
        if not grant.scopes & {Scope.REGISTER, Scope.CONTROL}:
            raise Refusal(403, f"this API key has no scope {Scope.REGISTER.value}")
        context = await self._store.get(self._context_id)
        is_ours = grant.key_name == context.key_name or context.direction is Direction.OUTBOUND
        if not grant.covers(context.assistant_id) or not (is_ours or Scope.CONTROL in grant.scopes):
            raise UnknownContext(self._context_id)
        return text_response(context.next_dial)


class _HandshakeGate(KeyedResource):
    """Refuses handshakes without a valid key before Autobahn parses them a second time."""

    methods = (b"GET",)
    scope = Scope.REGISTER


class _WebSocketBranch(Branch):
    """A branch that takes a WebSocket handshake itself.

    :param websocket: the resource for the handshake, which reads the contextId from the query or the path.
    """

    def __init__(self, keys: ApiKeys, websocket: IResource, **children: Any) -> None:
        super().__init__(**children)
        self._gate = _HandshakeGate(keys)
        self._websocket = websocket

    def render(self, request: Request) -> Any:
        try:
            self._gate.check(request)
        except Refusal:
            return self._gate.render(request)
        return self._websocket.render(request)


class ContextPages(_WebSocketBranch):
    """All pages below ``/v1/talk/asterisk/ctx``: each call's WebSocket and :class:`NextPage`."""

    def __init__(self, store: CallStore, keys: ApiKeys, websocket: IResource) -> None:
        super().__init__(keys, websocket, child=lambda context_id: _ContextPage(store, keys, websocket, context_id))


class _ContextPage(_WebSocketBranch):
    """One call: its WebSocket, and ``next`` below."""

    def __init__(self, store: CallStore, keys: ApiKeys, websocket: IResource, context_id: str) -> None:
        children = {b"next": NextPage(store, keys, context_id)}
        super().__init__(keys, websocket, children=children, child=lambda name: NotFound() if name else self)
