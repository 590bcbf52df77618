"""Requests that another process of this machine answers."""

from __future__ import annotations

import time
from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.logger import Logger
from twisted.web.client import URI, Agent, FileBodyProducer, ResponseFailed, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request
from zope.interface import implementer

from rapida_twisted.credentials.api_keys import KEY_NAME, ApiKeys, Scope
from rapida_twisted.web.outbound import PLACE_TIMEOUT_S, UNTIL_HEADER
from rapida_twisted.web.resource import KeyedResource, NotFound
from rapida_twisted.web.responses import ERROR_HEADER, RETRY_AFTER_S, Answer, Refusal, error_answer

__all__ = ["ForwardedOutbound"]

PICK_UP_S = 10
"""Within this the other process must begin with a request."""
_ASKED_WITH = ("Accept", "Authorization", "Content-Type", KEY_NAME.decode())
_ANSWERED_WITH = (ERROR_HEADER, "Retry-After", "WWW-Authenticate", "Allow")


@implementer(IAgentEndpointFactory)
class _OneSocket:
    """Where every request goes.

    :param path: of a UNIX socket.
    """

    def __init__(self, reactor: Any, path: str) -> None:
        self._endpoint = UNIXClientEndpoint(reactor, path)

    def endpointForURI(self, uri: URI) -> UNIXClientEndpoint:  # noqa: N802
        """What Twisted's agent asks."""
        return self._endpoint


class ForwardedOutbound(Resource):
    """``/v1/talk/asterisk/outbound``, where another process places the calls.

    :param keys: whoever has none of them is refused here.
    :param path: the UNIX socket of that process.
    :param reactor: connects to it.
    """

    def __init__(self, keys: ApiKeys, path: str, reactor: Any) -> None:
        super().__init__()
        self._keys = keys
        self._agent = Agent.usingEndpointFactory(reactor, _OneSocket(reactor, path))

    def getChild(self, path: bytes, request: Request) -> IResource:
        """The page of one assistant, which there may be or not."""
        return _Forwarded(self._keys, self._agent)

    def render(self, request: Request) -> int:
        """There is no listing."""
        return NotFound().render(request)


class _Forwarded(KeyedResource):
    """Answers as the other process does. A client that goes away does not take its call back."""

    _log = Logger()
    methods = (b"POST",)
    scope = Scope.CONTROL
    answer_timeout_s = PLACE_TIMEOUT_S

    def __init__(self, keys: ApiKeys, agent: Agent) -> None:
        super().__init__(keys)
        self._agent = agent

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Whatever is below an assistant's id, which may be none."""
        return self

    async def respond(self, request: Request) -> Answer:
        """What the other process answers.

        :raises Refusal: 503, it is not there, and nothing was placed; 502, it went away, and nobody knows.
        """
        given = request.requestHeaders
        headers = Headers({name: values for name in _ASKED_WITH if (values := given.getRawHeaders(name))})
        # The other process may be starting: its socket takes the request all the same, and nobody may be called late.
        headers.setRawHeaders(UNTIL_HEADER, [str(time.monotonic_ns() + PICK_UP_S * 10**9)])
        content = request.content.read() if request.content is not None else b""
        try:
            response = await self._agent.request(
                b"POST", b"http://localhost" + request.uri, headers, FileBodyProducer(BytesIO(content))
            )
            body = await readBody(response)
        except ConnectError as error:
            self._log.error("the process that places calls can't be reached: {error}", error=str(error))
            reason = "the process that places calls is being started"
            raise Refusal(503, reason, {"Retry-After": str(RETRY_AFTER_S)}) from None
        except ResponseFailed as error:
            if any(reason.check(CancelledError) for reason in error.reasons):
                raise CancelledError from None
            reason = "the process that places calls went away: whether this one was placed is shown by /v1/calls"
            raise Refusal(502, reason) from None
        found = response.headers
        kept = {name: values[0] for name in _ANSWERED_WITH if (values := found.getRawHeaders(name))}
        kind = found.getRawHeaders("Content-Type", [""])[0]
        return Answer(response.code, body, kind, kept)

    def refused(self, refusal: Refusal, request: Request) -> Answer:
        """As the page itself does."""
        return error_answer(refusal, as_json=True, retryable="Retry-After" in refusal.headers)
