"""The assistant ``bridge``: registers each call at another server, connects it, and counts the outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from rapida_twisted.bridge.breaker import CircuitBreaker
from rapida_twisted.bridge.bridged_call import BridgedCall
from rapida_twisted.bridge.fallback import Fallback
from rapida_twisted.bridge.routes import Route, route_of
from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError, TransferRefused, UpstreamFailed
from rapida_twisted.interfaces import AssistantEnvironment, Counters, IAssistantMaker, IFarEnd, IFarEndUser, typed
from rapida_twisted.settings.argument import parse_argument, with_options

__all__ = ["BridgeMaker", "configure"]

BRIDGE = "bridge"
NEXT = "next"


@implementer(IAssistantMaker)
class BridgeMaker:
    """Makes the bridged calls of one rule.

    :param route: to the other server.
    :param breaker: sends calls to their fallback at once while the server is down.
    :param client: the HTTP client of the route; closed with the maker.
    :param counters: counts the outcome of each attempt.
    :param relays_digits: whether the other server gets the caller's digits.
    """

    _log = Logger()

    def __init__(
        self,
        route: Route,
        fallback: Fallback,
        breaker: CircuitBreaker,
        client: Any,
        counters: Counters,
        relays_digits: bool = True,
    ) -> None:
        self._route = route
        self._fallback = fallback
        self._breaker = breaker
        self._client = client
        self._count = counters.upstream
        self._relays_digits = relays_digits

    def __call__(self, context: CallContext) -> typed.Assistant:
        return BridgedCall(self._connect, self._route.format, self._fallback, self._relays_digits)

    async def prepare(self, context: CallContext) -> CallContext:
        try:
            if self._route.registers:
                return replace(context, upstream_id=await self._register(context))
            # Now, while the dialplan can still take its error branch.
            self._breaker.check()
            return context
        except UpstreamFailed as failure:
            if not self._fallback:
                raise
            self._log.warn(
                "call {id}: {failure}; registered for its fallback",
                id=context.context_id, failure=str(failure),
            )  # fmt: skip
            return replace(context, detail=str(failure))

    def health(self) -> Mapping[str, Any]:
        return {"upstream": self._route.name, **self._breaker.health()}

    async def close(self) -> None:
        await self._client.close()

    async def _register(self, context: CallContext) -> str:
        with self._counted(context, "register"), self._breaker.enter() as attempt:
            upstream_id = await self._route.register(context)
            # A server that registers calls may still fail to accept their media.
            attempt.dropped()
        return upstream_id

    async def _connect(self, context: CallContext, user: IFarEndUser) -> IFarEnd:
        upstream_id = context.upstream_id
        if self._route.registers and not upstream_id:
            if context.detail:
                raise UpstreamFailed("refused", context.detail)
            # An outbound call, for instance, was not registered there while it rang.
            upstream_id = await self._register(context)
        with self._counted(context, "connect"), self._breaker.enter() as attempt:
            far_end = await self._route.connect(context, upstream_id, user)
            attempt.succeeded()
        return far_end

    @contextmanager
    def _counted(self, context: CallContext, step: str) -> Iterator[None]:
        try:
            yield
        except UpstreamFailed as failure:
            self._count(context.assistant_id, step, failure.word)
            raise
        self._count(context.assistant_id, step, "ok")


def configure(argument: str, environment: AssistantEnvironment) -> BridgeMaker:
    """:param argument: empty, or the address of a program; with options, see :mod:`rapida_twisted.settings.argument`.

    :raises SettingsError: it can't be used, or a setting is missing.
    """
    parsed = parse_argument(argument)
    settings, client = with_options(environment.settings, parsed), environment.http_client()
    route = route_of(
        parsed, settings, treq_client=client, tls_options=environment.tls_options, reactor=environment.reactor
    )
    fallback = fallback_of(settings.fallback, environment)
    breaker = CircuitBreaker(route.name)
    return BridgeMaker(route, fallback, breaker, client, environment.counters, settings.digits == "on")


def fallback_of(text: str, environment: AssistantEnvironment) -> Fallback:
    """The fallback that ``UPSTREAM__FALLBACK`` names.

    :raises SettingsError: the fallback is invalid.
    """
    name, _, dial_string = text.partition(":")
    if not text or text == NEXT:
        return Fallback()
    if name == NEXT:
        try:
            environment.check_transfer(dial_string)
        except TransferRefused as refusal:
            raise SettingsError(f"UPSTREAM__FALLBACK: {refusal}") from None
        return Fallback(text, dial_string=dial_string)
    if name == BRIDGE:
        raise SettingsError("UPSTREAM__FALLBACK can't be another bridge: it must work without another server")
    try:
        return Fallback(text, environment.assistant(text))
    except SettingsError as error:
        raise SettingsError(f"UPSTREAM__FALLBACK: {error}") from None
