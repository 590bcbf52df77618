"""Calls without a dialplan: those in our Stasis application get their media through ARI.

A channel comes in on two ways. The dialplan runs ``Stasis(<app>,<assistantId>)``: an inbound call, which is registered
here. Or we placed the call ourselves, with the application in the place of a context, and it was answered. Then
Asterisk is told to make a channel whose media is an AudioSocket connection to us, and both go into a bridge.

When our side ends the media, an inbound call goes on with the dialplan's line after ``Stasis()`` (``RAPIDA_NEXT`` says
where it was transferred to, ``RAPIDA_ERROR`` that there was no media); one that we placed is moved on, or hung up.

The rules of Asterisk that this stands on: a channel can be put into a bridge only while it is in an application
(``res/ari/resource_bridges.c``), and external media is in it from its ``StasisStart`` on; ``continue`` without a place
goes to the next line (``res/res_stasis.c``); a bridge and a channel of external media live on until they are removed.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.asterisk.ari import AriChannel, AriClient
from rapida_twisted.asterisk.ari_answers import channel_from
from rapida_twisted.asterisk.ari_errors import AriError
from rapida_twisted.context import CallContext
from rapida_twisted.errors import RapidaError
from rapida_twisted.interfaces import ICallStore

__all__ = ["StasisCalls", "StasisMedia"]

MEDIA_PREFIX = "rapida-media-"
BRIDGE_PREFIX = "rapida-bridge-"
OUTBOUND = "outbound"
MEDIA_S = 5.0
"""How long the media's channel may take to come into the application."""
NEWCOMERS_S = 1.0
"""How long the event of a channel that came just now may be on its way."""
GOODBYE_S = 2.0

_LOCAL = re.compile(r"Local/([^@/]+)@([^@/]+)(/n)?", re.IGNORECASE)


@dataclass(frozen=True)
class StasisMedia:
    """Where Asterisk reaches our AudioSocket."""

    host: str
    port: int


class StasisCalls:
    """Looks after the channels in one Stasis application.

    :param app: its name.
    :param store: tells where a call was transferred to.
    :param register: registers an inbound call: given the assistant's id and the channel, gives its context.
    :param reactor: provides IReactorTime.
    """

    _log = Logger()

    def __init__(
        self,
        ari: AriClient,
        app: str,
        *,
        store: ICallStore,
        media: StasisMedia,
        register: Callable[[str, AriChannel], Awaitable[CallContext]],
        reactor: Any,
    ) -> None:
        self.ari = ari
        self.app = app
        self.store = store
        self.media = media
        self.register = register
        self.reactor = reactor
        self._calls: dict[str, _StasisCall] = {}
        """By the id of each channel that belongs to it."""
        self._tasks: set[Deferred[Any]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<StasisCalls {self.app}: {len(self._calls)} channels>"

    # Events

    def event(self, event: Mapping[str, Any]) -> None:
        """An event of this Asterisk; in their order."""
        channel = event.get("channel")
        if self._closed or not isinstance(channel, dict):
            return
        call = self._calls.get(str(channel.get("id")))
        match event.get("type"):
            case "StasisStart" if call is not None:
                call.entered(channel["id"])
            case "StasisStart" if event.get("application") == self.app:
                self._arrived(channel, event.get("args"))
            case "StasisEnd" | "ChannelDestroyed" if call is not None:
                call.gone(channel["id"])

    def connected(self, again: bool) -> None:
        """Events begin to come: look for what happened without them."""
        self.spawn(self._tidy())

    def close(self) -> Deferred[Any]:
        """Take no more channels; fires when those that are on their way out are, or some seconds are over."""
        self._closed = True
        for call in set(self._calls.values()):
            call.let_go()
        leaving: Deferred[Any] = Deferred()
        DeferredList(list(self._tasks)).addCallback(leaving.callback)
        leaving.addTimeout(GOODBYE_S, self.reactor, onTimeoutCancel=lambda *_: None)
        return leaving.addCallback(self._cancel_tasks)

    def _cancel_tasks(self, _: Any) -> None:
        for task in list(self._tasks):
            task.cancel()

    def spawn(self, work: Any) -> None:
        """Do something beside; what fails is logged."""
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)
        task.addErrback(self._broke)
        task.addBoth(lambda _: self._tasks.discard(task))

    def _broke(self, failure: Failure) -> None:
        if failure.check(AriError):
            self._log.warn("Stasis application {app}: {error}", app=self.app, error=failure.getErrorMessage())
        elif not failure.check(CancelledError):
            self._log.failure("Stasis application {app}: something broke", failure, app=self.app)

    # Calls

    def _arrived(self, entry: Mapping[str, Any], args: Any) -> None:
        """A channel came in."""
        try:
            channel = channel_from(entry)
        except (LookupError, TypeError, AttributeError):
            return
        words = [word for word in args or [] if isinstance(word, str)]
        if channel.id.startswith(MEDIA_PREFIX):
            # Its call is over by now.
            self.spawn(self.ari.hang_up(channel.id))
            return
        context_id = words[1] if len(words) == 2 and words[0] == OUTBOUND else ""
        call = _StasisCall(self, channel, words[0] if words and not context_id else "", context_id)
        self._calls[channel.id] = call
        self.spawn(call.run())

    def belongs(self, channel_id: str, call: _StasisCall) -> None:
        """A further channel is part of a call."""
        self._calls[channel_id] = call

    def over(self, call: _StasisCall) -> None:
        """Nothing of a call is left here."""
        self._calls = {channel_id: other for channel_id, other in self._calls.items() if other is not call}

    async def _tidy(self) -> None:
        """End what an earlier process left, and what ended while nobody told us."""
        channels, bridges = await self.ari.application_channels(self.app), await self.ari.bridges_named(self.app)
        for call in set(self._calls.values()):
            for channel_id in call.channel_ids:
                if await self.ari.channel(channel_id) is None:
                    call.gone(channel_id)
        await deferLater(self.reactor, NEWCOMERS_S)
        ours = set(self._calls)
        for channel_id in channels:
            if channel_id not in ours and channel_id.startswith("rapida-"):
                await self.ari.hang_up(channel_id)
            elif channel_id not in ours:
                await self._send_back(channel_id)
        kept = {call.bridge_id for call in self._calls.values()}
        for bridge_id in bridges:
            if bridge_id not in kept:
                await self.ari.destroy_bridge(bridge_id)

    async def _send_back(self, channel_id: str) -> None:
        """A caller whom an earlier process left behind: the dialplan knows what to do."""
        try:
            await self.ari.set_variable(channel_id, "RAPIDA_ERROR", "1")
            await self.ari.continue_in_dialplan(channel_id)
        except AriError as error:
            # All events are ours, but not all channels: this one is in the dialplan, or gone.
            self._log.debug("channel {id}: {error}", id=channel_id, error=str(error))


