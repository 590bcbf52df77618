"""Resources that respond from a coroutine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from rapida_twisted.credentials.api_keys import ApiKeys, Grant, Scope
from rapida_twisted.web.request import RapidaRequest
from rapida_twisted.web.request_key import key_of
from rapida_twisted.web.responses import (
    BROKEN,
    Refusal,
    Response,
    describe,
    error_response,
    refusal_of,
    send,
    wants_json,
)

__all__ = ["AsyncResource", "Branch", "KeyedResource", "NotFound", "granted"]

RESPONSE_TIMEOUT_S = 10.0
"""The last resort: each step of a response has a shorter limit of its own."""


class AsyncResource(Resource):
    """Sends what :meth:`respond` returns or raises.

    A library error becomes its HTTP status; any other exception becomes a 500 with an empty body, and a logged failure.
    A client that disconnects cancels the coroutine.
    """

    _log = Logger()
    methods: tuple[bytes, ...] = (b"GET", b"HEAD")
    """The accepted methods. HEAD gets the response of GET, without the body."""
    response_timeout_s: float = RESPONSE_TIMEOUT_S

    async def respond(self, request: Request) -> Response:
        """Make the response. May raise a :class:`~rapida_twisted.web.responses.Refusal` or another library error."""
        raise NotImplementedError

    def getChild(self, path: bytes, request: Request) -> IResource:
        return NotFound()

    def check(self, request: Request) -> None:
        """Check the request before :meth:`respond`.

        :raises Refusal: the method is not one of :attr:`methods`.
        """
        if request.method not in self.methods:
            raise Refusal(405, "this method is not allowed here", {"Allow": b", ".join(self.methods).decode("ascii")})

    def render(self, request: Request) -> int:
        """Start the coroutine; its result is sent later."""
        responding = Deferred.fromCoroutine(self._respond(request))
        disconnected: list[Failure] = []

        def client_disconnected(failure: Failure) -> None:
            disconnected.append(failure)
            responding.cancel()

        request.notifyFinish().addErrback(client_disconnected)
        assert request.site is not None
        responding.addTimeout(self.response_timeout_s, request.site.reactor)
        responding.addErrback(self._failed, request)
        responding.addCallback(lambda response: None if disconnected else send(response, request))
        responding.addErrback(lambda failure: self._log.failure("cannot send a response", failure))
        return NOT_DONE_YET

    def refusal(self, error: BaseException | None) -> Refusal | None:
        """The HTTP refusal for an exception; None for a bug."""
        return refusal_of(error)

    def refused(self, refusal: Refusal, request: Request) -> Response:
        return error_response(refusal, as_json=wants_json(request))

    def broken(self, request: Request) -> Response:
        """The response for a bug, which the log describes."""
        return BROKEN

    async def _respond(self, request: Request) -> Response:
        self.check(request)
        return await self.respond(request)

    def _failed(self, failure: Failure, request: Request) -> Response:
        refusal = self.refusal(failure.value)
        if refusal is None:
            if not failure.check(CancelledError):
                self._log.failure("{request}: the response failed", failure, request=describe(request))
            return self.broken(request)
        if refusal.status >= 500:
            self._log.warn("{request}: {error}", request=describe(request), error=failure.getErrorMessage())
        return self.refused(refusal, request)


class KeyedResource(AsyncResource):
    """Requires an API key, which is checked before anything else.

    :param keys: the accepted keys.
    """

    scope: Scope | None = Scope.READ
    """The scope that a key needs here, None: no special one. DELETE always needs ``control``."""

    of_all_calls = False
    """Whether the page tells of all calls together, and is refused to keys that are bound to assistants."""

    def __init__(self, keys: ApiKeys) -> None:
        super().__init__()
        self.keys = keys

    async def _respond(self, request: Request) -> Response:
        try:
            return await super()._respond(request)
        except Refusal as refusal:
            if refusal.status == 401 and request.site is not None:
                reactor = request.site.reactor
                delay_s = self.keys.failed.delay_s(getattr(request.client, "host", ""), reactor.seconds())
                if delay_s:
                    await deferLater(reactor, delay_s)
            raise

    def check(self, request: Request) -> None:
        """Check the key, then the method, then the key's scopes.

        :raises Refusal: 401, 405 or 403.
        """
        candidate = key_of(request)
        grant = self.keys.grant_of(candidate)
        if grant is None:
            reason = "this API key is not known" if candidate else "an API key is needed"
            raise Refusal(401, reason, {"WWW-Authenticate": 'Bearer realm="rapida"'})
        super().check(request)
        scope = Scope.CONTROL if request.method == b"DELETE" else self.scope
        if scope is not None and scope not in grant.scopes:
            raise Refusal(403, f"this API key has no scope {scope.value}")
        if grant.assistants and self.of_all_calls:
            raise Refusal(403, "this API key is bound to assistants")
        request.grant = grant  # type: ignore[attr-defined]
        if isinstance(request, RapidaRequest):
            request.proved()


def granted(request: Request) -> Grant:
    grant: Grant = request.grant  # type: ignore[attr-defined]
    return grant


class NotFound(AsyncResource):
    """Responds with 404, whatever the method."""

    isLeaf = True

    def check(self, request: Request) -> None:
        raise Refusal(404, "there is nothing here")


class Branch(Resource):
    """An inner node of the resource tree, with 404 for itself.

    :param children: its fixed children.
    :param child: makes the resource of any other path segment; None: 404.
    """

    def __init__(
        self, children: Mapping[bytes, IResource] | None = None, *, child: Callable[[str], IResource] | None = None
    ) -> None:
        super().__init__()
        self._child = child
        for name, resource in (children or {}).items():
            self.putChild(name, resource)

    def getChild(self, path: bytes, request: Request) -> IResource:
        return NotFound() if self._child is None else self._child(path.decode("utf-8", "surrogateescape"))

    def render(self, request: Request) -> int:
        return NotFound().render(request)
