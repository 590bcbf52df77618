"""``/v1/talk/asterisk/call/{assistantId}``: a dialplan registers a call and gets its contextId."""

from __future__ import annotations

from dataclasses import replace

from twisted.web.server import Request

from rapida_twisted.credentials.api_keys import ApiKeys, Scope
from rapida_twisted.interfaces import IRegistrar
from rapida_twisted.web.parameters import check_assistant, parse_parameters
from rapida_twisted.web.resource import Branch, KeyedResource, granted
from rapida_twisted.web.responses import Response, json_response, text_response, wants_json

__all__ = ["RegistrationPage", "RegistrationsPage"]

PREPARE_TIMEOUT_S = 30.0
"""The last resort for an assistant that first sends a request to another server, whose own limit is 20 s."""


class RegistrationsPage(Branch):
    """The pages of all assistants; without a valid key, each id has the same response."""

    def __init__(self, registrar: IRegistrar, keys: ApiKeys) -> None:
        super().__init__(child=lambda assistant_id: RegistrationPage(registrar, keys, assistant_id))


class RegistrationPage(KeyedResource):
    """Registers calls to one assistant: with GET, as the dialplan's ``CURL()`` does, or with POST."""

    # No HEAD: here a GET registers a call.
    methods = (b"GET", b"POST")
    scope = Scope.REGISTER
    response_timeout_s = PREPARE_TIMEOUT_S

    def __init__(self, registrar: IRegistrar, keys: ApiKeys, assistant_id: str) -> None:
        super().__init__(keys)
        self._registrar = registrar
        self._assistant_id = assistant_id

    async def respond(self, request: Request) -> Response:
        """The contextId and nothing else, as text, or in a JSON object for a client that accepts JSON."""
        grant = granted(request)
        check_assistant(self._registrar, self._assistant_id, grant)
        parameters = replace(parse_parameters(request), registered_from=getattr(request.client, "host", ""))
        context = await self._registrar.register(self._assistant_id, parameters, grant)
        request.context_id = context.context_id  # type: ignore[attr-defined]
        if wants_json(request):
            return json_response({"contextId": context.context_id})
        return text_response(context.context_id)
