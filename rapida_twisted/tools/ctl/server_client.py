"""Sends requests to the running server's HTTP interface."""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, DNSLookupError

from rapida_twisted.errors import RapidaError
from rapida_twisted.net.untrusted_text import printable
from rapida_twisted.tools.api_key import find_api_key
from rapida_twisted.tools.command_line import UsageError

__all__ = [
    "NoResponse",
    "Response",
    "ServerClient",
    "ServerRefused",
    "key_for",
    "refusal",
    "request",
    "run_with_server",
]

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
    """The server refused a request, or did not answer. The text is one sentence.

    :param status: the HTTP status if the server refused the key.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class NoResponse(ServerRefused):
    """The server did not answer.

    :param may_have_arrived: whether the server may have received the request.
    """

    def __init__(self, message: str, *, may_have_arrived: bool) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived


@dataclass(frozen=True)
class Response:
    """A response of the server."""

    status: int
    content: Any
    """The decoded JSON; None for any other body."""
    reason: str = ""
    """The server's reason for a refusal."""


class ServerClient:
    """A client of one running server.

    :param url: such as ``http://127.0.0.1:8080``.
    :param api_key: None for requests that need no key.
    """

    def __init__(self, url: str, api_key: str | None, reactor: Any) -> None:
        # Slow to import, and not needed for --help.
        from treq.client import HTTPClient
        from twisted.web.client import Agent

        self.reactor = reactor
        self._url = url
        self._headers: dict[bytes | str, bytes | str] = {"accept": "application/json"}
        if api_key is not None:
            self._headers["x-api-key"] = api_key
        self._client = HTTPClient(Agent(reactor, connectTimeout=CONNECT_TIMEOUT_S))

    async def request(
        self,
        path: str,
        method: str = "GET",
        *,
        query: Mapping[str, str] = MappingProxyType({}),
        body: Any = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Response:
        """Send one request.

        :param query: parameters with an empty value are left out.
        :param body: sent as JSON unless None.
        :raises NoResponse: the server did not answer.
        :raises ServerRefused: the server refused the key.
        """
        from rapida_twisted.net.connection_errors import error_text

        requesting = Deferred.fromCoroutine(self._request(method, path, query, body))
        try:
            response = await requesting.addTimeout(timeout_s, self.reactor)
        except CancelledError:
            raise
        except DeferredTimeout:
            raise NoResponse(f"{self._url} did not answer within {timeout_s:g} s", may_have_arrived=True) from None
        except Exception as error:
            reason = printable(error_text(error))
            may_have_arrived = not isinstance(error, ConnectError | DNSLookupError)
        else:
            if response.status in _ADVICE:
                reason = response.reason or "the server refused the key"
                raise ServerRefused(f"{reason} ({response.status}); {_ADVICE[response.status]}", response.status)
            return response
        where = "is the server running, and is this its HTTP address (--http)?"
        raise NoResponse(f"{self._url} does not answer ({reason}): {where}", may_have_arrived=may_have_arrived)

    async def _request(self, method: str, path: str, query: Mapping[str, str], content: Any) -> Response:
        from rapida_twisted.net.bounded_body import read_body

        headers = dict(self._headers)
        if content is not None:
            headers["content-type"] = "application/json"
        parameters = {name: value for name, value in query.items() if value}
        data = None if content is None else json.dumps(content).encode("ascii")
        # Following a redirect would send the key to another server.
        response = await self._client.request(
            method,
            self._url + path,
            params=parameters,
            headers=headers,
            data=data,
            allow_redirects=False,
            unbuffered=True,
        )
        body = await read_body(response, LARGEST_BYTES)
        received = _json(body) if len(body) <= LARGEST_BYTES else None
        return Response(response.code, received, _reason(response, received))


def run_with_server(url: str, api_key: str | None, conversation: Callable[[ServerClient], Awaitable[T]]) -> T:
    """Run a conversation with a server in the reactor; returns or raises its result. Once per process only.

    :raises UsageError: the key cannot be sent.
    :raises KeyboardInterrupt: a signal stopped the process.
    """
    from twisted.internet.task import react

    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise UsageError("the API key is not one line of printable ASCII characters")
    results: list[T] = []
    errors: list[Exception] = []
    stopping: list[bool] = []

    async def run(reactor: Any) -> None:
        reactor.addSystemEventTrigger("before", "shutdown", stopping.append, True)
        try:
            results.append(await conversation(ServerClient(url, api_key, reactor)))
        except CancelledError:
            raise
        except Exception as error:
            # While the process stops, errors come from our own closing of the connections.
            if not stopping:
                errors.append(error)

    try:
        react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    except SystemExit:
        # react() always ends with it.
        pass
    if errors:
        raise errors[0]
    if not results:
        raise KeyboardInterrupt
    return results[0]


def request(url: str, path: str, api_key: str | None = None, method: str = "GET", **parameters: str) -> Response:
    """Send one request: see :func:`run_with_server` and :meth:`ServerClient.request`."""
    return run_with_server(url, api_key, lambda server: server.request(path, method, query=parameters))


def key_for(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """The API key for a command line's server.

    :raises UsageError: there is none.
    """
    try:
        return find_api_key(arguments.key_file, arguments.state_dir, environ)
    except ValueError as error:
        raise UsageError(str(error)) from None


def refusal(response: Response) -> ServerRefused:
    """The error for an unexpected response."""
    reason = response.reason or "this is not the response of a rapida-media server"
    return ServerRefused(f"{reason} ({response.status})")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _reason(response: Any, content: Any) -> str:
    reasons = response.headers.getRawHeaders("X-Rapida-Error", [])
    if not reasons and isinstance(content, dict) and isinstance(content.get("error"), str):
        reasons = [content["error"]]
    return printable(reasons[0])[:LONGEST_REASON] if reasons else ""
