"""Forwards requests to another process of this machine."""

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
from twisted.web.resource import IResource
from twisted.web.server import Request
from zope.interface import implementer

from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.net.private_names import HTTP11ClientProtocol, make_connection_pool
from rapida_twisted.web.outbound import UNTIL_HEADER, PlacingResource
from rapida_twisted.web.request_key import KEY_NAME
from rapida_twisted.web.resource import Branch
from rapida_twisted.web.responses import ERROR_HEADER, RETRY_AFTER_S, Refusal, Response

__all__ = ["ForwardedOutbound"]

PICK_UP_S = 10
"""How long (s) a request may wait for the other process to read it."""
_REQUEST_HEADERS = ("Accept", "Authorization", "Content-Type", KEY_NAME.decode())
_RESPONSE_HEADERS = (ERROR_HEADER, "Retry-After", "WWW-Authenticate", "Allow")


@implementer(IAgentEndpointFactory)
class _OneSocket:
    """Sends every request to one UNIX socket."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._endpoint = UNIXClientEndpoint(reactor, path)

    def endpointForURI(self, uri: URI) -> UNIXClientEndpoint:  # noqa: N802
        return self._endpoint


class ForwardedOutbound(Branch):
    """``/v1/talk/asterisk/outbound``, while another process places the calls.

    :param keys: checked here already.
    :param path: the UNIX socket of that process.
    """

    def __init__(self, keys: ApiKeys, path: str, reactor: Any) -> None:
        pool = make_connection_pool(reactor, HTTP11ClientProtocol)
        pool.persistent = False
        agent = Agent.usingEndpointFactory(reactor, _OneSocket(reactor, path), pool)
        super().__init__(child=lambda assistant_id: _Forwarded(keys, agent))


class _Forwarded(PlacingResource):
    """Returns the other process's response. A client that disconnects does not cancel its call."""

    _log = Logger()

    def __init__(self, keys: ApiKeys, agent: Agent) -> None:
        super().__init__(keys)
        self._agent = agent

    def getChild(self, path: bytes, request: Request) -> IResource:
        """The other process decides about the path below an assistant's id."""
        return self

    async def respond(self, request: Request) -> Response:
        """Forward the request.

        :raises Refusal: 503, the other process is not running and placed no call; 502, it died and may have placed one.
        """
        given = request.requestHeaders
        headers = Headers({name: values for name in _REQUEST_HEADERS if (values := given.getRawHeaders(name))})
        # The socket accepts the request while the other process starts; the header prevents a late call.
        headers.setRawHeaders(UNTIL_HEADER, [str(time.monotonic_ns() + PICK_UP_S * 10**9)])
        content = request.content.read() if request.content is not None else b""
        try:
            response = await self._agent.request(
                b"POST", b"http://localhost" + request.uri, headers, FileBodyProducer(BytesIO(content))
            )
            body = await readBody(response)
        except ConnectError as error:
            self._log.error("cannot reach the process that places calls: {error}", error=str(error))
            reason = "the process that places calls is starting"
            raise Refusal(503, reason, {"Retry-After": str(RETRY_AFTER_S)}) from None
        except ResponseFailed as error:
            if any(reason.check(CancelledError) for reason in error.reasons):
                raise CancelledError from None
            reason = "the process that places calls died: /v1/calls shows whether it placed this one"
            raise Refusal(502, reason) from None
        found = response.headers
        kept = {name: values[0] for name in _RESPONSE_HEADERS if (values := found.getRawHeaders(name))}
        kind = found.getRawHeaders("Content-Type", [""])[0]
        return Response(response.code, body, kind, kept)
