"""``/v1/talk/asterisk/call/{assistantId}``: a dialplan registers a call and gets its contextId."""

from __future__ import annotations

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from rapida_twisted.credentials.api_keys import ApiKeys, Scope
from rapida_twisted.interfaces import IRegistrar
from rapida_twisted.web.parameters import check_assistant, parse_parameters
from rapida_twisted.web.resource import KeyedResource, NotFound, granted
from rapida_twisted.web.responses import Answer, json_answer, text_answer, wants_json

__all__ = ["RegistrationPage", "RegistrationsPage"]

PREPARE_TIMEOUT_S = 30.0
"""The last resort for an assistant that has to ask another server first; that is bounded by itself, at 20 s."""


class RegistrationsPage(Resource):
    """What stands before the assistant's id in the path."""

    def __init__(self, registrar: IRegistrar, keys: ApiKeys) -> None:
        super().__init__()
        self._registrar = registrar
        self._keys = keys

    def getChild(self, path: bytes, request: Request) -> IResource:
        """The registration page of one assistant; whether there is such an assistant shows only to those with a key."""
        return RegistrationPage(self._registrar, self._keys, path.decode("utf-8", "surrogateescape"))

    def render(self, request: Request) -> int:
        """There is no listing."""
        return NotFound().render(request)


class RegistrationPage(KeyedResource):
    """Registers calls to one assistant: with GET, as ``CURL()`` of the dialplan does, or with POST."""

    # No HEAD: a GET makes a call here.
    methods = (b"GET", b"POST")
    scope = Scope.REGISTER
    answer_timeout_s = PREPARE_TIMEOUT_S

    def __init__(self, registrar: IRegistrar, keys: ApiKeys, assistant_id: str) -> None:
        super().__init__(keys)
        self._registrar = registrar
        self._assistant_id = assistant_id

    async def respond(self, request: Request) -> Answer:
        """The contextId and nothing else, as text, or in a JSON object for whoever asks for JSON."""
        check_assistant(self._registrar, self._assistant_id)
        context = await self._registrar.register(self._assistant_id, parse_parameters(request), granted(request))
        request.context_id = context.context_id  # type: ignore[attr-defined]
        if wants_json(request):
            return json_answer({"contextId": context.context_id})
        return text_answer(context.context_id)
