"""One call in our Stasis application: the caller's channel, the media's, and the bridge between them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import attrs
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
"""How long the media's channel may take to enter the application, once Asterisk has made it."""
HANGUP_EVENT_S = 0.2
"""How long the event of a caller's hang-up may lag behind the request that fails because of it."""
REMOVING_S = 30.0
retry_pause_s = backoff(0.5, 5.0)


@dataclass(frozen=True)
class StasisMedia:
    """This server's AudioSocket address for Asterisk."""

    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class StasisKit:
    """What the calls of one application share."""

    ari: AriClient
    app: str
    """The application's name."""
    store: CallStore
    """Holds the destinations of transfers."""
    media: StasisMedia
    register: Callable[[str, AriChannel], Awaitable[CallContext]]
    """Registers an inbound call of an assistant's id and a channel."""
    bridges: BridgeStates
    """Gets each call before its media connects, and when the bridge has the media."""
    reactor: Any


@attrs.define(eq=False, slots=False, repr=False)
class StasisCall:
    """A call from its ``StasisStart`` until nothing of it is left. The events of its channels only set flags, so they
    may come at any moment, in any order, and twice.

    :param channel: the caller's.
    :param context_id: empty for an inbound call that is not registered yet.
    :param assistant_id: the assistant of an inbound call.
    :param inbound: whether the dialplan sent the call, and continues it.
    :param registered: called once the contextId is known.
    :param taken_over: whether another process has started to set the call up: its bridge and its media's channel may
        exist.
    """

    _log = Logger()

    kit: StasisKit
    channel: AriChannel
    context_id: str = attrs.field(default="", kw_only=True)
    _assistant_id: str = attrs.field(default="", kw_only=True)
    inbound: bool = attrs.field(kw_only=True)
    _registered: Callable[[StasisCall], None] = attrs.field(default=lambda call: None, kw_only=True)
    _taken_over: bool = attrs.field(default=False, kw_only=True)
    left = False
    """Whether the caller's channel has left the application, or is gone."""
    media_here = media_over = False
    dropped = False
    """Whether this server wants to end the call."""
    _changed: Deferred[None] = attrs.field(init=False, factory=Deferred)

    def __attrs_post_init__(self) -> None:
        self._requested = {self.media_id: False, self.bridge_id: False} if self._taken_over else {}
        """The ids of requested objects, and whether they may appear later, since the response was lost."""

    def __repr__(self) -> str:
        return f"<StasisCall {self.name} {self.channel.name}>"

    @property
    def name(self) -> str:
        return self.context_id or f"on channel {self.channel.id}, not registered"

    @property
    def media_id(self) -> str:
        return MEDIA_PREFIX + self.context_id

    @property
    def bridge_id(self) -> str:
        return BRIDGE_PREFIX + self.context_id

    # From the events

    def caller_left(self) -> None:
        self.left = True
        self._notify()

    def media_came(self) -> None:
        """The media's channel is in the application."""
        self.media_here = True
        self._notify()

    def media_ended(self) -> None:
        """The media's channel is gone, or ending: the server hung up, or its connection broke."""
        self.media_over = True
        self._notify()

    def drop(self) -> None:
        self.dropped = True
        self._notify()

    @property
    def over(self) -> bool:
        return self.left or self.media_over or self.dropped

    def _notify(self) -> None:
        if not self._changed.called:
            self._changed.callback(None)

    async def until(self, reached: Callable[[], bool], limit_s: float | None = None) -> bool:
        """Wait for a condition, up to a time limit; returns whether it is reached."""
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
            # A new one each time: a Deferred that a timeout cancelled would fire at once.
            self._changed = Deferred()
            await self._changed

    # Its media

    async def connect(self) -> bool:
        """Connect the caller with the media; returns whether it succeeded, even if the media is over again."""
        try:
            await self._connect()
        except _CallerLeft:
            self._log.info("call {id}: the caller hung up before the media was connected", id=self.name)
            return False
        except CancelledError:
            raise
        except (RapidaError, DeferredTimeout) as error:
            await self._log_problem(error)
            return False
        except Exception:
            self._log.failure("call {id}: cannot set up its media", id=self.name)
            return False
        return True

    async def _connect(self) -> None:
        ari = self.kit.ari
        if not self.context_id:
            self.context_id = (await self.kit.register(self._assistant_id, self.channel)).context_id
        self._registered(self)
        self._check_caller()
        await self._prepare()
        self._check_caller()
        # The caller first: so the media is heard as soon as its channel is in the bridge.
        await ari.add_to_bridge(self.bridge_id, self.channel.id)
        self._check_caller()
        self.kit.bridges.add(self.context_id)
        try:
            await self._connect_media()
        finally:
            self.kit.bridges.set_bridged(self.context_id)

    async def _connect_media(self) -> None:
        if not self.media_here:
            await self._create(self.media_id, self._open_media())
        if not await self.until(lambda: self.media_here or self.over, MEDIA_S):
            raise DeferredTimeout(f"the media's channel did not enter the application within {MEDIA_S:g} s")
        self._check_caller()
        if not self.over:
            await self.kit.ari.add_to_bridge(self.bridge_id, self.media_id)

    async def _prepare(self) -> None:
        """Answer the channel, make the bridge, and note the contextId on the channel for a restart."""
        ari, channel_id = self.kit.ari, self.channel.id
        steps: list[Awaitable[Any]] = [self._create(self.bridge_id, ari.create_bridge(self.bridge_id, self.kit.app))]
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
            # Only Asterisk's own log shows why.
            raise AriRejected(
                error.credential,
                f"{error.message}: is chan_audiosocket loaded there, and is {media.host}:{media.port} this server's"
                " AudioSocket address?",
                status=error.status,
            ) from None

    async def _create(self, thing_id: str, making: Awaitable[Any]) -> None:
        """Create an object that has to be removed again, whatever the request's outcome."""
        self._requested[thing_id] = True
        try:
            await making
        except (AriUnreachable, AriMalformed):
            raise
        except AriConflict:
            # It exists already.
            self._requested[thing_id] = False
            if not self._taken_over:
                raise
        except AriError:
            self._requested[thing_id] = False
            raise
        self._requested[thing_id] = False

    def _check_caller(self) -> None:
        if self.left:
            raise _CallerLeft

    async def _log_problem(self, error: Exception) -> None:
        if await self.until(lambda: self.left, HANGUP_EVENT_S):
            self._log.info("call {id}: the caller hung up before the media was connected", id=self.name)
            return
        self._log.warn(
            "call {id}: no media for channel {channel} in Stasis: {error}; {what}",
            id=self.name, channel=self.channel.name, error=str(error),
            what="the dialplan continues with RAPIDA_ERROR=1" if self.inbound else "hanging up",
        )  # fmt: skip

    # Its end

    async def clean_up(self) -> bool:
        """Remove the media's channel and the bridge; returns whether nothing is left."""
        ari = self.kit.ari
        removing = []
        if self.media_id in self._requested and not self.media_over:
            removing.append(self._remove(self.media_id, lambda: ari.hang_up(self.media_id)))
        if self.bridge_id in self._requested:
            removing.append(self._remove(self.bridge_id, lambda: ari.destroy_bridge(self.bridge_id)))
        removed = [Deferred.fromCoroutine(step) for step in removing]
        return all([outcome is True for _, outcome in await DeferredList(removed, consumeErrors=True)])

    async def _remove(self, thing_id: str, remove: Callable[[], Awaitable[bool]]) -> bool:
        """Remove an object, with retries for 30 s while ARI fails or the object may still appear; returns whether it is
        gone."""
        trying = Deferred.fromCoroutine(self._try_to_remove(thing_id, remove))
        try:
            await trying.addTimeout(REMOVING_S, self.kit.reactor)
        except DeferredTimeout:
            if thing_id in self._requested:
                self._log.warn(
                    "call {id}: cannot remove {thing} from Asterisk within {seconds:g} s; trying again later",
                    id=self.name, thing=thing_id, seconds=REMOVING_S,
                )  # fmt: skip
        return thing_id not in self._requested

    async def _try_to_remove(self, thing_id: str, remove: Callable[[], Awaitable[bool]]) -> None:
        may_come = self._requested[thing_id]
        for attempt in count():
            try:
                removed = await remove()
            except AriError as error:
                self._log.debug("call {id}: {error}", id=self.name, error=str(error))
            else:
                self._requested.pop(thing_id, None)
                if removed or not may_come:
                    return
            await deferLater(self.kit.reactor, retry_pause_s(attempt))


class _CallerLeft(Exception):
    """The caller has left the application."""


async def all_of(*steps: Awaitable[Any]) -> None:
    """Run several steps at once, and wait for all; then raise the error of the first one that failed."""
    outcomes = await DeferredList([Deferred.fromCoroutine(_await(step)) for step in steps], consumeErrors=True)
    for succeeded, outcome in outcomes:
        if not succeeded:
            raise outcome.value


async def _await(step: Awaitable[Any]) -> Any:
    return await step
