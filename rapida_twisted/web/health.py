"""``/healthz`` and ``/readyz``: whether the process responds, and whether it can take calls. They need no key.

A key with the scope ``read`` also shows details, which name other servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.web.server import Request

from rapida_twisted.credentials.api_keys import ApiKeys, Scope
from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.web.request_key import key_of
from rapida_twisted.web.resource import AsyncResource
from rapida_twisted.web.responses import ERROR_HEADER, Response, json_response, text_response

__all__ = ["HealthPage", "ReadyPage"]

KEEP_S = 1.0
LOOK_S = 5.0


class HealthPage(AsyncResource):
    """The process responds."""

    async def respond(self, request: Request) -> Response:
        return text_response("ok")


class ReadyPage(AsyncResource):
    """Whether the server would take a call that is registered now.

    :param store: must be writable.
    :param draining: whether the server is about to stop.
    :param keys: a key with the scope ``read`` shows the details.
    :param assistants: the health that assistants report. It decides nothing: without its assistant a server answers
        calls in another way.
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
        self._was_ok = False
        self._found_s = -LOOK_S
        self._is_looking = 0

    async def respond(self, request: Request) -> Response:
        """200 or 503, with the reason in JSON."""
        grant = self._keys.grant_of(key_of(request))
        store = "ok" if await self._is_store_ok(request, fresh=grant is not None) else "unavailable"
        draining = self._draining()
        ready = store == "ok" and not draining
        content: dict[str, Any] = {"ready": ready, "store": store, "draining": draining}
        may_read = grant is not None and Scope.READ in grant.scopes and not grant.assistants
        if may_read and (assistants := self._assistants()):
            content["assistants"] = assistants
        response = json_response(content, 200 if ready else 503)
        return response if ready else replace(response, headers={ERROR_HEADER: "not ready"})

    async def _is_store_ok(self, request: Request, *, fresh: bool) -> bool:
        """Whether the store is writable now. Strangers get what was found in the last second, or in the last 5 s while
        another request looks: they must not keep the store busy."""
        now_s = self._reactor_of(request).seconds()
        if not fresh and now_s < self._found_s + (LOOK_S if self._is_looking else KEEP_S):
            return self._was_ok
        self._is_looking += 1
        try:
            await self._store.check()
        except StoreUnavailable as error:
            self._was_ok = False
            site: Any = request.site
            site.rejections.tell(
                "http.not_ready", request.client, self._log, "not ready: {error}", LogLevel.warn, error=str(error)
            )
        else:
            self._was_ok = True
        finally:
            self._is_looking -= 1
        self._found_s = self._reactor_of(request).seconds()
        return self._was_ok

    @staticmethod
    def _reactor_of(request: Request) -> Any:
        assert request.site is not None
        return request.site.reactor
