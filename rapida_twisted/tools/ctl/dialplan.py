"""``rapida-media-ctl dialplan``: prints Asterisk's configuration for this server."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rapida_twisted.asterisk.asterisk_conf import (
    AriValues,
    ari_conf,
    audiosocket_modules,
    http_conf,
    modules_conf,
    stasis_modules,
    websocket_modules,
)
from rapida_twisted.asterisk.dialplan import (
    DialplanValues,
    audiosocket_dialplan,
    audiosocket_outbound_dialplan,
    freepbx_dialplan,
    stasis_dialplan,
    websocket_client_conf,
    websocket_dialplan,
    websocket_outbound_dialplan,
)
from rapida_twisted.asterisk.vault.vault import open_vault
from rapida_twisted.credentials.key_file import KEY_FILE
from rapida_twisted.net.addresses import bracketed
from rapida_twisted.ports.server_ports import AUDIOSOCKET, HTTP, HTTPS
from rapida_twisted.server.addresses import DEFAULT_ASSISTANT, Addresses, addresses
from rapida_twisted.settings import Settings, load
from rapida_twisted.settings.groups import (
    AriSettings,
    AssistantSettings,
    AudioSocketSettings,
    HttpSettings,
    PublicSettings,
)
from rapida_twisted.tools.api_key import find_api_key
from rapida_twisted.tools.ctl.options import UsageError, add_command, http_url
from rapida_twisted.tools.ctl.running_server import describe_server, server_url

__all__ = ["add_commands", "first_assistant"]

FILES = ("extensions.conf", "extensions_custom.conf", "websocket_client.conf", "http.conf", "ari.conf", "modules.conf")

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?")
_ASSISTANT = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_FILE = re.compile(r"/[A-Za-z0-9._/+-]{1,254}")


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "dialplan", _dialplan)
    parser.add_argument(
        "--transport", choices=("audiosocket", "websocket"), default="audiosocket", help="[default: audiosocket]"
    )
    parser.add_argument("--assistant", metavar="ID", type=_matching(_ASSISTANT), help="assistant [default: the first]")
    parser.add_argument(
        "--host",
        metavar="PUBLIC_HOST",
        type=_matching(_HOST),
        help="address of this server for Asterisk [default: $PUBLIC_ASSISTANT_HOST, or where it listens]",
    )
    parser.add_argument(
        "--http", metavar="URL", type=http_url, help="address of its HTTP port for Asterisk [default: of the settings]"
    )
    parser.add_argument(
        "--ca-file",
        metavar="FILE",
        type=_matching(_FILE),
        help="certificate (on Asterisk's machine) of the private CA that signed the server's",
    )
    parser.add_argument("--transfer", action="store_true", help="add the lines that carry out a transfer")
    parser.add_argument(
        "--stasis",
        action="store_true",
        help="send calls to the server's Stasis application: the dialplan holds no API key",
    )
    parser.add_argument(
        "--freepbx", action="store_true", help="print extensions_custom.conf for FreePBX, Issabel or VitalPBX"
    )
    parser.add_argument("--credential", metavar="NAME", help="print ARI's lines for this credential of the vault")
    parser.add_argument("--with-key", action="store_true", help="print the API key instead of its location")
    parser.add_argument("--key-file", metavar="FILE", type=Path, help="file of the API key [default: the server's own]")
    parser.add_argument(
        "--server",
        metavar="URL",
        type=http_url,
        help="take the ports from this running server [default: the one of this machine, else the settings]",
    )
    parser.add_argument("--file", metavar="NAME", choices=FILES, help=f"only this file: {', '.join(FILES)}")
    parser.add_argument("--write", metavar="DIR", type=Path, help="write the files into this directory")
    parser.add_argument("--overwrite", action="store_true", help="with --write: replace files that exist")


def _dialplan(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    files = _files(arguments, environ)
    if arguments.file is not None:
        if arguments.file not in files:
            raise UsageError(f"there is no {arguments.file} for this transport")
        files = {arguments.file: files[arguments.file]}
    if arguments.write is None:
        print("\n".join(files.values()), end="")
    else:
        _write(arguments.write, files, overwrite=arguments.overwrite)
    return 0


def _files(arguments: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, str]:
    """The text of each file by its name."""
    transfer, ca_file, files = arguments.transfer, arguments.ca_file or "", {}
    if arguments.freepbx and arguments.stasis:
        raise UsageError("--freepbx prints the lines of AudioSocket or WebSocket: omit --stasis")
    if arguments.stasis:
        parts, modules = [_stasis_dialplan(arguments, environ)], stasis_modules()
    elif arguments.transport == "websocket":
        values, modules = _values(arguments, environ), websocket_modules()
        parts = [
            websocket_dialplan(values, ca_file, transfer=transfer),
            websocket_outbound_dialplan(ca_file, transfer=transfer),
        ]
        files["websocket_client.conf"] = websocket_client_conf(values, ca_file)
    else:
        values, modules = _values(arguments, environ), audiosocket_modules()
        parts = [audiosocket_dialplan(values, transfer=transfer), audiosocket_outbound_dialplan(transfer=transfer)]
    if arguments.freepbx:
        # It writes http.conf and ari.conf itself, and loads all modules.
        return {"extensions_custom.conf": freepbx_dialplan("\n".join(parts)), **files}
    ari = _ari_values(arguments, environ)
    files |= {"http.conf": http_conf(ari), "ari.conf": ari_conf(ari), "modules.conf": modules_conf(modules)}
    return {"extensions.conf": "\n".join(parts), **files}


def _write(directory: Path, files: Mapping[str, str], *, overwrite: bool) -> None:
    """Write the files. A file that exists keeps its owner and its mode.

    :raises UsageError: a file exists, or can't be written.
    """
    existing = [name for name in files if (directory / name).exists()]
    if existing and not overwrite:
        raise UsageError(f"{directory} has {', '.join(existing)} already: nothing is written (--overwrite replaces)")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            # One that appears meanwhile is not overwritten either. Files may contain the API key.
            flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if overwrite else os.O_EXCL)
            with open(os.open(directory / name, flags, 0o640), "w", encoding="utf-8") as file:
                file.write(text)
            print(directory / name)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename}: {error.strerror}") from None


def _stasis_dialplan(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    if arguments.transport == "websocket":
        raise UsageError("--stasis uses AudioSocket: omit --transport")
    # Slow to import, and for this option alone.
    from rapida_twisted.asterisk.outbound.trunk import app_name

    arguments.credential = arguments.credential or _only_credential(arguments, environ)
    app = app_name(load(AriSettings, environ).app, arguments.credential)
    return stasis_dialplan(app, arguments.assistant or first_assistant(environ), transfer=arguments.transfer)


def _only_credential(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    entries = open_vault(arguments.state_dir, environ).list()
    if len(entries) != 1:
        raise UsageError(
            "the application's name ends with the credential's name: name this Asterisk's credential (--credential)"
        )
    return entries[0].name


def _values(arguments: argparse.Namespace, environ: Mapping[str, str]) -> DialplanValues:
    found = _of_running_server(arguments, environ) or _of_settings(environ)
    host = bracketed(arguments.host) if arguments.host else ""
    if arguments.transport == "audiosocket" and not found.audiosocket_port:
        raise UsageError(
            "the port by which Asterisk reaches AudioSocket is not known: set AUDIOSOCKET__PORT, or behind a proxy"
            " PUBLIC_AUDIOSOCKET_PORT"
        )
    return DialplanValues(
        api_key=_key(arguments, environ),
        http_url=arguments.http or _public_url(host or found.http_host, found),
        audiosocket_host=host or found.audiosocket_host,
        audiosocket_port=found.audiosocket_port,
        assistant_id=arguments.assistant or found.assistant_id,
    )


def _public_url(host: str, found: Addresses) -> str:
    """The server's address, with TLS if it has any."""
    if found.https_port:
        return f"https://{host}" if found.https_port == 443 else f"https://{host}:{found.https_port}"
    if not found.http_port:
        raise UsageError("the port by which Asterisk reaches HTTP is not known: name the address (--http)")
    return f"http://{host}:{found.http_port}"


