"""The routes of ``bridge[:ADDRESS]``: whether and where a bridged call is registered, and how its media connects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from rapida_twisted.audio.formats import SLIN, AudioFormat
from rapida_twisted.bridge.far_end_audiosocket import connect_audiosocket
from rapida_twisted.bridge.far_end_websocket import connect_websocket
from rapida_twisted.bridge.placeholders import check_placeholders, fill, has_placeholders
from rapida_twisted.bridge.register import RegistrationClient
from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import IFarEnd, IFarEndUser
from rapida_twisted.net.addresses import host_and_port, host_port_of
from rapida_twisted.settings.argument import Argument
from rapida_twisted.settings.groups import UpstreamSettings
from rapida_twisted.wire.chan_websocket import ControlForm

__all__ = ["AudioSocketRoute", "HostedRoute", "Route", "WebSocketRoute", "route_of"]

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A field name (RFC 9110, 5.1)."""
_OF_THE_HANDSHAKE = ("host", "upgrade", "connection", "origin", "content-length", "transfer-encoding", "sec-websocket-")

TlsOptions = Callable[[str], Any]
"""Makes the TLS options of a connection to the named host, for a Twisted endpoint."""


class Route(Protocol):
    """One way to another server."""

    name: str
    """The server's host and port, for logs."""
    format: AudioFormat
    """Of the far end's audio."""
    registers: bool
    """True if each call is registered before its media is connected."""

    async def register(self, context: CallContext) -> str:
        """Register a call at the server; returns its contextId there.

        :raises UpstreamFailed: it is not registered.
        """

    async def connect(self, context: CallContext, upstream_id: str, user: IFarEndUser) -> IFarEnd:
        """Connect a call's media.

        :param upstream_id: the result of :meth:`register`; empty where calls are not registered.
        :raises UpstreamFailed: the server did not accept the call.
        """


