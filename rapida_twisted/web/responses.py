"""HTTP responses: text, JSON, and refusals that a dialplan cannot mistake for a contextId.

Asterisk's ``CURL()`` returns the body whatever the status is, and the dialplan takes any text for a contextId. So an
error has an empty body, and its reason in the ``X-Rapida-Error`` header; only a client that accepts JSON gets JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.web.http import Request as HTTPRequest
from twisted.web.server import Request

from rapida_twisted.errors import (
    CallNotPlaced,
    Draining,
    RapidaError,
    StoreUnavailable,
    TooManyCalls,
    UnknownAssistant,
    UnknownContext,
    UpstreamFailed,
)  # fmt: skip
from rapida_twisted.net.untrusted_text import escaped, shortened
from rapida_twisted.web.request_key import mask_key

__all__ = [
    "BROKEN", "ERROR_HEADER", "Refusal", "Response", "describe", "error_response", "header_value", "json_response",
    "refusal_of", "send", "text_response", "wants_json",
]  # fmt: skip

ERROR_HEADER = "X-Rapida-Error"
LONGEST_REASON = 200
LONGEST_URI = 1000
"""In log lines."""
STRANGERS_URI = 160
RETRY_AFTER_S = 2

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Response:
    """An HTTP response, before it is sent."""

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)


class Refusal(RapidaError):
    """The server refuses a request: an HTTP status and the reason.

    :param context_id: the contextId of the refused call, for a client that does not know it.
    """

    def __init__(
        self, status: int, reason: str, headers: Mapping[str, str] = _NO_HEADERS, *, context_id: str = ""
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.context_id = context_id


BROKEN = Response(500, headers=MappingProxyType({ERROR_HEADER: "internal error"}))
"""The response for a bug."""


def text_response(text: str, status: int = 200) -> Response:
    """Plain text, without a newline at the end."""
    return Response(status, text.encode(), "text/plain; charset=utf-8")


def json_response(content: Any, status: int = 200) -> Response:
    """JSON on one line, in ASCII."""
    return Response(status, json.dumps(content).encode("ascii"), "application/json")


def error_response(refusal: Refusal, *, as_json: bool, **more: Any) -> Response:
    """The response for a refusal: an empty body, or JSON.

    :param more: further members of the JSON.
    """
    headers = {**refusal.headers, ERROR_HEADER: header_value(refusal.reason)}
    if as_json:
        content = {"error": refusal.reason, **more}
        if refusal.context_id:
            content["contextId"] = refusal.context_id
        return replace(json_response(content, refusal.status), headers=headers)
    return Response(refusal.status, headers=headers)


def refusal_of(error: BaseException | None) -> Refusal | None:
    """The HTTP refusal for one of this library's errors; None for any other exception."""
    retry = {"Retry-After": str(RETRY_AFTER_S)}
    match error:
        case Refusal():
            return error
        case UnknownAssistant():
            return Refusal(404, str(error))
        case UnknownContext():
            return Refusal(404, "no such call")
        case CallNotPlaced():
            headers = retry if error.retryable else _NO_HEADERS
            return Refusal(422 if error.refused else 502, str(error), headers, context_id=error.context_id)
        case TooManyCalls():
            return Refusal(429, str(error) or "too many calls", retry)
        case Draining():
            return Refusal(503, str(error) or "the server is about to stop", retry)
        case StoreUnavailable():
            # The error may name the store's address or file: that is for the log only.
            return Refusal(503, "the call store does not answer", retry)
        case UpstreamFailed():
            status = {"timeout": 504, "resting": 503}.get(error.word, 502)
            return Refusal(status, str(error), _NO_HEADERS if error.of_call else retry)
        case DeferredTimeout():
            return Refusal(503, "this took too long", retry)
    return None


def wants_json(request: Request) -> bool:
    """Whether the client's Accept header names application/json."""
    accepted = b",".join(request.requestHeaders.getRawHeaders(b"accept", []))
    return any(part.partition(b";")[0].strip().lower() == b"application/json" for part in accepted.split(b","))


def header_value(text: str) -> str:
    """The text as a header's value: printable ASCII of limited length."""
    printable = "".join(character if " " <= character <= "~" else "?" for character in text)
    return shortened(printable, LONGEST_REASON)


def describe(request: HTTPRequest) -> str:
    """The request for a log line: without its key, without control characters, and short if its client has no key."""
    longest = STRANGERS_URI if getattr(request, "grant", None) is None else LONGEST_URI
    # Cut before it is masked, which takes time, and after, for a control character becomes four.
    uri = shortened(escaped(mask_key(request.uri[: 2 * longest])), longest)
    return f"{escaped(request.method[:20])} {uri} from {getattr(request.client, 'host', request.client)}"


def send(response: Response, request: Request) -> None:
    """Send the response, and finish the request. Caches must not store it."""
    request.setResponseCode(response.status)
    headers = request.responseHeaders
    headers.setRawHeaders("Cache-Control", ["no-store"])
    headers.setRawHeaders("Content-Length", [str(len(response.body))])
    if response.content_type:
        headers.setRawHeaders("Content-Type", [response.content_type])
    for name, value in response.headers.items():
        headers.setRawHeaders(name, [value])
    request.write(response.body)
    request.finish()