def _of_running_server(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Addresses | None:
    """The addresses of the running server; None if there is none that accepts the API key."""
    url = arguments.server or server_url(environ)
    try:
        key = find_api_key(arguments.key_file, arguments.state_dir, environ)
    except ValueError as error:
        if arguments.server:
            raise UsageError(str(error)) from None
        return None
    found = describe_server(url, key)
    if found is not None:
        print(f"rapida-media-ctl: the ports are those of the running server at {url}", file=sys.stderr)
    elif arguments.server:
        raise UsageError(f"the server at {url} does not answer, or does not accept the API key")
    return found


def _of_settings(environ: Mapping[str, str]) -> Addresses:
    http, audiosocket = load(HttpSettings, environ), load(AudioSocketSettings, environ)
    settings = Settings(http=http, audiosocket=audiosocket, public=load(PublicSettings, environ))
    # ssl:PORT:... or ssl:port=PORT:...
    https = re.match(r"ssl:(?:port=)?(\d+)(?::|$)", http.https_endpoint)
    ports = {
        HTTP: 0 if http.endpoint or http.https_endpoint else http.port,
        HTTPS: int(https[1]) if https else 0,
        AUDIOSOCKET: 0 if audiosocket.endpoint else audiosocket.port,
    }
    return addresses(settings, lambda name: ports.get(name, 0), [first_assistant(environ)])


def first_assistant(environ: Mapping[str, str]) -> str:
    """The first assistant that the settings name, else the examples' one."""
    ids = (rule.partition("=")[0].strip() for rule in load(AssistantSettings, environ).rules)
    return next((name for name in ids if _ASSISTANT.fullmatch(name)), DEFAULT_ASSISTANT)


def _key(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """The API key, or a placeholder that names its location."""
    if arguments.with_key:
        try:
            return find_api_key(arguments.key_file, arguments.state_dir, environ)
        except ValueError as error:
            raise UsageError(str(error)) from None
    if arguments.key_file is None and environ.get("RAPIDA_API_KEY"):
        return "<the key in $RAPIDA_API_KEY>"
    return f"<the key in {arguments.key_file or arguments.state_dir / KEY_FILE}>"


def _ari_values(arguments: argparse.Namespace, environ: Mapping[str, str]) -> AriValues:
    if arguments.credential is None:
        return AriValues()
    credential = open_vault(arguments.state_dir, environ).get(arguments.credential)
    return AriValues(
        url=credential.ari_url, user=credential.ari_user, password=f"<the ari_password of credential {credential.name}>"
    )


def _matching(pattern: re.Pattern[str]) -> Any:
    """An argument type for text that a dialplan neither splits nor expands."""

    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise argparse.ArgumentTypeError("it is too long, or holds a character that is not allowed in a dialplan")
        return text

    return parse
