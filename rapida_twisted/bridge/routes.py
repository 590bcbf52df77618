"""Where calls are carried on to: how a call is registered there, if it is, and how its media is connected."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from rapida_twisted.audio.formats import SLIN, AudioFormat
from rapida_twisted.bridge.far_end_audiosocket import connect_audiosocket
from rapida_twisted.bridge.far_end_websocket import connect_websocket
from rapida_twisted.bridge.register import UpstreamClient
from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import IFarEnd, IFarEndUser
from rapida_twisted.settings import Settings
from rapida_twisted.wire.chan_websocket import ControlForm

__all__ = ["AudioSocketRoute", "HostedRoute", "Route", "WebSocketRoute", "route_of"]

TlsOptions = Callable[[str], Any]
"""How to verify the host of that name, for an endpoint of Twisted."""

_PORTS = {"ws": 80, "wss": 443}


class Route(Protocol):
    """One way to another server."""

    name: str
    """The server's host and port, for logs."""
    format: AudioFormat
    """Of the audio on the connection."""
    registers: bool
    """Whether a call is registered there before its media is connected."""

    async def register(self, context: CallContext) -> str:
        """Register a call there; gives the contextId that it got.

        :raises UpstreamFailed: it was not registered.
        """

    async def connect(self, context: CallContext, upstream_id: str, user: IFarEndUser) -> IFarEnd:
        """Connect a call's media.

        :param upstream_id: what :meth:`register` gave; empty where calls are not registered.
        :raises UpstreamFailed: it was not let in.
        """


