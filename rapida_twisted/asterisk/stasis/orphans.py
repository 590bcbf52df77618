"""Finds channels and bridges without a call: of an earlier process, or of a gap in the events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from twisted.internet.task import deferLater
from twisted.logger import Logger

from rapida_twisted.asterisk.ari.client import AriChannel
from rapida_twisted.asterisk.ari.errors import AriNotFound
from rapida_twisted.asterisk.stasis.call import CONTEXT_VARIABLE, MEDIA_PREFIX, StasisCall, StasisKit
from rapida_twisted.context import ContextStatus
from rapida_twisted.errors import UnknownContext

__all__ = ["OrphanChannels"]

EVENT_LAG_S = 2.0
"""How long (s) a channel's events may lag behind Asterisk's REST responses."""


@attrs.define(eq=False, slots=False, repr=False)
class OrphanChannels:
    """Looks for channels and bridges without a call.

    :param calls: returns the known calls.
    :param take: starts the call of a channel, as a ``StasisStart`` with these arguments does.
    :param take_over: serves a call that another process has set up.
    :param resume: sends the caller of a call on.
    """

    _log = Logger()

    _kit: StasisKit
    _calls: Callable[[], list[StasisCall]] = attrs.field(kw_only=True)
    _take: Callable[[AriChannel, Sequence[str]], None] = attrs.field(kw_only=True)
    _take_over: Callable[[StasisCall], None] = attrs.field(kw_only=True)
    _resume: Callable[[StasisCall], None] = attrs.field(kw_only=True)

    async def look(self) -> None:
        """Update the known calls; take over those that another process has set up, completely or partly; remove or end
        what belongs to no call, callers last.

        :raises AriError: a request failed.
        """
        known, media_here = self._calls(), [call for call in self._calls() if call.media_here]
        channels = await self._kit.ari.channels()
        bridges = await self._kit.ari.bridges_named(self._kit.app)
        ours = {channel.id: channel for channel in channels if _args(channel, self._kit.app) is not None}
        self._update(known, media_here, {channel.id for channel in channels}, set(ours))
        await deferLater(self._kit.reactor, EVENT_LAG_S)
        # A call that ended meanwhile was known when Asterisk listed its channels.
        known += self._calls()
        mine = {name for call in known for name in (call.channel.id, call.media_id, call.bridge_id)}
        callers = [each for each in ours.values() if each.id not in mine and not each.id.startswith(MEDIA_PREFIX)]
        for call in [await self._found(channel) for channel in callers]:
            if call is None:
                continue
            is_complete = (call.media_id in ours and call.bridge_id in bridges) or await self._is_complete(call)
            if is_complete or await self._is_pending(call.context_id):
                self._log.info("call {id}: taking it over in Stasis", id=call.name)
                mine |= {call.channel.id, call.media_id, call.bridge_id}
                if is_complete or call.media_id in ours:
                    call.media_came()
                self._take_over(call)
        for channel_id in [name for name in ours if name.startswith(MEDIA_PREFIX) and name not in mine]:
            await self._kit.ari.hang_up(channel_id)
        for bridge_id in [name for name in bridges if name not in mine]:
            await self._kit.ari.destroy_bridge(bridge_id)
        for channel in callers:
            if channel.id not in mine:
                await self._end(channel)

    async def _is_complete(self, call: StasisCall) -> bool:
        """Whether a call has its media and its bridge by now: the process that is being replaced may have completed it
        since Asterisk listed its channels."""
        channels = {channel.id for channel in await self._kit.ari.channels()}
        return call.media_id in channels and call.bridge_id in await self._kit.ari.bridges_named(self._kit.app)

    def _update(
        self, known: list[StasisCall], media_here: list[StasisCall], there: set[str], in_application: set[str]
    ) -> None:
        """Apply what the lost events would have reported."""
        for call in known:
            if call.channel.id not in there:
                call.caller_left()
            if call.media_id in in_application:
                call.media_came()
            elif call in media_here and call.media_id not in there:
                call.media_ended()

    async def _found(self, channel: AriChannel) -> StasisCall | None:
        """The registered call of a caller without a known call."""
        context_id = await self._context_id(channel)
        if not context_id:
            return None
        return StasisCall(self._kit, channel, context_id=context_id, inbound=self._is_inbound(channel), taken_over=True)

    async def _end(self, channel: AriChannel) -> None:
        """Start the call of a caller without one, or end the call if it had started."""
        inbound, context_id = self._is_inbound(channel), await self._context_id(channel)
        if context_id is None:
            return
        if inbound and not context_id:
            self._log.info("channel {channel} came during a gap in the events", channel=channel.name)
            self._take(channel, _args(channel, self._kit.app) or [])
            return
        self._log.info("call {id}: no process serves it in Stasis; sending the caller on", id=context_id)
        self._resume(StasisCall(self._kit, channel, context_id=context_id, inbound=inbound))

    def _is_inbound(self, channel: AriChannel) -> bool:
        return len(_args(channel, self._kit.app) or []) != 2

    async def _context_id(self, channel: AriChannel) -> str | None:
        """A caller's contextId; empty if the call is not registered, None if the channel is gone."""
        if not self._is_inbound(channel):
            return (_args(channel, self._kit.app) or [])[1]
        try:
            return await self._kit.ari.get_variable(channel.id, CONTEXT_VARIABLE) or ""
        except AriNotFound:
            return None

    async def _is_pending(self, context_id: str) -> bool:
        try:
            return (await self._kit.store.get(context_id)).status is ContextStatus.PENDING
        except UnknownContext:
            return False


def _args(channel: AriChannel, app: str) -> list[str] | None:
    """The arguments of a channel's ``Stasis()`` of an application; None if it is not in the application."""
    name, *args = channel.application_data.split(",")
    return args if channel.application == "Stasis" and name == app else None
