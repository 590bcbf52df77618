"""One call in our Stasis application: the caller's channel, the media's, and the bridge between them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger

from rapida_twisted.asterisk.ari.client import AriChannel, AriClient
from rapida_twisted.asterisk.ari.errors import AriConflict, AriError, AriMalformed, AriRejected, AriUnreachable
from rapida_twisted.context import CallContext
from rapida_twisted.errors import RapidaError
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.net.backoff import backoff
from rapida_twisted.net.bridge_states import BridgeStates

__all__ = ["CONTEXT_VARIABLE", "MEDIA_PREFIX", "StasisCall", "StasisKit", "StasisMedia"]

MEDIA_PREFIX = "rapida-media-"
BRIDGE_PREFIX = "rapida-bridge-"
CONTEXT_VARIABLE = "RAPIDA_CONTEXT_ID"
MEDIA_S = 10.0
"""How long the media's channel may take into the application, once Asterisk has made it."""
HANGUP_EVENT_S = 0.2
"""How long the event may be on its way that tells why a request was refused: the caller hung up."""
REMOVING_S = 30.0
retry_pause_s = backoff(0.5, 5.0)


@dataclass(frozen=True)
class StasisMedia:
    """Where Asterisk reaches our AudioSocket."""

    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class StasisKit:
    """What the calls of one application have in common."""

    ari: AriClient
    app: str
    store: CallStore
    media: StasisMedia
    register: Callable[[str, AriChannel], Awaitable[CallContext]]
    bridges: BridgeStates
    reactor: Any


