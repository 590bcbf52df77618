"""Resources whose answer is made by a coroutine."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from rapida_twisted.credentials.api_keys import ApiKeys, Grant, Scope, key_of
from rapida_twisted.web.responses import Answer, Refusal, describe, error_answer, refusal_of, send, wants_json

__all__ = ["AsyncResource", "Branch", "KeyedResource", "NotFound", "granted"]

ANSWER_TIMEOUT_S = 10.0
"""What an answer may take; all that answers wait for is bounded already, so this is the last resort."""


class AsyncResource(Resource):
    """Answers with what :meth:`respond` gives or raises.

    A library error becomes its HTTP status, any other exception a 500 with an empty body and a logged failure. A client
    that goes away cancels the coroutine.
    """

    _log = Logger()
    methods: tuple[bytes, ...] = (b"GET", b"HEAD")
    """The methods it knows. HEAD is answered as GET, without the body."""
    answer_timeout_s: float = ANSWER_TIMEOUT_S
    """What its answer may take."""

    async def respond(self, request: Request) -> Answer:
        """Make the answer. May raise a :class:`~rapida_twisted.web.responses.Refusal` or another library error."""
        raise NotImplementedError

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Nothing is below it."""
        return NotFound()

    def check(self, request: Request) -> None:
        """Called before anything else; whatever it raises is answered.

        :raises Refusal: the method is not one of :attr:`methods`.
        """
        if request.method not in self.methods:
            raise Refusal(405, "this method is not allowed here", {"Allow": b", ".join(self.methods).decode("ascii")})

    def render(self, request: Request) -> int:
        """Start the coroutine; the answer follows when it is done."""
        answering = Deferred.fromCoroutine(self._respond(request))
        gone: list[Failure] = []

        def client_gone(failure: Failure) -> None:
            gone.append(failure)
            answering.cancel()

        request.notifyFinish().addErrback(client_gone)
        assert request.site is not None
        answering.addTimeout(self.answer_timeout_s, request.site.reactor)
        answering.addErrback(self._failed, request)
        answering.addCallback(lambda answer: None if gone else send(answer, request))
        answering.addErrback(lambda failure: self._log.failure("an answer could not be sent", failure))
        return NOT_DONE_YET

    def refusal(self, error: BaseException | None) -> Refusal | None:
        """What an exception means to a client; None for a mistake of ours."""
        return refusal_of(error)

    def refused(self, refusal: Refusal, request: Request) -> Answer:
        """The answer to a request that is refused."""
        return error_answer(refusal, as_json=wants_json(request))

    def broken(self, request: Request) -> Answer:
        """The answer when something of ours is broken; the log says what."""
        return Answer(500)

    async def _respond(self, request: Request) -> Answer:
        self.check(request)
        return await self.respond(request)

    def _failed(self, failure: Failure, request: Request) -> Answer:
        refusal = self.refusal(failure.value)
        if refusal is None:
            if not failure.check(CancelledError):
                self._log.failure("{request}: no answer could be made", failure, request=describe(request))
            return self.broken(request)
        if refusal.status >= 500:
            self._log.warn("{request}: {error}", request=describe(request), error=failure.getErrorMessage())
        return self.refused(refusal, request)


class KeyedResource(AsyncResource):
    """One that is only for those who have a key, which is checked first of all.

    :param keys: the keys that are accepted.
    """

    scope = Scope.READ
    """What a key must be good for to ask here; whoever deletes something needs ``control`` everywhere."""

    def __init__(self, keys: ApiKeys) -> None:
        super().__init__()
        self.keys = keys

    def check(self, request: Request) -> None:
        """Check the key, then the method, then what the key is good for.

        :raises Refusal: 401, 405 or 403.
        """
        candidate = key_of(request)
        grant = self.keys.grant_of(candidate)
        if grant is None:
            reason = "this API key is not known" if candidate else "an API key is needed"
            raise Refusal(401, reason, {"WWW-Authenticate": 'Bearer realm="rapida"'})
        super().check(request)
        scope = Scope.CONTROL if request.method == b"DELETE" else self.scope
        if scope not in grant.scopes:
            raise Refusal(403, f"this API key is not for that: it has no scope {scope.value}")
        request.grant = grant  # type: ignore[attr-defined]


def granted(request: Request) -> Grant:
    """What the key of a request that was let in may do."""
    grant: Grant = request.grant  # type: ignore[attr-defined]
    return grant


class NotFound(AsyncResource):
    """There is nothing here, whatever the method."""

    def check(self, request: Request) -> None:
        """Refuse.

        :raises Refusal: always.
        """
        raise Refusal(404, "there is nothing here")


class Branch(Resource):
    """A part of a path that is nothing in itself.

    :param children: what is below it.
    """

    def __init__(self, children: Mapping[bytes, IResource] | None = None) -> None:
        super().__init__()
        for name, child in (children or {}).items():
            self.putChild(name, child)

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Nothing: what there is, Twisted finds by itself."""
        return NotFound()

    def render(self, request: Request) -> int:
        """There is no listing."""
        return NotFound().render(request)
