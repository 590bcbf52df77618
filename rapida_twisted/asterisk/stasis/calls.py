"""Calls without a dialplan: ARI connects the channels in our Stasis application with their media.

A channel enters the application in two ways: the dialplan runs ``Stasis(<app>,<assistantId>)`` for an inbound call,
which is registered here; or an outbound call, placed with the application instead of a context, is answered. Then
Asterisk makes a channel whose media is an AudioSocket connection to this server, and both go into a bridge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.asterisk.ari.client import AriChannel
from rapida_twisted.asterisk.ari.errors import AriError
from rapida_twisted.asterisk.ari.replies import channel_from
from rapida_twisted.asterisk.stasis.call import MEDIA_PREFIX, StasisCall, StasisKit, StasisMedia
from rapida_twisted.asterisk.stasis.orphans import OrphanChannels
from rapida_twisted.asterisk.stasis.transfer import move_on

__all__ = ["StasisCalls", "StasisKit", "StasisMedia"]

OUTBOUND = "outbound"
LEAVING_S = 1.0
"""How long a channel that was sent on may take to leave the application and its bridge."""
LOOK_AGAIN_S = 30.0
CLOSE_TIMEOUT_S = 2.0

ENDS = ("ChannelHangupRequest", "StasisEnd", "ChannelDestroyed")


class StasisCalls:
    """Serves the channels in one Stasis application, which no other client may use.

    When this server ends the media, an inbound call continues with the dialplan's line after ``Stasis()``: the variable
    ``RAPIDA_NEXT`` is the transfer's destination (empty: none), ``RAPIDA_ERROR`` is 1 if there was no media. An
    outbound call is sent on, too, or hung up. When the caller's channel ends or leaves the application, the rest is
    removed.

    It relies on these rules of Asterisk:

    - ARI bridges, continues and redirects a channel only while it is in an application
      (``res/ari/resource_channels.c`` and ``resource_bridges.c``: ``find_control()``); a channel of external media is
      in it from its ``StasisStart`` on.
    - Asterisk connects to our AudioSocket before it responds to the request for external media
      (``channels/chan_audiosocket.c``: ``audiosocket_request()``), and sends the UUID just after. What is said before
      its channel is in the bridge is lost (``res/res_stasis.c``: ``stasis_app_exec()`` reads frames and drops them).
      That thread may read one frame more after it has put the channel into the bridge, and keeps the channel locked
      until that frame comes. So we send silence until the bridge has the channel, and for two frames more.
    - That channel's ``StasisStart`` has the UUID as its one argument, like an assistant's id
      (``external_media_audiosocket_tcp()``): the channel's own id, which this server chooses, distinguishes it.
    - ``redirect`` succeeds before the far end responds, and nothing reports the response (``res/stasis/control.c``:
      ``app_control_redirect()``); for SIP it needs res_pjsip_refer, and sends the dial string unchanged.
    - ``continue`` without a context goes to the next priority (``ast_ari_channels_continue_in_dialplan()``).
    - A bridge of ARI outlives its channels, and a channel of external media outlives its bridge: we remove them.
    - An application without a connected client keeps its channels, and takes no new ones: then ``Stasis()`` fails, and
      the dialplan continues with ``STASISSTATUS=FAILED`` (``apps/app_stasis.c``).
    - ``/applications/{app}`` does not list the channels of an application that has subscribed to all channels
      (``res/stasis/app.c``: ``app_subscribe_channel()``); each channel's dialplan application shows it.
    """

    _log = Logger()

    def __init__(self, kit: StasisKit) -> None:
        self._kit = kit
        self._callers: dict[str, StasisCall] = {}
        """By the caller's channel id, while the channel is in the application."""
        self._media: dict[str, StasisCall] = {}
        """By the media's channel id, until nothing of the call is left."""
        self._tasks: set[Deferred[Any]] = set()
        self._orphans = OrphanChannels(
            self._kit, calls=self._known, take=self._take, take_over=self._take_over, resume=self._resume
        )
        self._looking: Deferred[Any] = succeed(None)
        self._early: set[str] = set()
        """Media channels that entered during the search for calls to take over."""
        self._looks_again: IDelayedCall | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<StasisCalls {self._kit.app}: {self.count} calls>"

    @property
    def count(self) -> int:
        """The number of calls, including those under clean-up."""
        return len(self._known())

    def _known(self) -> list[StasisCall]:
        return list(dict.fromkeys([*self._callers.values(), *self._media.values()]))

    # Events

    def event(self, event: Mapping[str, Any]) -> None:
        """Handle an event of this Asterisk; foreign ones are ignored."""
        channel, kind = event.get("channel"), event.get("type")
        if self._closed or not isinstance(channel, dict) or not isinstance(channel.get("id"), str):
            return
        if kind == "StasisStart" and event.get("application") == self._kit.app:
            self._started(channel, event.get("args"))
        elif kind in ENDS:
            self._ended(channel["id"])

    def connected(self, again: bool) -> None:
        """Events start: search for orphans of an earlier process, and for changes during the gap."""
        self._look()

    def _started(self, entry: Mapping[str, Any], args: Any) -> None:
        try:
            channel = channel_from(entry)
        except (LookupError, TypeError, AttributeError):
            self._log.warn("Stasis application {app}: skipped an event without a channel", app=self._kit.app)
            return
        if not channel.id.startswith(MEDIA_PREFIX):
            self._take(channel, [arg for arg in args or [] if isinstance(arg, str)])
        elif channel.id in self._media:
            self._media[channel.id].media_came()
        elif not self._looking.called:
            # It may belong to a call that is about to be taken over.
            self._early.add(channel.id)
        else:
            # Its call is over.
            self._spawn(self._kit.ari.hang_up(channel.id))

    def _ended(self, channel_id: str) -> None:
        caller = self._callers.pop(channel_id, None)
        if caller is not None:
            caller.caller_left()
        elif channel_id in self._media:
            self._media[channel_id].media_ended()

    # Calls

    def _take(self, channel: AriChannel, args: Sequence[str]) -> None:
        """A caller's channel entered; repeated reports change nothing."""
        if channel.id in self._callers or self._closed:
            return
        if len(args) == 1 and args[0]:
            call = StasisCall(self._kit, channel, assistant_id=args[0], inbound=True, registered=self._registered)
        elif len(args) == 2 and args[0] == OUTBOUND and _is_uuid(args[1]):
            call = StasisCall(self._kit, channel, context_id=args[1], inbound=False, registered=self._registered)
        else:
            self._log.warn(
                "channel {channel} entered the Stasis application {app} with unknown arguments ({args}): write"
                " Stasis({app},ASSISTANT_ID) in the dialplan",
                channel=channel.name, app=self._kit.app, args=",".join(args),
            )  # fmt: skip
            self._resume(StasisCall(self._kit, channel, inbound=True))
            return
        self._callers[channel.id] = call
        self._spawn(self._serve(call))

    def _take_over(self, call: StasisCall) -> None:
        """Serve a call that another process has set up, completely or partly."""
        if call.channel.id not in self._callers and not self._closed:
            if call.media_id in self._early:
                call.media_came()
            self._callers[call.channel.id] = self._media[call.media_id] = call
            self._spawn(self._serve(call))

    def _resume(self, call: StasisCall) -> None:
        """Send a caller on without media."""
        if call.channel.id not in self._callers and not self._closed:
            self._callers[call.channel.id] = call
            self._spawn(self._finish(call, failed=True))

    def _registered(self, call: StasisCall) -> None:
        self._media[call.media_id] = call

    async def _serve(self, call: StasisCall) -> None:
        """Serve a call to its end."""
        connected = await call.connect()
        if connected:
            await call.until(lambda: call.over)
        await self._finish(call, failed=not connected)

    async def _finish(self, call: StasisCall, *, failed: bool) -> None:
        moved = call.left or await move_on(call, failed=failed)
        if moved:
            await call.until(lambda: call.left, LEAVING_S)
        removed = await call.clean_up()
        if self._callers.get(call.channel.id) is call:
            del self._callers[call.channel.id]
        if self._media.get(call.media_id) is call:
            del self._media[call.media_id]
        if not (moved and removed):
            self._look_again()

    # Beside the events

    def _look(self) -> None:
        # The results of an earlier search are outdated.
        self._looking.cancel()
        if not self._closed:
            self._looking = self._spawn(self._look_over())

    async def _look_over(self) -> None:
        await self._orphans.look()
        early, self._early = self._early, set()
        for channel_id in early - set(self._media):
            await self._kit.ari.hang_up(channel_id)

    def _look_again(self) -> None:
        """Search for orphans later: a call that could not be sent on or removed is one by then."""
        if self._closed or (self._looks_again is not None and self._looks_again.active()):
            return
        self._looks_again = self._kit.reactor.callLater(LOOK_AGAIN_S, self._look)

    # The end

    def close(self, *, leave: bool = False) -> Deferred[Any]:
        """Take no more channels, and end the calls; fires when that is done, or after 2 s.

        :param leave: leave the calls to another process instead.
        """
        self._closed = True
        if self._looks_again is not None and self._looks_again.active():
            self._looks_again.cancel()
        self._looking.cancel()
        if leave:
            self._cancel_tasks(None)
            return succeed(None)
        for call in self._known():
            call.drop()
        leaving: Deferred[Any] = Deferred()
        DeferredList(list(self._tasks)).addCallback(leaving.callback)
        leaving.addTimeout(CLOSE_TIMEOUT_S, self._kit.reactor, onTimeoutCancel=lambda *_: None)
        return leaving.addCallback(self._cancel_tasks)

    def _cancel_tasks(self, _: Any) -> None:
        for task in list(self._tasks):
            task.cancel()

    def _spawn(self, work: Any) -> Deferred[Any]:
        """Run a task in the background; a failure is logged."""
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)
        task.addErrback(self._broke)
        task.addBoth(lambda _: self._tasks.discard(task))
        return task

    def _broke(self, failure: Failure) -> None:
        if failure.check(AriError):
            self._log.warn("Stasis application {app}: {error}", app=self._kit.app, error=failure.getErrorMessage())
            self._look_again()
        elif not failure.check(CancelledError):
            self._log.failure("Stasis application {app}: a background task failed", failure, app=self._kit.app)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