class StasisCall:
    """A call from its ``StasisStart`` until nothing of it is left. The events of its channels only set flags here, so
    that they may come at any moment, in any order, and twice.

    :param channel: the caller's.
    :param context_id: empty for an inbound call that is not registered yet.
    :param assistant_id: whom an inbound call is for.
    :param inbound: whether the dialplan sent it, and goes on with it.
    :param registered: called once the contextId is known.
    :param taken_over: whether another process has begun to set it up: its bridge and its media's channel may be there.
    """

    _log = Logger()

    def __init__(
        self,
        kit: StasisKit,
        channel: AriChannel,
        *,
        context_id: str = "",
        assistant_id: str = "",
        inbound: bool,
        registered: Callable[[StasisCall], None] = lambda call: None,
        taken_over: bool = False,
    ) -> None:
        self.kit = kit
        self.channel = channel
        self.context_id = context_id
        self.inbound = inbound
        self.left = False
        """Whether the caller's channel has left the application, or is gone."""
        self.media_here = False
        self.media_over = False
        self.dropped = False
        """Whether we want no more of it."""
        self._assistant_id = assistant_id
        self._registered = registered
        self._changed: Deferred[None] = Deferred()
        self._made: dict[str, bool] = {}
        """The ids of what was asked for, and whether it may come later, since its answer was lost."""
        self._taken_over = taken_over
        if taken_over:
            self._made = {self.media_id: False, self.bridge_id: False}

    def __repr__(self) -> str:
        return f"<StasisCall {self.name} {self.channel.name}>"

    @property
    def name(self) -> str:
        """What it is called in the log."""
        return self.context_id or f"on channel {self.channel.id}, not registered"

    @property
    def media_id(self) -> str:
        """The id of the media's channel, there or not."""
        return MEDIA_PREFIX + self.context_id

    @property
    def bridge_id(self) -> str:
        """The bridge's id, there or not."""
        return BRIDGE_PREFIX + self.context_id

    # What the events tell

    def caller_left(self) -> None:
        """The caller's channel left the application, or is gone."""
        self.left = True
        self._tell()

    def media_came(self) -> None:
        """The media's channel is in the application."""
        self.media_here = True
        self._tell()

    def media_ended(self) -> None:
        """The media's channel is gone, or about to be: the server hung up, or its connection broke."""
        self.media_over = True
        self._tell()

    def drop(self) -> None:
        """End it, whoever is still there."""
        self.dropped = True
        self._tell()

    @property
    def over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self.left or self.media_over or self.dropped

    def _tell(self) -> None:
        if not self._changed.called:
            self._changed.callback(None)

    async def until(self, reached: Callable[[], bool], limit_s: float | None = None) -> bool:
        """Wait until something is so, or for some seconds; whether it is."""
        waiting = Deferred.fromCoroutine(self._watch(reached))
        if limit_s is not None:
            waiting.addTimeout(limit_s, self.kit.reactor)
        try:
            await waiting
        except DeferredTimeout:
            return False
        return True

    async def _watch(self, reached: Callable[[], bool]) -> None:
        while not reached():
            # A new one each time: one that was cancelled, for it took too long, would fire at once.
            self._changed = Deferred()
            await self._changed

    # Its way

    async def connect(self) -> bool:
        """Give the caller its media; whether it was there, be it over again already."""
        try:
            await self._connect()
        except _Left:
            self._log.info("call {id}: the caller hung up before there was media", id=self.name)
            return False
        except CancelledError:
            raise
        except (RapidaError, DeferredTimeout) as error:
            await self._tell_problem(error)
            return False
        except Exception:
            self._log.failure("call {id}: its media could not be set up", id=self.name)
            return False
        return True

    async def _connect(self) -> None:
        ari = self.kit.ari
        if not self.context_id:
            self.context_id = (await self.kit.register(self._assistant_id, self.channel)).context_id
        self._registered(self)
        self._stay()
        await self._prepare()
        self._stay()
        # The caller first: then the media's first words are heard as soon as its channel is in the bridge.
        await ari.add_to_bridge(self.bridge_id, self.channel.id)
        self._stay()
        self.kit.bridges.add(self.context_id)
        try:
            await self._connect_media()
        finally:
            self.kit.bridges.set_bridged(self.context_id)

    async def _connect_media(self) -> None:
        if not self.media_here:
            await self._make(self.media_id, self._open_media())
        if not await self.until(lambda: self.media_here or self.over, MEDIA_S):
            raise DeferredTimeout(f"the media's channel did not come into the application within {MEDIA_S:g} s")
        self._stay()
        if not self.over:
            await self.kit.ari.add_to_bridge(self.bridge_id, self.media_id)

    async def _prepare(self) -> None:
        """An answered channel, a bridge, and where to find this call again after a restart."""
        ari, channel_id = self.kit.ari, self.channel.id
        steps: list[Awaitable[Any]] = [self._make(self.bridge_id, ari.create_bridge(self.bridge_id, self.kit.app))]
        if self.inbound:
            steps.append(ari.set_variable(channel_id, CONTEXT_VARIABLE, self.context_id))
        if self.channel.state != "Up":
            steps.append(ari.answer(channel_id))
        await all_of(*steps)

    async def _open_media(self) -> None:
        media = self.kit.media
        try:
            await self.kit.ari.external_audiosocket(
                self.kit.app, channel_id=self.media_id, host=media.host, port=media.port, data=self.context_id
            )
        except AriRejected as error:
            # Asterisk tells why in its own log alone.
            raise AriRejected(
                error.credential,
                f"{error.message}: is chan_audiosocket loaded there, and does {media.host}:{media.port} lead to us?",
                status=error.status,
            ) from None

    async def _make(self, thing_id: str, making: Awaitable[Any]) -> None:
        """Have something made that is to be removed again, whatever becomes of the request."""
        self._made[thing_id] = True
        try:
            await making
        except (AriUnreachable, AriMalformed):
            raise
        except AriConflict:
            # It is there already.
            self._made[thing_id] = False
            if not self._taken_over:
                raise
        except AriError:
            self._made[thing_id] = False
            raise
        self._made[thing_id] = False

    def _stay(self) -> None:
        """The caller may hang up at any moment."""
        if self.left:
            raise _Left

    async def _tell_problem(self, error: Exception) -> None:
        if await self.until(lambda: self.left, HANGUP_EVENT_S):
            self._log.info("call {id}: the caller hung up before there was media", id=self.name)
            return
        self._log.warn(
            "call {id}: channel {channel} in Stasis gets no media: {error}; {what}",
            id=self.name, channel=self.channel.name, error=str(error),
            what="the dialplan goes on with RAPIDA_ERROR=1" if self.inbound else "it is hung up",
        )  # fmt: skip

    # Its end

    async def clean_up(self) -> bool:
        """Remove the media's channel and the bridge, there or not; whether nothing is left."""
        ari = self.kit.ari
        removing = []
        if self.media_id in self._made and not self.media_over:
            removing.append(self._remove(self.media_id, lambda: ari.hang_up(self.media_id)))
        if self.bridge_id in self._made:
            removing.append(self._remove(self.bridge_id, lambda: ari.destroy_bridge(self.bridge_id)))
        removed = [Deferred.fromCoroutine(step) for step in removing]
        return all([outcome is True for _, outcome in await DeferredList(removed, consumeErrors=True)])

    async def _remove(self, thing_id: str, remove: Callable[[], Awaitable[bool]]) -> bool:
        """Remove something; for 30 s again and again, while ARI fails or it may still come. Whether it is gone."""
        trying = Deferred.fromCoroutine(self._try_to_remove(thing_id, remove))
        try:
            await trying.addTimeout(REMOVING_S, self.kit.reactor)
        except DeferredTimeout:
            if thing_id in self._made:
                self._log.warn(
                    "call {id}: {thing} could not be removed from Asterisk within {seconds:g} s; trying again later",
                    id=self.name, thing=thing_id, seconds=REMOVING_S,
                )  # fmt: skip
        return thing_id not in self._made

    async def _try_to_remove(self, thing_id: str, remove: Callable[[], Awaitable[bool]]) -> None:
        may_come = self._made[thing_id]
        for attempt in count():
            try:
                removed = await remove()
            except AriError as error:
                self._log.debug("call {id}: {error}", id=self.name, error=str(error))
            else:
                self._made.pop(thing_id, None)
                if removed or not may_come:
                    return
            await deferLater(self.kit.reactor, retry_pause_s(attempt))


class _Left(Exception):
    """The caller is not there any more."""


async def all_of(*steps: Awaitable[Any]) -> None:
    """Do several things at once, and wait for all, also when one fails; then raise what the first one raised."""
    outcomes = await DeferredList([Deferred.fromCoroutine(_await(step)) for step in steps], consumeErrors=True)
    for succeeded, outcome in outcomes:
        if not succeeded:
            raise outcome.value


async def _await(step: Awaitable[Any]) -> Any:
    return await step