class _StasisCall:
    """One call: the caller's channel, the media's, and the bridge between them."""

    _log = Logger()

    def __init__(self, calls: StasisCalls, channel: AriChannel, assistant_id: str, context_id: str) -> None:
        self._calls = calls
        self._ari = calls.ari
        self._channel = channel
        self._assistant_id = assistant_id
        self._context_id = context_id
        self._outbound = bool(context_id)
        self._media_id = ""
        self._media_entered: Deferred[None] = Deferred()
        self._over: Deferred[None] = Deferred()
        self._caller_gone = False

    @property
    def bridge_id(self) -> str:
        """The bridge's id, there or not."""
        return BRIDGE_PREFIX + self._context_id

    @property
    def channel_ids(self) -> list[str]:
        """The channels that it has."""
        return [self._channel.id, self._media_id] if self._media_entered.called else [self._channel.id]

    def entered(self, channel_id: str) -> None:
        """A channel of it came into the application."""
        if channel_id == self._media_id and not self._media_entered.called:
            self._media_entered.callback(None)

    def gone(self, channel_id: str) -> None:
        """A channel of it left the application, or ended."""
        self._caller_gone |= channel_id == self._channel.id
        self.let_go()

    def let_go(self) -> None:
        """It is over: whoever is still here leaves."""
        if not self._media_entered.called:
            self._media_entered.cancel()
        if not self._over.called:
            self._over.callback(None)

    async def run(self) -> None:
        """From the caller's coming to the end of all."""
        error: Exception | None = None
        try:
            await self._connect()
            await self._over
        except (RapidaError, DeferredTimeout) as failed:
            error = failed
        except CancelledError:
            if not self._over.called:
                raise
        finally:
            self._calls.over(self)
            await self._remove()
        if not self._caller_gone:
            await self._leave(error)

    async def _connect(self) -> None:
        if not self._outbound:
            context = await self._calls.register(self._assistant_id, self._channel)
            self._context_id = context.context_id
            if self._channel.state != "Up":
                await self._ari.answer(self._channel.id)
        self._media_id = MEDIA_PREFIX + self._context_id
        self._calls.belongs(self._media_id, self)
        self._must_be_there()
        await self._ari.external_audiosocket(
            self._calls.app, channel_id=self._media_id, host=self._calls.media.host, port=self._calls.media.port,
            data=self._context_id,
        )  # fmt: skip
        await self._media_entered.addTimeout(MEDIA_S, self._calls.reactor)
        await self._ari.create_bridge(self.bridge_id, self._calls.app)
        self._must_be_there()
        await self._ari.add_to_bridge(self.bridge_id, self._channel.id, self._media_id)

    def _must_be_there(self) -> None:
        """The caller may hang up at any moment."""
        if self._over.called:
            raise CancelledError

    async def _remove(self) -> None:
        """Remove the media's channel and the bridge, there or not."""
        if not self._media_id:
            return
        for removing in (self._ari.hang_up(self._media_id), self._ari.destroy_bridge(self.bridge_id)):
            try:
                await removing
            except AriError as error:
                self._log.warn("call {id}: {error}", id=self._context_id, error=str(error))

    async def _leave(self, error: Exception | None) -> None:
        """The caller is still here: on with the dialplan, or wherever the call was transferred to."""
        if error is not None:
            self._log.warn(
                "call {id}: channel {channel} in Stasis gets no media: {error}",
                id=self._context_id or "not registered", channel=self._channel.id,
                error=str(error) or "it took too long",
            )  # fmt: skip
        next_dial = "" if error is not None else (await self._calls.store.get(self._context_id)).next_dial
        if self._outbound:
            await self._move_on(next_dial)
            return
        variable = ("RAPIDA_ERROR", "1") if error is not None else ("RAPIDA_NEXT", next_dial)
        await self._ari.set_variable(self._channel.id, *variable)
        await self._ari.continue_in_dialplan(self._channel.id)

    async def _move_on(self, next_dial: str) -> None:
        """A call that we placed has no dialplan behind it."""
        local = _LOCAL.fullmatch(next_dial)
        if local is not None:
            await self._ari.continue_in_dialplan(self._channel.id, local[2], local[1])
            return
        if next_dial:
            try:
                await self._ari.redirect(self._channel.id, next_dial)
                return
            except AriError as error:
                self._log.warn(
                    "call {id}: can't be moved to {dial} from Stasis ({error}), so it is hung up; Local/EXTEN@CONTEXT"
                    " always can",
                    id=self._context_id, dial=next_dial, error=str(error),
                )  # fmt: skip
        await self._ari.hang_up(self._channel.id)
