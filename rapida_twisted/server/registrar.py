"""Registers calls: makes a call's context, has its assistant prepare it, and keeps it within the limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import MappingProxyType
from uuid import uuid4

import attrs
from twisted.logger import Logger
from zope.interface import implementer

from rapida_twisted.context import CallContext, CallParameters
from rapida_twisted.credentials.grant import FULL_GRANT, Grant
from rapida_twisted.errors import Draining, UnknownAssistant
from rapida_twisted.interfaces import IRegistrar
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.server.key_limit import KeyLimit

__all__ = ["Registrar"]


@implementer(IRegistrar)
@attrs.define(eq=False, repr=False, slots=False)
class Registrar:
    """Keeps new contexts in the store.

    :param knows_assistant: whether an assistant answers an id.
    :param now: wall-clock time in UNIX seconds.
    :param context_ttl_s: a call whose media does not come within this time expires.
    :param max_pending: maximum calls that wait for their media.
    :param draining: whether the server refuses new calls.
    :param prepare: returns the context to keep, once the assistant is ready for the call; may raise.
    :param key_refused: called when a key has reached its limit of calls.
    """

    _log = Logger()

    _store: CallStore
    _knows_assistant: Callable[[str], bool]
    _now: Callable[[], float] = attrs.field(kw_only=True)
    _context_ttl_s: float = attrs.field(kw_only=True)
    _max_pending: int = attrs.field(kw_only=True)
    _draining: Callable[[], bool] = attrs.field(kw_only=True)
    _prepare: Callable[[CallContext], Awaitable[CallContext]] | None = attrs.field(default=None, kw_only=True)
    _key_refused: Callable[[], None] = attrs.field(default=lambda: None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        self._key_limit = KeyLimit(self._store, self._now, self._key_refused)

    def check(self, assistant_id: str) -> None:
        """See :class:`~rapida_twisted.interfaces.IRegistrar`."""
        if self._draining():
            raise Draining("the server is about to stop and takes no new calls")
        if not assistant_id or not self._knows_assistant(assistant_id):
            raise UnknownAssistant("there is no such assistant")

    async def check_key(self, grant: Grant) -> None:
        """See :class:`~rapida_twisted.interfaces.IRegistrar`."""
        await self._key_limit.check(grant)

    async def register(self, assistant_id: str, parameters: CallParameters, grant: Grant = FULL_GRANT) -> CallContext:
        """See :class:`~rapida_twisted.interfaces.IRegistrar`."""
        self.check(assistant_id)
        now = self._now()
        context = CallContext(
            context_id=str(uuid4()),
            assistant_id=assistant_id,
            created_at=now,
            expires_at=now + self._context_ttl_s,
            caller=parameters.caller,
            called=parameters.called,
            channel_id=parameters.channel_id,
            variables=MappingProxyType(dict(parameters.variables)),
            key_name=grant.key_name,
            registered_from=parameters.registered_from,
        )
        if self._prepare is not None:
            # The assistant may register the call at another server: only calls that this server takes get that far.
            await self.check_key(grant)
            context = await self._prepare(context)
        await self._key_limit.add(context, grant, self._max_pending)
        self._log.info(
            "call {id}: registered, caller {caller}, assistant {assistant_id}",
            id=context.context_id, caller=context.caller or "anonymous", assistant_id=assistant_id,
        )  # fmt: skip
        return context
