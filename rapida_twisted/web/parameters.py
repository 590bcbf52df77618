"""Parses and checks a registration's parameters (query, form or JSON)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from twisted.web.server import Request

from rapida_twisted.context import CallParameters
from rapida_twisted.credentials.grant import FULL_GRANT, Grant
from rapida_twisted.errors import UnknownAssistant
from rapida_twisted.interfaces import IRegistrar
from rapida_twisted.web.request_key import holds_key, is_key_name, parameters_in, parameters_of
from rapida_twisted.web.responses import Refusal

__all__ = ["bad_request", "check_assistant", "checked_text", "json_object", "media_type", "parse_parameters"]

LONGEST_ASSISTANT_ID = 128
LONGEST_NUMBER = 128
LONGEST_NAME = 64
LONGEST_VALUE = 1024
MAX_VARIABLES = 64
# More than MAX_VARIABLES: some parameters do not become variables.
MAX_PARAMETERS = MAX_VARIABLES + 16

CALLER_NAMES = ("from", "caller", "callerid")
CALLED_NAMES = ("to", "extension", "dnid")
CHANNEL_NAME = "channel_id"
_KNOWN_NAMES = frozenset((*CALLER_NAMES, *CALLED_NAMES, CHANNEL_NAME))


def parse_parameters(request: Request) -> CallParameters:
    """The parameters of a request's query and, for POST, of its body.

    The body overrides the query; the last of several parameters with the same name counts.

    :raises Refusal: 400, with the reason.
    """
    given = dict(_texts(parameters_of(request)))
    if request.method == b"POST":
        given.update(_body(request))
    for name, value in given.items():
        _check_parameter(name, value)
    variables = {name: value for name, value in given.items() if name not in _KNOWN_NAMES}
    if len(variables) > MAX_VARIABLES:
        raise bad_request(f"there are more than {MAX_VARIABLES} variables")
    return CallParameters(
        caller=_number(_first(given, CALLER_NAMES)),
        called=_number(_first(given, CALLED_NAMES)),
        channel_id=given.get(CHANNEL_NAME, ""),
        variables=variables,
    )


def check_assistant(registrar: IRegistrar, assistant_id: str, grant: Grant = FULL_GRANT) -> None:
    """Check that the server takes calls to this assistant now, with this key.

    :raises Refusal: 400: the id is no text of one line.
    :raises Draining: the server takes no calls.
    :raises UnknownAssistant: no assistant answers the id.
    """
    checked_text(assistant_id, LONGEST_ASSISTANT_ID, "the assistant's id")
    registrar.check(assistant_id)
    if not grant.covers(assistant_id):
        raise UnknownAssistant("there is no such assistant")


def checked_text(value: str, longest: int, what: str) -> str:
    """The value, if it is one line of text of limited length.

    :param what: names the value in a refusal.
    :raises Refusal: 400, with the reason.
    """
    if len(value) > longest:
        raise bad_request(f"{what} is longer than {longest} characters")
    for character in value:
        if character < " " or "\x7f" <= character <= "\x9f":
            raise bad_request(f"{what} holds a control character")
        if "\ud800" <= character <= "\udfff":
            raise bad_request(f"{what} is not text in UTF-8")
    return value


def media_type(request: Request) -> bytes:
    return (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()


def json_object(encoded: bytes, make: Callable[[list[tuple[str, Any]]], Any] = dict) -> dict[str, Any]:
    """A body's JSON object.

    :param make: makes an object from its members.
    :raises Refusal: 400: the body is none.
    """
    try:
        content = json.loads(encoded.decode(), object_pairs_hook=make)
    except (ValueError, RecursionError):
        raise bad_request("the body is not JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise bad_request("the body is not a JSON object")
    return content


def _check_parameter(name: str, value: str) -> None:
    if not name:
        raise bad_request("a parameter has no name")
    if holds_key(f"{name}={value}"):
        raise bad_request("a parameter holds an API key: only & separates parameters")
    checked_text(name, LONGEST_NAME, "a parameter's name")
    is_number = name in _KNOWN_NAMES
    checked_text(value, LONGEST_NUMBER if is_number else LONGEST_VALUE, f"the parameter {name}")


def _first(given: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((given[name] for name in names if given.get(name)), "")


def _number(value: str) -> str:
    """A dialled number: form decoding turns a leading + into a space."""
    number = value.strip()
    return "+" + number if number and value.startswith(" ") else number


def _body(request: Request) -> dict[str, str]:
    content: bytes = request.content.read() if request.content is not None else b""
    if not content:
        return {}
    kind = media_type(request)
    if kind == b"application/x-www-form-urlencoded":
        if content.count(b"&") >= MAX_PARAMETERS:
            raise bad_request(f"there are more than {MAX_VARIABLES} variables")
        return dict(_texts(parameters_in(b"?" + content)))
    if kind == b"application/json":
        return dict(_json(content))
    raise bad_request("the body is neither application/x-www-form-urlencoded nor application/json")


def _texts(parameters: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    """The parameters of a query or a form, without the key."""
    if len(parameters) > MAX_PARAMETERS:
        raise bad_request(f"there are more than {MAX_VARIABLES} variables")
    for name, value in parameters:
        if is_key_name(name):
            continue
        try:
            yield name.decode(), value.decode()
        except UnicodeDecodeError:
            raise bad_request("a parameter is not text in UTF-8") from None


def _json(encoded: bytes) -> Iterator[tuple[str, str]]:
    """The members of a JSON object, without the key and null members."""
    for name, value in json_object(encoded).items():
        if is_key_name(name.encode("utf-8", "replace")) or value is None:
            continue
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, bool | int | float):
            yield name, json.dumps(value)
        else:
            raise bad_request("a member of the JSON object must be text, a number, true, false or null")


def bad_request(reason: str) -> Refusal:
    return Refusal(400, reason)
