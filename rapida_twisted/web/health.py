"""``/healthz`` and ``/readyz``: whether the process answers, and whether it can take calls. No key is needed.

Details, which name other servers, are for those who have a key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger
from twisted.web.server import Request

from rapida_twisted.credentials.api_keys import ApiKeys, Scope, key_of
from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.web.resource import AsyncResource
from rapida_twisted.web.responses import Answer, json_answer, text_answer

__all__ = ["HealthPage", "ReadyPage"]


class HealthPage(AsyncResource):
    """The process answers."""

    async def respond(self, request: Request) -> Answer:
        """``ok``, always."""
        return text_answer("ok")


class ReadyPage(AsyncResource):
    """Whether a call that is registered now would be taken.

    :param store: asked whether it can be written to.
    :param draining: whether the server is about to stop.
    :param keys: who may see the details: those whose key is for reading.
    :param assistants: how those are that have something to tell. It is told, and does not decide: a server whose
        assistant is away answers calls in another way.
    """

    _log = Logger()

    def __init__(
        self,
        store: CallStore,
        draining: Callable[[], bool],
        keys: ApiKeys,
        assistants: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        super().__init__()
        self._store = store
        self._assistants = assistants
        self._draining = draining
        self._keys = keys

    async def respond(self, request: Request) -> Answer:
        """200 or 503, and why, in JSON."""
        try:
            await self._store.check()
        except StoreUnavailable as error:
            self._log.warn("not ready: {error}", error=str(error))
            store = "unavailable"
        else:
            store = "ok"
        draining = self._draining()
        ready = store == "ok" and not draining
        content: dict[str, Any] = {"ready": ready, "store": store, "draining": draining}
        grant = self._keys.grant_of(key_of(request))
        assistants = self._assistants() if grant is not None and Scope.READ in grant.scopes else None
        if assistants:
            content["assistants"] = assistants
        return json_answer(content, 200 if ready else 503)
