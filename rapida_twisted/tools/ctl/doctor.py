"""``rapida-media-ctl doctor``: what is wrong with an installation, and what to do about it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol

from rapida_twisted.asterisk.ari.client import AriClient
from rapida_twisted.asterisk.doctor import Finding, Level, examine_asterisk
from rapida_twisted.asterisk.vault.vault import Vault, open_vault
from rapida_twisted.errors import RapidaError, SettingsError, StartError
from rapida_twisted.net.http_client import make_client
from rapida_twisted.net.untrusted_text import printable
from rapida_twisted.settings import Settings
from rapida_twisted.tools.api_key import find_api_key, state_directory
from rapida_twisted.tools.ctl.options import UsageError, add_command, http_url
from rapida_twisted.tools.ctl.server_client import Server, ServerRefused, with_server

__all__ = ["add_commands", "findings_text"]

CONNECT_S = 5.0
_PRINT_IT = "rapida-media-ctl dialplan prints the lines"


def add_commands(commands: Any) -> None:
    """Add ``doctor``."""
    parser = add_command(
        commands, "doctor", _doctor, "check this installation, and tell what to do about it", server=True, key=True
    )
    parser.add_argument("--credential", metavar="NAME", help="look at this one's Asterisk alone")
    parser.add_argument(
        "--transport",
        choices=("audiosocket", "websocket"),
        help="what must work [default: one of them, the other is a warning]",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _doctor(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = Settings.from_mapping(environ)
    vault = open_vault(state_directory(words.state_dir, environ), environ)
    findings: list[Finding] = []

    async def look(server: Server) -> None:
        findings.extend(await _Doctor(words, environ, settings, vault, server).examine())

    with_server(words.http, None, look)
    if words.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        print(findings_text(findings))
    return int(any(finding.level is Level.BAD for finding in findings))


def findings_text(findings: list[Finding]) -> str:
    """A line for each finding, and below it what to do."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level.value:<5}{printable(finding.what)}")
        if finding.advice:
            lines.append(f"     -> {printable(finding.advice)}")
    return "\n".join(lines)


