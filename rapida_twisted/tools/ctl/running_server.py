"""Finds the running server of this machine, and asks it for its addresses."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

import attrs

from rapida_twisted.server.addresses import Addresses
from rapida_twisted.settings import load
from rapida_twisted.settings.groups import AdminSettings, HttpSettings, host_for

__all__ = ["describe_server", "server_url"]

ANSWER_S = 5.0
LARGEST_BYTES = 65536


def server_url(environ: Mapping[str, str]) -> str:
    """The address at which to ask the server: its port for operators if something listens there, else its HTTP port.

    :raises SettingsError: a setting can't be used.
    """
    admin, http = load(AdminSettings, environ), load(HttpSettings, environ)
    if admin.port and ("ADMIN__PORT" in environ or "ADMIN__HOST" in environ or _listens(admin)):
        return f"http://{host_for(admin.host)}:{admin.port}"
    return f"http://{host_for(http.host)}:{http.port or 8080}"


def _listens(admin: AdminSettings) -> bool:
    try:
        socket.create_connection((host_for(admin.host).strip("[]"), admin.port), 1).close()
    except OSError:
        return False
    return True


def describe_server(url: str, api_key: str) -> Addresses | None:
    """The addresses of a running server; None if no server answers there, or not to this key."""
    parts = urlsplit(url)
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    with closing(connect(parts.hostname or "", parts.port, timeout=ANSWER_S)) as connection:
        try:
            connection.request("GET", f"{parts.path}/v1/server", headers={"x-api-key": api_key})
            response = connection.getresponse()
            content = json.loads(response.read(LARGEST_BYTES))
            return Addresses(**{field.name: content[field.name] for field in attrs.fields(Addresses)})
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            return None