class _Registering:
    """What routes share that may register calls."""

    def __init__(self, settings: Settings, *, treq_client: Any, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self.registers = bool(settings.upstream_url)
        if not self.registers:
            return
        _host_and_port(settings.upstream_url)
        if "?" in settings.upstream_url:
            raise SettingsError("UPSTREAM__URL can't be used: it is the address of a server, without a query")
        if not settings.upstream_api_key:
            raise SettingsError("UPSTREAM__URL needs UPSTREAM__API_KEY: the key that the server there knows")
        self._client = UpstreamClient(
            settings.upstream_url,
            settings.upstream_api_key,
            assistant_id=settings.upstream_assistant_id,
            treq_client=treq_client,
            reactor=reactor,
            timeout_s=settings.upstream_timeout_s,
        )

    async def register(self, context: CallContext) -> str:
        """Register a call there; see :class:`Route`."""
        return await self._client.register(context)


class _OverWebSocket:
    """What routes share whose media goes over a WebSocket.

    :param url: any of those that will be connected.
    """

    def __init__(self, url: str, settings: Settings, tls_options: TlsOptions, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self.name = _host_and_port(url)
        self.format = AudioFormat.from_asterisk(settings.upstream_format)
        # Once: whatever is wrong with the name or the authorities shows at the start, not in a call.
        self._tls_options = _tls_options_of(url, tls_options)

    async def _open(self, url: str, context: CallContext, user: IFarEndUser) -> IFarEnd:
        return await connect_websocket(
            url,
            user=user,
            format=self.format,
            form=ControlForm[self._settings.upstream_control.upper()],
            context=context,
            tls_options=self._tls_options,
            reactor=self._reactor,
            timeout_s=self._settings.upstream_timeout_s,
        )


class HostedRoute(_Registering, _OverWebSocket):
    """Another assistant-api: registered over HTTP, media over WebSocket, both at ``UPSTREAM__URL``.

    :raises SettingsError: there is no such setting, or it can't be used.
    """

    def __init__(self, settings: Settings, *, treq_client: Any, tls_options: TlsOptions, reactor: Any) -> None:
        if not settings.upstream_url:
            raise SettingsError(
                "the assistant 'bridge' needs UPSTREAM__URL, such as https://assistant.example.com, or an address of"
                " its own: bridge:wss://... or bridge:audiosocket://HOST:PORT"
            )
        _Registering.__init__(self, settings, treq_client=treq_client, reactor=reactor)
        scheme, _, rest = settings.upstream_url.partition("://")
        self._base = f"{'wss' if scheme.lower() == 'https' else 'ws'}://{rest.rstrip('/')}"
        _OverWebSocket.__init__(self, self._base, settings, tls_options, reactor)

    async def connect(self, context: CallContext, upstream_id: str, user: IFarEndUser) -> IFarEnd:
        """Connect to ``/v1/talk/asterisk/ctx/{contextId}``, as Rapida's page has it."""
        query = urlencode({"x-api-key": self._settings.upstream_api_key})
        return await self._open(f"{self._base}/v1/talk/asterisk/ctx/{upstream_id}?{query}", context, user)


class WebSocketRoute(_OverWebSocket):
    """A program that speaks chan_websocket, at an address of its own. Calls are not registered there: what is known of
    a call is in the query, as Asterisk's ``v()`` puts it there.

    :raises SettingsError: the address can't be used.
    """

    registers = False

    def __init__(self, url: str, settings: Settings, *, tls_options: TlsOptions, reactor: Any) -> None:
        super().__init__(url, settings, tls_options, reactor)
        self._url = url

    async def register(self, context: CallContext) -> str:
        """Nothing to do."""
        return ""

    async def connect(self, context: CallContext, upstream_id: str, user: IFarEndUser) -> IFarEnd:
        """Connect to the address, with the call's contextId, caller and called number in the query."""
        query = urlencode({"contextId": context.context_id, "from": context.caller, "to": context.called})
        return await self._open(f"{self._url}{'&' if '?' in self._url else '?'}{query}", context, user)


class AudioSocketRoute(_Registering):
    """An AudioSocket server. Where ``UPSTREAM__URL`` is set, a call is registered there first and its UUID is the
    contextId that it got, as Rapida's page has it; else it is our own contextId.

    :raises SettingsError: the address can't be used.
    """

    format = SLIN

    def __init__(self, url: str, settings: Settings, *, treq_client: Any, reactor: Any) -> None:
        super().__init__(settings, treq_client=treq_client, reactor=reactor)
        self.name = _host_and_port(url, port_only=True)
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0

    async def register(self, context: CallContext) -> str:
        """Register a call, if there is where to."""
        return await super().register(context) if self.registers else ""

    async def connect(self, context: CallContext, upstream_id: str, user: IFarEndUser) -> IFarEnd:
        """Connect, and say the UUID."""
        return await connect_audiosocket(
            self._host,
            self._port,
            UUID(upstream_id or context.context_id),
            user=user,
            reactor=self._reactor,
            timeout_s=self._settings.upstream_timeout_s,
        )


def route_of(argument: str, settings: Settings, *, treq_client: Any, tls_options: TlsOptions, reactor: Any) -> Route:
    """The route that ``bridge:ARGUMENT`` names.

    :raises SettingsError: it is none, or a setting is missing.
    """
    if not argument:
        return HostedRoute(settings, treq_client=treq_client, tls_options=tls_options, reactor=reactor)
    scheme = argument.partition("://")[0]
    if scheme in _PORTS:
        return WebSocketRoute(argument, settings, tls_options=tls_options, reactor=reactor)
    if scheme == "audiosocket":
        return AudioSocketRoute(argument, settings, treq_client=treq_client, reactor=reactor)
    raise SettingsError(
        f"bridge:{_shown(argument)} can't be used: it is 'bridge', bridge:wss://HOST/PATH, bridge:ws://HOST/PATH or"
        " bridge:audiosocket://HOST:PORT"
    )


def _host_and_port(url: str, port_only: bool = False) -> str:
    """``host:port`` of an address.

    :param port_only: whether the port must be there, and nothing behind it.
    :raises SettingsError: it is none, or has a password in it.
    """
    try:
        parts = urlsplit(url)
        port = {"http": 80, "https": 443, **_PORTS}.get(parts.scheme, 0) if parts.port is None else parts.port
        host = parts.hostname or ""
    except ValueError:
        host, port = "", 0
    plain = url.isascii() and url.isprintable() and " " not in url and "#" not in url
    if port_only and url.partition("://")[2].removesuffix("/") != parts.netloc:
        plain = False
    if not host or not port or not plain or "@" in parts.netloc:
        wanted = "HOST:PORT and nothing more" if port_only else "HOST or HOST:PORT and a path, without a '#'"
        raise SettingsError(
            f"the address {_shown(url)!r} can't be used: after :// comes {wanted}; no password, and no blank"
        )
    return f"[{host}]:{port}" if _is_ipv6(host) else f"{host}:{port}"


def _shown(url: str) -> str:
    """An address as far as it may be quoted: without what may be a secret in it."""
    return re.sub(r"//.*@.*|\?.*", "...", url, flags=re.DOTALL)


def _tls_options_of(url: str, tls_options: TlsOptions) -> Any:
    """How the server of an address is verified; None without TLS.

    :raises SettingsError: certificates can't be for such a name, or there are no authorities.
    """
    parts = urlsplit(url)
    if parts.scheme != "wss":
        return None
    try:
        return tls_options(parts.hostname or "")
    except UnicodeError:
        raise SettingsError(f"the host {parts.hostname!r} can't be used: no certificate is for such a name") from None
    except ValueError as error:
        raise SettingsError(f"TLS__CA_FILE: {error}") from None


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
