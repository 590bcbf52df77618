"""Registers a bridged call at the other server, as a dialplan's ``CURL()`` does.

The bridge uses :class:`RegistrationClient`, tools use :func:`register_call`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, unquote_plus
from uuid import UUID

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectionClosed, ConnectionRefusedError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.web.iweb import IResponse

from rapida_twisted.bridge.registration_reply import MAX_REPLY_BYTES, context_id_in, refusal_reason
from rapida_twisted.context import CallContext
from rapida_twisted.errors import RegistrationRefused, UpstreamFailed
from rapida_twisted.net.addresses import host_and_port, host_port_of
from rapida_twisted.net.bounded_body import read_body
from rapida_twisted.net.connection_errors import causes_of, error_text, tls_problem, was_cancelled
from rapida_twisted.net.http_client import Client, NothingSent
from rapida_twisted.net.private_names import RequestNotSent

__all__ = ["RegistrationClient", "register_call"]

OF_CALL = frozenset({400, 403, 404})
"""HTTP statuses that concern only this call or its assistant, not the server's health."""


@attrs.define(eq=False, repr=False, slots=False)
class RegistrationClient:
    """Registers calls at another assistant-api server.

    :param url: the server, such as ``https://assistant.example.com``.
    :param api_key: sent in the query, the only place where the hosted Rapida reads it; hence no log line or error
        quotes a URL.
    :param assistant_id: the assistant there; empty: the one that was dialled here.
    :param treq_client: from :func:`~rapida_twisted.net.http_client.make_client` without retries: each GET that arrives
        registers a call.
    :param reactor: provides IReactorTime.
    :param timeout_s: the time limit of each step: connecting (with TLS), the reply's head, its body. A failed
        connection is tried once more, since nothing was sent. Later failures are not: the call may be registered.
    """

    _url: str
    _api_key: str
    _assistant_id: str = attrs.field(default="", kw_only=True)
    _treq: Client = attrs.field(kw_only=True, alias="treq_client")
    _reactor: Any = attrs.field(kw_only=True)
    _timeout_s: float = attrs.field(default=2.0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        self._treq = self._treq.bounded(self._timeout_s)
        self._name = host_and_port(*host_port_of(self._url))

    async def register(self, context: CallContext) -> str:
        """Register a call. Returns its contextId there, in canonical form.

        Cancelling it ends the request.

        :raises UpstreamFailed: the call is not registered, or it is unknown whether it is.
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
                return await self._request(context)
            except NothingSent as error:
                # A second attempt would get the same certificate.
                if tls_problem(error):
                    raise
            return await self._request(context)
        except CancelledError:
            raise
        except Exception as error:
            # "from None": the error holds the request, and so the API key.
            raise self._failed(*_cause(error, self._timeout_s)) from None

    async def _request(self, context: CallContext) -> IResponse:
        url = _registration_url(self._url, self._assistant_id or context.assistant_id)
        query = {"from": context.caller, "to": context.called, "x-api-key": self._api_key}
        return await _get(url, query, {}, self._treq)

    async def _body(self, response: IResponse) -> bytes:
        try:
            return await read_body(response, MAX_REPLY_BYTES).addTimeout(self._timeout_s, self._reactor)
        except CancelledError:
            raise
        except Exception as error:
            if response.code != 200:
                # The status alone decides.
                return b""
            raise self._failed(*_cause(error, self._timeout_s)) from None

    def _refused(self, response: IResponse) -> UpstreamFailed:
        reason = refusal_reason(response)
        if 300 <= response.code < 400:
            reason = "a redirect, which is not followed"
        elif self._quotes_key(response):
            reason = "for a reason that quotes the API key"
        return self._failed("refused", f"does not register the call: {response.code}, {reason}", response.code)

    def _quotes_key(self, response: IResponse) -> bool:
        text = b" ".join(response.headers.getRawHeaders(b"X-Rapida-Error", [])).decode("utf-8", "replace")
        return any(self._api_key in form for form in (text, unquote(text), unquote_plus(text)))

    def _failed(self, word: str, what: str, status: int = 0) -> UpstreamFailed:
        """:param what: the predicate of the sentence that begins with the server's name."""
        return UpstreamFailed(word, f"the upstream {self._name} {what}", status=status, of_call=status in OF_CALL)


async def register_call(
    url: str,
    assistant_id: str,
    api_key: str,
    caller: str = "",
    called: str = "",
    variables: Mapping[str, str] | None = None,
    *,
    treq_client: Any,
    reactor: Any,
    timeout_s: float = 5.0,
) -> str:
    """Register a call, for tools. Returns its contextId as the server wrote it.

    :param url: the server, such as ``http://127.0.0.1:8080``.
    :param api_key: sent in a header, which access logs do not contain.
    :param caller: empty for an anonymous call.
    :param variables: further parameters of the call.
    :param treq_client: a :class:`treq.client.HTTPClient`, or an object with its methods.
    :param reactor: provides IReactorTime.
    :param timeout_s: the time limit of the whole exchange.
    :raises RegistrationRefused: there is no contextId; the status is 0 if there was no reply.
    """
    parameters = {**(variables or {}), "from": caller, "to": called}
    registering = Deferred.fromCoroutine(
        _register(_registration_url(url, assistant_id), parameters, {"x-api-key": api_key}, treq_client)
    )
    try:
        return await registering.addTimeout(timeout_s, reactor)
    except (RegistrationRefused, CancelledError):
        raise
    except DeferredTimeout:
        raise RegistrationRefused(0, f"no answer within {timeout_s:g} s") from None
    except Exception as error:
        raise RegistrationRefused(0, error_text(error)) from error


async def _register(url: str, parameters: Mapping[str, str], headers: Mapping[str, str], treq_client: Any) -> str:
    response = await _get(url, parameters, headers, treq_client)
    body = await read_body(response, MAX_REPLY_BYTES)
    if response.code != 200:
        raise RegistrationRefused(response.code, refusal_reason(response))
    context_id = context_id_in(body)
    if not context_id:
        raise RegistrationRefused(response.code, "the server's answer is no contextId")
    return context_id


def _registration_url(url: str, assistant_id: str) -> str:
    return f"{url.rstrip('/')}/v1/talk/asterisk/call/{quote(assistant_id, safe='')}"


async def _get(url: str, parameters: Mapping[str, str], headers: Mapping[str, str], treq_client: Any) -> IResponse:
    """The reply's head, as soon as it is there.

    :raises CancelledError: this was cancelled. All other errors are the client's.
    """
    try:
        # Following a redirect would send the key to another server.
        response: IResponse = await treq_client.get(
            url, params=parameters, headers=dict(headers), allow_redirects=False, unbuffered=True
        )
    except Exception as error:
        if was_cancelled(error):
            raise CancelledError from None
        raise
    return response


def _cause(error: Exception, timeout_s: float) -> tuple[str, str]:
    """The word of UpstreamFailed for a failed request, and the predicate of its sentence.

    An error's own text is not quoted unless it is known to hold no key.
    """
    causes = causes_of(error)
    sent = not isinstance(error, NothingSent)
    if any(isinstance(cause, (DeferredTimeout, ConnectTimeout)) for cause in causes):
        return "timeout", f"did not {'answer' if sent else 'connect'} within {timeout_s:g} s"
    if problem := tls_problem(error):
        return "tls", problem
    if not sent:
        return "unreachable", f"can't be reached: {_connect_problem(causes[0])}"
    if isinstance(causes[0], ConnectionClosed):
        return "lost", "closed the connection before its answer was complete"
    if causes == [error]:
        # None of Twisted's errors for a request in progress.
        return "unreachable", f"can't be reached: {type(error).__name__}"
    return "malformed", "does not answer in HTTP"


def _connect_problem(cause: BaseException) -> str:
    match cause:
        case ConnectionRefusedError():
            return "connection refused"
        case DNSLookupError():
            return "unknown host"
        case ConnectionClosed() | RequestNotSent():
            return "it closes connections at once"
        case ConnectError():
            return str(cause).rstrip(".")
    return type(cause).__name__
