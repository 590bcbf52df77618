"""Asking the running server over its HTTP interface."""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.task import react
from twisted.web.client import Agent

from rapida_twisted.errors import RapidaError
from rapida_twisted.net.bounded_body import read_body
from rapida_twisted.net.connection_errors import error_text
from rapida_twisted.net.untrusted_text import printable
from rapida_twisted.tools.api_key import find_api_key
from rapida_twisted.tools.ctl.options import UsageError

__all__ = ["NoAnswer", "Reply", "Server", "ServerRefused", "ask_server", "key_for", "refused", "with_server"]

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 15.0
LARGEST_BYTES = 64 * 1024 * 1024
LONGEST_REASON = 200

_ADVICE = {
    401: "set RAPIDA_API_KEY, or name the file of the key (--key-file)",
    403: "set RAPIDA_API_KEY, or name the file of the key (--key-file)",
}


class ServerRefused(RapidaError):
    """The server did not do what it was asked, or gave no answer. The text is one sentence.

    :param status: of HTTP, if the key was refused.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class NoAnswer(ServerRefused):
    """The server gave no answer.

    :param asked: whether it may have got the question.
    """

    def __init__(self, message: str, *, asked: bool) -> None:
        super().__init__(message)
        self.asked = asked


@dataclass(frozen=True)
class Reply:
    """What the server answered."""

    status: int
    content: Any
    """Of JSON; None if it was none."""
    reason: str = ""
    """Why it refused, in its own words."""


class Server:
    """A running server, in a reactor that runs for a conversation with it.

    :param url: such as ``http://127.0.0.1:8080``.
    :param api_key: None: what is asked needs none.
    :param reactor: for whatever else happens in the conversation, too.
    """

    def __init__(self, url: str, api_key: str | None, reactor: Any) -> None:
        self.reactor = reactor
        self._url = url
        self._headers: dict[bytes | str, bytes | str] = {"accept": "application/json"}
        if api_key is not None:
            self._headers["x-api-key"] = api_key
        self._client = HTTPClient(Agent(reactor, connectTimeout=CONNECT_TIMEOUT_S))

    async def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        query: Mapping[str, str] = MappingProxyType({}),
        body: Any = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Reply:
        """Ask.

        :param query: empty words are left out.
        :param body: sent as JSON; None: there is none.
        :raises NoAnswer: there was none.
        :raises ServerRefused: the key was refused.
        """
        asking = Deferred.fromCoroutine(self._ask(method, path, query, body))
        try:
            reply = await asking.addTimeout(timeout_s, self.reactor)
        except CancelledError:
            raise
        except DeferredTimeout:
            raise NoAnswer(f"{self._url} gave no answer within {timeout_s:g} s", asked=True) from None
        except Exception as error:
            reason, asked = printable(error_text(error)), not isinstance(error, ConnectError | DNSLookupError)
        else:
            if reply.status in _ADVICE:
                reason = reply.reason or "the key was refused"
                raise ServerRefused(f"{reason} ({reply.status}); {_ADVICE[reply.status]}", reply.status)
            return reply
        where = "is the server running, and is this its HTTP address (--http)?"
        raise NoAnswer(f"{self._url} does not answer ({reason}): {where}", asked=asked)

    async def _ask(self, method: str, path: str, query: Mapping[str, str], content: Any) -> Reply:
        headers = dict(self._headers)
        if content is not None:
            headers["content-type"] = "application/json"
        words = {name: word for name, word in query.items() if word}
        data = None if content is None else json.dumps(content).encode("ascii")
        # A redirect would carry the key to somebody else.
        response = await self._client.request(
            method, self._url + path, params=words, headers=headers, data=data, allow_redirects=False, unbuffered=True
        )
        body = await read_body(response, LARGEST_BYTES)
        answer = _json(body) if len(body) <= LARGEST_BYTES else None
        return Reply(response.code, answer, _reason(response, answer))


def with_server(url: str, api_key: str | None, conversation: Callable[[Server], Awaitable[T]]) -> T:
    """Talk to a server, in a reactor that runs for this one conversation. May be called once in a process.

    :return: what came out of it; what it raises is raised.
    :raises UsageError: the key can't be sent.
    :raises KeyboardInterrupt: the process was told to end.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise UsageError("an API key is one line of printable ASCII characters, and what was found is not")
    results: list[T] = []
    errors: list[Exception] = []
    stopping: list[bool] = []

    async def run(reactor: Any) -> None:
        reactor.addSystemEventTrigger("before", "shutdown", stopping.append, True)
        try:
            results.append(await conversation(Server(url, api_key, reactor)))
        except CancelledError:
            raise
        except Exception as error:
            # A process that is told to end closes its connections: that is no news of the server.
            if not stopping:
                errors.append(error)

    try:
        react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    except SystemExit:
        # So react() ends, whatever became of it.
        pass
    if errors:
        raise errors[0]
    if not results:
        raise KeyboardInterrupt
    return results[0]


def ask_server(url: str, path: str, api_key: str | None = None, method: str = "GET", **parameters: str) -> Reply:
    """Ask one question: see :func:`with_server` and :meth:`Server.ask`."""
    return with_server(url, api_key, lambda server: server.ask(path, method, query=parameters))


def key_for(words: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """The API key for the server that a command line means.

    :raises UsageError: there is none.
    """
    try:
        return find_api_key(words.key_file, words.state_dir, environ)
    except ValueError as error:
        raise UsageError(str(error)) from None


def refused(reply: Reply) -> ServerRefused:
    """The error that an answer is when it is not the one that was asked for."""
    if reply.reason:
        return ServerRefused(f"{reply.reason} ({reply.status})")
    return ServerRefused(f"what the server answered ({reply.status}) is not what a rapida-media server answers")


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
