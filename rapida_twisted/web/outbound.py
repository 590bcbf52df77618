"""``/v1/talk/asterisk/outbound/{assistantId}``: a client has a call placed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from rapida_twisted.context import CallStatus
from rapida_twisted.credentials.api_keys import ApiKeys, Scope, is_key_name
from rapida_twisted.interfaces import IOutbound, IRegistrar, OutboundCall
from rapida_twisted.net.untrusted_text import shortened
from rapida_twisted.web.parameters import (
    LONGEST_NAME,
    LONGEST_NUMBER,
    LONGEST_VALUE,
    MAX_VARIABLES,
    check_assistant,
    checked_text,
)
from rapida_twisted.web.resource import KeyedResource, NotFound, granted
from rapida_twisted.web.responses import Answer, Refusal, error_answer, json_answer

__all__ = ["UNTIL_HEADER", "OutboundPage", "OutboundPages", "parse_call"]

UNTIL_HEADER = "X-Rapida-Until"
"""From one process of a machine to another: from when on, on the monotonic clock (ns), it is too late to begin."""

PLACE_TIMEOUT_S = 150.0
"""What placing a call may take: more than the settings allow for a request to Asterisk (120 s)."""
SHORTEST_ANSWER_S = 1
LONGEST_ANSWER_S = 600

_MEMBERS = ("to", "from", "variables", "credential", "context", "stasis", "answer_timeout_s")
_CONTEXT = re.compile(r"[A-Za-z0-9_.-]{1,79}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
"""A plain variable: a name such as ``SHELL(...)`` would be a function of the dialplan."""
_OURS = "RAPIDA_"


def _is_overdue(request: Request) -> bool:
    """Whether the process that passed a request on has given it up, while this one was not there to read it."""
    until = request.getHeader(UNTIL_HEADER) or ""
    return until.isdigit() and int(until) < time.monotonic_ns()


class OutboundPages(Resource):
    """What stands before the assistant's id in the path.

    :param registrar: knows which assistants there are, and whether calls are taken now.
    :param outbound: places the calls; None: this server places none.
    """

    def __init__(self, registrar: IRegistrar, keys: ApiKeys, outbound: IOutbound | None) -> None:
        super().__init__()
        self._registrar = registrar
        self._keys = keys
        self._outbound = outbound

    def getChild(self, path: bytes, request: Request) -> IResource:
        """The page of one assistant; whether there is such an assistant shows only to those with a key."""
        return OutboundPage(self._registrar, self._keys, self._outbound, path.decode("utf-8", "surrogateescape"))

    def render(self, request: Request) -> int:
        """There is no listing."""
        return NotFound().render(request)


class OutboundPage(KeyedResource):
    """Places calls that one assistant speaks on. No dialplan asks here, so errors have a JSON body, too.

    A client that goes away does not take its call back: :meth:`~rapida_twisted.interfaces.IOutbound.place` goes on.
    """

    methods = (b"POST",)
    scope = Scope.CONTROL
    answer_timeout_s = PLACE_TIMEOUT_S

    def __init__(self, registrar: IRegistrar, keys: ApiKeys, outbound: IOutbound | None, assistant_id: str) -> None:
        super().__init__(keys)
        self._registrar = registrar
        self._outbound = outbound
        self._assistant_id = assistant_id

    async def respond(self, request: Request) -> Answer:
        """201 when Asterisk has taken the call, 202 when it waits for its turn."""
        if self._outbound is None:
            raise Refusal(501, "this server places no calls")
        if _is_overdue(request):
            raise Refusal(503, "whoever asked for this call waits for it no longer")
        check_assistant(self._registrar, self._assistant_id)
        call = replace(parse_call(self._assistant_id, request), key_name=granted(request).key_name)
        await self._registrar.check_key(granted(request))
        context = await self._outbound.place(call)
        waits = context.call_status in (None, CallStatus.NEW)
        content = {
            "contextId": context.context_id,
            "channelId": context.channel_id,
            "callStatus": (context.call_status or CallStatus.NEW).value,
        }
        return json_answer(content, 202 if waits else 201)

    def refusal(self, error: BaseException | None) -> Refusal | None:
        """As everywhere; but whoever asked again after a timeout might call somebody twice."""
        if isinstance(error, DeferredTimeout):
            return Refusal(504, "this took too long: whether the call was placed is shown by /v1/calls")
        return super().refusal(error)

    def refused(self, refusal: Refusal, request: Request) -> Answer:
        """JSON, whatever the client asked for, with a word on whether it may ask again."""
        return error_answer(refusal, as_json=True, retryable="Retry-After" in refusal.headers)

    def broken(self, request: Request) -> Answer:
        """JSON, of which a client learns no more than that."""
        return self.refused(Refusal(500, "the server failed: whether the call was placed is in its log"), request)


def parse_call(assistant_id: str, request: Request) -> OutboundCall:
    """The call that a request's body describes.

    :raises Refusal: 400, with the reason; also for what is not known, since a typo must not dial differently.
    """
    _check_query(request)
    given = _body(request)
    stasis = given.get("stasis", False)
    if not isinstance(stasis, bool):
        raise _bad("stasis is true or false")
    return OutboundCall(
        assistant_id=assistant_id,
        to=_text(given, "to", LONGEST_NUMBER, required=True),
        caller=_caller(given),
        variables=MappingProxyType(_variables(given)),
        credential=_text(given, "credential", LONGEST_NAME),
        context=_context(given, stasis),
        stasis=stasis,
        answer_timeout_s=_answer_timeout_s(given),
    )


def _check_query(request: Request) -> None:
    """Nothing but the key stands in the query."""
    for parameter in filter(None, request.uri.partition(b"?")[2].split(b"&")):
        name = unquote_to_bytes(parameter.partition(b"=")[0].replace(b"+", b" "))
        if not is_key_name(name):
            raise _bad("the query holds something other than the API key: a call is described by the body")


def _body(request: Request) -> dict[str, Any]:
    """The body's JSON object, without the members that are null."""
    kind = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise _bad("the body's Content-Type is not application/json")
    encoded: bytes = request.content.read() if request.content is not None else b""
    try:
        content = json.loads(encoded.decode(), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError):
        raise _bad("the body is not JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise _bad("the body is not a JSON object")
    for name in content:
        if name not in _MEMBERS:
            raise _bad(f"{shortened(name, LONGEST_NAME)!r} is not known: there are {', '.join(_MEMBERS)}")
    return {name: value for name, value in content.items() if value is not None}


def _without_doubles(members: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(members)
    if len(content) != len(members):
        raise _bad("the body's JSON has two members of one name")
    return content


def _text(given: Mapping[str, Any], name: str, longest: int, *, required: bool = False) -> str:
    """A member that is text and, if there is one, not empty."""
    if name not in given:
        if required:
            raise _bad(f"{name} is needed")
        return ""
    value = given[name]
    if not isinstance(value, str) or not value:
        raise _bad(f"{name} is a text, and not an empty one")
    return checked_text(value, longest, name)


def _caller(given: Mapping[str, Any]) -> str:
    caller = given.get("from", "")
    if not isinstance(caller, str):
        raise _bad("from is a text")
    if not checked_text(caller, LONGEST_NUMBER, "from").isprintable():
        raise _bad("from holds a character that can't be shown")
    return caller


def _context(given: Mapping[str, Any], stasis: bool) -> str:
    if "context" not in given:
        return ""
    if stasis:
        raise _bad("context and stasis exclude each other: a call goes to the dialplan, or to Stasis")
    context = given["context"]
    if not isinstance(context, str) or not _CONTEXT.fullmatch(context):
        raise _bad("context is up to 79 letters, digits, '_', '.' and '-'")
    return context


def _answer_timeout_s(given: Mapping[str, Any]) -> float:
    seconds = given.get("answer_timeout_s", 0.0)
    if "answer_timeout_s" not in given:
        return 0.0
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not SHORTEST_ANSWER_S <= seconds <= LONGEST_ANSWER_S:
        raise _bad(f"answer_timeout_s is a number of seconds from {SHORTEST_ANSWER_S} to {LONGEST_ANSWER_S}")
    return float(seconds)


def _variables(given: Mapping[str, Any]) -> dict[str, str]:
    variables = given.get("variables", {})
    if not isinstance(variables, dict):
        raise _bad("variables is a JSON object")
    if len(variables) > MAX_VARIABLES:
        raise _bad(f"there are more than {MAX_VARIABLES} variables")
    return {_name(name): _value(name, value) for name, value in variables.items()}


def _name(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise _bad(
            f"{shortened(name, LONGEST_NAME)!r} is no name of a variable: that is up to 64 letters, digits and '_',"
            " and no digit first"
        )
    # With one underscore or two before it, a variable is inherited by other channels under its plain name.
    if name.lstrip("_").upper().startswith(_OURS):
        raise _bad(f"the variable {name} is not yours to set: names that begin with {_OURS} are the server's own")
    return name


def _value(name: str, value: Any) -> str:
    """A variable's value as text; numbers and truth values as JSON writes them."""
    if isinstance(value, str):
        return checked_text(value, LONGEST_VALUE, f"the variable {name}")
    if isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
        return checked_text(json.dumps(value), LONGEST_VALUE, f"the variable {name}")
    raise _bad(f"the variable {name} is neither text nor a number, true or false")


def _bad(reason: str) -> Refusal:
    return Refusal(400, reason)
