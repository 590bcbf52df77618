"""What is in our Stasis application without our knowing: from an earlier process, or from a gap in the events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.task import deferLater
from twisted.logger import Logger

from rapida_twisted.asterisk.ari import AriChannel
from rapida_twisted.asterisk.ari_errors import AriNotFound
from rapida_twisted.asterisk.stasis_call import CONTEXT_VARIABLE, MEDIA_PREFIX, StasisCall, StasisKit
from rapida_twisted.context import ContextStatus
from rapida_twisted.errors import UnknownContext

__all__ = ["Leftovers"]

NEWCOMERS_S = 2.0
"""How long the event of a channel may be on its way that Asterisk told of just now."""


class Leftovers:
    """Looks for what nobody told us.

    :param calls: gives the calls that we know of.
    :param take: begins the call of a channel, as its ``StasisStart`` would have done, of these arguments.
    :param resume: ends the call of a channel.
    """

    _log = Logger()

    def __init__(
        self,
        kit: StasisKit,
        *,
        calls: Callable[[], list[StasisCall]],
        take: Callable[[AriChannel, Sequence[str]], None],
        resume: Callable[[StasisCall], None],
    ) -> None:
        self._kit = kit
        self._calls = calls
        self._take = take
        self._resume = resume

    async def look(self) -> None:
        """Tell the calls what became of their channels; remove or end what belongs to none, callers the last.

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
        for channel_id in [name for name in ours if name.startswith(MEDIA_PREFIX) and name not in mine]:
            await self._kit.ari.hang_up(channel_id)
        for bridge_id in [name for name in bridges if name not in mine]:
            await self._kit.ari.destroy_bridge(bridge_id)
        for channel in ours.values():
            if channel.id not in mine and not channel.id.startswith(MEDIA_PREFIX):
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

    async def _end(self, channel: AriChannel) -> None:
        """A caller whom nobody looks after: begin the call if it never began, else end it."""
        args = _args(channel, self._kit.app) or []
        inbound = len(args) != 2
        try:
            context_id = await self._kit.ari.get_variable(channel.id, CONTEXT_VARIABLE) if inbound else args[1]
        except AriNotFound:
            return
        if (inbound and not context_id) or (not inbound and await self._is_pending(args[1])):
            self._log.info("channel {channel} came while there were no events", channel=channel.name)
            self._take(channel, args)
            return
        self._log.info("call {id}: was left behind in Stasis, and is sent on", id=context_id)
        self._resume(StasisCall(self._kit, channel, context_id=context_id or "", inbound=inbound))

    async def _is_pending(self, context_id: str) -> bool:
        try:
            return (await self._kit.store.get(context_id)).status is ContextStatus.PENDING
        except UnknownContext:
            return False


def _args(channel: AriChannel, app: str) -> list[str] | None:
    """The arguments with which a channel is in an application; None if it is not in it."""
    name, *args = channel.application_data.split(",")
    return args if channel.application == "Stasis" and name == app else None
