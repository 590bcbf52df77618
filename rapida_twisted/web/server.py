"""``/v1/server``: what this server is, for the control program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.web.server import Request

from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.web.resource import KeyedResource, granted
from rapida_twisted.web.responses import Response, json_response

__all__ = ["ServerPage"]


class ServerPage(KeyedResource):
    """The version, the addresses, and the scopes of the key that asks. Any key will do.

    :param describe: returns the members that do not depend on the key.
    """

    scope = None

    def __init__(self, describe: Callable[[], Mapping[str, Any]], keys: ApiKeys) -> None:
        super().__init__(keys)
        self._describe = describe

    async def respond(self, request: Request) -> Response:
        grant, known = granted(request), dict(self._describe())
        if grant.assistants:
            known["assistant_id"] = min(grant.assistants)
        return json_response({**known, "scopes": sorted(scope.value for scope in grant.scopes)})
