"""An Asterisk's REST interface (ARI): calls placed, looked up, moved on and hung up.

An originate is at most once. The channel's id is ours and follows from the contextId (:func:`channel_id_of`), so that
the channel can be looked up when the answer to the originate was lost; and Asterisk refuses a second one of that id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any, TypeVar
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger

from rapida_twisted.asterisk.ari.bridges import AriBridges
from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.ari.errors import AriError, AriMalformed, AriNotFound, AriUnreachable
from rapida_twisted.asterisk.ari.http import AriHttp
from rapida_twisted.asterisk.ari.replies import AriChannel, AriInfo, channel_from, info_from, modules_from
from rapida_twisted.net.backoff import backoff

__all__ = ["AriChannel", "AriClient", "AriInfo", "channel_id_of"]

ABANDON_S = 30.0
LOOK_UP_PAUSES_S = (0.0, 0.5)
"""Asterisk may still be at work on the request whose answer was lost."""
LOOK_UP_S = 3.0
retry_pause_s = backoff(0.5, 5.0)

Made = TypeVar("Made")


def channel_id_of(context_id: str) -> str:
    """The id of the channel of an outbound call's context: the same for the same context, always."""
    return f"rapida-{context_id.lower()}"


class AriClient(AriBridges):
    """What can be asked of one Asterisk. Each method raises an :class:`~.ari_errors.AriError` of its kind.

    :param treq_client: a :class:`treq.client.HTTPClient`. Its agent decides how TLS is verified; one with a private CA
        in its context factory is how such an Asterisk is reached.
    :param reactor: provides IReactorTime.
    :param timeout_s: how long one answer may take, to its last byte.
    """

    _log = Logger()

    def __init__(self, credential: AriCredential, *, treq_client: Any, reactor: Any, timeout_s: float = 10.0) -> None:
        self.credential = credential
        self._http = AriHttp(credential, treq_client=treq_client, reactor=reactor, timeout_s=timeout_s)
        self._reactor = reactor

    def __repr__(self) -> str:
        return f"<AriClient {self.credential.name}>"

    # Calls placed

    async def originate(
        self,
        endpoint: str,
        *,
        channel_id: str,
        variables: Mapping[str, str],
        caller: str = "",
        context: str = "",
        extension: str = "s",
        priority: int = 1,
        app: str = "",
        app_args: str = "",
        answer_timeout_s: int = 60,
    ) -> AriChannel:
        """Place a call; once answered, it goes to the dialplan (``context``) or to a Stasis application (``app``).

        Gives the channel as soon as it exists, long before anybody answers.

        :param endpoint: such as ``PJSIP/200@trunk``.
        :param channel_id: the channel's id, see :func:`channel_id_of`.
        :param variables: the channel's variables.
        :param caller: the caller id that the far end shall see.
        :raises ValueError: both or neither of ``context`` and ``app``.
        :raises AriUnreachable: nobody knows whether the call was placed, unless its ``placed`` is False. Do not
            originate it again, but :meth:`abandon` it.
        :raises AriConflict: there is a channel with that id already.
        :raises AriRejected: there is no such endpoint or trunk, in Asterisk's own words.
        """
        if bool(context) == bool(app):
            raise ValueError("an originated call goes to a context or to an app: exactly one of both is needed")
        query = {"endpoint": endpoint, "channelId": channel_id, "timeout": str(answer_timeout_s)}
        if caller:
            query["callerId"] = caller
        if app:
            query |= {"app": app, "appArgs": app_args} if app_args else {"app": app}
        else:
            query |= {"context": context, "extension": extension, "priority": str(priority)}
        return await self._create("channels", query, channel_id, variables)

    async def external_media(
        self,
        app: str,
        *,
        channel_id: str,
        media_format: str,
        connection: str = "",
        transport_data: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> AriChannel:
        """Make a channel whose media is a WebSocket (chan_websocket), and put it into a Stasis application.

        :param media_format: such as ``slin16``.
        :param connection: a client of ``websocket_client.conf``, which Asterisk connects to us. Without one the channel
            waits for us at ``/media/`` and its variable MEDIA_WEBSOCKET_CONNECTION_ID.
        :param transport_data: what is appended to the dial string, such as ``v(contextId=...)``.
        :raises AriUnreachable: as with :meth:`originate`.
        """
        query = {
            "app": app,
            "channelId": channel_id,
            "external_host": connection or "INCOMING",
            "transport": "websocket",
            "encapsulation": "none",
            "connection_type": "client" if connection else "server",
            "format": media_format,
        }
        if transport_data:
            query["transport_data"] = transport_data
        return await self._create("channels/externalMedia", query, channel_id, variables or {})

    async def _create(
        self, path: str, query: dict[str, str], channel_id: str, variables: Mapping[str, str]
    ) -> AriChannel:
        try:
            answer = await self._http.ask("POST", path, query, {"variables": dict(variables)})
            return self._made(channel_from, answer)
        except AriUnreachable as error:
            if error.placed is False:
                raise
            lost: AriError = error
        except AriMalformed as error:
            lost = error
        return await self._look_up_lost(channel_id, lost)

    async def _look_up_lost(self, channel_id: str, lost: AriError) -> AriChannel:
        """The answer was lost: the channel, if it is there.

        That it is not there proves nothing: it may be over already, or come later.
        """
        outcome = "and no such channel is there now"
        for pause_s in LOOK_UP_PAUSES_S:
            await deferLater(self._reactor, pause_s)
            try:
                found = await self.channel(channel_id, timeout_s=LOOK_UP_S)
            except AriError as error:
                outcome = f"and the look-up failed: {error.message}"
                break
            if found is not None:
                self._log.info(
                    "ARI {credential}: the answer to the originate of {channel_id} was lost, but it was placed",
                    credential=self.credential.name, channel_id=channel_id,
                )  # fmt: skip
                return found
        raise AriUnreachable(self.credential.name, f"{lost.message}, {outcome}", status=lost.status) from None

    async def abandon(self, channel_id: str) -> bool:
        """Hang up a channel that may come up later, after its originate was given up. Gives whether it did.

        Looks for it with growing pauses for 30 s, whatever ARI answers; raises no AriError.
        """
        looking = Deferred.fromCoroutine(self._hang_up_when_there(channel_id))
        try:
            await looking.addTimeout(ABANDON_S, self._reactor)
        except DeferredTimeout:
            return False
        self._log.info(
            "ARI {credential}: channel {channel_id}, given up before, came up and was hung up",
            credential=self.credential.name, channel_id=channel_id,
        )  # fmt: skip
        return True

    async def _hang_up_when_there(self, channel_id: str) -> None:
        for attempt in count():
            try:
                if await self.hang_up(channel_id):
                    return
            except AriError as error:
                self._log.debug("ARI: looking for channel {channel_id}: {error}", channel_id=channel_id, error=error)
            await deferLater(self._reactor, retry_pause_s(attempt))

    # Channels

    async def channel(self, channel_id: str, *, timeout_s: float | None = None) -> AriChannel | None:
        """One channel as it is now; None if there is none of that id."""
        try:
            answer = await self._http.ask("GET", _channel_path(channel_id), timeout_s=timeout_s)
        except AriNotFound:
            return None
        return self._made(channel_from, answer)

    async def channels(self) -> list[AriChannel]:
        """All channels that there are."""
        answer = await self._http.ask("GET", "channels")
        return self._made(lambda entries: [channel_from(entry) for entry in entries], answer)

    async def hang_up(self, channel_id: str, reason: str = "normal") -> bool:
        """Hang up a channel, wherever it is. Gives whether there was one.

        :param reason: ARI's word for the cause, such as normal, busy, congestion, no_answer, timeout, rejected.
        """
        try:
            await self._http.ask("DELETE", _channel_path(channel_id), {"reason": reason})
        except AriNotFound:
            return False
        return True

    async def get_variable(self, channel_id: str, name: str) -> str | None:
        """A channel's variable or function, such as ``CALLERID(num)``; None if the channel has no such variable.

        :raises AriNotFound: there is no such channel.
        """
        try:
            answer = await self._http.ask("GET", _channel_path(channel_id, "variable"), {"variable": name})
        except AriNotFound as error:
            if "variable" in error.message:
                return None
            raise
        return self._made(lambda found: _text(found["value"]), answer)

    async def set_variable(self, channel_id: str, name: str, value: str) -> None:
        """Set a variable of a channel that is in a Stasis application.

        :raises AriConflict: it is in the dialplan.
        """
        # In the body: Asterisk takes no request line of more than 4 KiB.
        await self._http.ask("POST", _channel_path(channel_id, "variable"), body={"variable": name, "value": value})

    async def continue_in_dialplan(
        self, channel_id: str, context: str = "", extension: str = "s", priority: int = 1
    ) -> None:
        """Let a channel leave its Stasis application and go on in the dialplan.

        :param context: without one, the dialplan's line after ``Stasis()``.
        :raises AriConflict: it is in no Stasis application.
        """
        query = {"context": context, "extension": extension, "priority": str(priority)} if context else {}
        await self._http.ask("POST", _channel_path(channel_id, "continue"), query)

    async def redirect(self, channel_id: str, endpoint: str) -> None:
        """Tell the far end of a channel that is in a Stasis application to call elsewhere (SIP: REFER, or 302).

        :raises AriRejected: it is of another technology than the endpoint.
        :raises AriConflict: it is in no Stasis application.
        """
        await self._http.ask("POST", _channel_path(channel_id, "redirect"), {"endpoint": endpoint})

    # The Asterisk itself

    async def modules(self) -> dict[str, str]:
        """Each module's status, such as Running, by its name without ``.so``."""
        return self._made(modules_from, await self._http.ask("GET", "asterisk/modules"))

    async def info(self) -> AriInfo:
        """Its version, its start, its clock."""
        answer = await self._http.ask("GET", "asterisk/info")
        try:
            ping = await self._http.ask("GET", "asterisk/ping")
        except AriNotFound:
            ping = None
        return self._made(lambda entry: info_from(entry, ping), answer)

    async def global_variable(self, name: str) -> str | None:
        """A global variable of the dialplan; None if there is none of this name."""
        try:
            answer = await self._http.ask("GET", "asterisk/variable", {"variable": name})
        except AriNotFound:
            return None
        return self._made(lambda found: _text(found["value"]), answer) or None

    async def filter_events(self, app: str, types: Iterable[str]) -> None:
        """Have an application be sent events of these types alone.

        :raises AriNotFound: no client is connected under this name.
        """
        allowed = [{"type": name} for name in types]
        await self._http.ask("PUT", f"{_application_path(app)}/eventFilter", body={"allowed": allowed})

    async def subscribe_to_channels(self, app: str) -> None:
        """Have an application be sent the events of all channels, not only of those that are in it.

        This, and not ``subscribeAll`` when connecting, which subscribes to the states of devices, too: as such an
        application's connection ends, Asterisk may lock itself up, and no client ever gets the application again
        (``res/res_stasis_device_state.c``: ``unsubscribe_device_state()``; Asterisk's issue 2170).

        :raises AriNotFound: no client is connected under this name.
        """
        await self._http.ask("POST", f"{_application_path(app)}/subscription", {"eventSource": "channel:"})

    def _made(self, make: Callable[[Any], Made], answer: Any) -> Made:
        """The value that an answer stands for.

        :raises AriMalformed: it is none.
        """
        try:
            return make(answer)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise AriMalformed(self.credential.name, "JSON of another form than expected", status=200) from None


def _application_path(app: str) -> str:
    return f"applications/{quote(app, safe='')}"


def _channel_path(channel_id: str, action: str = "") -> str:
    path = f"channels/{quote(channel_id, safe='')}"
    return f"{path}/{action}" if action else path


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
