"""What the server offers to assistants' factories, made of the server's own parts."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from twisted.web.resource import IResource

from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantEnvironment, Counters, EntryKind
from rapida_twisted.net.http_client import Client, make_client
from rapida_twisted.net.tls import tls_options

__all__ = ["make_environment"]

IDLE_S = 30.0
"""How long (s) an unused connection of an assistant's HTTP client is kept."""


def make_environment(
    reactor: Any,
    state_dir: Path,
    *,
    check_transfer: Callable[[str], None],
    counters: Counters,
    pages: MutableMapping[bytes, IResource],
    record: Callable[[str, EntryKind, str], None],
    ca_file: str = "",
    has_asyncio: bool = True,
) -> AssistantEnvironment:
    """The environment of all factories; the registry adds each factory's own settings.

    :param pages: gets the resources that assistants serve, by their paths below ``/v1``.
    :param record: adds an entry to a call's journal.
    :param ca_file: the authorities to trust in place of the public ones.
    :param has_asyncio: whether the server runs on asyncio's reactor.
    """

    def http_client() -> Client:
        try:
            return make_client(reactor, ca_file, retries=False, idle_s=IDLE_S)[0]
        except ValueError as error:
            raise SettingsError(f"TLS__CA_FILE: {error}") from None

    def add_resource(path: str, resource: IResource) -> None:
        pages[b"assistants/" + path.encode()] = resource

    return AssistantEnvironment(
        reactor,
        state_dir,
        has_asyncio=has_asyncio,
        check_transfer=check_transfer,
        counters=counters,
        http_client=http_client,
        tls_options=lambda host: tls_options(host, ca_file),
        add_resource=add_resource,
        record=record,
    )