class _Doctor:
    """One examination."""

    def __init__(
        self, words: argparse.Namespace, environ: Mapping[str, str], settings: Settings, vault: Vault, server: Server
    ) -> None:
        self._words = words
        self._environ = environ
        self._settings = settings
        self._vault = vault
        self._server = server
        self._reactor = server.reactor

    async def examine(self) -> list[Finding]:
        """Look at everything."""
        findings = await self._look_at_server()
        server_is_up = findings[0].level is Level.OK
        try:
            entries = self._vault.list()
        except (SettingsError, StartError) as error:
            advice = "bring the right master key back (VAULT__MASTER_KEY, VAULT__MASTER_KEY_FILE, or vault-key)"
            return [*findings, Finding(Level.BAD, str(error), advice)]
        names = [entry.name for entry in entries if self._words.credential in (None, entry.name)]
        if self._words.credential and not names:
            raise UsageError(f"the vault has no credential {self._words.credential!r}")
        if not names:
            advice = "to place calls, and to have Asterisk looked at: rapida-media-ctl vault set NAME --ari-url ..."
            return [*findings, Finding(Level.SKIPPED, "Asterisk: the vault has no credential for its ARI", advice)]
        looking = [Deferred.fromCoroutine(self._asterisk(name, server_is_up)) for name in names]
        return findings + [finding for found in await gatherResults(looking) for finding in found]

    # The server

    async def _look_at_server(self) -> list[Finding]:
        url = self._words.http
        try:
            ready = await self._server.ask("/readyz")
        except RapidaError as error:
            advice = "start it (twistd rapida-media), or name its address (--http)"
            return [Finding(Level.BAD, f"the server at {url}: {error}", advice)]
        if ready.status != 200:
            what = f"the server at {url} takes no calls now ({ready.status})"
            return [Finding(Level.BAD, what, "its log says why: it stops, or its call store does not work")]
        found = Finding(Level.OK, f"the server at {url} is up and ready")
        try:
            key = find_api_key(self._words.key_file, self._words.state_dir, self._environ)
        except ValueError as error:
            return [found, Finding(Level.BAD, str(error), "set RAPIDA_API_KEY, or name the key's file (--key-file)")]
        if await self._is_accepted(key):
            return [found, Finding(Level.OK, "the server accepts the API key that is here")]
        advice = "set RAPIDA_API_KEY or STATE_DIR as the server has it, or name the key's file (--key-file)"
        return [found, Finding(Level.BAD, "the server does not accept the API key that is here", advice)]

    async def _is_accepted(self, key: str) -> bool:
        """Whether the server takes a key. It alone is asked, not what a dialplan calls it: that might be anybody."""
        if not (key.isascii() and key.isprintable()):
            return False
        try:
            reply = await Server(self._words.http, key, self._reactor).ask("/v1/calls", query={"limit": "1"})
        except ServerRefused as refused:
            # The key is known, and not for reading.
            return refused.status == 403
        return reply.status == 200

    async def _registers_calls(self, key: str) -> bool:
        """Whether the server takes a key for what a dialplan does; no call is registered."""
        if not await self._is_accepted(key):
            return False
        try:
            await Server(self._words.http, key, self._reactor).ask(f"/v1/talk/asterisk/ctx/{UUID(int=0)}/next")
        except ServerRefused:
            return False
        return True

    # Asterisk

    async def _asterisk(self, name: str, server_is_up: bool) -> list[Finding]:
        client, pool = make_client(self._reactor, self._settings.tls_ca_file)
        ari = AriClient(
            self._vault.get(name),
            treq_client=client,
            reactor=self._reactor,
            timeout_s=self._settings.ari_timeout_s,
        )
        transports = [self._words.transport] if self._words.transport else []
        findings, values = await examine_asterisk(ari, transports, time.time)
        await pool.closeCachedConnections()
        if values is None:
            return findings
        return findings + await self._dialplan(name, values, server_is_up)

    async def _dialplan(self, name: str, values: Mapping[str, str], server_is_up: bool) -> list[Finding]:
        """What the dialplan says of this server."""
        key = values.get("RAPIDA_API_KEY")
        url = values.get("RAPIDA_URL") or (f"https://{values['RAPIDA_HOST']}" if values.get("RAPIDA_HOST") else "")
        if not key and not url:
            what = f"{name}: the dialplan names no server (no RAPIDA_URL in its [globals])"
            return [Finding(Level.WARNING, what, f"{_PRINT_IT}; with Stasis (--stasis) it needs none")]
        findings = [await self._address(name, url)]
        if values.get("RAPIDA_AS_HOST") or values.get("RAPIDA_PORT"):
            findings.append(await self._port(name, values))
        if not server_is_up:
            return [*findings, Finding(Level.SKIPPED, f"{name}: the dialplan's API key: the server can't be asked")]
        if key and await self._registers_calls(unquote(key)):
            return [*findings, Finding(Level.OK, f"{name}: the server accepts the dialplan's RAPIDA_API_KEY")]
        what = f"{name}: the server does not accept the dialplan's RAPIDA_API_KEY"
        advice = f"put the server's key into extensions.conf ({_PRINT_IT}, with --with-key the key too), and reload it"
        return [*findings, Finding(Level.BAD, what, advice)]

    async def _address(self, name: str, url: str) -> Finding:
        what = f"{name}: the dialplan's HTTP address {url}"
        try:
            http_url(url)
            reply = await Server(url.rstrip("/"), None, self._reactor).ask("/healthz", timeout_s=CONNECT_S)
        except (argparse.ArgumentTypeError, RapidaError) as error:
            return Finding(Level.BAD, f"{what} is not reached from here: {error}", f"mend RAPIDA_URL: {_PRINT_IT}")
        if reply.status != 200:
            what += f" is not that of a rapida-media server ({reply.status})"
            return Finding(Level.BAD, what, f"mend RAPIDA_URL: {_PRINT_IT}")
        return Finding(Level.OK, f"{what} is reached (tried from here, not from Asterisk)")

    async def _port(self, name: str, values: Mapping[str, str]) -> Finding:
        host, port = values.get("RAPIDA_AS_HOST", ""), values.get("RAPIDA_PORT", "")
        what = f"{name}: the dialplan's AudioSocket address {host}:{port}"
        number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
        try:
            address = urlsplit(f"//{host}").hostname or ""
            await _connect(address, number, self._reactor)
        except Exception as error:
            advice = f"mend RAPIDA_AS_HOST and RAPIDA_PORT ({_PRINT_IT}), or let the server listen there"
            return Finding(Level.BAD, f"{what} is not reached from here: {error}", advice)
        return Finding(Level.OK, f"{what} is reached (tried from here, not from Asterisk)")


async def _connect(host: str, port: int, reactor: Any) -> None:
    """Connect, and hang up at once; whatever prevents it is raised."""
    if not host or not 0 < port < 65536:
        raise ValueError("that is no host and port")
    await HostnameEndpoint(reactor, host, port, timeout=CONNECT_S).connect(Factory.forProtocol(_Knock))


class _Knock(Protocol):
    """Hangs up as soon as the door opens."""

    def connectionMade(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()
