"""``rapida-media-ctl doctor``: checks an installation, and advises how to repair it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol

from rapida_twisted.asterisk.ari.client import AriClient
from rapida_twisted.asterisk.doctor import Finding, Level, examine_asterisk
from rapida_twisted.asterisk.vault.vault import Vault, open_vault
from rapida_twisted.credentials.grant import Scope
from rapida_twisted.errors import RapidaError, SettingsError, StartError
from rapida_twisted.net.http_client import make_client
from rapida_twisted.net.untrusted_text import printable
from rapida_twisted.settings import load
from rapida_twisted.settings.groups import AriSettings, TlsSettings
from rapida_twisted.tools.api_key import find_api_key
from rapida_twisted.tools.ctl.options import UsageError, add_command, http_url
from rapida_twisted.tools.ctl.server_client import ServerClient, ServerRefused, run_with_server
from rapida_twisted.tools.terminal import GREEN, RED, YELLOW, has_colour, paint

__all__ = ["add_commands", "findings_text"]

CONNECT_S = 5.0
_COLOURS = {Level.OK: GREEN, Level.BAD: RED, Level.WARNING: YELLOW}
_DIALPLAN_ADVICE = "rapida-media-ctl dialplan prints the lines"


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "doctor", _doctor, server=True, key=True)
    parser.add_argument("--credential", metavar="NAME", help="check only the Asterisk of this credential")
    parser.add_argument(
        "--transport",
        choices=("audiosocket", "websocket"),
        help="transport that must work [default: either; report the other as a warning]",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _doctor(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    tls, ari = load(TlsSettings, environ), load(AriSettings, environ)
    vault = open_vault(arguments.state_dir, environ)

    async def examine(server: ServerClient) -> list[Finding]:
        return await _Doctor(arguments, environ, tls, ari, vault, server).examine()

    findings = run_with_server(arguments.http, None, examine)
    as_json = json.dumps([asdict(finding) for finding in findings])
    print(as_json if arguments.json else findings_text(findings, has_colour(sys.stdout)))
    return int(any(finding.level is Level.BAD for finding in findings))


def findings_text(findings: list[Finding], coloured: bool = False) -> str:
    """A line for each finding, followed by a line with its advice."""
    lines = []
    for finding in findings:
        level = paint(finding.level.value, _COLOURS.get(finding.level), coloured)
        lines.append(f"{level}{' ' * (5 - len(finding.level.value))}{printable(finding.what)}")
        if finding.advice:
            lines.append(f"     -> {printable(finding.advice)}")
    return "\n".join(lines)


class _Doctor:
    """One examination."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        environ: Mapping[str, str],
        tls: TlsSettings,
        ari: AriSettings,
        vault: Vault,
        server: ServerClient,
    ) -> None:
        self._arguments = arguments
        self._environ = environ
        self._tls = tls
        self._ari = ari
        self._vault = vault
        self._server = server
        self._reactor = server.reactor

    async def examine(self) -> list[Finding]:
        findings = await self._check_server()
        server_is_up = findings[0].level is Level.OK
        try:
            entries = self._vault.list()
        except (SettingsError, StartError) as error:
            advice = "restore the right master key (VAULT__MASTER_KEY, VAULT__MASTER_KEY_FILE, or vault-key)"
            return [*findings, Finding(Level.BAD, str(error), advice)]
        names = [entry.name for entry in entries if self._arguments.credential in (None, entry.name)]
        if self._arguments.credential and not names:
            raise UsageError(f"the vault has no credential {self._arguments.credential!r}")
        if not names:
            advice = "to place calls, and to have Asterisk checked: rapida-media-ctl vault set NAME --ari-url ..."
            return [*findings, Finding(Level.SKIPPED, "Asterisk: the vault has no credential for its ARI", advice)]
        checking = [Deferred.fromCoroutine(self._check_asterisk(name, server_is_up)) for name in names]
        return findings + [finding for found in await gatherResults(checking) for finding in found]

    # The server

    async def _check_server(self) -> list[Finding]:
        url = self._arguments.http
        try:
            ready = await self._server.request("/readyz")
        except RapidaError as error:
            advice = (
                "start it (script/serve, or twistd rapida-media), or name its address (--http), best that of its port"
                " for operators"
            )
            return [Finding(Level.BAD, f"the server at {url}: {error}", advice)]
        if ready.status != 200:
            what = f"the server at {url} takes no calls now ({ready.status})"
            return [Finding(Level.BAD, what, "see its log: it is stopping, or its call store does not work")]
        found = Finding(Level.OK, f"the server at {url} is up and ready")
        try:
            key = find_api_key(self._arguments.key_file, self._arguments.state_dir, self._environ)
        except ValueError as error:
            return [found, Finding(Level.BAD, str(error), "set RAPIDA_API_KEY, or name the key's file (--key-file)")]
        if await self._accepts_key(key):
            return [found, Finding(Level.OK, "the server accepts the local API key")]
        advice = "set RAPIDA_API_KEY or STATE_DIR as the server has it, or name the key's file (--key-file)"
        return [found, Finding(Level.BAD, "the server does not accept the local API key", advice)]

    async def _accepts_key(self, key: str) -> bool:
        return bool(await self._scopes(key))

    async def _can_register(self, key: str) -> bool:
        """Whether the server accepts a key for the dialplan's requests."""
        return Scope.REGISTER in await self._scopes(key)

    async def _scopes(self, key: str) -> list[str]:
        """A key's scopes at the configured server: the dialplan's address might belong to another one."""
        if not (key.isascii() and key.isprintable()):
            return []
        try:
            response = await ServerClient(self._arguments.http, key, self._reactor).request("/v1/server")
        except ServerRefused:
            return []
        return list(response.content["scopes"]) if response.status == 200 else []

    # Asterisk

    async def _check_asterisk(self, name: str, server_is_up: bool) -> list[Finding]:
        client, pool = make_client(self._reactor, self._tls.ca_file)
        ari = AriClient(self._vault.get(name), treq_client=client, reactor=self._reactor, timeout_s=self._ari.timeout_s)
        transports = [self._arguments.transport] if self._arguments.transport else []
        findings, globals_ = await examine_asterisk(ari, transports, time.time)
        await pool.closeCachedConnections()
        return findings if globals_ is None else findings + await self._check_dialplan(name, globals_, server_is_up)

    async def _check_dialplan(self, name: str, globals_: Mapping[str, str], server_is_up: bool) -> list[Finding]:
        """Compare the dialplan's ``[globals]`` with this server."""
        key, host = globals_.get("RAPIDA_API_KEY"), globals_.get("RAPIDA_HOST")
        url = globals_.get("RAPIDA_URL") or (f"https://{host}" if host else "")
        if not key and not url:
            what = f"{name}: the dialplan names no server (no RAPIDA_URL in its [globals])"
            return [Finding(Level.WARNING, what, f"{_DIALPLAN_ADVICE}; a dialplan with Stasis (--stasis) needs none")]
        findings = [await self._check_address(name, url)]
        if globals_.get("RAPIDA_AS_HOST") or globals_.get("RAPIDA_PORT"):
            findings.append(await self._check_port(name, globals_))
        if not server_is_up:
            what = f"{name}: the dialplan's API key: the server does not answer"
            return [*findings, Finding(Level.SKIPPED, what)]
        if key and await self._can_register(unquote(key)):
            return [*findings, Finding(Level.OK, f"{name}: the server accepts the dialplan's RAPIDA_API_KEY")]
        what = f"{name}: the server does not accept the dialplan's RAPIDA_API_KEY"
        advice = f"put the server's key into extensions.conf ({_DIALPLAN_ADVICE}; add --with-key), and reload it"
        return [*findings, Finding(Level.BAD, what, advice)]

    async def _check_address(self, name: str, url: str) -> Finding:
        what = f"{name}: the dialplan's HTTP address {url}"
        advice = f"correct RAPIDA_URL: {_DIALPLAN_ADVICE}"
        try:
            http_url(url)
            response = await ServerClient(url.rstrip("/"), None, self._reactor).request("/healthz", timeout_s=CONNECT_S)
        except (argparse.ArgumentTypeError, RapidaError) as error:
            return Finding(Level.BAD, f"{what} is not reachable from here: {error}", advice)
        if response.status != 200:
            return Finding(Level.BAD, f"{what} is not that of a rapida-media server ({response.status})", advice)
        return Finding(Level.OK, f"{what} is reachable (tried from here, not from Asterisk)")

    async def _check_port(self, name: str, globals_: Mapping[str, str]) -> Finding:
        host, port = globals_.get("RAPIDA_AS_HOST", ""), globals_.get("RAPIDA_PORT", "")
        what = f"{name}: the dialplan's AudioSocket address {host}:{port}"
        number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
        try:
            address = urlsplit(f"//{host}").hostname or ""
            if not address or not 0 < number < 65536:
                raise ValueError("this is no host and port")
            endpoint = HostnameEndpoint(self._reactor, address, number, timeout=CONNECT_S)
            await endpoint.connect(Factory.forProtocol(_ConnectProbe))
        except Exception as error:
            advice = f"correct RAPIDA_AS_HOST and RAPIDA_PORT ({_DIALPLAN_ADVICE}), or let the server listen there"
            return Finding(Level.BAD, f"{what} is not reachable from here: {error}", advice)
        return Finding(Level.OK, f"{what} is reachable (tried from here, not from Asterisk)")


class _ConnectProbe(Protocol):
    """Closes its connection at once."""

    def connectionMade(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()
