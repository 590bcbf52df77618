"""Asking the running server over its HTTP interface."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import react
from twisted.web.client import Agent

from rapida_twisted.errors import RapidaError
from rapida_twisted.tools.ctl_options import UsageError, printable

__all__ = ["Reply", "ServerRefused", "ask", "ask_server"]

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 15.0
LARGEST_BYTES = 64 * 1024 * 1024
LONGEST_REASON = 200

_ADVICE = {
    401: "set RAPIDA_API_KEY, or name the file of the key (--key-file)",
    403: "set RAPIDA_API_KEY, or name the file of the key (--key-file)",
}


class ServerRefused(RapidaError):
    """The server did not do what it was asked, or gave no answer. The text is one sentence."""


@dataclass(frozen=True)
class Reply:
    """What the server answered."""

    status: int
    content: Any
    """Of JSON; None if it was none."""
    reason: str = ""
    """Why it refused, in its own words."""


def ask_server(url: str, path: str, api_key: str | None = None, method: str = "GET", **parameters: str) -> Reply:
    """Ask, in a reactor that runs for this one question. May be called once in a process.

    :param parameters: of the query; empty ones are left out.
    :raises UsageError: the key can't be sent.
    :raises ServerRefused: there was no answer, or the key was refused.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise UsageError("an API key is one line of printable ASCII characters, and what was found is not")
    outcome: list[Reply | RapidaError] = []

    async def run(reactor: Any) -> None:
        try:
            outcome.append(await ask(url, path, api_key, method, parameters, reactor=reactor))
        except RapidaError as error:
            outcome.append(error)

    try:
        react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    except SystemExit:
        # So react() ends, whatever became of it.
        pass
    if not outcome:
        raise KeyboardInterrupt
    if isinstance(outcome[0], RapidaError):
        raise outcome[0]
    return outcome[0]


async def ask(
    url: str, path: str, api_key: str | None, method: str, parameters: dict[str, str], *, reactor: Any
) -> Reply:
    """Ask.

    :param url: the server, such as ``http://127.0.0.1:8080``.
    :param api_key: None: what is asked needs none.
    :raises ServerRefused: there was no answer, or the key was refused.
    """
    headers: dict[bytes | str, bytes | str] = {"accept": "application/json"}
    if api_key is not None:
        headers["x-api-key"] = api_key
    words = {name: word for name, word in parameters.items() if word}
    answering = Deferred.fromCoroutine(_ask(method, url + path, words, headers, reactor))
    try:
        reply = await answering.addTimeout(ANSWER_TIMEOUT_S, reactor)
    except CancelledError:
        raise
    except DeferredTimeout:
        raise ServerRefused(f"{url} gave no answer within {ANSWER_TIMEOUT_S:g} s") from None
    except Exception as error:
        reason = _sentence(error)
    else:
        if reply.status in _ADVICE:
            raise ServerRefused(f"{reply.reason or 'the key was refused'} ({reply.status}); {_ADVICE[reply.status]}")
        return reply
    raise ServerRefused(
        f"{url} does not answer ({reason}): is the server running, and is this its HTTP address (--http)?"
    )


async def _ask(
    method: str, url: str, words: dict[str, str], headers: dict[bytes | str, bytes | str], reactor: Any
) -> Reply:
    client = HTTPClient(Agent(reactor, connectTimeout=CONNECT_TIMEOUT_S))
    # A redirect would carry the key to somebody else.
    response = await client.request(method, url, params=words, headers=headers, allow_redirects=False)
    body = bytearray()

    def collect(data: bytes) -> None:
        if len(body) <= LARGEST_BYTES:
            body.extend(data)

    await response.collect(collect)
    content = _json(bytes(body)) if len(body) <= LARGEST_BYTES else None
    return Reply(response.code, content, _reason(response, content))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _reason(response: Any, content: Any) -> str:
    said = response.headers.getRawHeaders("X-Rapida-Error", [])
    if not said and isinstance(content, dict) and isinstance(content.get("error"), str):
        said = [content["error"]]
    return printable(said[0])[:LONGEST_REASON] if said else ""


def _sentence(error: Exception) -> str:
    """What went wrong, from Twisted's nested errors."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return _sentence(reasons[0].value)
    return printable(str(error).rstrip(".")) or type(error).__name__
