"""``/v1/talk/asterisk/outbound/{assistantId}``: places an outbound call for a client."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.web.server import Request

from rapida_twisted.context import CallStatus
from rapida_twisted.credentials.api_keys import ApiKeys, Scope
from rapida_twisted.interfaces import IOutbound, IRegistrar, OutboundCall
from rapida_twisted.net.untrusted_text import shortened
from rapida_twisted.web.parameters import (
    LONGEST_NAME,
    LONGEST_NUMBER,
    LONGEST_VALUE,
    MAX_VARIABLES,
    bad_request,
    check_assistant,
    checked_text,
    json_object,
    media_type,
)
from rapida_twisted.web.request_key import is_key_name, parameters_of
from rapida_twisted.web.resource import Branch, KeyedResource, granted
from rapida_twisted.web.responses import Refusal, Response, error_response, json_response

__all__ = ["UNTIL_HEADER", "OutboundPage", "OutboundPages", "PlacingResource", "parse_call"]

UNTIL_HEADER = "X-Rapida-Until"
"""From one process of a machine to another: the monotonic time (ns) after which to place the call no more."""

PLACE_TIMEOUT_S = 150.0
"""How long placing a call may take: more than the settings allow for a request to Asterisk (120 s)."""
SHORTEST_ANSWER_S = 1
LONGEST_ANSWER_S = 600

_MEMBERS = ("to", "from", "variables", "credential", "context", "stasis", "answer_timeout_s")
_CONTEXT = re.compile(r"[A-Za-z0-9_.-]{1,79}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
"""A plain variable: a name such as ``SHELL(...)`` would call a dialplan function."""
_OURS = "RAPIDA_"


def _is_overdue(request: Request) -> bool:
    """Whether the process that forwarded the request has given it up before this process read it."""
    until = request.getHeader(UNTIL_HEADER) or ""
    return until.isdigit() and int(until) < time.monotonic_ns()


class OutboundPages(Branch):
    """The pages of all assistants; without a valid key, each id has the same response.

    :param registrar: knows the assistants, and whether the server takes calls now.
    :param outbound: places the calls; None: this server places none.
    """

    def __init__(self, registrar: IRegistrar, keys: ApiKeys, outbound: IOutbound | None) -> None:
        super().__init__(child=lambda assistant_id: OutboundPage(registrar, keys, outbound, assistant_id))


class PlacingResource(KeyedResource):
    """A base of the pages that place calls. No dialplan sends requests here, so errors have a JSON body, too."""

    methods = (b"POST",)
    scope = Scope.CONTROL
    response_timeout_s = PLACE_TIMEOUT_S

    def refused(self, refusal: Refusal, request: Request) -> Response:
        """JSON, whatever the client accepts; ``retryable`` says whether a retry is safe."""
        return error_response(refusal, as_json=True, retryable="Retry-After" in refusal.headers)


class OutboundPage(PlacingResource):
    """Places calls of one assistant.

    A client that disconnects does not cancel its call: :meth:`~rapida_twisted.interfaces.IOutbound.place` continues.
    """

    def __init__(self, registrar: IRegistrar, keys: ApiKeys, outbound: IOutbound | None, assistant_id: str) -> None:
        super().__init__(keys)
        self._registrar = registrar
        self._outbound = outbound
        self._assistant_id = assistant_id

    async def respond(self, request: Request) -> Response:
        """201 when Asterisk has taken the call, 202 when the call waits in a trunk's queue."""
        if self._outbound is None:
            raise Refusal(501, "this server places no calls")
        if _is_overdue(request):
            raise Refusal(503, "the forwarding process no longer waits for this call")
        check_assistant(self._registrar, self._assistant_id, granted(request))
        call = replace(parse_call(self._assistant_id, request), key_name=granted(request).key_name)
        await self._registrar.check_key(granted(request))
        context = await self._outbound.place(call)
        waits = context.call_status in (None, CallStatus.NEW)
        content = {
            "contextId": context.context_id,
            "channelId": context.channel_id,
            "callStatus": (context.call_status or CallStatus.NEW).value,
        }
        return json_response(content, 202 if waits else 201)

    def refusal(self, error: BaseException | None) -> Refusal | None:
        """As everywhere, but not retryable after a timeout: a retry might place the call twice."""
        if isinstance(error, DeferredTimeout):
            return Refusal(504, "this took too long: /v1/calls shows whether the call was placed")
        return super().refusal(error)

    def broken(self, request: Request) -> Response:
        return self.refused(Refusal(500, "the server failed: its log shows whether the call was placed"), request)


