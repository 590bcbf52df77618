"""What the HTTP face answers: texts, JSON, and rejections that a dialplan can't mistake for a contextId.

Asterisk's ``CURL()`` gives the body whatever the status is, and the dialplan takes any text for a contextId. So an
error has an empty body, and its reason in the ``X-Rapida-Error`` header; only a client that asks for JSON gets JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.web.http import Request as HTTPRequest
from twisted.web.server import Request

from rapida_twisted.credentials.api_keys import mask_key
from rapida_twisted.errors import (
    CallNotPlaced,
    Draining,
    RapidaError,
    StoreUnavailable,
    TooManyCalls,
    UnknownAssistant,
    UnknownContext,
    UpstreamFailed,
)
from rapida_twisted.net.untrusted_text import escaped, shortened

__all__ = [
    "ERROR_HEADER",
    "Answer",
    "Refusal",
    "describe",
    "error_answer",
    "header_value",
    "json_answer",
    "refusal_of",
    "send",
    "text_answer",
    "wants_json",
]

ERROR_HEADER = "X-Rapida-Error"
LONGEST_REASON = 200
RETRY_AFTER_S = 2

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, before it is sent."""

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)


class Refusal(RapidaError):
    """A request can't be answered as wished: an HTTP status and the reason for it.

    :param context_id: of the call that it is about, for clients that do not know it.
    """

    def __init__(
        self, status: int, reason: str, headers: Mapping[str, str] = _NO_HEADERS, *, context_id: str = ""
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.context_id = context_id


def text_answer(text: str, status: int = 200) -> Answer:
    """Plain text, exactly as given: no newline is added."""
    return Answer(status, text.encode(), "text/plain; charset=utf-8")


def json_answer(content: Any, status: int = 200) -> Answer:
    """JSON, on one line and in ASCII."""
    return Answer(status, json.dumps(content).encode("ascii"), "application/json")


def error_answer(refusal: Refusal, *, as_json: bool, **more: Any) -> Answer:
    """The answer to a request that is refused: an empty body, or JSON for whoever asked for it.

    :param more: further members of the JSON.
    """
    headers = {**refusal.headers, ERROR_HEADER: header_value(refusal.reason)}
    if as_json:
        content = {"error": refusal.reason, **more}
        if refusal.context_id:
            content["contextId"] = refusal.context_id
        plain = json_answer(content, refusal.status)
        return Answer(plain.status, plain.body, plain.content_type, headers)
    return Answer(refusal.status, headers=headers)


def refusal_of(error: BaseException | None) -> Refusal | None:
    """The refusal that one of this library's errors means to an HTTP client; None for all other exceptions."""
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
            # Where the store is and what SQLite says of it is for the log, not for strangers.
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
    """The text as a header's value: printable ASCII, not too long."""
    printable = "".join(character if " " <= character <= "~" else "?" for character in text)
    return shortened(printable, LONGEST_REASON)


def describe(request: HTTPRequest) -> str:
    """The request in a few words for a log: without its key, and without a stranger's control characters."""
    method, uri = escaped(request.method), escaped(mask_key(request.uri))
    return f"{method} {uri} from {getattr(request.client, 'host', request.client)}"


def send(answer: Answer, request: Request) -> None:
    """Send the answer; the request is finished then. Nothing of it is kept by caches."""
    request.setResponseCode(answer.status)
    headers = request.responseHeaders
    headers.setRawHeaders("Cache-Control", ["no-store"])
    headers.setRawHeaders("Content-Length", [str(len(answer.body))])
    if answer.content_type:
        headers.setRawHeaders("Content-Type", [answer.content_type])
    for name, value in answer.headers.items():
        headers.setRawHeaders(name, [value])
    request.write(answer.body)
    request.finish()
