"""What is in our Stasis application without our knowing: from an earlier process, or from a gap in the events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.task import deferLater
from twisted.logger import Logger

from rapida_twisted.asterisk.ari.client import AriChannel
from rapida_twisted.asterisk.ari.errors import AriNotFound
from rapida_twisted.asterisk.stasis.call import CONTEXT_VARIABLE, MEDIA_PREFIX, StasisCall, StasisKit
from rapida_twisted.context import ContextStatus
from rapida_twisted.errors import UnknownContext

__all__ = ["OrphanChannels"]

NEWCOMERS_S = 2.0
"""How long the event of a channel may be on its way that Asterisk told of just now."""


class OrphanChannels:
    """Looks for what nobody told us.

    :param calls: gives the calls that we know of.
    :param take: begins the call of a channel, as its ``StasisStart`` would have done, of these arguments.
    :param take_over: looks after a call from now on that another process has set up.
    :param resume: ends the call of a channel.
    """

    _log = Logger()

    def __init__(
        self,
        kit: StasisKit,
        *,
        calls: Callable[[], list[StasisCall]],
        take: Callable[[AriChannel, Sequence[str]], None],
        take_over: Callable[[StasisCall], None],
        resume: Callable[[StasisCall], None],
    ) -> None:
        self._kit = kit
        self._calls = calls
        self._take = take
        self._take_over = take_over
        self._resume = resume

    async def look(self) -> None:
        """Tell the calls what became of their channels; take over those of another process that are whole, or that it
        had begun to set up; remove or end what belongs to none, callers the last.

        :raises AriError: Asterisk can't be asked.
        """
        known, media_here = self._calls(), [call for call in self._calls() if call.media_here]
        channels = await self._kit.ari.channels()
        bridges = await self._kit.ari.bridges_named(self._kit.app)
        ours = {channel.id: channel for channel in channels if _args(channel, self._kit.app) is not None}
        self._tell(known, media_here, {channel.id for channel in channels}, set(ours))
        await deferLater(self._kit.reactor, NEWCOMERS_S)
        # Those that ended meanwhile were known when Asterisk was asked.
        known += self._calls()
        mine = {name for call in known for name in (call.channel.id, call.media_id, call.bridge_id)}
        callers = [each for each in ours.values() if each.id not in mine and not each.id.startswith(MEDIA_PREFIX)]
        for call in [await self._found(channel) for channel in callers]:
            if call is None:
                continue
            whole = call.media_id in ours and call.bridge_id in bridges
            if whole or await self._is_pending(call.context_id):
                self._log.info("call {id}: is in Stasis, and looked after from now on", id=call.name)
                mine |= {call.channel.id, call.media_id, call.bridge_id}
                if call.media_id in ours:
                    call.media_came()
                self._take_over(call)
        for channel_id in [name for name in ours if name.startswith(MEDIA_PREFIX) and name not in mine]:
            await self._kit.ari.hang_up(channel_id)
        for bridge_id in [name for name in bridges if name not in mine]:
            await self._kit.ari.destroy_bridge(bridge_id)
        for channel in callers:
            if channel.id not in mine:
                await self._end(channel)

    def _tell(
        self, known: list[StasisCall], media_here: list[StasisCall], there: set[str], in_application: set[str]
    ) -> None:
        """What the events of a gap would have told."""
        for call in known:
            if call.channel.id not in there:
                call.caller_left()
            if call.media_id in in_application:
                call.media_came()
            elif call in media_here and call.media_id not in there:
                call.media_ended()

    async def _found(self, channel: AriChannel) -> StasisCall | None:
        """The call of a caller whom nobody looks after, if it was registered."""
        context_id = await self._context_id(channel)
        if not context_id:
            return None
        return StasisCall(self._kit, channel, context_id=context_id, inbound=self._is_inbound(channel), taken_over=True)

    async def _end(self, channel: AriChannel) -> None:
        """A caller whom nobody looks after: begin the call if it never began, else end it."""
        inbound, context_id = self._is_inbound(channel), await self._context_id(channel)
        if context_id is None:
            return
        if inbound and not context_id:
            self._log.info("channel {channel} came while there were no events", channel=channel.name)
            self._take(channel, _args(channel, self._kit.app) or [])
            return
        self._log.info("call {id}: was left behind in Stasis, and is sent on", id=context_id)
        self._resume(StasisCall(self._kit, channel, context_id=context_id, inbound=inbound))

    def _is_inbound(self, channel: AriChannel) -> bool:
        return len(_args(channel, self._kit.app) or []) != 2

    async def _context_id(self, channel: AriChannel) -> str | None:
        """Of a caller's call; empty if it is not registered, None if the channel is gone."""
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
    """The arguments with which a channel is in an application; None if it is not in it."""
    name, *args = channel.application_data.split(",")
    return args if channel.application == "Stasis" and name == app else None
