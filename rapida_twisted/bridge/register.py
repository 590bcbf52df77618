"""Calls that are carried on are registered at the other server first."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit
from uuid import UUID

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectionClosed, ConnectionRefusedError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.web.client import RequestNotSent
from twisted.web.iweb import IResponse

from rapida_twisted.bridge.registration_request import ask, beginning_of, context_id_in, reason_of, registration_url
from rapida_twisted.context import CallContext
from rapida_twisted.errors import UpstreamFailed
from rapida_twisted.net.http_client import Client, NothingSent, causes_of, tls_problem

__all__ = ["UpstreamClient"]

OF_CALL = frozenset({400, 403, 404})
"""HTTP statuses that say something of this call alone, or of the assistant that it is for."""


class UpstreamClient:
    """Registers calls at another assistant-api server.

    :param url: the server, such as ``https://assistant.example.com``.
    :param api_key: travels in the query, since the hosted Rapida looks for it nowhere else; so no URL is ever logged
        or quoted.
    :param assistant_id: the assistant there; empty: the one that was dialled here.
    :param treq_client: by :func:`~rapida_twisted.net.http_client.make_client` without retries: each GET that arrives
        registers a call.
    :param reactor: provides IReactorTime.
    :param timeout_s: how long each step may take: connecting (with TLS), the answer's head, its body. If there is no
        connection it is tried once more, since nothing was sent; else never: the call may be registered.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        assistant_id: str = "",
        treq_client: Client,
        reactor: Any,
        timeout_s: float = 2.0,
    ) -> None:
        self._url = url
        self._api_key = api_key
        self._assistant_id = assistant_id
        self._treq = treq_client.bounded(timeout_s)
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._name = _host_and_port(url)

    async def register(self, context: CallContext) -> str:
        """Register a call; gives the contextId that it has there, in canonical form.

        Cancelling it ends the request.

        :raises UpstreamFailed: it was not registered, or nobody knows whether it was.
        """
        response = await self._head(context)
        body = await self._body(response)
        if response.code != 200:
            raise self._refused(response)
        context_id = context_id_in(body)
        if not context_id:
            raise self._failed("malformed", "answered with something that is no contextId", response.code)
        return str(UUID(context_id))

    async def _head(self, context: CallContext) -> IResponse:
        try:
            try:
                return await self._ask(context)
            except NothingSent as error:
                # A certificate is the same when looked at again.
                if any(tls_problem(cause) for cause in causes_of(error)):
                    raise
            return await self._ask(context)
        except CancelledError:
            raise
        except Exception as error:
            # Without the error itself, which knows the request and so its key.
            raise self._failed(*_why(error, self._timeout_s)) from None

    async def _ask(self, context: CallContext) -> IResponse:
        url = registration_url(self._url, self._assistant_id or context.assistant_id)
        query = {"from": context.caller, "to": context.called, "x-api-key": self._api_key}
        return await ask(url, query, {}, self._treq)

    async def _body(self, response: IResponse) -> bytes:
        reading = Deferred.fromCoroutine(beginning_of(response))
        try:
            return await reading.addTimeout(self._timeout_s, self._reactor)
        except CancelledError:
            raise
        except Exception as error:
            if response.code != 200:
                # The status has said it all.
                return b""
            raise self._failed(*_why(error, self._timeout_s)) from None

    def _refused(self, response: IResponse) -> UpstreamFailed:
        reason = reason_of(response)
        if 300 <= response.code < 400:
            reason = "a redirect, and none is followed"
        elif self._is_quoted(response):
            reason = "for a reason that quotes the API key"
        return self._failed("refused", f"does not register the call: {response.code}, {reason}", response.code)

    def _is_quoted(self, response: IResponse) -> bool:
        words = b" ".join(response.headers.getRawHeaders(b"X-Rapida-Error", [])).decode("utf-8", "replace")
        return any(self._api_key in form for form in (words, unquote(words), unquote_plus(words)))

    def _failed(self, word: str, what: str, status: int = 0) -> UpstreamFailed:
        """:param what: goes on after the server's name."""
        return UpstreamFailed(word, f"the upstream {self._name} {what}", status=status, of_call=status in OF_CALL)


def _why(error: Exception, timeout_s: float) -> tuple[str, str]:
    """UpstreamFailed's word for what happened to a request, and the words to stand behind the server's name.

    An error's own words are not quoted where it is not known what may be in them.
    """
    causes = causes_of(error)
    sent = not isinstance(error, NothingSent)
    if any(isinstance(cause, (DeferredTimeout, ConnectTimeout)) for cause in causes):
        return "timeout", f"did not {'answer' if sent else 'connect'} within {timeout_s:g} s"
    for cause in causes:
        if problem := tls_problem(cause):
            return "tls", problem
    if not sent:
        return "unreachable", f"can't be reached: {_why_not_connected(causes[0])}"
    if isinstance(causes[0], ConnectionClosed):
        return "lost", "ended the connection before its answer was complete"
    if causes == [error]:
        # Nothing that Twisted tells of a request on its way.
        return "unreachable", f"can't be asked ({type(error).__name__})"
    return "malformed", "answered with what is not HTTP"


def _why_not_connected(cause: BaseException) -> str:
    match cause:
        case ConnectionRefusedError():
            return "nobody listens there"
        case DNSLookupError():
            return "no such host is known"
        case ConnectionClosed() | RequestNotSent():
            return "it ends connections at once"
        case ConnectError():
            return str(cause).rstrip(".")
    return type(cause).__name__


def _host_and_port(url: str) -> str:
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    return where if parts.port else f"{where}:{443 if parts.scheme == 'https' else 80}"
