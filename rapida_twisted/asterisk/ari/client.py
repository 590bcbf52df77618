"""A client of an Asterisk's REST interface (ARI): places, looks up, moves and hangs up calls.

An originate happens at most once. This server chooses the channel's id, which follows from the contextId
(:func:`channel_id_of`): so it can look up the channel when the originate's response is lost, and Asterisk refuses a
second channel of that id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any
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
"""Asterisk may still be working on the request whose response was lost."""
LOOK_UP_S = 3.0
retry_pause_s = backoff(0.5, 5.0)


def channel_id_of(context_id: str) -> str:
    """The channel id of an outbound call's context, always the same."""
    return f"rapida-{context_id.lower()}"


class AriClient(AriBridges):
    """One Asterisk's requests. Each method may raise an :class:`~rapida_twisted.asterisk.ari.errors.AriError`.

    :param treq_client: a :class:`treq.client.HTTPClient`, whose agent verifies TLS; a private CA belongs into the
        agent's context factory.
    :param timeout_s: the time limit of a response, to its last byte.
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

        Returns the channel as soon as it exists, long before the answer.

        :param endpoint: such as ``PJSIP/200@trunk``.
        :param channel_id: see :func:`channel_id_of`.
        :param caller: the caller id for the far end.
        :raises ValueError: both or neither of ``context`` and ``app``.
        :raises AriUnreachable: the call may have been placed, unless ``placed`` is False. Do not originate it again,
            but :meth:`abandon` it.
        :raises AriConflict: a channel with that id exists.
        :raises AriRejected: the endpoint or trunk does not exist; the text is Asterisk's.
        """
        if bool(context) == bool(app):
            raise ValueError("an originated call needs either a context or an app")
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
        :param connection: a client of ``websocket_client.conf``, with which Asterisk connects to this server. Without
            one the channel waits for a connection to ``/media/`` and its variable MEDIA_WEBSOCKET_CONNECTION_ID.
        :param transport_data: appended to the dial string, such as ``v(contextId=...)``.
        :raises AriUnreachable: as :meth:`originate`.
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
            response = await self._http.request("POST", path, query, {"variables": dict(variables)})
            return self._http.parse(channel_from, response)
        except (AriUnreachable, AriMalformed) as error:
            if isinstance(error, AriUnreachable) and error.placed is False:
                raise
            lost: AriError = error
        return await self._look_up_lost(channel_id, lost)

    async def _look_up_lost(self, channel_id: str, lost: AriError) -> AriChannel:
        """The channel, if it exists, after its response was lost.

        Its absence proves nothing: the channel may be over already, or come later.
        """
        outcome = "and no such channel exists now"
        for pause_s in LOOK_UP_PAUSES_S:
            await deferLater(self._reactor, pause_s)
            try:
                found = await self.channel(channel_id, timeout_s=LOOK_UP_S)
            except AriError as error:
                outcome = f"and the look-up failed: {error.message}"
                break
            if found is not None:
                self._log.info(
                    "ARI {credential}: the response to the originate of {channel_id} was lost, but the call was placed",
                    credential=self.credential.name, channel_id=channel_id,
                )  # fmt: skip
                return found
        raise AriUnreachable(self.credential.name, f"{lost.message}, {outcome}", status=lost.status) from None

    async def abandon(self, channel_id: str) -> bool:
        """Hang up a channel that may come up after its originate was given up; returns whether it did.

        Looks for it with growing pauses for 30 s, whatever ARI responds; raises no AriError.
        """
        looking = Deferred.fromCoroutine(self._hang_up_when_there(channel_id))
        try:
            await looking.addTimeout(ABANDON_S, self._reactor)
        except DeferredTimeout:
            return False
        self._log.info(
            "ARI {credential}: the abandoned channel {channel_id} came up and was hung up",
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
        """A channel's present state; None if it does not exist."""
        try:
            response = await self._http.request("GET", _channel_path(channel_id), timeout_s=timeout_s)
        except AriNotFound:
            return None
        return self._http.parse(channel_from, response)

    async def channels(self) -> list[AriChannel]:
        response = await self._http.request("GET", "channels")
        return self._http.parse(lambda entries: [channel_from(entry) for entry in entries], response)

    async def hang_up(self, channel_id: str, reason: str = "normal") -> bool:
        """Hang up a channel, wherever it is; False: it does not exist.

        :param reason: ARI's name of the cause, such as normal, busy, congestion, no_answer, timeout, rejected.
        """
        try:
            await self._http.request("DELETE", _channel_path(channel_id), {"reason": reason})
        except AriNotFound:
            return False
        return True

    async def get_variable(self, channel_id: str, name: str) -> str | None:
        """A channel's variable or function, such as ``CALLERID(num)``; None if it is not set.

        :raises AriNotFound: the channel does not exist.
        """
        try:
            response = await self._http.request("GET", _channel_path(channel_id, "variable"), {"variable": name})
        except AriNotFound as error:
            if "variable" in error.message:
                return None
            raise
        return self._http.parse(lambda found: _text(found["value"]), response)

    async def set_variable(self, channel_id: str, name: str, value: str) -> None:
        """Set a variable of a channel in a Stasis application.

        :raises AriConflict: the channel is in the dialplan.
        """
        # In the body: Asterisk accepts request lines up to 4 KiB only.
        await self._http.request("POST", _channel_path(channel_id, "variable"), body={"variable": name, "value": value})

    async def continue_in_dialplan(
        self, channel_id: str, context: str = "", extension: str = "s", priority: int = 1
    ) -> None:
        """Send a channel from its Stasis application to the dialplan.

        :param context: without one, the channel goes to the dialplan's line after ``Stasis()``.
        :raises AriConflict: the channel is in no Stasis application.
        """
        query = {"context": context, "extension": extension, "priority": str(priority)} if context else {}
        await self._http.request("POST", _channel_path(channel_id, "continue"), query)

    async def redirect(self, channel_id: str, endpoint: str) -> None:
        """Tell the far end of a channel in a Stasis application to call elsewhere (SIP: REFER, or 302).

        :raises AriRejected: the endpoint has another technology.
        :raises AriConflict: the channel is in no Stasis application.
        """
        await self._http.request("POST", _channel_path(channel_id, "redirect"), {"endpoint": endpoint})

    # The Asterisk itself

    async def modules(self) -> dict[str, str]:
        """Each module's status, such as Running, by its name without ``.so``."""
        return self._http.parse(modules_from, await self._http.request("GET", "asterisk/modules"))

    async def info(self) -> AriInfo:
        response = await self._http.request("GET", "asterisk/info")
        try:
            ping = await self._http.request("GET", "asterisk/ping")
        except AriNotFound:
            ping = None
        return self._http.parse(lambda entry: info_from(entry, ping), response)

    async def global_variable(self, name: str) -> str | None:
        """A global variable of the dialplan; None if it is not set."""
        try:
            response = await self._http.request("GET", "asterisk/variable", {"variable": name})
        except AriNotFound:
            return None
        return self._http.parse(lambda found: _text(found["value"]), response) or None

    async def filter_events(self, app: str, types: Iterable[str]) -> None:
        """Let Asterisk send an application these event types only.

        :raises AriNotFound: no client is connected under this name.
        """
        allowed = [{"type": name} for name in types]
        await self._http.request("PUT", f"{_application_path(app)}/eventFilter", body={"allowed": allowed})

    async def subscribe_to_channels(self, app: str) -> None:
        """Let Asterisk send an application the events of all channels, not only of its own.

        ``subscribeAll`` when connecting would subscribe to device states, too: when such an application's connection
        ends, Asterisk may deadlock, and no client ever gets the application again
        (``res/res_stasis_device_state.c``: ``unsubscribe_device_state()``; Asterisk's issue 2170).

        :raises AriNotFound: no client is connected under this name.
        """
        await self._http.request("POST", f"{_application_path(app)}/subscription", {"eventSource": "channel:"})


def _application_path(app: str) -> str:
    return f"applications/{quote(app, safe='')}"


def _channel_path(channel_id: str, action: str = "") -> str:
    path = f"channels/{quote(channel_id, safe='')}"
    return f"{path}/{action}" if action else path


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
