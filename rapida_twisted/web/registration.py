"""``/v1/talk/asterisk/call/{assistantId}``: a dialplan registers a call and gets its contextId."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import MappingProxyType
from uuid import uuid4

from twisted.logger import Logger
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from rapida_twisted.context import CallContext
from rapida_twisted.credentials.api_keys import FULL_GRANT, ApiKeys, Grant, Scope
from rapida_twisted.errors import Draining
from rapida_twisted.interfaces import ICallStore
from rapida_twisted.web.key_limit import KeyLimit
from rapida_twisted.web.parameters import CallParameters, checked_text, parse_parameters
from rapida_twisted.web.resource import KeyedResource, NotFound, granted
from rapida_twisted.web.responses import Answer, Refusal, json_answer, text_answer, wants_json

__all__ = ["Registrar", "RegistrationPage", "RegistrationsPage"]

LONGEST_ASSISTANT_ID = 128
PREPARE_TIMEOUT_S = 30.0
"""The last resort for an assistant that has to ask another server first; that is bounded by itself, at 20 s."""


class Registrar:
    """Registers calls: what HTTP does with it is another matter.

    :param store: where the contexts go.
    :param knows_assistant: whether there is an assistant of this id.
    :param now: wall-clock time in UNIX seconds.
    :param context_ttl_s: how long a call may wait for its media.
    :param max_pending: how many calls may wait for their media at once.
    :param draining: whether the server is about to stop.
    :param prepare: gives the context that is kept, once the assistant is ready for the call; may raise.
    :param key_refused: called when a call is one too many for its key.
    """

    _log = Logger()

    def __init__(
        self,
        store: ICallStore,
        knows_assistant: Callable[[str], bool],
        *,
        now: Callable[[], float],
        context_ttl_s: float,
        max_pending: int,
        draining: Callable[[], bool],
        prepare: Callable[[CallContext], Awaitable[CallContext]] | None = None,
        key_refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._knows_assistant = knows_assistant
        self._now = now
        self._context_ttl_s = context_ttl_s
        self._max_pending = max_pending
        self._draining = draining
        self._prepare = prepare
        self._key_limit = KeyLimit(store, now, key_refused)

    def check(self, assistant_id: str) -> None:
        """Whether calls to this assistant are taken now.

        :raises Draining: no calls are.
        :raises Refusal: 400 or 404: the assistant's id is no text, or not known.
        """
        if self._draining():
            raise Draining("the server is about to stop and takes no new calls")
        checked_text(assistant_id, LONGEST_ASSISTANT_ID, "the assistant's id")
        if not assistant_id or not self._knows_assistant(assistant_id):
            raise Refusal(404, "there is no such assistant")

    async def check_key(self, grant: Grant) -> None:
        """Whether a key may have one more call.

        :raises TooManyCalls: it may not.
        """
        await self._key_limit.check(grant)

    async def register(self, assistant_id: str, parameters: CallParameters, grant: Grant = FULL_GRANT) -> CallContext:
        """Keep a new context for a call.

        :param grant: of the key that registers it.
        :raises TooManyCalls: too many wait already, or the key has too many.
        :raises StoreUnavailable: it can't be kept now.
        :raises UpstreamFailed: the assistant would not answer it.
        """
        self.check(assistant_id)
        now = self._now()
        context = CallContext(
            context_id=str(uuid4()),
            assistant_id=assistant_id,
            created_at=now,
            expires_at=now + self._context_ttl_s,
            caller=parameters.caller,
            called=parameters.called,
            channel_id=parameters.channel_id,
            variables=MappingProxyType(dict(parameters.variables)),
            key_name=grant.key_name,
        )
        if self._prepare is not None:
            # Another server may be asked, which shall not hear of calls that have no place here.
            await self.check_key(grant)
            context = await self._prepare(context)
        await self._key_limit.add(context, grant, self._max_pending)
        self._log.info(
            "call {id}: registered, caller {caller}, assistant {assistant_id}",
            id=context.context_id, caller=context.caller or "anonymous", assistant_id=assistant_id,
        )  # fmt: skip
        return context


class RegistrationsPage(Resource):
    """What stands before the assistant's id in the path."""

    def __init__(self, registrar: Registrar, keys: ApiKeys) -> None:
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

    def __init__(self, registrar: Registrar, keys: ApiKeys, assistant_id: str) -> None:
        super().__init__(keys)
        self._registrar = registrar
        self._assistant_id = assistant_id

    async def respond(self, request: Request) -> Answer:
        """The contextId and nothing else, as text, or in a JSON object for whoever asks for JSON."""
        self._registrar.check(self._assistant_id)
        context = await self._registrar.register(self._assistant_id, parse_parameters(request), granted(request))
        request.context_id = context.context_id  # type: ignore[attr-defined]
        if wants_json(request):
            return json_answer({"contextId": context.context_id})
        return text_answer(context.context_id)