class _RegisteringRoute:
    """Registers calls at ``UPSTREAM__URL``, if it is set."""

    def __init__(self, settings: UpstreamSettings, *, treq_client: Any, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self.registers = bool(settings.url)
        if not self.registers:
            return
        _host_and_port(settings.url)
        if "?" in settings.url:
            raise SettingsError("UPSTREAM__URL must be a server's address without a query")
        if not settings.api_key:
            raise SettingsError("UPSTREAM__URL needs UPSTREAM__API_KEY: a key of that server")
        self._client = RegistrationClient(
            settings.url,
            settings.api_key,
            assistant_id=settings.assistant_id,
            treq_client=treq_client,
            reactor=reactor,
            timeout_s=settings.timeout_s,
        )

    async def register(self, context: CallContext) -> str:
        return await self._client.register(context)


class _WebSocketRoute:
    """Connects media over a WebSocket.

    :param url: any URL at the server.
    :param headers: further headers of the handshake, with placeholders.
    """

    def __init__(
        self, url: str, settings: UpstreamSettings, headers: Mapping[str, str], tls_options: TlsOptions, reactor: Any
    ) -> None:
        for name, value in headers.items():
            if not _HEADER.fullmatch(name) or name.lower().startswith(_OF_THE_HANDSHAKE):
                raise SettingsError(f"the header {name!r} can't be set")
            check_placeholders(value)
        self._headers = headers
        self._settings = settings
        self._reactor = reactor
        self.name = _host_and_port(url)
        self.format = AudioFormat.from_asterisk(settings.format)
        # Now, so that a bad host name or CA file fails the start and not a call.
        self._tls_options = _tls_options_of(url, tls_options)

    async def _open(self, url: str, context: CallContext, user: IFarEndUser) -> IFarEnd:
        return await connect_websocket(
            url,
            user=user,
            format=self.format,
            form=ControlForm[self._settings.control.upper()],
            context=context,
            headers={name: fill(value, context, in_url=False) for name, value in self._headers.items()},
            tls_options=self._tls_options,
            reactor=self._reactor,
            timeout_s=self._settings.timeout_s,
            stalled_s=self._settings.stalled_s,
        )


class HostedRoute(_RegisteringRoute, _WebSocketRoute):
    """Another assistant-api: registration over HTTP, media over a WebSocket, both at ``UPSTREAM__URL``.

    :raises SettingsError: the setting is missing or invalid.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        headers: Mapping[str, str],
        *,
        treq_client: Any,
        tls_options: TlsOptions,
        reactor: Any,
    ) -> None:
        if not settings.url:
            raise SettingsError(
                "the assistant 'bridge' needs UPSTREAM__URL, such as https://assistant.example.com, or an address of"
                " its own: bridge:wss://... or bridge:audiosocket://HOST:PORT"
            )
        _RegisteringRoute.__init__(self, settings, treq_client=treq_client, reactor=reactor)
        scheme, _, rest = settings.url.partition("://")
        self._base = f"{'wss' if scheme.lower() == 'https' else 'ws'}://{rest.rstrip('/')}"
        _WebSocketRoute.__init__(self, self._base, settings, headers, tls_options, reactor)

    async def connect(self, context: CallContext, upstream_id: str, user: IFarEndUser) -> IFarEnd:
        """Connect to ``/v1/talk/asterisk/ctx/{contextId}``, as Rapida documents it."""
        query = urlencode({"x-api-key": self._settings.api_key})
        return await self._open(f"{self._base}/v1/talk/asterisk/ctx/{upstream_id}?{query}", context, user)


class WebSocketRoute(_WebSocketRoute):
    """A program that speaks chan_websocket. It gets the call's data in the query, as from Asterisk's ``v()``, without
    registration.

    :param url: an address with placeholders gets no other query than its own.
    :raises SettingsError: the address is invalid.
    """

    registers = False

    def __init__(
        self,
        url: str,
        settings: UpstreamSettings,
        headers: Mapping[str, str],
        *,
        tls_options: TlsOptions,
        reactor: Any,
    ) -> None:
        super().__init__(url, settings, headers, tls_options, reactor)
        check_placeholders(url)
        if not has_placeholders(url):
            query = "contextId={contextId}&from={from}&to={to}"
            url = f"{url}{'&' if '?' in url else '?'}{query}"
        self._url = url

    async def register(self, context: CallContext) -> str:
        return ""

    async def connect(self, context: CallContext, upstream_id: str, user: IFarEndUser) -> IFarEnd:
        return await self._open(fill(self._url, context, in_url=True), context, user)


class AudioSocketRoute(_RegisteringRoute):
    """An AudioSocket server. With ``UPSTREAM__URL``, a call is registered first and its UUID is the contextId from
    there, as Rapida documents it; otherwise its UUID is our own contextId.

    :raises SettingsError: the address is invalid.
    """

    format = SLIN

    def __init__(self, url: str, settings: UpstreamSettings, *, treq_client: Any, reactor: Any) -> None:
        super().__init__(settings, treq_client=treq_client, reactor=reactor)
        self.name = _host_and_port(url, port_only=True)
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0

    async def register(self, context: CallContext) -> str:
        return await super().register(context) if self.registers else ""

    async def connect(self, context: CallContext, upstream_id: str, user: IFarEndUser) -> IFarEnd:
        return await connect_audiosocket(
            self._host,
            self._port,
            UUID(upstream_id or context.context_id),
            user=user,
            reactor=self._reactor,
            timeout_s=self._settings.timeout_s,
            stalled_s=self._settings.stalled_s,
        )


def route_of(
    argument: Argument, settings: UpstreamSettings, *, treq_client: Any, tls_options: TlsOptions, reactor: Any
) -> Route:
    """The route that ``bridge:ARGUMENT`` names.

    :param settings: with the argument's options.
    :raises SettingsError: the argument is invalid, or a setting is missing.
    """
    address, headers = argument.address, argument.headers
    if not address:
        return HostedRoute(settings, headers, treq_client=treq_client, tls_options=tls_options, reactor=reactor)
    scheme = address.partition("://")[0]
    if scheme in ("ws", "wss"):
        return WebSocketRoute(address, settings, headers, tls_options=tls_options, reactor=reactor)
    if scheme == "audiosocket":
        if headers or {"format", "control"} & argument.options.keys():
            raise SettingsError("AudioSocket has no headers, no control messages, and slin at 8 kHz as its only format")
        return AudioSocketRoute(address, settings, treq_client=treq_client, reactor=reactor)
    raise SettingsError(
        f"bridge:{_masked(address)} is invalid: use 'bridge', bridge:wss://HOST/PATH, bridge:ws://HOST/PATH or"
        " bridge:audiosocket://HOST:PORT"
    )


def _host_and_port(url: str, port_only: bool = False) -> str:
    """``host:port`` of an address.

    :param port_only: require a port, and nothing behind it.
    :raises SettingsError: the address is invalid, or holds a password.
    """
    try:
        host, port = host_port_of(url)
    except ValueError:
        host, port = "", 0
    _, _, rest = url.partition("://")
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    plain = url.isascii() and url.isprintable() and " " not in url and "#" not in url
    if has_placeholders(netloc):
        plain = False
    if port_only and rest.removesuffix("/") != netloc:
        plain = False
    if not host or not port or not plain or "@" in netloc:
        wanted = "HOST:PORT and nothing more" if port_only else "HOST or HOST:PORT and a path, without a '#'"
        raise SettingsError(
            f"the address {_masked(url)!r} is invalid: after :// it needs {wanted}; no password, no blank"
        )
    return host_and_port(host, port)


def _masked(url: str) -> str:
    """An address for error texts: without the parts that may hold secrets."""
    return re.sub(r"//.*@.*|\?.*", "...", url, flags=re.DOTALL)


def _tls_options_of(url: str, tls_options: TlsOptions) -> Any:
    """Verifies the server of a ``wss:`` address; None without TLS.

    :raises SettingsError: no certificate can be valid for the host, or the CA file is invalid.
    """
    parts = urlsplit(url)
    try:
        return tls_options(parts.hostname or "") if parts.scheme == "wss" else None
    except UnicodeError:
        raise SettingsError(f"no certificate can be valid for the host {parts.hostname!r}") from None
    except ValueError as error:
        raise SettingsError(f"TLS__CA_FILE: {error}") from None
