"""Where a server listens, and how Asterisk reaches it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import attrs

from rapida_twisted.ports.connection_limiter import ConnectionLimits
from rapida_twisted.ports.endpoints import is_proxied, tcp_endpoint
from rapida_twisted.ports.server_ports import ADMIN, AUDIOSOCKET, HTTP, HTTPS, PortSpec
from rapida_twisted.settings import Settings

__all__ = ["DEFAULT_ASSISTANT", "Addresses", "addresses", "port_specs"]

DEFAULT_ASSISTANT = "123456789"


def port_specs(settings: Settings) -> dict[str, PortSpec]:
    """The ports to listen on, by name."""
    http, audiosocket, admin, limits = settings.http, settings.audiosocket, settings.admin, settings.connections
    common = ConnectionLimits(
        proxies=limits.proxy_allow,
        connections=limits.max,
        per_address=limits.of_address,
        rate=limits.rate,
        address_rate=limits.address_rate,
        reserved=limits.reserved,
        reserved_for=limits.reserved_for,
    )
    of_http = replace(common, makes_room=True)
    specs = {
        HTTP: PortSpec(http.endpoint or tcp_endpoint(http.host, http.port), of_http, http.port),
        AUDIOSOCKET: PortSpec(
            audiosocket.endpoint or tcp_endpoint(audiosocket.host, audiosocket.port),
            replace(common, networks=audiosocket.allow),
            audiosocket.port,
        ),
    }
    if http.https_endpoint:
        specs[HTTPS] = PortSpec(http.https_endpoint, of_http)
    if admin.port:
        advice = "set ADMIN__PORT to a free port, or to 0 for none"
        specs[ADMIN] = PortSpec(tcp_endpoint(admin.host, admin.port), of_http, admin.port, advice)
    return specs


@attrs.frozen(kw_only=True)
class Addresses:
    """How Asterisk and operators reach a server. A port is 0 where there is none, or where it is not known: behind a
    proxy, it is the proxy's."""

    http_host: str
    http_port: int
    https_port: int
    audiosocket_host: str
    audiosocket_port: int
    admin_port: int
    assistant_id: str
    """The first id that the settings name, else the examples' one."""


def addresses(settings: Settings, port_of: Callable[[str], int], assistant_ids: Iterable[str]) -> Addresses:
    """The addresses of a server.

    :param port_of: returns a port's number by its name.
    """
    http, audiosocket, public = settings.http, settings.audiosocket, settings.public
    return Addresses(
        http_host=public.host_for(http.host),
        http_port=0 if is_proxied(http.endpoint) else port_of(HTTP),
        https_port=0 if is_proxied(http.https_endpoint) else port_of(HTTPS),
        audiosocket_host=public.host_for(audiosocket.host),
        audiosocket_port=public.audiosocket_port or (0 if is_proxied(audiosocket.endpoint) else port_of(AUDIOSOCKET)),
        admin_port=port_of(ADMIN),
        assistant_id=next((name for name in assistant_ids if name != "*"), DEFAULT_ASSISTANT),
    )
