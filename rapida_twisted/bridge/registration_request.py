"""Registering a call at an assistant server: what a dialplan's ``CURL()`` does, with treq.

:func:`register_call` is for tools; the calls that this server carries on go by
:class:`~rapida_twisted.bridge.register.UpstreamClient`, which is made of the other functions here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from uuid import UUID

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from rapida_twisted.errors import RegistrationRefused
from rapida_twisted.net.http_client import was_cancelled

__all__ = ["ask", "beginning_of", "context_id_in", "reason_of", "register_call", "registration_url"]

LONGEST_ANSWER = 64
LONGEST_REASON = 200

_REASONS = {
    400: "the server does not take these parameters",
    401: "the server does not know this API key",
    403: "the server does not allow this",
    404: "the server has no such assistant",
    429: "too many calls wait at the server already",
    503: "the server takes no calls now",
}


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
    """Register a call. Gives its contextId, in the form that the server wrote it.

    :param url: the server, such as ``http://127.0.0.1:8080``.
    :param api_key: travels in a header, so that it is in no access log on its way.
    :param caller: empty for an anonymous call.
    :param variables: whatever else the server shall know of the call.
    :param treq_client: a :class:`treq.client.HTTPClient`, or what has its methods.
    :param reactor: provides IReactorTime.
    :param timeout_s: how long all of it may take.
    :raises RegistrationRefused: there is no contextId; the status is 0 when there was no answer at all.
    """
    parameters = {**(variables or {}), "from": caller, "to": called}
    answering = Deferred.fromCoroutine(
        _register(registration_url(url, assistant_id), parameters, {"x-api-key": api_key}, treq_client)
    )
    try:
        return await answering.addTimeout(timeout_s, reactor)
    except (RegistrationRefused, CancelledError):
        raise
    except DeferredTimeout:
        raise RegistrationRefused(0, f"no answer within {timeout_s:g} s") from None
    except Exception as error:
        raise RegistrationRefused(0, _sentence(error)) from error


async def _register(url: str, parameters: Mapping[str, str], headers: Mapping[str, str], treq_client: Any) -> str:
    response = await ask(url, parameters, headers, treq_client)
    body = await beginning_of(response)
    if response.code != 200:
        raise RegistrationRefused(response.code, reason_of(response))
    context_id = context_id_in(body)
    if not context_id:
        raise RegistrationRefused(response.code, "what the server answered is no contextId")
    return context_id


def registration_url(url: str, assistant_id: str) -> str:
    """Where calls to an assistant are registered.

    :param url: the server, such as ``http://127.0.0.1:8080``.
    """
    return f"{url.rstrip('/')}/v1/talk/asterisk/call/{quote(assistant_id, safe='')}"


async def ask(url: str, parameters: Mapping[str, str], headers: Mapping[str, str], treq_client: Any) -> IResponse:
    """Ask for it; gives the answer's head, as soon as that is there.

    :raises CancelledError: it was cancelled. All other errors are those of the client.
    """
    try:
        # A redirect would carry the key to somebody else.
        response: IResponse = await treq_client.get(
            url, params=parameters, headers=dict(headers), allow_redirects=False, unbuffered=True
        )
    except Exception as error:
        if was_cancelled(error):
            raise CancelledError from None
        raise
    return response


async def beginning_of(response: IResponse) -> bytes:
    """The body, of which no more is read than decides whether it is a contextId."""
    if response.length == 0:
        return b""
    beginning = _Beginning()
    response.deliverBody(beginning)
    await beginning.done
    return bytes(beginning.body)


def context_id_in(body: bytes) -> str:
    """The contextId, in the form that the server wrote it; empty if the body is something else."""
    try:
        text = body.decode("ascii").strip()
        UUID(text)
    except ValueError:
        return ""
    return text if len(body) <= LONGEST_ANSWER else ""


class _Beginning(Protocol):
    """Reads the beginning of a body; when that is enough, or nobody waits for it any more, hangs up."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.done: Deferred[None] = Deferred(lambda _: self._hang_up())

    def dataReceived(self, data: bytes) -> None:
        self.body += data[: LONGEST_ANSWER + 1]
        if len(self.body) > LONGEST_ANSWER and not self.done.called:
            self.done.callback(None)
            self._hang_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(None)
        else:
            self.done.errback(reason)

    def _hang_up(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            # Over TLS loseConnection() waits for the peer's farewell, and reads on as long as that takes.
            transport.stopProducing()


def reason_of(response: IResponse) -> str:
    """Why the server refused, in its own words if it has some."""
    for value in response.headers.getRawHeaders(b"X-Rapida-Error", []):
        words = value.decode("utf-8", "replace")
        words = "".join(character if character.isprintable() else "?" for character in words).strip()
        if words:
            return words[:LONGEST_REASON]
    return _REASONS.get(response.code, "the server gave no reason")


def _sentence(error: Exception) -> str:
    """What went wrong, from Twisted's nested errors."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return _sentence(reasons[0].value)
    return str(error) or type(error).__name__
