"""ARI's requests that connect a channel with its media without a dialplan: external media and bridges."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from rapida_twisted.asterisk.ari.errors import AriNotFound
from rapida_twisted.asterisk.ari.http import AriHttp
from rapida_twisted.asterisk.ari.replies import AriChannel, channel_from
from rapida_twisted.net.addresses import host_and_port

__all__ = ["AriBridges"]


class AriBridges:
    """A base of :class:`~rapida_twisted.asterisk.ari.client.AriClient`."""

    _http: AriHttp

    async def answer(self, channel_id: str) -> None:
        await self._http.request("POST", f"channels/{quote(channel_id, safe='')}/answer")

    async def external_audiosocket(self, app: str, *, channel_id: str, host: str, port: int, data: str) -> AriChannel:
        """Make a channel whose media is an AudioSocket connection to this server, and put it into a Stasis application.

        Asterisk connects before it responds (``external_media_audiosocket_tcp()`` in ``res/ari/resource_channels.c``).
        Needs chan_audiosocket.

        :param data: the connection's UUID.
        :raises AriRejected: nothing listens there, or the module is not loaded.
        """
        query = {
            "app": app,
            "channelId": channel_id,
            "external_host": host_and_port(host, port),
            "encapsulation": "audiosocket",
            "transport": "tcp",
            "connection_type": "client",
            "format": "slin",
            "data": data,
        }
        response = await self._http.request("POST", "channels/externalMedia", query)
        return self._http.parse(lambda content: channel_from(content.get("channel", content)), response)

    async def create_bridge(self, bridge_id: str, name: str) -> None:
        """Make a mixing bridge; with two channels Asterisk just passes the audio on.

        :raises AriConflict: a bridge with that id exists.
        """
        await self._http.request("POST", f"bridges/{quote(bridge_id, safe='')}", {"type": "mixing", "name": name})

    async def add_to_bridge(self, bridge_id: str, *channel_ids: str) -> None:
        """Put channels of a Stasis application into a bridge.

        :raises AriRejected: a channel is in no application, or gone.
        """
        path = f"bridges/{quote(bridge_id, safe='')}/addChannel"
        await self._http.request("POST", path, {"channel": ",".join(channel_ids)})

    async def destroy_bridge(self, bridge_id: str) -> bool:
        """Remove a bridge; False: it does not exist. Its channels stay in their application."""
        try:
            await self._http.request("DELETE", f"bridges/{quote(bridge_id, safe='')}")
        except AriNotFound:
            return False
        return True

    async def bridges_named(self, name: str) -> list[str]:
        response = await self._http.request("GET", "bridges")
        entries: list[Any] = response if isinstance(response, list) else []
        return [
            entry["id"]
            for entry in entries
            if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry.get("name") == name
        ]