def parse_call(assistant_id: str, request: Request) -> OutboundCall:
    """The call that a request's body describes.

    :raises Refusal: 400, with the reason; also for an unknown member, since a typo must not dial differently.
    """
    _check_query(request)
    given = _body(request)
    stasis = given.get("stasis", False)
    if not isinstance(stasis, bool):
        raise bad_request("stasis must be true or false")
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
    """The query may hold the key only."""
    if not all(is_key_name(name) for name, _ in parameters_of(request)):
        raise bad_request("the query may hold the API key only: the body describes the call")


def _body(request: Request) -> dict[str, Any]:
    """The body's JSON object, without the members that are null."""
    if media_type(request) != b"application/json":
        raise bad_request("the body's Content-Type is not application/json")
    encoded: bytes = request.content.read() if request.content is not None else b""
    content = json_object(encoded, _without_doubles)
    for name in content:
        if name not in _MEMBERS:
            raise bad_request(f"{shortened(name, LONGEST_NAME)!r} is unknown: the members are {', '.join(_MEMBERS)}")
    return {name: value for name, value in content.items() if value is not None}


def _without_doubles(members: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(members)
    if len(content) != len(members):
        raise bad_request("the body's JSON has two members of the same name")
    return content


def _text(given: Mapping[str, Any], name: str, longest: int, *, required: bool = False) -> str:
    """A member that must be text, and not empty; "" without it."""
    if name not in given:
        if required:
            raise bad_request(f"{name} is required")
        return ""
    value = given[name]
    if not isinstance(value, str) or not value:
        raise bad_request(f"{name} must be text that is not empty")
    return checked_text(value, longest, name)


def _caller(given: Mapping[str, Any]) -> str:
    caller = given.get("from", "")
    if not isinstance(caller, str):
        raise bad_request("from must be text")
    if not checked_text(caller, LONGEST_NUMBER, "from").isprintable():
        raise bad_request("from holds a character that is not printable")
    return caller


def _context(given: Mapping[str, Any], stasis: bool) -> str:
    if "context" not in given:
        return ""
    if stasis:
        raise bad_request("context and stasis exclude each other: a call goes to the dialplan or to Stasis")
    context = given["context"]
    if not isinstance(context, str) or not _CONTEXT.fullmatch(context):
        raise bad_request("context must be up to 79 letters, digits, '_', '.' and '-'")
    return context


def _answer_timeout_s(given: Mapping[str, Any]) -> float:
    seconds = given.get("answer_timeout_s", 0.0)
    if "answer_timeout_s" not in given:
        return 0.0
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not SHORTEST_ANSWER_S <= seconds <= LONGEST_ANSWER_S:
        raise bad_request(
            f"answer_timeout_s must be a number of seconds from {SHORTEST_ANSWER_S} to {LONGEST_ANSWER_S}"
        )
    return float(seconds)


def _variables(given: Mapping[str, Any]) -> dict[str, str]:
    variables = given.get("variables", {})
    if not isinstance(variables, dict):
        raise bad_request("variables must be a JSON object")
    if len(variables) > MAX_VARIABLES:
        raise bad_request(f"there are more than {MAX_VARIABLES} variables")
    return {_name(name): _value(name, value) for name, value in variables.items()}


def _name(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise bad_request(
            f"{shortened(name, LONGEST_NAME)!r} cannot name a variable: use up to 64 letters, digits and '_', without a"
            " leading digit"
        )
    # Asterisk strips one or two leading underscores when another channel inherits the variable.
    if name.lstrip("_").upper().startswith(_OURS):
        raise bad_request(f"the variable {name} is reserved: the server sets the names that begin with {_OURS}")
    return name


def _value(name: str, value: Any) -> str:
    """A variable's value as text; numbers and truth values as JSON writes them."""
    if isinstance(value, str):
        return checked_text(value, LONGEST_VALUE, f"the variable {name}")
    if isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
        return checked_text(json.dumps(value), LONGEST_VALUE, f"the variable {name}")
    raise bad_request(f"the variable {name} must be text, a number, true or false")
