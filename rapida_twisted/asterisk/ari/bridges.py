"""What of ARI connects a channel with its media without a dialplan: external media, bridges, applications."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from rapida_twisted.asterisk.ari.errors import AriMalformed, AriNotFound
from rapida_twisted.asterisk.ari.http import AriHttp
from rapida_twisted.asterisk.ari.replies import AriChannel, channel_from
from rapida_twisted.net.addresses import host_and_port

__all__ = ["AriBridges"]


class AriBridges:
    """A part of :class:`~rapida_twisted.asterisk.ari.client.AriClient`; its methods raise what that one's do."""

    _http: AriHttp

    async def answer(self, channel_id: str) -> None:
        """Answer a channel that is in a Stasis application."""
        await self._http.ask("POST", f"channels/{quote(channel_id, safe='')}/answer")

    async def external_audiosocket(self, app: str, *, channel_id: str, host: str, port: int, data: str) -> AriChannel:
        """Make a channel whose media is an AudioSocket connection to us, and put it into a Stasis application.

        Asterisk connects before it answers (``external_media_audiosocket_tcp()`` in ``res/ari/resource_channels.c``).
        Needs chan_audiosocket.

        :param data: the UUID that it begins with.
        :raises AriRejected: nobody listens there, or the module is not loaded.
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
        answer = await self._http.ask("POST", "channels/externalMedia", query)
        try:
            return channel_from(answer.get("channel", answer))
        except (LookupError, TypeError, AttributeError):
            raise AriMalformed(self._http.credential.name, "JSON of another form than expected", status=200) from None

    async def create_bridge(self, bridge_id: str, name: str) -> None:
        """Make a bridge that mixes; with two channels Asterisk just passes the audio on.

        :raises AriConflict: there is a bridge of that id already.
        """
        await self._http.ask("POST", f"bridges/{quote(bridge_id, safe='')}", {"type": "mixing", "name": name})

    async def add_to_bridge(self, bridge_id: str, *channel_ids: str) -> None:
        """Put channels that are in a Stasis application into a bridge.

        :raises AriRejected: one is in none, or is gone.
        """
        path = f"bridges/{quote(bridge_id, safe='')}/addChannel"
        await self._http.ask("POST", path, {"channel": ",".join(channel_ids)})

    async def destroy_bridge(self, bridge_id: str) -> bool:
        """Remove a bridge; whether there was one. The channels in it stay in their application."""
        try:
            await self._http.ask("DELETE", f"bridges/{quote(bridge_id, safe='')}")
        except AriNotFound:
            return False
        return True

    async def bridges_named(self, name: str) -> list[str]:
        """The ids of the bridges of this name."""
        answer = await self._http.ask("GET", "bridges")
        return [entry["id"] for entry in _entries(answer) if entry.get("name") == name]


def _entries(answer: Any) -> list[dict[str, Any]]:
    entries = answer if isinstance(answer, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
