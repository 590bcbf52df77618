"""The assistant ``bridge`` on the command line: from its words to what makes it, call by call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from rapida_twisted.assistants.registry import parse_assistant
from rapida_twisted.bridge.assistant import Bridge
from rapida_twisted.bridge.breaker import CircuitBreaker
from rapida_twisted.bridge.fallback import Fallback
from rapida_twisted.bridge.routes import Route, route_of
from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError, TransferRefused, UpstreamFailed
from rapida_twisted.interfaces import (
    AssistantEnvironment,
    Counters,
    IAssistant,
    IAssistantFactory,
    IAssistantMaker,
    IFarEnd,
    IFarEndUser,
)
from rapida_twisted.net.http_client import make_client

__all__ = ["BridgeFactory", "BridgeMaker"]

NEXT = "next"


@implementer(IAssistantMaker)
class BridgeMaker:
    """Carries the calls of one rule on.

    :param route: where to.
    :param breaker: spares calls the waiting for a server that is down.
    :param pool: the connections of the route's HTTP client.
    :param counters: counts the outcome of each attempt.
    """

    _log = Logger()

    def __init__(
        self, route: Route, fallback: Fallback, breaker: CircuitBreaker, pool: Any, counters: Counters
    ) -> None:
        self._route = route
        self._fallback = fallback
        self._breaker = breaker
        self._pool = pool
        self._count = counters.upstream

    def __call__(self, context: CallContext) -> IAssistant:
        """One call's."""
        return Bridge(self._carry, self._route.format, self._fallback)

    async def prepare(self, context: CallContext) -> CallContext:
        """Register a call there while it is being registered here: see :class:`IAssistantMaker`.

        :raises UpstreamFailed: it was not registered, and nobody is there to take over.
        """
        try:
            if self._route.registers:
                return replace(context, upstream_id=await self._register(context))
            # Else the caller would find out when it is too late for the dialplan's error branch.
            self._breaker.check()
            return context
        except UpstreamFailed as failure:
            if not self._fallback:
                raise
            self._log.warn(
                "call {id}: {failure}; it is registered for its fallback",
                id=context.context_id, failure=str(failure),
            )  # fmt: skip
            return replace(context, detail=str(failure))

    def health(self) -> Mapping[str, Any]:
        """Whether the other server takes calls, as far as known."""
        return {"upstream": self._route.name, **self._breaker.health()}

    async def close(self) -> None:
        """Let go of the connections."""
        await self._pool.closeCachedConnections()

    async def _register(self, context: CallContext) -> str:
        with self._counted(context, "register"), self._breaker.enter() as attempt:
            upstream_id = await self._route.register(context)
            # That it registers calls does not tell that it takes them.
            attempt.dropped()
        return upstream_id

    async def _carry(self, context: CallContext, user: IFarEndUser) -> IFarEnd:
        upstream_id = context.upstream_id
        if self._route.registers and not upstream_id:
            if context.detail:
                raise UpstreamFailed("refused", context.detail)
            # One that we placed, for instance: it was not registered there while it rang.
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


@implementer(IPlugin, IAssistantFactory)
class BridgeFactory:
    """Makes :class:`Bridge`."""

    name = "bridge"
    usage = (
        "bridge[:wss://HOST/PATH | :audiosocket://HOST:PORT]  carries calls on to another server: that of"
        " UPSTREAM__URL, or a program that speaks chan_websocket or AudioSocket"
    )

    def configure(self, argument: str, environment: AssistantEnvironment) -> BridgeMaker:
        """The argument is empty, or the address of a program.

        :raises SettingsError: it can't be used, or a setting is missing.
        """
        settings = environment.settings
        try:
            client, pool = make_client(environment.reactor, settings.tls_ca_file, retries=False, idle_s=30.0)
        except ValueError as error:
            raise SettingsError(f"TLS__CA_FILE: {error}") from None
        route = route_of(argument, settings, treq_client=client, reactor=environment.reactor)
        fallback = fallback_of(settings.upstream_fallback, environment)
        return BridgeMaker(route, fallback, CircuitBreaker(route.name), pool, environment.counters)


def fallback_of(words: str, environment: AssistantEnvironment) -> Fallback:
    """The fallback that ``UPSTREAM__FALLBACK`` names.

    :raises SettingsError: it can't be used.
    """
    name, _, dial_string = words.partition(":")
    if not words or words == NEXT:
        return Fallback()
    if name == NEXT:
        try:
            environment.check_transfer(dial_string)
        except TransferRefused as refusal:
            raise SettingsError(f"UPSTREAM__FALLBACK: {refusal}") from None
        return Fallback(words, dial_string=dial_string)
    if name == BridgeFactory.name:
        raise SettingsError("UPSTREAM__FALLBACK can't be another bridge: it is whoever is here when all else fails")
    try:
        return Fallback(words, parse_assistant(words, environment))
    except SettingsError as error:
        raise SettingsError(f"UPSTREAM__FALLBACK: {error}") from None
